/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_sender.h"

#include "io/redis_items.h"
#include "io/redis_names.h"

#define WINDOW_MESSAGES 10000
#define WINDOW_BYTES ((size_t)64 * 1024 * 1024)
#define CHUNK ((size_t)64 * 1024)  // of a batch, written at once
#define POLL_EVERY 64u
#define POLL_EVERY_FULL 8u             // above half a window
#define POLL_IDLE (10 * PC_NS_PER_MS)  // after such a pause the connection may be gone
#define LAST_BACKOFF (2 * PC_NS_PER_SEC)

// ---- the connection ----

/* The timer is always set, if only for "never": moving cannot fail. */
static void
set_retry(pc_redis_sender *s, pc_mono when)
{
    (void)pc_loop_set_timer(pc_pump_loop(s->pump), &s->retry, when, NULL);
}

static void
retry_later(pc_redis_sender *s)
{
    pc_mono when = pc_mono_add(pc_mono_now(), s->backoff_ns);
    if (!s->retrying) {
        set_retry(s, when);
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
        pc_redis_item_unsend(PC_CONTAINER_OF(at, pc_redis_item, link));
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
        pc_redis_item_refuse(PC_CONTAINER_OF(s->fired.next, pc_redis_item, link), why);
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
    pc_redis_item *it = ctx;
    pc_redis_sender *s = it->sender;
    pc_err err = {0};
    if (why != NULL) {
        if (!it->kept) {
            pc_redis_item_refuse(it, why);  // kept ones: lose() follows
        }
        return;
    }
    if (pc_redis_check(s->conn, reply, &err) == 0) {
        pc_redis_item_confirm(it, reply);
    } else if (!it->kept || (err.code != PC_EFULL && err.code != PC_EIO)) {
        pc_redis_item_refuse(it, &err);
    } else if (err.code == PC_EFULL) {
        pc_redis_item_unsend(it);
        s->full = true;
        s->why_down = err;
        retry_later(s);
    } else {
        pc_redis_sender_give_up(s, &err);
    }
}

static int
send_item(pc_redis_item *it, pc_err *err)
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
        pc_redis_item *it = PC_CONTAINER_OF(at, pc_redis_item, link);
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
    s->backoff_ns = PC_REDIS_FIRST_BACKOFF;
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
    set_retry(s, PC_MONO_NEVER);  // the place it had until now is still free
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
    return ((const pc_redis_waiter *)ctx)->open == 0;
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

static int
wait_for_answers(pc_redis_sender *s, pc_redis_waiter *w, size_t *taken, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(s->pump, is_done, w, deadline, NULL, &why) == 0) {
        return w->failed ? pc_fail(err, w->err.code, "%s", w->err.msg) : 0;
    }
    size_t back = pc_redis_items_take_back(s, w);
    *taken -= back;
    if (back > 0) {
        return explain(s, err);
    }
    return pc_fail(err, PC_ETIMEOUT,
                   "%s: the message was sent but not confirmed in time; it may arrive nevertheless", pc_redis_where(s->conn));
}

static int
keep_or_fire(pc_redis_sender *s, pc_redis_item *it, pc_err *err)
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
        pc_redis_item_drop(it);
        return -1;
    }
    return 0;
}

static int
put(pc_redis_sender *s, const pc_redis_args *args, bool mandatory, pc_redis_waiter *w, pc_mono deadline, pc_err *err)
{
    pc_redis_item *it = pc_redis_item_new(s, args, err);
    if (it == NULL) {
        return -1;
    }
    condition c = {s, s->downs, it->size};
    if (!has_room(&c) && wait_for(s, has_room, &c, deadline, err) < 0) {
        pc_redis_item_drop(it);
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

static bool
is_open(void *ctx)
{
    return ((const pc_redis_sender *)ctx)->open > 0;
}

static bool
has_left(void *ctx)
{
    const pc_redis_sender *s = ctx;
    return pc_redis_is_up(s->conn) && s->unsent == 0 && pc_redis_is_written(s->conn);
}

static int
is_sent(void *ctx)
{
    const condition *c = ctx;
    return has_left(c->s) || is_denied(c);
}

/* The connection was dead already. The caller can still be told that there is no server: it is sent again
 * before this call ends. */
static int
send_again(pc_redis_sender *s, uint64_t last, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->downs};
    int rc = wait_for(s, is_sent, &c, deadline, err);
    if (rc < 0) {
        pc_redis_items_drop_unsent(s, last);
    }
    return rc;
}

static void
mind(pc_redis_sender *s)
{
    if (s->confirm == 1 && s->open > 0) {
        pc_minder_need(&s->minder);
    }
}

int
pc_redis_sender_put(pc_redis_sender *s, const pc_redis_args *args, bool mandatory, pc_mono deadline,
                    pc_err *err)
{
    pc_redis_waiter w = {.open = 1};
    size_t taken = 1;
    if (pc_redis_sender_refresh(s, err) < 0 || put(s, args, mandatory, s->confirm == 2 ? &w : NULL, deadline, err) < 0) {
        return -1;
    }
    uint64_t last = s->bytes_put;  // an address may be another message's when the wait is over
    write_out(s, deadline);
    mind(s);
    if (s->confirm == 2) {
        return wait_for_answers(s, &w, &taken, deadline, err);
    }
    return s->confirm == 1 && !pc_redis_is_up(s->conn) ? send_again(s, last, deadline, err) : 0;
}

/* Until a chunk is full; at least one. Room for one that has to wait is made by sending what is here. */
static int
put_chunk(pc_redis_sender *s, const pc_redis_many *many, size_t *at, pc_redis_waiter *w, pc_mono deadline,
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
    pc_redis_waiter w = {.open = many->n};
    bool waits = s->confirm == 2;
    int rc = 0;
    *done = 0;
    while (rc == 0 && *done < many->n) {
        rc = pc_pump_poll(s->pump, err);
        rc = rc < 0 ? rc : put_chunk(s, many, done, waits ? &w : NULL, deadline, err);
        write_out(s, deadline);
    }
    mind(s);
    if (!waits) {
        return rc;
    }
    if (rc < 0) {
        *done -= pc_redis_items_take_back(s, &w);
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
    s->backoff_ns = PC_REDIS_FIRST_BACKOFF;
    pc_link_init(&s->items);
    pc_link_init(&s->fired);
    pc_link_init(&s->calls);
    pc_timer_init(&s->retry, retry_due, s);
    s->pump = pc_pump_new(err);
    if (s->pump == NULL || pc_loop_set_timer(pc_pump_loop(s->pump), &s->retry, PC_MONO_NEVER, err) < 0) {
        return -1;
    }
    pc_pump_ask(s->pump, config->interrupted);
    pc_minder_hooks minding = {.open = is_open, .sent = has_left, .ctx = s};
    pc_minder_init(&s->minder, s->pump, &minding);
    pc_redis_config redis = pc_redis_broker_config(config);
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .ctx = s};
    s->conn = pc_redis_new(&redis, pc_pump_loop(s->pump), &hooks, err);
    return s->conn == NULL ? -1 : 0;
}

void
pc_redis_sender_close(pc_redis_sender *s)
{
    pc_err err = {.code = PC_EIO, .msg = "the connection was closed"};
    pc_minder_end(&s->minder);
    set_retry(s, PC_MONO_NEVER);
    s->retrying = false;
    hang_up(s, &err);
    for (pc_link *at = s->items.next; at != &s->items; at = at->next) {
        pc_redis_item_unsend(PC_CONTAINER_OF(at, pc_redis_item, link));
    }
}

void
pc_redis_sender_fini(pc_redis_sender *s)
{
    if (s->pump == NULL) {
        return;
    }
    pc_minder_stop(&s->minder);
    if (s->conn != NULL) {
        pc_redis_sender_close(s);
    }
    while (!pc_list_empty(&s->items)) {
        pc_redis_item_drop(PC_CONTAINER_OF(s->items.next, pc_redis_item, link));
    }
    pc_redis_free(s->conn);
    pc_loop_clear_timer(pc_pump_loop(s->pump), &s->retry);
    pc_pump_free(s->pump);
    s->pump = NULL;
}
