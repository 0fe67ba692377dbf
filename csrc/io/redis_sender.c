/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_sender.h"

#include "base/mem.h"
#include "io/redis_names.h"

#define WINDOW_MESSAGES 10000
#define WINDOW_BYTES ((size_t)64 * 1024 * 1024)
#define CHUNK ((size_t)64 * 1024)  // of a batch, written at once
#define POLL_EVERY 64u
#define POLL_EVERY_FULL 8u             // above half a window
#define POLL_IDLE (10 * PC_NS_PER_MS)  // after such a pause the connection may be gone
#define FIRST_BACKOFF (100 * PC_NS_PER_MS)
#define LAST_BACKOFF (2 * PC_NS_PER_SEC)

/* A thread that waits for its messages; on its stack. */
typedef struct waiter {
    size_t open;  // not answered yet
    bool failed;
    pc_err err;   // the first
} waiter;

typedef struct item {
    pc_link link;
    pc_redis_sender *sender;
    waiter *waiter;  // on the stack of the thread that waits; NULL: nobody
    bool sent;
    bool kept;       // in `items`; false with confirm 0: in `fired`
    bool mandatory;
    uint64_t serial;  // bytes_put behind it
    size_t size;
    char command[];  // as it is sent
} item;

// ---- items ----

static item *
new_item(pc_redis_sender *s, const pc_redis_args *args, pc_err *err)
{
    if (args->failed) {
        pc_fail(err, args->err.code, "%s", args->err.msg);
        return NULL;
    }
    if (pc_buf_len(&args->text) > PC_REDIS_VALUE_MAX) {  // the server would only hang up
        pc_fail(err, PC_ELIMIT,
                "a message of %zu bytes; Redis takes at most 512 MiB: store the data elsewhere and "
                "send where", pc_buf_len(&args->text));
        return NULL;
    }
    item *it = pc_alloc(sizeof *it + pc_redis_args_room(args));
    if (it == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *it = (item){.sender = s};
    pc_link_init(&it->link);
    it->size = pc_redis_args_write(args, it->command);
    return it;
}

static void
drop_item(item *it)
{
    pc_redis_sender *s = it->sender;
    pc_link_remove(&it->link);
    if (it->kept) {
        s->open--;
        s->open_bytes -= it->size;
        s->unsent -= !it->sent;
    }
    pc_free(it);
}

static void
unsend(item *it)
{
    it->sender->unsent += it->sent;
    it->sent = false;
}

static void
tell_waiter(waiter *w, const pc_err *why)
{
    w->open--;
    if (why != NULL && !w->failed) {
        w->failed = true;
        w->err = *why;
    }
}

static void
refuse(item *it, const pc_err *why)
{
    pc_redis_sender *s = it->sender;
    if (it->waiter != NULL) {
        tell_waiter(it->waiter, why);
    } else {
        pc_log_write(s->log, PC_ERROR, "A message was refused and is lost: %s", why->msg);
        s->has_refusal = true;
        s->refusal = *why;
    }
    drop_item(it);
}

static void
confirm(item *it, const pc_reply *reply)
{
    pc_redis_sender *s = it->sender;
    if (it->mandatory && reply->type == PC_REPLY_INTEGER && reply->integer == 0) {
        s->unrouted++;
        pc_log_write(s->log, PC_WARNING, "%s: no queue is bound for a message, it is dropped (%llu so far)",
                     pc_redis_where(s->conn), (unsigned long long)s->unrouted);
    }
    if (it->waiter != NULL) {
        tell_waiter(it->waiter, NULL);
    }
    s->full = false;
    s->backoff_ns = FIRST_BACKOFF;
    drop_item(it);
}

// ---- the connection ----

static void
retry_later(pc_redis_sender *s)
{
    pc_mono when = pc_mono_add(pc_mono_now(), s->backoff_ns);
    if (!s->retrying && pc_loop_set_timer(pc_pump_loop(s->pump), &s->retry, when, NULL) == 0) {
        s->retrying = true;
        s->backoff_ns = s->backoff_ns * 2 > LAST_BACKOFF ? LAST_BACKOFF : s->backoff_ns * 2;
    }
}

static void
lose(pc_redis_sender *s, const pc_err *why)
{
    s->downs++;
    s->why_down = *why;
    for (pc_link *at = s->items.next; at != &s->items; at = at->next) {
        unsend(PC_CONTAINER_OF(at, item, link));
    }
    s->down(s->ctx);
    retry_later(s);
}

/* Closes at once: no answer comes for anything under way. */
static void
hang_up(pc_redis_sender *s, const pc_err *why)
{
    pc_redis_close(s->conn);
    pc_redis_calls_lose(&s->calls, why);
    while (!pc_list_empty(&s->fired)) {
        refuse(PC_CONTAINER_OF(s->fired.next, item, link), why);
    }
}

void
pc_redis_sender_give_up(pc_redis_sender *s, const pc_err *why)
{
    pc_err copy = *why;
    hang_up(s, &copy);
    lose(s, &copy);
}

/* A server that cannot serve now (LOADING, READONLY) may be another one behind the same address
 * soon: connected anew. */
static void
on_answer(void *ctx, const pc_reply *reply, const pc_err *why)
{
    item *it = ctx;
    pc_redis_sender *s = it->sender;
    pc_err err = {0};
    if (why != NULL) {
        if (!it->kept) {
            refuse(it, why);  // kept ones: lose() follows
        }
        return;
    }
    if (pc_redis_check(s->conn, reply, &err) == 0) {
        confirm(it, reply);
    } else if (!it->kept || (err.code != PC_EFULL && err.code != PC_EIO)) {
        refuse(it, &err);
    } else if (err.code == PC_EFULL) {
        unsend(it);
        s->full = true;
        s->why_down = err;
        retry_later(s);
    } else {
        pc_redis_sender_give_up(s, &err);
    }
}

static int
send_item(item *it, pc_err *err)
{
    if (pc_redis_written(it->sender->conn, pc_slice_of(it->command, it->size), on_answer, it, err) < 0) {
        return -1;
    }
    it->sender->unsent -= !it->sent && it->kept;
    it->sent = true;
    return 0;
}

static void
send_all(pc_redis_sender *s)
{
    for (pc_link *at = s->items.next; s->unsent > 0 && at != &s->items; at = at->next) {
        item *it = PC_CONTAINER_OF(at, item, link);
        if (!it->sent && send_item(it, NULL) < 0) {
            retry_later(s);
            return;
        }
    }
}

static void
on_up(void *ctx)
{
    pc_redis_sender *s = ctx;
    s->backoff_ns = FIRST_BACKOFF;
    send_all(s);
}

static void
on_down(void *ctx, const pc_err *why)
{
    lose(ctx, why);
}

static void
wake(pc_redis_sender *s)
{
    pc_err err = {0};
    if (pc_redis_is_closed(s->conn) && !s->retrying && pc_redis_connect(s->conn, &err) < 0) {
        lose(s, &err);
    }
}

static void
retry_due(void *ctx, pc_mono now)
{
    pc_redis_sender *s = ctx;
    (void)now;
    s->retrying = false;
    if (pc_redis_is_up(s->conn)) {
        send_all(s);
    } else {
        wake(s);
    }
}

// ---- waiting ----

typedef struct condition {
    pc_redis_sender *s;
    unsigned downs;  // when the wait began
    size_t bytes;    // of the message to come
} condition;

static bool
is_denied(const condition *c)
{
    return c->s->downs != c->downs && c->s->why_down.code == PC_EAUTH;
}

static int
is_connected(void *ctx)
{
    const condition *c = ctx;
    return pc_redis_is_up(c->s->conn) || is_denied(c);
}

static int
has_room(void *ctx)
{
    const condition *c = ctx;
    const pc_redis_sender *s = c->s;
    bool fits = s->open == 0 || (s->open < s->window && s->open_bytes + c->bytes <= WINDOW_BYTES);
    bool full = s->full && s->open > 0;  // else there is nothing that would find out
    return (pc_redis_is_up(s->conn) && fits && !full) || is_denied(c);
}

static int
is_flushed(void *ctx)
{
    const condition *c = ctx;
    return c->s->open == 0 || is_denied(c);
}

static int
is_done(void *ctx)
{
    return ((const waiter *)ctx)->open == 0;
}

static int
explain(const pc_redis_sender *s, pc_err *err)
{
    if (!pc_redis_is_up(s->conn)) {
        return s->why_down.code != PC_OK
                   ? pc_fail(err, PC_EIO, "no connection in time: %s", s->why_down.msg)
                   : pc_fail(err, PC_ETIMEOUT, "%s: no connection in time", pc_redis_where(s->conn));
    }
    if (s->full) {
        return pc_fail(err, PC_EFULL, "the server takes no messages now: %s", s->why_down.msg);
    }
    return pc_fail(err, PC_EFULL, "%s: the server is too slow: %zu messages are not confirmed yet",
                   pc_redis_where(s->conn), s->open);
}

static int
wait_for(pc_redis_sender *s, int (*done)(void *ctx), condition *c, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    wake(s);
    if (pc_pump_wait(s->pump, done, c, deadline, NULL, &why) < 0) {
        return why.code == PC_ETIMEOUT ? explain(s, err) : pc_fail(err, why.code, "%s", why.msg);
    }
    return is_denied(c) ? pc_fail(err, PC_EAUTH, "%s", s->why_down.msg) : 0;
}

int
pc_redis_sender_refresh(pc_redis_sender *s, pc_err *err)
{
    pc_mono now = pc_mono_now();
    unsigned every = s->open > s->window / 2 ? POLL_EVERY_FULL : POLL_EVERY;
    bool idle = now.ns - s->polled.ns > POLL_IDLE;
    if (!idle && ++s->unpolled < every) {
        return 0;
    }
    s->unpolled = 0;
    s->polled = now;
    int rc = pc_pump_poll(s->pump, err);
    // The last words of a connection hide its end from the first look.
    return idle && rc == 0 ? pc_pump_poll(s->pump, err) : rc;
}

int
pc_redis_sender_connect(pc_redis_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->downs};
    if (pc_pump_poll(s->pump, err) < 0) {
        return -1;
    }
    return pc_redis_is_up(s->conn) ? 0 : wait_for(s, is_connected, &c, deadline, err);
}

// ---- messages ----

/* Takes back what was not sent, and lets nobody wait for the rest any more. Returns how many were taken
 * back. */
static size_t
take_back(pc_redis_sender *s, const waiter *w)
{
    size_t n = 0;
    for (pc_link *at = s->items.next, *next; at != &s->items; at = next) {
        item *it = PC_CONTAINER_OF(at, item, link);
        next = at->next;
        if (it->waiter != w) {
            continue;
        }
        it->waiter = NULL;
        it->mandatory = false;
        if (!it->sent) {
            drop_item(it);
            n++;
        }
    }
    return n;
}

static int
wait_for_answers(pc_redis_sender *s, waiter *w, size_t *taken, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(s->pump, is_done, w, deadline, NULL, &why) == 0) {
        return w->failed ? pc_fail(err, w->err.code, "%s", w->err.msg) : 0;
    }
    size_t back = take_back(s, w);
    *taken -= back;
    if (back > 0) {
        return explain(s, err);
    }
    return pc_fail(err, PC_ETIMEOUT,
                   "%s: the message was sent but not confirmed in time; it may arrive nevertheless", pc_redis_where(s->conn));
}

static int
keep_or_fire(pc_redis_sender *s, item *it, pc_err *err)
{
    it->kept = s->confirm != 0;
    s->bytes_put += it->size;
    it->serial = s->bytes_put;
    pc_list_put_back(it->kept ? &s->items : &s->fired, &it->link);
    if (it->kept) {
        s->open++;
        s->open_bytes += it->size;
        s->unsent++;
    }
    if (send_item(it, err) < 0) {
        drop_item(it);
        return -1;
    }
    return 0;
}

static int
put(pc_redis_sender *s, const pc_redis_args *args, bool mandatory, waiter *w, pc_mono deadline, pc_err *err)
{
    item *it = new_item(s, args, err);
    if (it == NULL) {
        return -1;
    }
    condition c = {s, s->downs, it->size};
    if (!has_room(&c) && wait_for(s, has_room, &c, deadline, err) < 0) {
        pc_free(it);
        return -1;
    }
    it->mandatory = mandatory;
    it->waiter = w;
    return keep_or_fire(s, it, err);
}

static int
is_written_or_down(void *ctx)
{
    const condition *c = ctx;
    return c->s->downs != c->downs || pc_redis_is_written(c->s->conn);
}

/* Nobody may be inside a call for long after this one: what the kernel did not take would lie here. A
 * connection that takes nothing until the deadline keeps its messages, for the next one. */
static void
write_out(pc_redis_sender *s, pc_mono deadline)
{
    condition c = {.s = s, .downs = s->downs};
    pc_redis_flush_now(s->conn);
    if (!is_written_or_down(&c)) {
        (void)pc_pump_wait(s->pump, is_written_or_down, &c, deadline, NULL, NULL);
    }
}

static int
is_sent(void *ctx)
{
    const condition *c = ctx;
    return (pc_redis_is_up(c->s->conn) && c->s->unsent == 0 && pc_redis_is_written(c->s->conn)) || is_denied(c);
}

static void
drop_unsent(pc_redis_sender *s, uint64_t serial)
{
    for (pc_link *at = s->items.prev; at != &s->items; at = at->prev) {
        item *it = PC_CONTAINER_OF(at, item, link);
        if (it->serial == serial && !it->sent) {
            drop_item(it);
            return;
        }
    }
}

/* The connection was dead already. The message is kept, but nobody turns the loop between two calls, and the
 * next may be far: it is sent again before this one ends. */
static int
send_again(pc_redis_sender *s, uint64_t last, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->downs};
    int rc = wait_for(s, is_sent, &c, deadline, err);
    if (rc < 0) {
        drop_unsent(s, last);
    }
    return rc;
}

int
pc_redis_sender_put(pc_redis_sender *s, const pc_redis_args *args, bool mandatory, pc_mono deadline,
                    pc_err *err)
{
    waiter w = {.open = 1};
    size_t taken = 1;
    if (pc_redis_sender_refresh(s, err) < 0 || put(s, args, mandatory, s->confirm == 2 ? &w : NULL, deadline, err) < 0) {
        return -1;
    }
    uint64_t last = s->bytes_put;  // an address may be another message's when the wait is over
    write_out(s, deadline);
    if (s->confirm == 2) {
        return wait_for_answers(s, &w, &taken, deadline, err);
    }
    return s->confirm == 1 && !pc_redis_is_up(s->conn) ? send_again(s, last, deadline, err) : 0;
}

/* Until a chunk is full; at least one. Room for one that has to wait is made by sending what is here. */
static int
put_chunk(pc_redis_sender *s, const pc_redis_many *many, size_t *at, waiter *w, pc_mono deadline,
          pc_err *err)
{
    size_t before = s->bytes_put;
    while (*at < many->n && s->bytes_put - before < CHUNK) {
        bool mandatory = false;
        const pc_redis_args *args = many->command(many->ctx, *at, &mandatory);
        if (put(s, args, mandatory, w, deadline, err) < 0) {
            return -1;
        }
        ++*at;
    }
    return 0;
}

int
pc_redis_sender_put_many(pc_redis_sender *s, const pc_redis_many *many, size_t *done,
                         pc_mono deadline, pc_err *err)
{
    waiter w = {.open = many->n};
    bool waits = s->confirm == 2;
    int rc = 0;
    *done = 0;
    while (rc == 0 && *done < many->n) {
        rc = pc_pump_poll(s->pump, err);
        rc = rc < 0 ? rc : put_chunk(s, many, done, waits ? &w : NULL, deadline, err);
        write_out(s, deadline);
    }
    if (!waits) {
        return rc;
    }
    if (rc < 0) {
        *done -= take_back(s, &w);
        return rc;
    }
    return wait_for_answers(s, &w, done, deadline, err);
}

int
pc_redis_sender_flush(pc_redis_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->downs};
    if (s->open > 0 && wait_for(s, is_flushed, &c, deadline, err) < 0) {
        return -1;
    }
    if (s->has_refusal) {
        s->has_refusal = false;
        return pc_fail(err, s->refusal.code, "a message was refused: %s", s->refusal.msg);
    }
    return 0;
}

// ---- life ----

int
pc_redis_sender_init(pc_redis_sender *s, const pc_broker_config *config, void (*down)(void *ctx),
                     void *ctx, const pc_log *log, pc_err *err)
{
    *s = (pc_redis_sender){.down = down, .ctx = ctx, .log = log, .confirm = config->confirm};
    s->window = config->window > 0 ? (size_t)config->window : WINDOW_MESSAGES;
    s->backoff_ns = FIRST_BACKOFF;
    pc_link_init(&s->items);
    pc_link_init(&s->fired);
    pc_link_init(&s->calls);
    pc_timer_init(&s->retry, retry_due, s);
    s->pump = pc_pump_new(err);
    if (s->pump == NULL) {
        return -1;
    }
    pc_pump_ask(s->pump, config->interrupted);
    pc_redis_config redis = pc_redis_broker_config(config);
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .ctx = s};
    s->conn = pc_redis_new(&redis, pc_pump_loop(s->pump), &hooks, err);
    return s->conn == NULL ? -1 : 0;
}

void
pc_redis_sender_close(pc_redis_sender *s)
{
    pc_err err = {.code = PC_EIO, .msg = "the connection was closed"};
    pc_loop_clear_timer(pc_pump_loop(s->pump), &s->retry);
    s->retrying = false;
    hang_up(s, &err);
    for (pc_link *at = s->items.next; at != &s->items; at = at->next) {
        unsend(PC_CONTAINER_OF(at, item, link));
    }
}

void
pc_redis_sender_fini(pc_redis_sender *s)
{
    if (s->pump == NULL) {
        return;
    }
    if (s->conn != NULL) {
        pc_redis_sender_close(s);
    }
    while (!pc_list_empty(&s->items)) {
        drop_item(PC_CONTAINER_OF(s->items.next, item, link));
    }
    pc_redis_free(s->conn);
    pc_pump_free(s->pump);
    s->pump = NULL;
}
