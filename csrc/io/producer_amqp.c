/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. Any thread may call; everything happens with the pump's lock held, which is released only while
 * somebody sleeps (see pump.h). There is no thread of our own: confirms are taken in, and a lost connection is made
 * again, while somebody is inside a call. Between calls nothing moves, so heartbeats are not asked for;
 * the kernel (keep-alive, TCP_USER_TIMEOUT) finds dead peers instead.
 *
 * confirm 1: publish() returns when the message is in the window and on its way. What the broker refuses
 * afterwards is logged, counted and reported by the next flush(). Large bodies wait for their confirm, since they
 * are what a broker refuses. Messages that are mandatory and come back are logged, counted and dropped.
 * One rpc (declare, size, …) is under way at a time; its replies that come after its deadline are skipped. Since
 * a refused one closes the channel, it waits until what is under way is confirmed: nothing is sent twice over a wrong name. */
#include <stdlib.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "io/amqp_declare.h"
#include "io/amqp_link.h"
#include "io/broker.h"
#include "io/pump.h"

#define WINDOW_MESSAGES 10000
#define WINDOW_BYTES ((size_t)64 * 1024 * 1024)
#define POLL_EVERY 64u
#define POLL_EVERY_FULL 8u                // above half a window
#define POLL_IDLE (10 * PC_NS_PER_MS)     // after such a pause the connection may be gone
#define LARGE_BODY ((size_t)1024 * 1024)
#define USER_TIMEOUT_MS 60000

/* A thread that waits for one message's confirm; on its stack. */
typedef struct waiter {
    pc_link link;
    uint64_t serial;
    bool done;
    bool failed;
    pc_err err;
} waiter;

/* The rpc under way; on its caller's stack. */
typedef struct rpc {
    unsigned pending;     // replies to come
    bool failed;
    pc_err err;
    uint64_t messages;
    uint64_t consumers;
    // basic.get
    bool found;
    pc_message *message;
    pc_buf *memory;
} rpc;

typedef struct producer {
    pc_producer base;
    pc_pump *pump;
    pc_amqp_link link;
    int confirm;
    size_t window;
    pc_link waiters;
    uint64_t serial;      // of the last message
    unsigned unpolled;    // publishes since the last poll
    pc_mono polled;
    rpc *rpc;             // NULL: none
    unsigned abandoned;   // replies to skip
    pc_map declared;      // on this connection: keys are their own values
    uint64_t returned;    // messages that came back
    bool has_refusal;     // a message was refused since the last flush
    pc_err refusal;
} producer;

static producer *
of(pc_producer *base)
{
    return (producer *)(void *)base;
}

/* ---- what the link reports ---- */

static void
forget_declared(producer *p)
{
    size_t pos = 0;
    void *key = NULL;
    while ((key = pc_map_next(&p->declared, &pos)) != NULL) {
        pc_free(key);
    }
    pc_map_fini(&p->declared);
    pc_map_init(&p->declared);
}

static void
fail_rpc(producer *p, const pc_err *why)
{
    p->abandoned = 0;
    if (p->rpc != NULL && p->rpc->pending > 0) {
        p->rpc->pending = 0;
        p->rpc->failed = true;
        p->rpc->err = *why;
    }
}

static void
on_up(void *ctx)
{
    (void)ctx;  // whoever waits looks at the link
}

static void
on_down(void *ctx, const pc_err *why)
{
    producer *p = ctx;
    forget_declared(p);
    fail_rpc(p, why);
}

/* Over a publish, it is not the rpc's fault: as if the connection had been lost. */
static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    pc_err err = *why;
    if (culprit == PC_AMQP_PUBLISH) {
        err.code = PC_EIO;
    }
    fail_rpc(ctx, &err);
}

static waiter *
find_waiter(const producer *p, uint64_t serial)
{
    for (pc_link *at = p->waiters.next; at != &p->waiters; at = at->next) {
        waiter *w = PC_CONTAINER_OF(at, waiter, link);
        if (w->serial == serial) {
            return w;
        }
    }
    return NULL;
}

static void
on_settled(void *ctx, void *cookie, const pc_err *why)
{
    producer *p = ctx;
    waiter *w = find_waiter(p, (uint64_t)(uintptr_t)cookie);
    if (w != NULL) {
        w->done = true;
        w->failed = why != NULL;
        w->err = why == NULL ? (pc_err){0} : *why;
    } else if (why != NULL) {
        pc_log_write(p->base.log, PC_ERROR, "A message was refused and is lost: %s", why->msg);
        p->has_refusal = true;
        p->refusal = *why;
    }
}

static void
on_returned(void *ctx, const pc_message *message, const pc_err *why)
{
    producer *p = ctx;
    p->returned++;
    pc_log_write(p->base.log, PC_WARNING, "%s (exchange '%.*s', routing key '%.*s', %llu so far)", why->msg,
                 (int)message->exchange.len, message->exchange.ptr, (int)message->routing_key.len,
                 message->routing_key.ptr, (unsigned long long)p->returned);
}

/* ---- waiting, with the lock held ---- */

typedef struct condition {
    producer *p;
    unsigned downs;  // when the wait began
    size_t bytes;    // of the message to come
} condition;

static bool
is_denied(const condition *c)
{
    return c->p->link.downs != c->downs && c->p->link.why_down.code == PC_EAUTH;
}

static int
is_connected(void *ctx)
{
    const condition *c = ctx;
    return pc_amqp_conn_is_ready(&c->p->link.conn) || is_denied(c);
}

static bool
has_room(const producer *p, size_t bytes)
{
    const pc_amqp_window *w = &p->link.window;
    return pc_buf_len(&p->link.conn.stream.out) < PC_AMQP_OUT_HIGH
           && (w->open == 0 || (w->open < p->window && w->open_bytes + bytes <= WINDOW_BYTES));
}

static int
may_publish(void *ctx)
{
    const condition *c = ctx;
    return (pc_amqp_link_takes(&c->p->link) && has_room(c->p, c->bytes)) || is_denied(c);
}

static int
is_flushed(void *ctx)
{
    const condition *c = ctx;
    const pc_amqp_link *link = &c->p->link;
    bool written = link->confirms || pc_buf_len(&link->conn.stream.out) == 0;
    return (link->window.open == 0 && written) || is_denied(c);
}

static int
is_confirmed(void *ctx)
{
    return ((const waiter *)ctx)->done;
}

static int
is_settled_down(void *ctx)
{
    const condition *c = ctx;
    return pc_amqp_window_under_way(&c->p->link.window) == 0
           || !pc_amqp_conn_is_ready(&c->p->link.conn);
}

static int
is_rpc_free(void *ctx)
{
    return ((const condition *)ctx)->p->rpc == NULL;
}

static int
is_rpc_done(void *ctx)
{
    return ((const rpc *)ctx)->pending == 0;
}

/* Says what the wait that timed out was for. */
static int
explain_timeout(producer *p, pc_err *err)
{
    const pc_amqp_link *link = &p->link;
    if (!pc_amqp_conn_is_ready(&link->conn)) {
        return link->why_down.code != PC_OK
                   ? pc_fail(err, PC_EIO, "no connection in time: %s", link->why_down.msg)
                   : pc_fail(err, PC_ETIMEOUT, "%s: no connection in time", link->conn.name);
    }
    if (link->conn.blocked) {
        return pc_fail(err, PC_EFULL, "%s: the broker takes no messages now (%s)", link->conn.name,
                       link->conn.blocked_why);
    }
    return pc_fail(err, PC_EFULL, "%s: the broker is too slow: %zu messages are not confirmed yet",
                   link->conn.name, link->window.open);
}

static int
wait_for(producer *p, int (*done)(void *ctx), condition *c, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(p->pump, done, c, deadline, NULL, &why) < 0) {
        if (why.code == PC_ETIMEOUT) {
            return explain_timeout(p, err);
        }
        return pc_fail(err, why.code, "%s", why.msg);
    }
    return is_denied(c) ? pc_fail(err, PC_EAUTH, "%s", p->link.why_down.msg) : 0;
}

/* Takes in what has come: confirms, and the news that the connection is gone. */
static int
poll_link(producer *p, pc_mono now, pc_err *err)
{
    p->unpolled = 0;
    p->polled = now;
    return pc_pump_poll(p->pump, err);
}

static int
refresh(producer *p, pc_err *err)
{
    pc_mono now = pc_mono_now();
    unsigned every = p->link.window.open > p->window / 2 ? POLL_EVERY_FULL : POLL_EVERY;
    if (++p->unpolled >= every || now.ns - p->polled.ns > POLL_IDLE) {
        return poll_link(p, now, err);
    }
    return 0;
}

static int
ensure_connected(producer *p, pc_mono deadline, pc_err *err)
{
    condition c = {.p = p, .downs = p->link.downs};
    if (pc_amqp_conn_is_ready(&p->link.conn)) {
        return 0;
    }
    pc_amqp_link_wake(&p->link);
    return wait_for(p, is_connected, &c, deadline, err);
}

/* ---- publishing ---- */

static int
wait_for_confirm(producer *p, waiter *w, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(p->pump, is_confirmed, w, deadline, NULL, &why) == 0) {
        return w->failed ? pc_fail(err, w->err.code, "%s", w->err.msg) : 0;
    }
    if (p->confirm < 2) {
        return 0;  // it stays in the window
    }
    pc_amqp_window_cancel(&p->link.window, (void *)(uintptr_t)w->serial);
    return pc_fail(err, PC_ETIMEOUT,
                   "%s: the message was sent but not confirmed in time; it may arrive nevertheless",
                   p->link.conn.name);
}

/* With no window, a message that did not leave is lost: that must be said. */
static int
push(producer *p, pc_err *err)
{
    pc_err why = {0};
    pc_amqp_link_send(&p->link);
    if (pc_amqp_conn_is_ready(&p->link.conn) && pc_stream_flush_now(&p->link.conn.stream, &why) < 0
        && p->confirm == 0) {
        return pc_fail(err, why.code, "%s: the message may be lost: %s", p->link.conn.name, why.msg);
    }
    return 0;
}

static int
publish_locked(producer *p, const pc_message *message, bool mandatory, pc_mono deadline, pc_err *err)
{
    if (refresh(p, err) < 0) {
        return -1;
    }
    condition c = {p, p->link.downs, message->body.len};
    if (!may_publish(&c)) {
        pc_amqp_link_wake(&p->link);
        if (wait_for(p, may_publish, &c, deadline, err) < 0) {
            return -1;
        }
    }
    waiter w = {.serial = ++p->serial};
    if (pc_amqp_link_put(&p->link, message, mandatory, (void *)(uintptr_t)w.serial, err) < 0) {
        return -1;
    }
    bool waits = p->confirm == 2 || (p->confirm == 1 && message->body.len >= LARGE_BODY);
    if (!waits) {
        return push(p, err);
    }
    pc_list_put_back(&p->waiters, &w.link);
    (void)push(p, NULL);
    int rc = wait_for_confirm(p, &w, deadline, err);
    pc_link_remove(&w.link);
    return rc;
}

static int
publish(pc_producer *base, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    (void)due;
    (void)has_due;  // the worker holds the message, or its queue delays it
    pc_pump_lock(p->pump);
    int rc = publish_locked(p, message, mandatory, deadline, err);
    pc_pump_unlock(p->pump);
    return rc;
}

static int
flush_locked(producer *p, pc_mono deadline, pc_err *err)
{
    condition c = {.p = p, .downs = p->link.downs};
    if (!is_flushed(&c)) {
        pc_amqp_link_wake(&p->link);
        if (wait_for(p, is_flushed, &c, deadline, err) < 0) {
            return -1;
        }
    }
    if (p->has_refusal) {
        p->has_refusal = false;
        return pc_fail(err, p->refusal.code, "a message was refused: %s", p->refusal.msg);
    }
    return 0;
}

static int
flush(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->pump);
    int rc = flush_locked(p, deadline, err);
    pc_pump_unlock(p->pump);
    return rc;
}

static size_t
unconfirmed(pc_producer *base)
{
    producer *p = of(base);
    pc_pump_lock(p->pump);
    size_t n = p->link.window.open;
    pc_pump_unlock(p->pump);
    return n;
}

/* ---- rpc ---- */

/* Writes the methods of an rpc; sets pending to the number of replies. `what` is its argument. */
typedef int rpc_write(producer *p, rpc *call, const void *what, pc_err *err);

static int
take_message(rpc *call, const pc_message *message, pc_err *err)
{
    call->found = true;
    pc_buf_reset(call->memory, SIZE_MAX);
    char *memory = pc_buf_reserve(call->memory, pc_message_slices_size(message) + 1, err);
    if (memory == NULL) {
        return -1;
    }
    pc_message_copy_to(call->message, message, memory);
    return 0;
}

/* A message that nobody waits for any more, or that cannot be kept, goes back. */
static void
answer_get(producer *p, const pc_amqp_method *reply, bool ack)
{
    pc_stream *stream = &p->link.conn.stream;
    int rc = ack ? pc_amqp_write_ack(&stream->out, PC_AMQP_CHANNEL, reply->tag, false, NULL)
                 : pc_amqp_write_reject(&stream->out, PC_AMQP_CHANNEL, reply->tag, true, NULL);
    if (rc == 0) {
        pc_stream_flush(stream);
    }
}

static void
on_reply(void *ctx, const pc_amqp_method *reply, const pc_message *message)
{
    producer *p = ctx;
    rpc *call = p->rpc;
    bool late = p->abandoned > 0;
    bool kept = false;
    p->abandoned -= late;
    if (!late && call != NULL) {
        call->pending--;
        call->messages = reply->messages;
        call->consumers = reply->consumers;
        kept = message != NULL && take_message(call, message, &call->err) == 0;
        call->failed = call->failed || (message != NULL && !kept);
    }
    if (message != NULL) {
        answer_get(p, reply, kept);
    }
}

static int
want(producer *p, rpc *call, pc_amqp_id id, pc_err *err)
{
    if (pc_amqp_conn_want(&p->link.conn, id, on_reply, p, err) < 0) {
        return -1;
    }
    call->pending++;
    pc_stream_flush(&p->link.conn.stream);
    return 0;
}

/* Its turn has come: p->rpc is `call`. */
static int
attempt(producer *p, rpc *call, rpc_write *write, const void *what, pc_mono deadline, pc_err *err)
{
    condition c = {.p = p, .downs = p->link.downs};
    *call = (rpc){.message = call->message, .memory = call->memory};
    if (poll_link(p, pc_mono_now(), err) < 0 || ensure_connected(p, deadline, err) < 0
        || wait_for(p, is_settled_down, &c, deadline, err) < 0) {
        return -1;
    }
    if (!pc_amqp_conn_is_ready(&p->link.conn)) {
        return pc_fail(err, PC_EIO, "%s", p->link.why_down.msg);
    }
    if (write(p, call, what, err) < 0) {
        p->abandoned += call->pending;
        return -1;
    }
    pc_err why = {0};
    if (pc_pump_wait(p->pump, is_rpc_done, call, deadline, NULL, &why) < 0) {
        p->abandoned += call->pending;
        return pc_fail(err, why.code, "%s: no answer from the broker: %s", p->link.conn.name, why.msg);
    }
    return call->failed ? pc_fail(err, call->err.code, "%s", call->err.msg) : 0;
}

/* A lost connection is no answer: asked again until the deadline. */
static int
call_rpc(producer *p, rpc *call, rpc_write *write, const void *what, pc_mono deadline, pc_err *err)
{
    condition c = {.p = p, .downs = p->link.downs};
    pc_err why = {0};
    int rc = 0;
    if (wait_for(p, is_rpc_free, &c, deadline, err) < 0) {
        return -1;
    }
    p->rpc = call;
    do {
        rc = attempt(p, call, write, what, deadline, &why);
    } while (rc < 0 && why.code == PC_EIO && pc_mono_now().ns < deadline.ns);
    p->rpc = NULL;
    return rc < 0 ? pc_fail(err, why.code, "%s", why.msg) : 0;
}

static int
locked_rpc(pc_producer *base, rpc *call, rpc_write *write, const void *what, pc_mono deadline,
           pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->pump);
    int rc = call_rpc(p, call, write, what, deadline, err);
    pc_pump_unlock(p->pump);
    return rc;
}

static int
write_declare(producer *p, rpc *call, const void *what, pc_err *err)
{
    return pc_amqp_declare(&p->link.conn, what, on_reply, p, &call->pending, err);
}

static int
declare_key(const pc_queue *queue, pc_buf *key, pc_err *err)
{
    return pc_buf_printf(key, err, "%zu %s %s %s", strlen(queue->name), queue->name,
                         queue->exchange == NULL ? "" : queue->exchange,
                         queue->routing_key == NULL ? "" : queue->routing_key);
}

static int
remember_declared(producer *p, pc_slice key, pc_err *err)
{
    char *copy = pc_strdup(key.ptr, key.len);
    void *old = NULL;
    if (copy == NULL) {
        return pc_fail_nomem(err);
    }
    if (pc_map_put(&p->declared, pc_slice_of(copy, key.len), copy, &old, err) < 0) {
        pc_free(copy);
        return -1;
    }
    pc_free(old);
    return 0;
}

static int
declare_locked(producer *p, const pc_queue *queue, pc_slice key, pc_mono deadline, pc_err *err)
{
    rpc call = {0};
    if (refresh(p, err) < 0) {
        return -1;
    }
    if (pc_map_get(&p->declared, key) != NULL) {
        return 0;
    }
    return call_rpc(p, &call, write_declare, queue, deadline, err) < 0
               ? -1
               : remember_declared(p, key, err);
}

static int
declare(pc_producer *base, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_buf key;
    pc_buf_init(&key);
    int rc = declare_key(queue, &key, err);
    if (rc == 0) {
        pc_pump_lock(p->pump);
        rc = declare_locked(p, queue, pc_buf_slice(&key), deadline, err);
        pc_pump_unlock(p->pump);
    }
    pc_buf_fini(&key);
    return rc;
}

static int
write_size(producer *p, rpc *call, const void *what, pc_err *err)
{
    pc_amqp_queue queue = {.name = pc_slice_str(what), .passive = true};
    return pc_amqp_write_queue_declare(&p->link.conn.stream.out, PC_AMQP_CHANNEL, &queue, err) < 0
               ? -1
               : want(p, call, PC_AMQP_QUEUE_DECLARE_OK, err);
}

static int
size(pc_producer *base, const char *queue, uint64_t *messages, uint64_t *consumers, pc_mono deadline,
     pc_err *err)
{
    rpc call = {0};
    int rc = locked_rpc(base, &call, write_size, queue, deadline, err);
    *messages = call.messages;
    *consumers = call.consumers;
    return rc;
}

static int
write_purge(producer *p, rpc *call, const void *what, pc_err *err)
{
    return pc_amqp_write_queue_purge(&p->link.conn.stream.out, PC_AMQP_CHANNEL, pc_slice_str(what), err) < 0
               ? -1
               : want(p, call, PC_AMQP_QUEUE_PURGE_OK, err);
}

static int
purge(pc_producer *base, const char *queue, uint64_t *messages, pc_mono deadline, pc_err *err)
{
    rpc call = {0};
    int rc = locked_rpc(base, &call, write_purge, queue, deadline, err);
    *messages = call.messages;
    return rc;
}

static int
write_remove(producer *p, rpc *call, const void *what, pc_err *err)
{
    forget_declared(p);
    return pc_amqp_write_queue_delete(&p->link.conn.stream.out, PC_AMQP_CHANNEL, pc_slice_str(what), err) < 0
               ? -1
               : want(p, call, PC_AMQP_QUEUE_DELETE_OK, err);
}

static int
remove_queue(pc_producer *base, const char *queue, pc_mono deadline, pc_err *err)
{
    rpc call = {0};
    return locked_rpc(base, &call, write_remove, queue, deadline, err);
}

static int
write_get(producer *p, rpc *call, const void *what, pc_err *err)
{
    return pc_amqp_write_get(&p->link.conn.stream.out, PC_AMQP_CHANNEL, pc_slice_str(what), false, err) < 0
               ? -1
               : want(p, call, PC_AMQP_GET_OK, err);
}

static int
get(pc_producer *base, const char *queue, bool *found, pc_message *message, pc_buf *memory,
    pc_mono deadline, pc_err *err)
{
    rpc call = {.message = message, .memory = memory};
    int rc = locked_rpc(base, &call, write_get, queue, deadline, err);
    *found = rc == 0 && call.found;
    return rc;
}

/* ---- life ---- */

static void destroy(pc_producer *base);

static pc_producer *
create(const pc_broker_config *config, const pc_log *log, pc_err *err)
{
    producer *p = pc_zalloc(sizeof *p);
    if (p == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    p->base = (pc_producer){&pc_producer_amqp, log};
    p->confirm = config->confirm;
    p->window = config->window > 0 ? (size_t)config->window : WINDOW_MESSAGES;
    pc_link_init(&p->waiters);
    pc_map_init(&p->declared);
    pc_broker_config quiet = *config;
    quiet.heartbeat = 0;
    pc_amqp_link_hooks hooks = {
        .up = on_up,
        .down = on_down,
        .refused = on_refused,
        .settled = on_settled,
        .returned = on_returned,
        .ctx = p,
    };
    p->pump = pc_pump_new(err);
    if (p->pump == NULL
        || pc_amqp_link_init(&p->link, pc_pump_loop(p->pump), &quiet, p->confirm != 0, &hooks, log, err)
               < 0) {
        destroy(&p->base);
        return NULL;
    }
    p->link.conn.user_timeout_ms = USER_TIMEOUT_MS;
    return &p->base;
}

static int
connect_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->pump);
    int rc = poll_link(p, pc_mono_now(), err);
    rc = rc < 0 ? rc : ensure_connected(p, deadline, err);
    pc_pump_unlock(p->pump);
    return rc;
}

static int
is_gone(void *ctx)
{
    return pc_amqp_conn_is_closed(&((const condition *)ctx)->p->link.conn);
}

static int
close_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    condition c = {.p = p};
    pc_pump_lock(p->pump);
    int rc = flush_locked(p, deadline, err);
    pc_amqp_link_close(&p->link);
    // What matters is confirmed; the goodbye is not worth an error.
    (void)pc_pump_wait(p->pump, is_gone, &c, deadline, NULL, NULL);
    pc_amqp_link_drop(&p->link);
    pc_pump_unlock(p->pump);
    return rc;
}

/* No lock: of the parent's threads only the one that forked is here. */
static void
abandon(pc_producer *base)
{
    pc_amqp_link_abandon(&of(base)->link);
}

static void
destroy(pc_producer *base)
{
    if (base == NULL) {
        return;
    }
    producer *p = of(base);
    pc_amqp_link_fini(&p->link);
    forget_declared(p);
    pc_map_fini(&p->declared);
    pc_pump_free(p->pump);
    pc_free(p);
}

const pc_producer_ops pc_producer_amqp = {
    .scheme = "amqp",
    .headers_kind = PC_HEADERS_TABLE,
    .create = create,
    .connect = connect_producer,
    .publish = publish,
    .flush = flush,
    .unconfirmed = unconfirmed,
    .declare = declare,
    .size = size,
    .purge = purge,
    .remove = remove_queue,
    .get = get,
    .close = close_producer,
    .abandon = abandon,
    .destroy = destroy,
};
