/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of the results in a database file.
 *
 * DESIGN. All on the loop's thread. What was put during a turn is one transaction at its end; then
 * come the bell for who waits and stored() for each. While the file can't be written the items
 * wait, and are tried again with backoff. */
#include "base/mem.h"
#include "io/sqlite_bell.h"
#include "io/sqlite_result.h"
#include "io/store.h"

#define BATCH_MAX 1000
#define LOCK_WAIT_NS (200 * PC_NS_PER_MS)
#define OPEN_WAIT_NS PC_NS_PER_SEC
#define RETRY_FIRST_NS (50 * PC_NS_PER_MS)
#define RETRY_DOUBLINGS 5u

typedef struct item {
    pc_link link;
    void *cookie;
    bool refused;  // too large for a row
    pc_state state;
    size_t id_len;
    size_t document_len;
    char bytes[];  // id, document
} item;

typedef struct store {
    pc_store base;
    pc_loop *loop;
    char *path;
    int64_t expires_us;  // after the write, 0: never
    pc_sqlite *db;
    pc_bell bell;
    pc_link items;  // not yet written
    size_t pending;
    bool down;  // the hook was told
    bool waiting;  // for the next try
    bool abandoned;
    unsigned failures;
    pc_mono cleaned;  // last look for expired rows
    pc_defer defer;
    pc_timer retry;
} store;

static store *
self_of(pc_store *base)
{
    return PC_CONTAINER_OF(base, store, base);
}

static int
ensure(store *self, pc_err *err)
{
    if (self->db != NULL && pc_sqlite_moved(self->db)) {
        pc_bell_fini(&self->bell);
        pc_sqlite_close(self->db);
        self->db = NULL;
    }
    if (self->db == NULL) {
        self->db = pc_sqlite_open(self->path, PC_SQLITE_NORMAL,
                                  pc_mono_add(pc_mono_now(), OPEN_WAIT_NS), err);
    }
    if (self->db == NULL) {
        return -1;
    }
    return self->bell.map != NULL ? 0 : pc_bell_open(&self->bell, pc_sqlite_path(self->db), err);
}

static int
write_item(store *self, item *one, int64_t now, pc_err *err)
{
    pc_err why = {0};
    pc_sqlite_result result = {
        .id = pc_slice_of(one->bytes, one->id_len),
        .state = one->state,
        .document = pc_slice_of(one->bytes + one->id_len, one->document_len),
        .expires = self->expires_us == 0 ? 0 : now + self->expires_us,
    };
    if (pc_sqlite_result_put(self->db, &result, now, &why) == 0) {
        return 0;
    }
    if (why.code == PC_ELIMIT) {
        one->refused = true;
        return 0;
    }
    if (err != NULL) {
        *err = why;
    }
    return -1;
}

/* The first items as one transaction. Returns how many, and the bits of their ids. */
static int
write_batch(store *self, uint64_t *mask, pc_err *err)
{
    int n = 0;
    int64_t now = pc_wall_now().us;
    pc_link *at = self->items.next;
    for (; at != &self->items && n < BATCH_MAX; at = at->next, n++) {
        item *one = PC_CONTAINER_OF(at, item, link);
        if (write_item(self, one, now, err) < 0) {
            return -1;
        }
        *mask |= pc_bell_bit(pc_slice_of(one->bytes, one->id_len));
    }
    return pc_sqlite_result_clean(self->db, &self->cleaned, now, err) < 0 ? -1 : n;
}

static int
commit_batch(store *self, pc_err *err)
{
    uint64_t mask = 0;
    if (ensure(self, err) < 0 ||
        pc_sqlite_begin(self->db, pc_mono_add(pc_mono_now(), LOCK_WAIT_NS), err) < 0) {
        return -1;
    }
    int n = write_batch(self, &mask, err);
    if (n < 0) {
        pc_sqlite_rollback(self->db);
        return -1;
    }
    if (pc_sqlite_commit(self->db, err) < 0) {
        return -1;
    }
    pc_bell_ring(&self->bell, PC_BELL_RESULT, mask, UINT32_MAX);
    return n;
}

static void
tell_stored(store *self, int count)
{
    for (int i = 0; i < count; i++) {
        item *one = PC_CONTAINER_OF(pc_list_take_front(&self->items), item, link);
        void *cookie = one->cookie;
        pc_err why;
        if (one->refused) {
            (void)pc_fail(&why, PC_ELIMIT, "a result of %zu bytes is too large for a row of SQLite",
                          one->document_len);
        }
        bool refused = one->refused;
        pc_free(one);
        self->pending--;
        self->base.hooks.stored(self->base.hooks.ctx, cookie, refused ? &why : NULL);
    }
}

static void
try_later(store *self, const pc_err *why)
{
    unsigned shift = self->failures < RETRY_DOUBLINGS ? self->failures : RETRY_DOUBLINGS;
    self->failures++;
    self->waiting = true;
    // it is always set, if only for "never": moving cannot fail
    (void)pc_loop_set_timer(self->loop, &self->retry,
                            pc_mono_add(pc_mono_now(), RETRY_FIRST_NS << shift), NULL);
    if (!self->down && why->code != PC_ETIMEOUT) {
        self->down = true;
        self->base.hooks.down(self->base.hooks.ctx, why);
    }
}

static void
work(void *ctx)
{
    store *self = ctx;
    pc_err err;
    if (self->abandoned || self->waiting || pc_list_empty(&self->items)) {
        return;
    }
    int n = commit_batch(self, &err);
    if (n < 0) {
        try_later(self, &err);
        return;
    }
    self->failures = 0;
    if (self->down) {
        self->down = false;
        self->base.hooks.up(self->base.hooks.ctx);
    }
    tell_stored(self, n);
    if (!pc_list_empty(&self->items)) {
        pc_loop_defer(self->loop, &self->defer);
    }
}

static void
on_retry(void *ctx, pc_mono now)
{
    store *self = ctx;
    (void)now;
    self->waiting = false;
    // the place it had in the loop until now is still free
    (void)pc_loop_set_timer(self->loop, &self->retry, PC_MONO_NEVER, NULL);
    work(self);
}

static int
put(pc_store *base, const pc_store_item *from, void *cookie, pc_err *err)
{
    store *self = self_of(base);
    item *one = pc_alloc(sizeof *one + from->id.len + from->document.len);
    if (one == NULL) {
        return pc_fail_nomem(err);
    }
    *one = (item){.cookie = cookie,
                  .state = from->state,
                  .id_len = from->id.len,
                  .document_len = from->document.len};
    memcpy(one->bytes, from->id.ptr, from->id.len);
    if (from->document.len > 0) {
        memcpy(one->bytes + from->id.len, from->document.ptr, from->document.len);
    }
    pc_list_put_back(&self->items, &one->link);
    self->pending++;
    pc_loop_defer(self->loop, &self->defer);
    return 0;
}

static size_t
pending(const pc_store *base)
{
    const store *self = (const store *)(const void *)base;  // its first member
    return self->pending;
}

static void
abandon(pc_store *base)
{
    store *self = self_of(base);
    self->abandoned = true;
    pc_bell_abandon(&self->bell);
    pc_sqlite_abandon(self->db, true);
    self->db = NULL;
}

static void
destroy(pc_store *base)
{
    if (base == NULL) {
        return;
    }
    store *self = self_of(base);
    pc_loop_undefer(self->loop, &self->defer);
    pc_loop_clear_timer(self->loop, &self->retry);
    pc_link *at;
    while ((at = pc_list_take_front(&self->items)) != NULL) {
        pc_free(PC_CONTAINER_OF(at, item, link));
    }
    pc_bell_fini(&self->bell);
    pc_sqlite_close(self->db);
    pc_free(self->path);
    pc_free(self);
}

/* The file is opened at the first write: a worker starts and runs tasks although the store is out
 * of order. */
static pc_store *
create(const pc_store_config *config, pc_loop *loop, const pc_store_hooks *hooks, const pc_log *log,
       pc_err *err)
{
    const char *path = config->path == NULL ? "" : config->path;
    store *self = pc_zalloc(sizeof *self);
    if (self == NULL) {
        (void)pc_fail_nomem(err);
        return NULL;
    }
    self->base = (pc_store){&pc_store_sqlite, *hooks, log};
    self->loop = loop;
    self->expires_us = pc_sqlite_result_span(config->expires);
    pc_bell_init(&self->bell);
    pc_link_init(&self->items);
    pc_defer_init(&self->defer, work, self);
    pc_timer_init(&self->retry, on_retry, self);
    self->path = pc_strdup(path, strlen(path));
    if (self->path == NULL || pc_loop_set_timer(loop, &self->retry, PC_MONO_NEVER, NULL) < 0) {
        (void)pc_fail_nomem(err);
        destroy(&self->base);
        return NULL;
    }
    return &self->base;
}

const pc_store_ops pc_store_sqlite = {
    .scheme = "sqlite",
    .create = create,
    .put = put,
    .pending = pending,
    .abandon = abandon,
    .destroy = destroy,
};
