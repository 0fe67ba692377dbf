/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of Redis results: one pipelined connection, one script call per document. Or, where
 * results are messages (rpc:// with a Redis broker), one LPUSH to the reply queue of who wants it; a
 * client that has been killed reads it no more, so that the list is given a time to live.
 *
 * Items stay in one list in the order of the puts until they are answered. Those before
 * `fresh` are written, the others wait for the connection. Replies come in the order of the
 * commands, so the one that arrives belongs to the first item: that gives stored() its order
 * for free. When anything goes wrong that time may cure (connection lost, OOM, READONLY,
 * LOADING), the connection is dropped, and after a backoff everything unanswered is written
 * again on a new one; the guard in the script and readers that drop equal neighbours make that
 * harmless (a message may come twice, as all messages may). NOSCRIPT (SCRIPT FLUSH) rewinds in place. */
#include "base/list.h"
#include "base/mem.h"
#include "io/redis_meta.h"
#include "io/redis_replies.h"
#include "io/result_message.h"

#define FIRST_BACKOFF (PC_NS_PER_SEC / 10)
#define LAST_BACKOFF (2 * PC_NS_PER_SEC)

typedef struct item {
    pc_link link;
    void *cookie;
    bool unwritten;     // too large (stored() says so), or nobody wants it
    size_t size;        // of the document, kept for the error text
    pc_slice key;
    pc_slice document;  // both in the bytes behind
} item;

typedef struct redis_store {
    pc_store base;
    pc_loop *loop;
    pc_redis *conn;
    bool is_mail;       // results are messages
    pc_redis_replies replies;  // of these
    pc_buf prefix;
    char ttl_text[PC_REDIS_TTL_MAX];
    pc_slice ttl;
    // --
    pc_link items;
    pc_link *fresh;     // first item not yet written; &items: none
    size_t pending;
    bool with_script;   // the next command is EVAL
    size_t stale;       // replies to come that answer commands given up by a rewind
    bool announced;     // down() was called, up() is owed
    int64_t backoff_ns;
    pc_timer retry;
    pc_defer settle;    // reports unwritten items at the head
} redis_store;

static void
free_item(item *it)
{
    pc_link_remove(&it->link);
    pc_free(it);
}

static item *
first_item(redis_store *store)
{
    return PC_CONTAINER_OF(store->items.next, item, link);
}

// ---- trouble ----

static void
rewind_all(redis_store *store)
{
    store->fresh = store->items.next;
}

static void
retry_later(redis_store *store)
{
    pc_mono when = pc_mono_add(pc_mono_now(), store->backoff_ns);
    int64_t next = store->backoff_ns * 2;
    store->backoff_ns = next > LAST_BACKOFF ? LAST_BACKOFF : next;
    // it is always set, if only for "never": moving cannot fail
    (void)pc_loop_set_timer(store->loop, &store->retry, when, NULL);
}

static void
trouble(redis_store *store, const pc_err *why)
{
    pc_redis_close(store->conn);
    store->stale = 0;
    rewind_all(store);
    retry_later(store);
    if (!store->announced) {
        store->announced = true;
        store->base.hooks.down(store->base.hooks.ctx, why);
    }
}

static void
recovered(redis_store *store)
{
    store->backoff_ns = FIRST_BACKOFF;
    if (store->announced) {
        store->announced = false;
        store->base.hooks.up(store->base.hooks.ctx);
    }
}

// ---- answers ----

static void
report(redis_store *store, const pc_err *why)
{
    item *it = first_item(store);
    void *cookie = it->cookie;
    if (store->fresh == &it->link) {
        store->fresh = it->link.next;
    }
    free_item(it);
    store->pending--;
    store->base.hooks.stored(store->base.hooks.ctx, cookie, why);
}

/* Items that are never written have their turn when they have come to the head. */
static void
report_unwritten(void *ctx)
{
    redis_store *store = ctx;
    while (!pc_list_empty(&store->items) && first_item(store)->unwritten) {
        pc_err err = {0};
        int rc = pc_redis_meta_check_size(pc_slice_of("", first_item(store)->size), &err);
        report(store, rc < 0 ? &err : NULL);
    }
}

static void write_fresh(redis_store *store);

/* EVAL brings the script back; what was asked in vain behind the first item is asked again,
 * and the replies under way to that are recognised by their number. */
static void
rewind_with_script(redis_store *store)
{
    for (pc_link *at = store->items.next->next; at != store->fresh; at = at->next) {
        store->stale += !PC_CONTAINER_OF(at, item, link)->unwritten;
    }
    rewind_all(store);
    store->with_script = true;
    write_fresh(store);
}

static bool
time_may_cure(pc_code code)
{
    return code == PC_EIO || code == PC_EFULL || code == PC_ENOMEM;
}

static void
refused(redis_store *store, const pc_err *why, pc_slice text)
{
    if (why->code == PC_ENOTFOUND) {
        rewind_with_script(store);
    } else if (time_may_cure(why->code)
               || (text.len >= 6 && memcmp(text.ptr, "NOAUTH", 6) == 0)) {
        trouble(store, why);
    } else {
        report(store, why);
        report_unwritten(store);
    }
}

static void
on_stored(void *ctx, const pc_reply *reply, const pc_err *lost)
{
    redis_store *store = ctx;
    pc_err err = {0};
    if (lost != NULL) {
        return;  // on_down writes everything again
    }
    if (store->stale > 0) {
        store->stale--;
        return;
    }
    if (pc_redis_check(store->conn, reply, &err) < 0) {
        refused(store, &err, reply->text);
        return;
    }
    recovered(store);
    report(store, NULL);
    report_unwritten(store);
}

// ---- writing ----

static int
push(redis_store *store, const item *it, pc_err *err)
{
    pc_slice lpush[] = {pc_slice_str("LPUSH"), it->key, it->document};
    pc_slice expire[] = {pc_slice_str("EXPIRE"), it->key, store->ttl};
    if (pc_redis_command(store->conn, 3, lpush, on_stored, store, err) < 0) {
        return -1;
    }
    if (!pc_slice_is(store->ttl, "0")) {
        // out of memory: the next one will set it
        (void)pc_redis_command(store->conn, 3, expire, NULL, NULL, NULL);
    }
    return 0;
}

static int
write_item(redis_store *store, const item *it, pc_err *err)
{
    pc_redis_meta_put put;
    if (it->unwritten) {
        return 0;
    }
    if (store->is_mail) {
        return push(store, it, err);
    }
    pc_redis_meta_put_init(&put, !store->with_script, it->key, it->document, store->ttl);
    store->with_script = false;
    return pc_redis_command(store->conn, PC_REDIS_META_ARGS, put.argv, on_stored, store, err);
}

static void
write_fresh(redis_store *store)
{
    pc_err err = {0};
    while (pc_redis_is_up(store->conn) && store->fresh != &store->items) {
        if (write_item(store, PC_CONTAINER_OF(store->fresh, item, link), &err) < 0) {
            trouble(store, &err);
            return;
        }
        store->fresh = store->fresh->next;
    }
}

static void
on_up(void *ctx)
{
    redis_store *store = ctx;
    store->with_script = true;
    if (pc_list_empty(&store->items)) {
        recovered(store);  // else the first answer decides: connected is not yet writable
    }
    write_fresh(store);
}

static void
on_down(void *ctx, const pc_err *why)
{
    trouble(ctx, why);
}

static void
on_retry(void *ctx, pc_mono now)
{
    (void)now;
    redis_store *store = ctx;
    // the place it had in the loop until now is still free
    (void)pc_loop_set_timer(store->loop, &store->retry, PC_MONO_NEVER, NULL);
    pc_err err = {0};
    if (pc_redis_connect(store->conn, &err) < 0) {
        trouble(store, &err);
    }
}

// ---- the interface ----

/* A copy of the key, which is in two parts, and of the document. */
static item *
new_item(pc_slice prefix, pc_slice name, pc_slice document, bool wanted, pc_err *err)
{
    bool unwritten = !wanted || pc_redis_meta_check_size(document, NULL) < 0;
    size_t key_len = prefix.len + name.len;
    size_t kept = unwritten ? 0 : document.len;
    item *it = pc_alloc(sizeof *it + key_len + kept);
    if (it == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *it = (item){.unwritten = unwritten, .size = document.len};
    pc_link_init(&it->link);
    char *bytes = (char *)(it + 1);
    memcpy(bytes, prefix.ptr, prefix.len);
    memcpy(bytes + prefix.len, name.ptr, name.len);
    it->key = pc_slice_of(bytes, key_len);
    if (kept > 0) {
        memcpy(bytes + key_len, document.ptr, kept);
    }
    it->document = pc_slice_of(bytes + key_len, kept);
    return it;
}

static item *
new_mail(redis_store *store, const pc_store_item *from, pc_err *err)
{
    pc_redis_replies *replies = &store->replies;
    const pc_slice none = pc_slice_of("", 0);
    if (!pc_result_is_wanted(from)) {
        return new_item(none, none, none, false, err);
    }
    if (pc_redis_meta_check_size(from->document, NULL) < 0) {
        return new_item(none, none, from->document, false, err);
    }
    if (pc_redis_replies_write(replies, from, err) < 0) {
        return NULL;
    }
    return new_item(none, pc_buf_slice(&replies->list), pc_buf_slice(&replies->envelope), true, err);
}

static int
store_put(pc_store *base, const pc_store_item *from, void *cookie, pc_err *err)
{
    redis_store *store = PC_CONTAINER_OF(base, redis_store, base);
    item *it = store->is_mail ? new_mail(store, from, err)
                              : new_item(pc_buf_slice(&store->prefix), from->id, from->document, true, err);
    if (it == NULL) {
        return -1;
    }
    it->cookie = cookie;
    bool written = store->fresh == &store->items && pc_redis_is_up(store->conn);
    // at once when nothing waits before it: the stream gathers a turn's commands in one write
    if (written && write_item(store, it, err) < 0) {
        pc_free(it);
        return -1;
    }
    pc_list_put_back(&store->items, &it->link);
    store->pending++;
    if (!written && store->fresh == &store->items) {
        store->fresh = &it->link;
    }
    if (it->unwritten && store->pending == 1) {
        pc_loop_defer(store->loop, &store->settle);
    }
    return 0;
}

static size_t
store_pending(const pc_store *base)
{
    return PC_CONTAINER_OF(base, const redis_store, base)->pending;
}

static void
store_abandon(pc_store *base)
{
    redis_store *store = PC_CONTAINER_OF(base, redis_store, base);
    pc_redis_abandon(store->conn);
    pc_loop_clear_timer(store->loop, &store->retry);
    pc_loop_undefer(store->loop, &store->settle);
}

static void
free_store(redis_store *store)
{
    if (store == NULL) {
        return;
    }
    while (!pc_list_empty(&store->items)) {
        free_item(first_item(store));
    }
    pc_loop_clear_timer(store->loop, &store->retry);
    pc_loop_undefer(store->loop, &store->settle);
    pc_redis_free(store->conn);
    pc_buf_fini(&store->prefix);
    pc_redis_replies_fini(&store->replies);
    pc_free(store);
}

static void
store_destroy(pc_store *base)
{
    if (base != NULL) {
        free_store(PC_CONTAINER_OF(base, redis_store, base));
    }
}

static int
prepare(redis_store *store, const pc_store_config *config, pc_err *err)
{
    if (store->is_mail && pc_redis_replies_init(&store->replies, config, err) < 0) {
        return -1;
    }
    pc_redis_config redis = pc_redis_meta_config(config);
    if (store->is_mail) {
        redis = pc_redis_broker_config(config->broker);
        redis.client_name = "pyceleryc";
    }
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .ctx = store};
    store->ttl = pc_redis_meta_ttl(config->expires, store->ttl_text);
    if (pc_redis_meta_prefix(config->key_prefix, &store->prefix, err) < 0) {
        return -1;
    }
    store->conn = pc_redis_new(&redis, store->loop, &hooks, err);
    if (store->conn == NULL) {
        return -1;
    }
    // the first turn connects: create() must neither block nor call back
    return pc_loop_set_timer(store->loop, &store->retry, pc_mono_now(), err);
}

static pc_store *
store_create(const pc_store_config *config, pc_loop *loop, const pc_store_hooks *hooks,
             const pc_log *log, pc_err *err)
{
    redis_store *store = pc_zalloc(sizeof *store);
    if (store == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    store->base = (pc_store){.ops = &pc_store_redis, .hooks = *hooks, .log = log};
    store->loop = loop;
    store->is_mail = config->broker != NULL;
    store->backoff_ns = FIRST_BACKOFF;
    pc_link_init(&store->items);
    store->fresh = &store->items;
    pc_timer_init(&store->retry, on_retry, store);
    pc_defer_init(&store->settle, report_unwritten, store);
    if (prepare(store, config, err) < 0) {
        free_store(store);
        return NULL;
    }
    return &store->base;
}

const pc_store_ops pc_store_redis = {
    .scheme = "redis",
    .create = store_create,
    .put = store_put,
    .pending = store_pending,
    .abandon = store_abandon,
    .destroy = store_destroy,
};
