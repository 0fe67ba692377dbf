/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. Any thread may call; everything happens with the pump's lock held, which is released only
 * while somebody sleeps (see pump.h). Confirms are taken in, and a lost connection is made again,
 * while somebody is inside a call, and by the minder while something is not confirmed. At other times
 * nothing moves, so heartbeats are not asked for; the kernel (keep-alive, TCP_USER_TIMEOUT) finds dead
 * peers instead.
 *
 * confirm 1: publish() returns when the message is in the window and on its way. What the broker
 * refuses afterwards is logged, counted and reported by the next flush(); what would be sent twice over it is not sent
 * together with it (amqp_window.h says what that can be known of). Large bodies wait for
 * their confirm, since they are what a broker refuses. Messages that are mandatory and come back
 * are logged, counted and dropped. One rpc (declare, size, …) is under way at a time; its replies
 * that come after its deadline are skipped. Since a refused one closes the channel, it waits until
 * what is under way is confirmed: nothing is sent twice over a wrong name. */
#include "base/map.h"
#include "base/mem.h"
#include "io/amqp_declare.h"
#include "io/amqp_sender.h"
#include "io/broker.h"

/* The rpc under way; on its caller's stack. */
typedef struct rpc {
    unsigned pending;  // replies to come
    bool failed;
    bool lost;  // no answer, but the connection's end
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
    pc_amqp_sender sender;
    rpc *rpc;            // NULL: none
    unsigned abandoned;  // replies to skip
    pc_map declared;     // on this connection: keys are their own values
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
fail_rpc(producer *p, bool lost, const pc_err *why)
{
    p->abandoned = 0;
    if (p->rpc != NULL && p->rpc->pending > 0) {
        p->rpc->pending = 0;
        p->rpc->failed = true;
        p->rpc->lost = lost;
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
    fail_rpc(p, true, why);
}

/* Over a publish, it is not the rpc's fault: as if the connection had been lost. */
static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    fail_rpc(ctx, culprit == PC_AMQP_PUBLISH, why);
}

/* ---- publishing ---- */

static int
publish(pc_producer *base, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    (void)due;
    (void)has_due;  // the worker holds the message, or its queue delays it
    pc_pump_lock(p->sender.pump);
    int rc = pc_amqp_sender_publish(&p->sender, message, mandatory, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
publish_many(pc_producer *base, const pc_outgoing *messages, size_t n, pc_mono deadline,
             size_t *done, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_amqp_sender_publish_many(&p->sender, messages, n, deadline, done, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
flush(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_amqp_sender_flush(&p->sender, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static size_t
unconfirmed(pc_producer *base)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    size_t n = p->sender.link.window.open;
    pc_pump_unlock(p->sender.pump);
    return n;
}

static int
confirming(pc_producer *base)
{
    producer *p = of(base);
    pc_err err = {0};
    int fd = -1;
    pc_pump_lock(p->sender.pump);
    if (p->sender.link.window.open > 0 && pc_amqp_sender_poll(&p->sender, &err) == 0 &&
        p->sender.link.window.open > 0) {
        pc_amqp_link_wake(&p->sender.link);
        fd = pc_loop_fd(pc_pump_loop(p->sender.pump));
    }
    pc_pump_unlock(p->sender.pump);
    return fd;
}

/* ---- rpc ---- */

static int
is_rpc_free(void *ctx)
{
    return ((const producer *)ctx)->rpc == NULL;
}

static int
is_rpc_done(void *ctx)
{
    return ((const rpc *)ctx)->pending == 0;
}

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
    pc_stream *stream = &p->sender.link.conn.stream;
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
    if (pc_amqp_conn_want(&p->sender.link.conn, id, on_reply, p, err) < 0) {
        return -1;
    }
    call->pending++;
    pc_stream_flush(&p->sender.link.conn.stream);
    return 0;
}

/* Its turn has come: p->rpc is `call`. */
static int
attempt(producer *p, rpc *call, rpc_write *write, const void *what, pc_mono deadline, pc_err *err)
{
    *call = (rpc){.message = call->message, .memory = call->memory};
    if (pc_amqp_sender_poll(&p->sender, err) < 0 ||
        pc_amqp_sender_connect(&p->sender, deadline, err) < 0 ||
        pc_amqp_sender_calm(&p->sender, deadline, err) < 0) {
        return -1;
    }
    if (!pc_amqp_conn_is_ready(&p->sender.link.conn)) {
        call->lost = true;
        return pc_fail(err, PC_EIO, "%s", p->sender.link.why_down.msg);
    }
    if (write(p, call, what, err) < 0) {
        p->abandoned += call->pending;
        return -1;
    }
    pc_err why = {0};
    if (pc_pump_wait(p->sender.pump, is_rpc_done, call, deadline, NULL, &why) < 0) {
        p->abandoned += call->pending;
        return pc_fail(err, why.code, "%s: no answer from the broker: %s", p->sender.link.conn.name,
                       why.msg);
    }
    return call->failed ? pc_fail(err, call->err.code, "%s", call->err.msg) : 0;
}

/* A lost connection is no answer: asked again until the deadline. */
static int
call_rpc(producer *p, rpc *call, rpc_write *write, const void *what, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    int rc = 0;
    if (pc_pump_wait(p->sender.pump, is_rpc_free, p, deadline, NULL, &why) < 0) {
        return pc_fail(err, why.code, "another thread's question to the broker is not answered: %s",
                       why.msg);
    }
    p->rpc = call;
    do {
        rc = attempt(p, call, write, what, deadline, &why);
    } while (rc < 0 && call->lost && pc_mono_now().ns < deadline.ns);
    p->rpc = NULL;
    return rc < 0 ? pc_fail(err, why.code, "%s", why.msg) : 0;
}

static int
locked_rpc(pc_producer *base, rpc *call, rpc_write *write, const void *what, pc_mono deadline,
           pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = call_rpc(p, call, write, what, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
write_declare(producer *p, rpc *call, const void *what, pc_err *err)
{
    return pc_amqp_declare(&p->sender.link.conn, what, on_reply, p, &call->pending, err);
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
    if (pc_amqp_sender_refresh(&p->sender, err) < 0) {
        return -1;
    }
    if (pc_map_get(&p->declared, key) != NULL) {
        return 0;
    }
    if (call_rpc(p, &call, write_declare, queue, deadline, err) < 0) {
        return -1;
    }
    if (queue->exchange != NULL && !queue->no_declare) {
        pc_amqp_window_prove(&p->sender.link.window, pc_slice_str(queue->exchange));
    }
    return remember_declared(p, key, err);
}

static int
declare(pc_producer *base, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_buf key;
    pc_buf_init(&key);
    int rc = declare_key(queue, &key, err);
    if (rc == 0) {
        pc_pump_lock(p->sender.pump);
        rc = declare_locked(p, queue, pc_buf_slice(&key), deadline, err);
        pc_pump_unlock(p->sender.pump);
    }
    pc_buf_fini(&key);
    return rc;
}

static int
write_size(producer *p, rpc *call, const void *what, pc_err *err)
{
    pc_amqp_queue queue = {.name = pc_slice_str(what), .passive = true};
    return pc_amqp_write_queue_declare(&p->sender.link.conn.stream.out, PC_AMQP_CHANNEL, &queue,
                                       err) < 0
               ? -1
               : want(p, call, PC_AMQP_QUEUE_DECLARE_OK, err);
}

static int
size(pc_producer *base, const char *queue, uint64_t *messages, uint64_t *consumers,
     pc_mono deadline, pc_err *err)
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
    return pc_amqp_write_queue_purge(&p->sender.link.conn.stream.out, PC_AMQP_CHANNEL,
                                     pc_slice_str(what), err) < 0
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
    return pc_amqp_write_queue_delete(&p->sender.link.conn.stream.out, PC_AMQP_CHANNEL,
                                      pc_slice_str(what), err) < 0
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
    return pc_amqp_write_get(&p->sender.link.conn.stream.out, PC_AMQP_CHANNEL, pc_slice_str(what),
                             false, err) < 0
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
    pc_map_init(&p->declared);
    pc_amqp_sender_hooks hooks = {.up = on_up, .down = on_down, .refused = on_refused, .ctx = p};
    if (pc_amqp_sender_init(&p->sender, config, &hooks, log, err) < 0) {
        destroy(&p->base);
        return NULL;
    }
    return &p->base;
}

static int
connect_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_amqp_sender_poll(&p->sender, err);
    rc = rc < 0 ? rc : pc_amqp_sender_connect(&p->sender, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
close_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_amqp_sender_close(&p->sender, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static pc_minder *
minder(pc_producer *base)
{
    return &of(base)->sender.minder;
}

/* No lock: of the parent's threads only the one that forked is here. */
static void
abandon(pc_producer *base)
{
    pc_minder_forget(&of(base)->sender.minder);
    pc_amqp_link_abandon(&of(base)->sender.link);
}

static void
destroy(pc_producer *base)
{
    if (base == NULL) {
        return;
    }
    producer *p = of(base);
    pc_amqp_sender_fini(&p->sender);
    forget_declared(p);
    pc_map_fini(&p->declared);
    pc_free(p);
}

const pc_producer_ops pc_producer_amqp = {
    .scheme = "amqp",
    .headers_kind = PC_HEADERS_TABLE,
    .create = create,
    .connect = connect_producer,
    .publish = publish,
    .publish_many = publish_many,
    .flush = flush,
    .unconfirmed = unconfirmed,
    .confirming = confirming,
    .declare = declare,
    .size = size,
    .purge = purge,
    .remove = remove_queue,
    .get = get,
    .close = close_producer,
    .minder = minder,
    .abandon = abandon,
    .destroy = destroy,
};
