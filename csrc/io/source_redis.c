/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from Redis, beside kombu.
 *
 * DESIGN. All on the loop's thread. A turn ends with flush(): what was settled, then a claim for as
 * many messages as there is room, leave in one write. While a claim is under way room gathers for the
 * next, up to a quarter of the prefetch: so claims are large, and a distant server does not limit the
 * worker to one of them per round trip. A claim that found less than it asked for is followed by
 * a look at the lists (EXISTS, which arms the bell): if they are empty nothing is sent until the bell
 * rings, something goes back, or a second has passed. What is under way is in redis_settle.h (kept
 * over reconnects) and in `unacked` (given back when the connection is up again, or by redis_keeper.h
 * of another worker). Tags carry the number of their connection in the high 16 bits; below it is the
 * number in the tag of `unacked`, 0 for what was not booked.
 *
 * A text that is no envelope, or JSON too unusual for the core, is logged and moved to the list of the
 * dead, where it can be looked at; kombu's consumer would end with an exception over it. */
#include "base/mem.h"
#include "io/redis_source.h"

#define NUMBER_MASK ((UINT64_C(1) << PC_REDIS_EPOCH_SHIFT) - 1)
#define COMPLAIN_NS (60 * PC_NS_PER_SEC)

typedef pc_redis_source source;

static source *
of(pc_source *base)
{
    return (source *)(void *)base;
}

void
pc_redis_source_run_soon(source *src)
{
    pc_loop_defer(src->loop, &src->flush);
}

// ---- trouble ----

static void
disconnect(source *src)
{
    pc_redis_close(src->conn);
    pc_redis_bell_close(&src->bell);
    pc_redis_fanout_close(&src->fanout);
    pc_redis_keeper_stop(&src->keeper);
    pc_redis_scripts_reset(&src->scripts);
    pc_redis_settler_rewind(&src->settler);
    pc_loop_undefer(src->loop, &src->flush);
    pc_loop_clear_timer(src->loop, &src->tick);
    src->is_up = src->looking = src->tracking = false;
    src->held = src->nclaims = src->wanted = 0;
    src->depth_of = 0;  // its answer went with the connection
    src->last_epoch = src->returned ? src->epoch : src->last_epoch;
    src->returned = false;
    src->epoch = src->epoch % 0xFFFF + 1;
}

/* Only from the loop's callbacks. Once per connection. */
static void
give_up(source *src, const pc_err *why)
{
    pc_err copy = *why;
    disconnect(src);
    src->base.hooks.down(src->base.hooks.ctx, &copy);
}

void
pc_redis_source_fail(source *src, const pc_err *why)
{
    if (!pc_redis_is_closed(src->conn)) {
        give_up(src, why);
    }
}

/* At most one line a minute. */
void
pc_redis_source_complain(source *src, const pc_err *why)
{
    pc_mono now = pc_mono_now();
    if (src->complained.ns == 0 || now.ns - src->complained.ns > COMPLAIN_NS) {
        src->complained = now;
        pc_log_write(src->base.log, PC_ERROR, "%s: %s", pc_redis_where(src->conn), why->msg);
    }
}

/* What a refused command means: the scripts are gone, memory is short (the next tick tries again), or
 * this connection is of no use. */
void
pc_redis_source_refused(source *src, const pc_err *why)
{
    pc_err err = {0};
    if (why->code == PC_ENOTFOUND) {
        if (pc_redis_scripts_load(&src->scripts, &err) < 0) {
            pc_redis_source_fail(src, &err);
        }
    } else if (why->code == PC_EFULL && src->is_up) {
        pc_redis_source_complain(src, why);
    } else {
        pc_redis_source_fail(src, why);
    }
}

static void
on_flush(void *ctx)
{
    source *src = ctx;
    pc_err err = {0};
    if (!pc_redis_is_up(src->conn) || src->scripts.loading > 0) {
        return;
    }
    if (pc_redis_settler_write(&src->settler, &err) < 0 || pc_redis_source_claim(src, &err) < 0) {
        pc_redis_source_fail(src, &err);
    }
}

static void
on_answered(void *ctx, const pc_err *why)
{
    source *src = ctx;
    if (why != NULL && why->code == PC_EDATA) {
        pc_redis_source_complain(src, why);
    } else if (why != NULL) {
        pc_redis_source_refused(src, why);
    }
}

// ---- the connection ----

static int
write_binding(source *src, const char *command, const pc_queue *queue, pc_err *err)
{
    pc_redis_args *args = &src->args;
    if (queue->exchange == NULL || queue->exchange[0] == '\0' || queue->no_declare) {
        return 0;
    }
    pc_redis_args_reset(args);
    pc_redis_args_str(args, command);
    pc_redis_args_end(args, pc_redis_put_bindings(&src->names, pc_slice_str(queue->exchange),
                                                  &args->text, &args->err));
    pc_redis_args_end(args, pc_redis_put_binding(&src->names, queue, &args->text, &args->err));
    return pc_redis_args_send(args, src->conn, NULL, NULL, err);
}

static int
begin(source *src, pc_err *err)
{
    for (pc_link *at = src->queues.list.next; at != &src->queues.list; at = at->next) {
        const pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (write_binding(src, "SADD", c->queue, err) < 0) {
            return -1;
        }
    }
    if (pc_redis_settler_write(&src->settler, err) < 0) {
        return -1;
    }
    src->returned = true;
    return pc_redis_keeper_start(&src->keeper, src->conn, &src->scripts, err);
}

static void
on_scripts(void *ctx, const pc_err *why)
{
    source *src = ctx;
    pc_err err = {0};
    if (why != NULL) {
        pc_redis_source_fail(src, why);
    } else if (src->is_up) {
        pc_redis_source_run_soon(src);
    } else if (begin(src, &err) < 0) {
        pc_redis_source_fail(src, &err);
    }
}

static void
on_up(void *ctx)
{
    source *src = ctx;
    pc_err err = {0};
    if (pc_redis_scripts_load(&src->scripts, &err) < 0) {
        pc_redis_source_fail(src, &err);
    }
}

static void
go_up(source *src)
{
    src->is_up = true;
    src->dry = src->lean = src->rung = false;
    src->no_bell = false;
    src->misses = src->ticks = 0;
    src->held = 0;
    pc_redis_source_tick(src, pc_mono_now());
    if (src->is_up) {
        src->base.hooks.up(src->base.hooks.ctx);
    }
}

static void
on_keeper_ready(void *ctx)
{
    source *src = ctx;
    pc_err err = {0};
    if (!pc_redis_fanout_is_wanted(&src->fanout)) {
        go_up(src);
    } else if (pc_redis_fanout_connect(&src->fanout, &err) < 0) {
        pc_redis_source_fail(src, &err);
    }
}

static void
on_fanout_ready(void *ctx)
{
    source *src = ctx;
    if (!src->is_up) {
        go_up(src);
    }
}

/* At the start that is a failure like others. Later the queues go on, and the next tick tries again. */
static void
on_fanout_gone(void *ctx, const pc_err *why)
{
    source *src = ctx;
    pc_err err = {0};
    if (!src->is_up) {
        pc_redis_source_fail(src, why);
        return;
    }
    pc_fail(&err, why->code, "not listening to fanout exchanges now: %s", why->msg);
    pc_redis_source_complain(src, &err);
}

static void
on_keeper_drained(void *ctx)
{
    ((source *)ctx)->drained = true;
}

static void
on_keeper_failed(void *ctx, const pc_err *why)
{
    pc_redis_source_refused(ctx, why);
}

static void
on_down(void *ctx, const pc_err *why)
{
    give_up(ctx, why);
}

// ---- for the owner ----

static int
connect_source(pc_source *base, pc_err *err)
{
    return pc_redis_connect(of(base)->conn, err);
}

/* The messages held at the server before are given back there: when their lease ends, or when we return. */
static int
redirect(pc_source *base, const pc_broker_config *config, pc_err *err)
{
    source *src = of(base);
    pc_redis_config redis = pc_redis_broker_config(config);
    if (!pc_redis_is_closed(src->conn)) {
        return pc_fail(err, PC_ESTATE, "still connected");
    }
    if (pc_redis_keeper_redirect(&src->keeper, config, err) < 0
        || pc_redis_redirect(src->bell.conn, &redis, err) < 0
        || pc_redis_redirect(src->fanout.conn, &redis, err) < 0) {
        return -1;
    }
    redis.client_name = src->keeper.client;
    return pc_redis_redirect(src->conn, &redis, err);
}

static int
add_queue(pc_source *base, const pc_queue *queue, pc_err *err)
{
    source *src = of(base);
    if (pc_redis_queues_find(&src->queues, queue->name) != NULL) {
        return 0;
    }
    pc_redis_consumer *c = pc_redis_queues_add(&src->queues, &src->names, queue, err);
    if (c == NULL) {
        return -1;
    }
    // begin() wrote the bindings of those before it, the fanout connection subscribes to what it finds
    bool listens = src->is_up || !pc_redis_is_closed(src->fanout.conn);
    if ((src->keeper.running && write_binding(src, "SADD", c->queue, err) < 0)
        || (listens && pc_redis_fanout_add(&src->fanout, c, err) < 0)) {
        pc_redis_queues_drop(&src->queues, c);
        return -1;
    }
    src->dry = src->lean = false;
    pc_redis_source_run_soon(src);
    return 0;
}

/* A queue of one consumer (kombu's Broadcast makes such) goes with it. */
static int
forget_temporary(source *src, const pc_redis_consumer *c, pc_err *err)
{
    if (pc_buf_len(&c->channel) == 0 || !c->queue->auto_delete) {
        return 0;
    }
    if (write_binding(src, "SREM", c->queue, err) < 0) {
        return -1;
    }
    pc_redis_args_reset(&src->args);
    pc_redis_args_str(&src->args, "DEL");
    for (size_t i = 0; i < src->names.nsteps; i++) {
        pc_redis_args_end(&src->args,
                          pc_redis_put_list(&src->names, pc_slice_str(c->queue->name),
                                            src->names.steps[i], &src->args.text, &src->args.err));
    }
    return pc_redis_args_send(&src->args, src->conn, NULL, NULL, err);
}

static int
forget_all_temporary(source *src, pc_err *err)
{
    int rc = 0;
    for (pc_link *at = src->queues.list.next; rc == 0 && at != &src->queues.list; at = at->next) {
        rc = forget_temporary(src, PC_CONTAINER_OF(at, pc_redis_consumer, link), err);
    }
    return rc;
}

static int
drop_queue(pc_source *base, const char *name, pc_err *err)
{
    source *src = of(base);
    pc_redis_consumer *c = pc_redis_queues_find(&src->queues, name);
    if (c == NULL) {
        return pc_fail(err, PC_ENOTFOUND, "queue %s is not being consumed", name);
    }
    pc_redis_fanout_drop(&src->fanout, c);
    int rc = src->is_up ? forget_temporary(src, c, err) : 0;
    pc_redis_queues_drop(&src->queues, c);
    return rc;
}

static int
prefetch(pc_source *base, unsigned count, pc_err *err)
{
    source *src = of(base);
    (void)err;
    src->prefetch = count;
    pc_redis_source_run_soon(src);
    return 0;
}

/* What was done until the connection is there again is settled then, before the rest goes back. */
static int
settle_late(source *src, uint64_t tag, pc_settle how, pc_err *err)
{
    bool held = tag >> PC_REDIS_EPOCH_SHIFT == src->last_epoch && !src->returned;
    return held && how != PC_REQUEUE
               ? pc_redis_settler_put(&src->settler, tag & NUMBER_MASK, PC_REDIS_ACK, err)
               : 0;
}

/* What goes back while nothing is taken any more goes to the front, as from a closing channel. */
static int
settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err)
{
    source *src = of(base);
    uint64_t number = tag & NUMBER_MASK;
    if (number == 0) {
        return 0;
    }
    if (tag >> PC_REDIS_EPOCH_SHIFT != src->epoch || !src->is_up) {
        return settle_late(src, tag, how, err);
    }
    pc_redis_fate fate = how != PC_REQUEUE ? PC_REDIS_ACK
                         : src->paused     ? PC_REDIS_FRONT
                                           : PC_REDIS_BACK;
    if (pc_redis_settler_put(&src->settler, number, fate, err) < 0) {
        return -1;
    }
    src->held -= src->held > 0;
    src->dry = src->dry && fate == PC_REDIS_ACK;
    pc_redis_source_run_soon(src);
    return 0;
}

static int
pause_source(pc_source *base, pc_err *err)
{
    (void)err;
    of(base)->paused = true;
    return 0;
}

static bool
is_quiet(const source *src)
{
    return src->nclaims == 0 && src->settler.len == 0;
}

/* The keeper gives back whatever is held, also what a claim brought too late. */
static int
say_goodbye(source *src, pc_mono deadline, pc_err *err)
{
    bool draining = false;
    while (src->is_up && !src->drained) {
        if (!draining && is_quiet(src)) {
            draining = true;
            if (forget_all_temporary(src, err) < 0 || pc_redis_keeper_drain(&src->keeper, err) < 0) {
                return -1;
            }
        }
        if (pc_mono_now().ns >= deadline.ns) {
            return pc_fail(err, PC_ETIMEOUT, "%s: the server did not take back the messages in time",
                           pc_redis_where(src->conn));
        }
        if (pc_loop_step(src->loop, deadline, err) < 0) {
            return -1;
        }
    }
    return src->drained ? 0
                        : pc_fail(err, PC_EIO, "%s: the connection was lost while closing",
                                  pc_redis_where(src->conn));
}

static int
close_source(pc_source *base, pc_mono deadline, pc_err *err)
{
    source *src = of(base);
    src->paused = src->closing = true;
    src->drained = false;
    int rc = 0;
    if (src->is_up) {
        pc_redis_source_run_soon(src);
        rc = say_goodbye(src, deadline, err);
    }
    disconnect(src);
    src->closing = false;
    return rc;
}

static void
abandon(pc_source *base)
{
    source *src = of(base);
    pc_redis_abandon(src->conn);
    pc_redis_bell_abandon(&src->bell);
    pc_redis_fanout_abandon(&src->fanout);
    pc_redis_keeper_abandon(&src->keeper);
    src->is_up = false;
}

static void
destroy(pc_source *base)
{
    if (base == NULL) {
        return;
    }
    source *src = of(base);
    pc_loop_undefer(src->loop, &src->flush);
    pc_loop_clear_timer(src->loop, &src->tick);
    pc_redis_keeper_fini(&src->keeper);
    pc_redis_free(src->conn);
    pc_redis_bell_fini(&src->bell);
    pc_redis_fanout_fini(&src->fanout);
    pc_redis_settler_fini(&src->settler);
    pc_redis_queues_fini(&src->queues);
    for (size_t i = 0; i < PC_REDIS_CLAIMS; i++) {
        pc_redis_asked_fini(&src->claims[i].asked);
    }
    pc_redis_names_fini(&src->names);
    pc_redis_args_fini(&src->args);
    pc_buf_fini(&src->scratch);
    pc_free(src);
}

static int
make_parts(source *src, const pc_broker_config *config, pc_err *err)
{
    pc_redis_keeper_hooks keeper = {.ready = on_keeper_ready,
                                    .drained = on_keeper_drained,
                                    .failed = on_keeper_failed,
                                    .ctx = src};
    pc_redis_fanout_hooks fanout = {.ready = on_fanout_ready,
                                    .message = pc_redis_source_broadcast,
                                    .gone = on_fanout_gone,
                                    .ctx = src};
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .ctx = src};
    pc_redis_bell_hooks bell = pc_redis_source_bell;
    pc_redis_config redis = pc_redis_broker_config(config);
    bell.ctx = src;
    if (pc_redis_names_init(&src->names, config, err) < 0
        || pc_redis_queues_init(&src->queues, config->queue_order, err) < 0
        || pc_redis_keeper_init(&src->keeper, config, &src->names, src->loop, &keeper,
                                src->base.log, err) < 0
        || pc_redis_bell_init(&src->bell, &redis, src->loop, &bell, err) < 0
        || pc_redis_fanout_init(&src->fanout, &redis, src->loop, &src->queues, &fanout, err) < 0) {
        return -1;
    }
    redis.client_name = src->keeper.client;
    src->conn = pc_redis_new(&redis, src->loop, &hooks, err);
    if (src->conn == NULL) {
        return -1;
    }
    pc_redis_scripts_init(&src->scripts, src->conn, on_scripts, src);
    pc_redis_settler_init(&src->settler, src->conn, &src->names, &src->scripts, src->keeper.id,
                          on_answered, src);
    return 0;
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
    src->base = (pc_source){.ops = &pc_source_redis, .hooks = *hooks, .log = log, .global_qos = true};
    src->loop = loop;
    src->epoch = 1;
    src->number = 1;
    pc_defer_init(&src->flush, on_flush, src);
    pc_timer_init(&src->tick, pc_redis_source_tick, src);
    pc_redis_args_init(&src->args);
    pc_buf_init(&src->scratch);
    if (make_parts(src, config, err) < 0) {
        destroy(&src->base);
        return NULL;
    }
    return &src->base;
}

const pc_source_ops pc_source_redis = {
    .scheme = "redis",
    .create = create,
    .connect = connect_source,
    .redirect = redirect,
    .add_queue = add_queue,
    .drop_queue = drop_queue,
    .prefetch = prefetch,
    .settle = settle,
    .look = pc_redis_source_look,
    .pause = pause_source,
    .close = close_source,
    .abandon = abandon,
    .destroy = destroy,
};
