/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_sender.h"

#include "base/mem.h"
#include "io/redis_names.h"

#define WINDOW_MESSAGES 10000
#define WINDOW_BYTES ((size_t)64 * 1024 * 1024)
#define POLL_EVERY 64u
#define POLL_EVERY_FULL 8u             // above half a window
#define POLL_IDLE (10 * PC_NS_PER_MS)  // after such a pause the connection may be gone
#define FIRST_BACKOFF (100 * PC_NS_PER_MS)
#define LAST_BACKOFF (2 * PC_NS_PER_SEC)

/* A thread that waits for one message; on its stack. */
typedef struct waiter {
    bool done;
    bool failed;
    pc_err err;
} waiter;

typedef struct item {
    pc_link link;
    pc_redis_sender *sender;
    waiter *waiter;  // on the stack of the thread that waits; NULL: nobody
    bool sent;
    bool kept;       // in `items`; false with confirm 0: in `fired`
    bool mandatory;
    size_t size;
    size_t len;
    pc_slice words[];  // the bytes are behind
} item;

/* On the heap: a thread that gives up leaves it to the answer. */
typedef struct call {
    pc_link link;
    pc_redis_sender *sender;
    bool done;
    bool orphan;
    bool lost;
    pc_err err;
    pc_reply *reply;
} call;

// ---- items ----

static item *
new_item(pc_redis_sender *s, const pc_redis_args *args, pc_err *err)
{
    size_t n = pc_redis_args_len(args);
    size_t size = pc_buf_len(&args->text);
    item *it = pc_zalloc(sizeof *it + n * sizeof it->words[0] + size);
    if (it == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&it->link);
    it->sender = s;
    it->size = size;
    it->len = n;
    char *text = (char *)(it->words + n);
    memcpy(text, pc_buf_ptr(&args->text), size);
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        size_t end;
        memcpy(&end, pc_buf_ptr(&args->ends) + i * sizeof end, sizeof end);
        it->words[i] = pc_slice_of(text + start, end - start);
        start = end;
    }
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
refuse(item *it, const pc_err *why)
{
    pc_redis_sender *s = it->sender;
    if (it->waiter != NULL) {
        it->waiter->done = it->waiter->failed = true;
        it->waiter->err = *why;
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
        it->waiter->done = true;
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

static void
lose_call(call *q, const pc_err *why)
{
    pc_link_remove(&q->link);
    if (q->orphan) {
        pc_free(q);
        return;
    }
    q->done = q->lost = true;
    q->err = *why;
}

/* Closes at once: no answer comes for anything under way. */
static void
hang_up(pc_redis_sender *s, const pc_err *why)
{
    pc_redis_close(s->conn);
    while (!pc_list_empty(&s->calls)) {
        lose_call(PC_CONTAINER_OF(s->calls.next, call, link), why);
    }
    while (!pc_list_empty(&s->fired)) {
        refuse(PC_CONTAINER_OF(s->fired.next, item, link), why);
    }
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
        hang_up(s, &err);
        lose(s, &err);
    }
}

static int
send_item(item *it, pc_err *err)
{
    if (pc_redis_command(it->sender->conn, it->len, it->words, on_answer, it, err) < 0) {
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
    return (pc_redis_is_up(s->conn) && fits && !s->full) || is_denied(c);
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
    return ((const waiter *)ctx)->done;
}

static int
explain(const pc_redis_sender *s, pc_err *err)
{
    if (!pc_redis_is_up(s->conn)) {
        return s->why_down.code != PC_OK
                   ? pc_fail(err, PC_EIO, "no connection in time: %s", s->why_down.msg)
                   : pc_fail(err, PC_ETIMEOUT, "%s: no connection in time",
                             pc_redis_where(s->conn));
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
    if (++s->unpolled < every && now.ns - s->polled.ns <= POLL_IDLE) {
        return 0;
    }
    s->unpolled = 0;
    s->polled = now;
    return pc_pump_poll(s->pump, err);
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
wait_for_answer(pc_redis_sender *s, item *it, waiter *w, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(s->pump, is_done, w, deadline, NULL, &why) == 0) {
        return w->failed ? pc_fail(err, w->err.code, "%s", w->err.msg) : 0;
    }
    it->waiter = NULL;
    if (!it->sent) {  // it will not be
        drop_item(it);
        return explain(s, err);
    }
    it->mandatory = false;
    return pc_fail(err, PC_ETIMEOUT,
                   "%s: the message was sent but not confirmed in time; it may arrive nevertheless",
                   pc_redis_where(s->conn));
}

static int
keep_or_fire(pc_redis_sender *s, item *it, pc_err *err)
{
    it->kept = s->confirm != 0;
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
    pc_redis_flush_now(s->conn);
    return 0;
}

int
pc_redis_sender_put(pc_redis_sender *s, pc_redis_args *args, bool mandatory, pc_mono deadline,
                    pc_err *err)
{
    if (args->failed) {
        return pc_fail(err, args->err.code, "%s", args->err.msg);
    }
    if (pc_redis_sender_refresh(s, err) < 0) {
        return -1;
    }
    item *it = new_item(s, args, err);
    if (it == NULL) {
        return -1;
    }
    condition c = {s, s->downs, it->size};
    if (!has_room(&c) && wait_for(s, has_room, &c, deadline, err) < 0) {
        pc_free(it);
        return -1;
    }
    waiter w = {.done = false};
    it->mandatory = mandatory;
    it->waiter = s->confirm == 2 ? &w : NULL;
    if (keep_or_fire(s, it, err) < 0) {
        return -1;
    }
    return s->confirm == 2 ? wait_for_answer(s, it, &w, deadline, err) : 0;
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

// ---- questions ----

static void
on_call_answer(void *ctx, const pc_reply *reply, const pc_err *why)
{
    call *q = ctx;
    if (why != NULL) {
        lose_call(q, why);
        return;
    }
    pc_link_remove(&q->link);
    if (q->orphan) {
        pc_free(q);
        return;
    }
    q->done = true;
    if (pc_redis_check(q->sender->conn, reply, &q->err) == 0) {
        q->reply = pc_redis_take_reply(q->sender->conn);
    }
}

static int
is_answered(void *ctx)
{
    return ((const call *)ctx)->done;
}

/* Frees the call, or leaves it behind. */
static int
finish_call(call *q, pc_reply **reply, bool *lost, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(q->sender->pump, is_answered, q, deadline, NULL, &why) < 0) {
        q->orphan = true;
        return pc_fail(err, why.code, "%s: no answer: %s", pc_redis_where(q->sender->conn),
                       why.msg);
    }
    *lost = q->lost;
    *reply = q->reply;
    int rc = q->reply != NULL ? 0 : pc_fail(err, q->err.code, "%s", q->err.msg);
    pc_free(q);
    return rc;
}

static int
ask_once(pc_redis_sender *s, pc_redis_args *args, pc_reply **reply, bool *lost, pc_mono deadline,
         pc_err *err)
{
    if (pc_redis_sender_connect(s, deadline, err) < 0) {
        return -1;
    }
    call *q = pc_zalloc(sizeof *q);
    if (q == NULL) {
        return pc_fail_nomem(err);
    }
    q->sender = s;
    pc_link_init(&q->link);
    if (pc_redis_args_send(args, s->conn, on_call_answer, q, err) < 0) {
        pc_free(q);
        return -1;
    }
    pc_list_put_back(&s->calls, &q->link);
    return finish_call(q, reply, lost, deadline, err);
}

int
pc_redis_sender_ask(pc_redis_sender *s, pc_redis_args *args, bool again, pc_reply **reply,
                    pc_mono deadline, pc_err *err)
{
    bool lost = false;
    int rc = 0;
    do {
        lost = false;
        rc = ask_once(s, args, reply, &lost, deadline, err);
    } while (rc < 0 && lost && again && pc_mono_now().ns < deadline.ns);
    return rc;
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
