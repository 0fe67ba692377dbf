/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from an AMQP broker. Tags of deliveries carry the number of their connection in the
 * high 16 bits, so that what is settled after a reconnect is recognised and ignored. */
#include "base/list.h"
#include "base/mem.h"
#include "io/amqp_acks.h"
#include "io/amqp_conn.h"
#include "io/amqp_copy.h"
#include "io/amqp_methods.h"
#include "io/amqp_park.h"
#include "io/amqp_source.h"
#include "io/broker.h"

#define EPOCH_SHIFT 48
#define TAG_MASK ((UINT64_C(1) << EPOCH_SHIFT) - 1)
#define QOS_MAX 65535u
#define SILENT_TIMEOUT_MS 60000  // of a connection without heartbeats

typedef pc_amqp_consumer consumer;
typedef pc_amqp_source source;

static source *
of(pc_source *base)
{
    return (source *)(void *)base;
}

/* ---- connection ---- */

static void
free_leaving(source *src)
{
    pc_link *next = NULL;
    for (pc_link *at = src->consumers.next; at != &src->consumers; at = next) {
        consumer *c = PC_CONTAINER_OF(at, consumer, link);
        next = at->next;
        if (c->leaving) {
            pc_amqp_consumer_free(src, c);
        }
    }
}

static void
lose(source *src, const pc_err *why)
{
    free_leaving(src);
    pc_amqp_settled_lost(&src->settled, src->conn.stream.last_in, pc_mono_now());
    src->is_up = false;
    src->awaited = 0;
    src->looked = 0;
    src->trial = NULL;
    pc_loop_undefer(src->loop, &src->flush);
    pc_amqp_park_void(&src->park, why);
    src->base.hooks.down(src->base.hooks.ctx, why);
}

/* Only from the loop's callbacks. */
static void
give_up(source *src, const pc_err *why)
{
    pc_amqp_conn_quit(&src->conn);
    lose(src, why);
}

static void
on_set_up(void *ctx, const pc_amqp_method *reply, const pc_message *message)
{
    source *src = ctx;
    (void)message;
    if (reply->id == PC_AMQP_CONSUME_OK) {
        pc_amqp_trial_passed(src, reply->consumer_tag);
    }
    if (src->awaited > 0 && --src->awaited == 0 && !src->is_up) {
        src->is_up = src->was_up = true;
        pc_loop_defer(src->loop, &src->flush);  // for those who wait for their trial
        src->base.hooks.up(src->base.hooks.ctx);
    }
}

static int
write_qos(source *src, pc_err *err)
{
    unsigned count = src->prefetch > QOS_MAX ? QOS_MAX : src->prefetch;
    src->prefetch_changed = false;
    if (pc_amqp_write_qos(&src->conn.stream.out, PC_AMQP_CHANNEL, (uint16_t)count,
                          src->base.global_qos, err) < 0 ||
        pc_amqp_conn_want(&src->conn, PC_AMQP_QOS_OK, on_set_up, src, err) < 0) {
        return -1;
    }
    src->awaited++;
    return 0;
}

static bool
may_use_global_qos(const source *src)
{
    bool may = pc_amqp_server_global_qos(&src->conn.server) && !src->no_global_qos;
    for (pc_link *at = src->consumers.next; may && at != &src->consumers; at = at->next) {
        may = !PC_CONTAINER_OF(at, consumer, link)->per_consumer_qos;
    }
    return may;
}

static int
set_up(source *src, pc_err *err)
{
    src->awaited = 0;
    if (write_qos(src, err) < 0) {
        return -1;
    }
    for (pc_link *at = src->consumers.next; !src->paused && at != &src->consumers; at = at->next) {
        const consumer *c = PC_CONTAINER_OF(at, consumer, link);
        if (!c->on_trial && pc_amqp_consumer_write(src, c, on_set_up, err) < 0) {
            return -1;
        }
    }
    pc_stream_flush(&src->conn.stream);
    return 0;
}

static void
on_ready(void *ctx)
{
    source *src = ctx;
    pc_err err = {0};
    src->epoch = src->epoch % 0xFFFF + 1;
    pc_amqp_acks_reset(&src->acks);
    pc_amqp_park_resume(&src->park);
    src->base.version_major = src->conn.server.version_major;
    src->base.global_qos = may_use_global_qos(src);
    if (set_up(src, &err) < 0) {
        give_up(src, &err);
    }
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    source *src = ctx;
    pc_err told = *why;
    pc_amqp_trial_blame(src, culprit, &told);
    src->base.refused = true;
    give_up(src, &told);
}

/* A queue that is of a quorum kind by policy or default: next time without global prefetch. */
static void
on_down(void *ctx, const pc_err *why)
{
    source *src = ctx;
    pc_err told = *why;
    if (pc_amqp_wants_no_global_qos(why)) {
        src->no_global_qos = true;
    }
    pc_amqp_trial_blame(src, src->conn.culprit, &told);
    lose(src, &told);
}

/* ---- deliveries ---- */

static int settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err);

static bool
settled_before(source *src, const pc_message *message)
{
    pc_err err = {0};
    if (!pc_amqp_settled_take(&src->settled, message, pc_mono_now())) {
        return false;
    }
    pc_log_write(src->base.log, PC_INFO, "message %.*s comes again, whose acknowledgement was lost with the connection",
                 pc_amqp_clip(message->correlation_id), message->correlation_id.ptr);
    if (settle(&src->base, message->tag | src->epoch << EPOCH_SHIFT, PC_ACK, &err) < 0) {
        give_up(src, &err);
    }
    return true;
}

static void
on_message(void *ctx, const pc_message *message, pc_slice consumer_tag)
{
    source *src = ctx;
    pc_err err = {0};
    const consumer *c = pc_amqp_consumer_of_tag(src, consumer_tag);
    bool no_ack = c == NULL || c->queue->no_ack;
    uint64_t print = no_ack ? 0 : pc_amqp_settled_print(&src->settled, message);
    if (pc_amqp_acks_deliver(&src->acks, message->tag, no_ack, print, &err) < 0) {
        give_up(src, &err);
        return;
    }
    if (c == NULL || (message->redelivered && !no_ack && settled_before(src, message))) {
        return;  // of no consumer of ours, or for the second time
    }
    if ((src->paused || c->leaving) &&
        !no_ack) {  // was under way when the consumer went: back with it
        if (pc_amqp_acks_settle(&src->acks, message->tag, PC_REQUEUE, &src->conn.stream.out, &err) <
            0) {
            give_up(src, &err);
            return;
        }
        pc_loop_defer(src->loop, &src->flush);
        return;
    }
    pc_message lent = *message;
    lent.tag |= src->epoch << EPOCH_SHIFT;
    src->delivering = c;
    src->base.hooks.message(src->base.hooks.ctx, &lent);
    src->delivering = NULL;
}

static void
on_cancelled(void *ctx, pc_slice consumer_tag)
{
    source *src = ctx;
    consumer *c = pc_amqp_consumer_of_tag(src, consumer_tag);
    if (c != NULL) {
        pc_link_remove(&c->link);  // the hook may add the same queue again
        src->reviving = true;
        src->base.hooks.cancelled(src->base.hooks.ctx, c->queue->name);
        src->reviving = false;
        pc_amqp_consumer_free(src, c);
    }
}

static int
write_pending(source *src, pc_err *err)
{
    if (src->prefetch_changed && write_qos(src, err) < 0) {
        return -1;
    }
    return pc_amqp_acks_write(&src->acks, &src->conn.stream.out, err);
}

static void
on_flush(void *ctx)
{
    source *src = ctx;
    pc_err err = {0};
    if (!pc_amqp_conn_is_ready(&src->conn)) {
        return;
    }
    if (write_pending(src, &err) < 0) {
        give_up(src, &err);
        return;
    }
    if (src->settled.written < src->settled.end) {
        pc_amqp_settled_flushed(&src->settled, pc_mono_now());
    }
    pc_amqp_trial_next(src, on_set_up);
    pc_stream_flush(&src->conn.stream);
}

static int
settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err)
{
    source *src = of(base);
    if (tag >> EPOCH_SHIFT != src->epoch) {
        return 0;
    }
    uint64_t print = how == PC_REQUEUE ? 0 : pc_amqp_acks_print(&src->acks, tag & TAG_MASK);
    if (!pc_amqp_conn_is_ready(&src->conn)) {
        if (print != 0) {
            pc_amqp_settled_too_late(&src->settled, print, pc_mono_now());
        }
        return 0;
    }
    if (pc_amqp_acks_settle(&src->acks, tag & TAG_MASK, how, &src->conn.stream.out, err) < 0) {
        return -1;
    }
    if (print != 0) {
        pc_amqp_settled_note_one(&src->settled, print);
    }
    pc_loop_defer(src->loop, &src->flush);
    return 0;
}

static void
settle_parked(void *ctx, uint64_t tag, pc_settle how)
{
    source *src = ctx;
    pc_err err = {0};
    if (settle(&src->base, tag, how, &err) < 0) {
        pc_log_write(src->base.log, PC_ERROR, "cannot settle a parked message: %s", err.msg);
    }
}

static size_t
on_possible(void *ctx, size_t most)
{
    const source *src = ctx;
    bool told = src->is_up && src->base.hooks.parking != NULL;
    return told ? src->base.hooks.parking(src->base.hooks.ctx, most) : 0;
}

static int
park(pc_source *base, const pc_message *message, int64_t delay_ns, pc_err *err)
{
    source *src = of(base);
    return pc_amqp_park_put(&src->park, message, src->delivering->queue, delay_ns, err);
}

/* ---- for the owner ---- */

static void destroy(pc_source *base);

static void
init_park(source *src)
{
    pc_amqp_park_init(&src->park, src->conn.loop, src->conn.config, settle_parked, on_possible, src,
                      src->base.log);
}

static pc_source *
create(const pc_broker_config *config, pc_loop *loop, const pc_source_hooks *hooks,
       const pc_log *log, pc_err *err)
{
    source *src = pc_zalloc(sizeof *src);
    if (src == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    src->base = (pc_source){.ops = &pc_source_amqp, .hooks = *hooks, .log = log};
    src->loop = loop;
    pc_link_init(&src->consumers);
    pc_amqp_acks_init(&src->acks);
    pc_amqp_settled_init(&src->settled);
    pc_defer_init(&src->flush, on_flush, src);
    pc_amqp_hooks mine = {
        .ready = on_ready,
        .refused = on_refused,
        .down = on_down,
        .message = on_message,
        .cancelled = on_cancelled,
        .ctx = src,
    };
    if (pc_amqp_conn_init(&src->conn, loop, config, &mine, log, err) < 0) {
        destroy(&src->base);
        return NULL;
    }
    src->conn.user_timeout_ms = config->stalls ? SILENT_TIMEOUT_MS : 0;
    init_park(src);
    return &src->base;
}

/* Not at once: the connection that is lost may be telling so just now. */
static int
redirect(pc_source *base, const pc_broker_config *config, pc_err *err)
{
    source *src = of(base);
    pc_broker_config *copy = pc_amqp_copy_config(config, err);
    if (copy == NULL) {
        return -1;
    }
    pc_free(src->next);
    src->next = copy;
    return 0;
}

static int
move(source *src, pc_err *err)
{
    if (src->next == NULL) {
        return 0;
    }
    pc_amqp_park_fini(&src->park);
    int rc = pc_amqp_conn_redirect(&src->conn, src->next, err);
    init_park(src);
    if (rc == 0) {
        pc_free(src->next);
        src->next = NULL;
    }
    return rc;
}

static int
connect_source(pc_source *base, pc_err *err)
{
    return move(of(base), err) < 0 ? -1 : pc_amqp_conn_open(&of(base)->conn, err);
}

/* What the owner adds again since the broker cancelled it is no newcomer: a refusal may be a moment's. */
static int
begin(source *src, consumer *c, pc_err *err)
{
    c->on_trial = src->was_up && !src->reviving;
    if (!pc_amqp_conn_is_ready(&src->conn) || src->paused) {
        return 0;
    }
    if (!c->on_trial) {
        return pc_amqp_consumer_write(src, c, on_set_up, err);
    }
    return src->is_up && src->trial == NULL ? pc_amqp_trial_begin(src, c, on_set_up, err) : 0;
}

static int
add_queue(pc_source *base, const pc_queue *queue, pc_err *err)
{
    source *src = of(base);
    if (pc_amqp_consumer_named(src, queue->name) != NULL) {
        return 0;
    }
    consumer *c = pc_amqp_consumer_new(src, queue, err);
    if (c == NULL) {
        return -1;
    }
    if (begin(src, c, err) < 0) {
        pc_amqp_consumer_free(src, c);
        return -1;
    }
    pc_list_put_back(&src->consumers, &c->link);
    return 0;
}

static void
on_cancel_ok(void *ctx, const pc_amqp_method *reply, const pc_message *message)
{
    source *src = ctx;
    consumer *c = pc_amqp_consumer_of_tag(src, reply->consumer_tag);
    (void)message;
    if (c != NULL && c->leaving) {
        pc_amqp_consumer_free(src, c);
    }
}

static int
write_cancel(source *src, const consumer *c, pc_err *err)
{
    if (!pc_amqp_conn_is_ready(&src->conn) || pc_amqp_consumer_waits(src, c)) {
        return 0;
    }
    if (pc_amqp_write_cancel(&src->conn.stream.out, PC_AMQP_CHANNEL,
                             pc_slice_of(c->tag, c->tag_len), err) < 0 ||
        pc_amqp_conn_want(&src->conn, PC_AMQP_CANCEL_OK, on_cancel_ok, src, err) < 0) {
        return -1;
    }
    pc_stream_flush(&src->conn.stream);
    return 0;
}

static int
drop_queue(pc_source *base, const char *name, pc_err *err)
{
    source *src = of(base);
    consumer *c = pc_amqp_consumer_named(src, name);
    if (c == NULL) {
        return pc_fail(err, PC_ENOTFOUND, "queue %s is not being consumed", name);
    }
    if (!src->paused && write_cancel(src, c, err) < 0) {
        return -1;
    }
    c->leaving = true;  // deliveries may be under way
    if (src->paused || !pc_amqp_conn_is_ready(&src->conn) || pc_amqp_consumer_waits(src, c)) {
        pc_amqp_consumer_free(src, c);
    }
    return 0;
}

static int
prefetch(pc_source *base, unsigned count, pc_err *err)
{
    source *src = of(base);
    (void)err;
    if (count != src->prefetch) {
        src->prefetch = count;
        src->prefetch_changed = true;
        pc_loop_defer(src->loop, &src->flush);
    }
    return 0;
}

static int
pause_source(pc_source *base, pc_err *err)
{
    source *src = of(base);
    if (src->paused) {
        return 0;
    }
    for (pc_link *at = src->consumers.next; at != &src->consumers; at = at->next) {
        if (write_cancel(src, PC_CONTAINER_OF(at, consumer, link), err) < 0) {
            return -1;
        }
    }
    src->paused = true;
    return 0;
}

/* Copies that the broker has not confirmed are waited for, lest both copy and original remain. */
static int
finish_parking(source *src, pc_mono deadline, pc_err *err)
{
    while (pc_amqp_park_busy(&src->park) && pc_amqp_conn_is_ready(&src->conn) &&
           pc_mono_now().ns < deadline.ns) {
        if (pc_loop_step(src->loop, deadline, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
close_source(pc_source *base, pc_mono deadline, pc_err *err)
{
    source *src = of(base);
    if (finish_parking(src, deadline, err) < 0) {
        pc_amqp_conn_drop(&src->conn);
        return -1;
    }
    pc_loop_undefer(src->loop, &src->flush);
    if (pc_amqp_conn_is_ready(&src->conn) && write_pending(src, err) < 0) {
        pc_amqp_conn_drop(&src->conn);
        return -1;
    }
    src->is_up = false;
    pc_amqp_conn_close(&src->conn);
    while (!pc_amqp_conn_is_closed(&src->conn) && pc_mono_now().ns < deadline.ns) {
        if (pc_loop_step(src->loop, deadline, err) < 0) {
            pc_amqp_conn_drop(&src->conn);
            return -1;
        }
    }
    if (!pc_amqp_conn_is_closed(&src->conn)) {
        pc_amqp_conn_drop(&src->conn);
        return pc_fail(err, PC_ETIMEOUT, "%s: the broker did not confirm the close in time",
                       src->conn.name);
    }
    return 0;
}

static void
abandon(pc_source *base)
{
    pc_amqp_conn_abandon(&of(base)->conn);
    pc_amqp_park_abandon(&of(base)->park);
}

static void
destroy(pc_source *base)
{
    if (base == NULL) {
        return;
    }
    source *src = of(base);
    pc_loop_undefer(src->loop, &src->flush);
    while (!pc_list_empty(&src->consumers)) {
        pc_amqp_consumer_free(src, PC_CONTAINER_OF(src->consumers.next, consumer, link));
    }
    pc_free(src->next);
    pc_amqp_park_fini(&src->park);
    pc_amqp_conn_fini(&src->conn);
    pc_amqp_acks_fini(&src->acks);
    pc_free(src);
}

const pc_source_ops pc_source_amqp = {
    .scheme = "amqp",
    .create = create,
    .redirect = redirect,
    .connect = connect_source,
    .add_queue = add_queue,
    .drop_queue = drop_queue,
    .prefetch = prefetch,
    .settle = settle,
    .park = park,
    .look = pc_amqp_source_look,
    .pause = pause_source,
    .close = close_source,
    .abandon = abandon,
    .destroy = destroy,
};
