/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_source.h"
#include "wire/envelope.h"

#define CLAIM_MAX 128u
#define CLAIM_BYTES "4000000"  // a claim ends with the message that exceeds this
#define TICK_NS PC_NS_PER_SEC
#define POLL_NS (100 * PC_NS_PER_MS)  // without a bell
#define BELL_TICKS 50u                // polls until it is tried again

typedef pc_redis_source source;

// ---- deliveries ----

static void
put_fate(source *src, uint64_t number, pc_redis_fate fate)
{
    pc_err err = {0};
    if (number != 0 && pc_redis_settler_put(&src->settler, number, fate, &err) < 0) {
        pc_redis_source_fail(src, &err);  // it comes back with the next connection
        return;
    }
    pc_redis_source_run_soon(src);
}

static void
deliver(source *src, pc_slice text, uint64_t number)
{
    pc_message message;
    pc_slice tag;
    pc_err err = {0};
    if (pc_envelope_read(text, &message, &tag, &src->scratch, &err) < 0) {
        bool bad = err.code != PC_ENOMEM;
        pc_log_write(src->base.log, PC_ERROR, "a message of %zu bytes is %s: %s", text.len,
                     !bad          ? "put back"
                     : number != 0 ? "moved to the list of the dead"
                                   : "dropped",
                     err.msg);
        put_fate(src, number, bad ? PC_REDIS_DEAD : PC_REDIS_BACK);
        return;
    }
    message.tag = src->epoch << PC_REDIS_EPOCH_SHIFT | number;
    src->held += number != 0;
    src->base.hooks.message(src->base.hooks.ctx, &message);
}

static void
take_message(source *src, const pc_redis_asked *asked, int64_t place, pc_slice text, uint64_t number)
{
    const pc_redis_consumer *c = pc_redis_queues_served(&src->queues, asked, place);
    if (c == NULL || src->paused) {  // was under way when the queue was dropped
        put_fate(src, number, PC_REDIS_FRONT);
    } else {
        deliver(src, text, c->queue->no_ack ? 0 : number);
    }
}

void
pc_redis_source_broadcast(void *ctx, const pc_redis_consumer *consumer, pc_slice text)
{
    source *src = ctx;
    (void)consumer;
    if (src->is_up && !src->paused) {
        deliver(src, text, 0);
    }
}

// ---- claiming ----

static void on_exists(void *ctx, const pc_reply *reply, const pc_err *why);

/* A look at the lists: how many there are, and the next change rings. */
static int
look(source *src, pc_err *err)
{
    pc_slice caching[] = {pc_slice_str("CLIENT"), pc_slice_str("CACHING"), pc_slice_str("YES")};
    if (!src->tracking) {
        src->dry = true;
        return 0;
    }
    src->looking = true;
    src->rung = false;
    pc_redis_args_reset(&src->args);
    pc_redis_args_str(&src->args, "EXISTS");
    pc_redis_queues_put_lists(&src->queues, &src->names, &src->args);
    return pc_redis_command(src->conn, 3, caching, NULL, NULL, err) < 0
               ? -1
               : pc_redis_args_send(&src->args, src->conn, on_exists, src, err);
}

/* A list with nothing to claim (another was faster, twice, or it is no list) waits for the tick. */
static void
on_exists(void *ctx, const pc_reply *reply, const pc_err *why)
{
    source *src = ctx;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    src->looking = false;
    if (pc_redis_check(src->conn, reply, &err) < 0) {
        pc_redis_source_refused(src, &err);
        return;
    }
    src->dry = !src->rung && (reply->integer == 0 || src->misses > 1);
    pc_redis_source_run_soon(src);
}

/* An error text among the messages: a list that is none is reported and left out, for anything else
 * the connection is of no use. */
static bool
survives_fault(source *src, const pc_reply *reply)
{
    pc_slice text = reply->children[0]->text;
    pc_err err = {0};
    if (text.len == 0) {
        return true;
    }
    pc_code code = pc_redis_code(text);
    pc_fail(&err, code, "%s: %.*s", pc_redis_where(src->conn), (int)(text.len < 200 ? text.len : 200),
            text.ptr);
    src->misses = 2;
    if (code != PC_EDATA && reply->len == 1) {
        pc_redis_source_refused(src, &err);
        return false;
    }
    pc_redis_source_complain(src, &err);
    return true;
}

/* The oldest claim is answered. What it says stays until the next one is sent. */
static const pc_redis_claim *
take_claim(source *src)
{
    const pc_redis_claim *own = &src->claims[src->first_claim];
    src->first_claim = (src->first_claim + 1) % PC_REDIS_CLAIMS;
    src->nclaims--;
    src->wanted -= own->wanted;
    return own;
}

static void
on_claim(void *ctx, const pc_reply *reply, const pc_err *why)
{
    source *src = ctx;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    uint64_t epoch = src->epoch;
    const pc_redis_claim *own = take_claim(src);
    if (pc_redis_check(src->conn, reply, &err) < 0) {
        pc_redis_source_refused(src, &err);
        return;
    }
    if (reply->type != PC_REPLY_ARRAY || reply->len == 0 || !survives_fault(src, reply)) {
        return;
    }
    size_t got = (reply->len - 1) / 2;
    src->misses = got > 0 ? 0 : src->misses + own->alone;
    src->lean = got < own->wanted;
    for (size_t i = 0; i < got && src->epoch == epoch; i++) {
        take_message(src, &own->asked, reply->children[1 + 2 * i]->integer,
                     reply->children[2 + 2 * i]->text, own->first + i);
    }
    if (src->epoch == epoch) {
        pc_redis_source_run_soon(src);
    }
}

static unsigned
room(const source *src)
{
    if (src->prefetch == 0) {
        return CLAIM_MAX;
    }
    unsigned taken = src->held + src->wanted + src->base.busy;
    unsigned left = src->prefetch > taken ? src->prefetch - taken : 0;
    return left < CLAIM_MAX ? left : CLAIM_MAX;
}

/* Another claim behind those under way only when it is worth its while, and the last one was not
 * told that there is no more. */
static bool
is_worth(const source *src, unsigned n)
{
    unsigned window = src->prefetch == 0 || src->prefetch > 4 * CLAIM_MAX ? 4 * CLAIM_MAX : src->prefetch;
    return src->nclaims == 0
           || (src->nclaims < PC_REDIS_CLAIMS && !src->lean && src->misses == 0 && 4 * n >= window);
}

static int
claim(source *src, unsigned n, pc_err *err)
{
    pc_redis_args *args = &src->args;
    pc_redis_claim *own = &src->claims[(src->first_claim + src->nclaims) % PC_REDIS_CLAIMS];
    if (pc_redis_asked_set(&own->asked, &src->queues, err) < 0) {
        return -1;
    }
    pc_redis_scripts_begin(&src->scripts, PC_SCRIPT_CLAIM,
                           3 + src->names.nsteps * src->queues.len, args);
    pc_redis_args_add(args, src->names.index);
    pc_redis_args_add(args, src->names.unacked);
    pc_redis_keeper_put_held(&src->names, src->keeper.id, args);
    pc_redis_queues_put_lists(&src->queues, &src->names, args);
    pc_redis_args_number(args, n);
    pc_redis_args_str(args, src->keeper.id);
    pc_redis_args_number(args, src->number);
    pc_redis_args_str(args, CLAIM_BYTES);
    pc_redis_args_number(args, src->queues.len);
    pc_redis_args_str(args, src->queues.order == PC_ORDER_ROUND_ROBIN ? "1" : "0");
    pc_redis_queues_put_tails(&src->queues, args);
    own->first = src->number;
    own->wanted = n;
    own->alone = src->nclaims == 0;
    src->nclaims++;
    src->wanted += n;
    src->number += n;
    return pc_redis_args_send(args, src->conn, on_claim, src, err);
}

/* Woken from idleness there is most likely one message: the look follows in the same write. */
int
pc_redis_source_claim(source *src, pc_err *err)
{
    unsigned n = room(src);
    if (!src->is_up || src->paused || src->closing || src->looking || src->dry || n == 0
        || src->queues.len == 0 || src->scripts.loading > 0 || !is_worth(src, n)) {
        return 0;
    }
    bool look_too = src->rung || src->misses > 0;
    if (src->lean && !look_too) {
        src->lean = false;
        return look(src, err);
    }
    src->lean = src->rung = false;
    return claim(src, n, err) < 0 ? -1 : look_too && src->tracking ? look(src, err) : 0;
}

// ---- the bell ----

static void
go_without_bell(source *src, const pc_err *why)
{
    pc_log_write(src->base.log, PC_INFO, "%s; the queues are polled", why->msg);
    src->no_bell = true;
}

static void
on_tracking(void *ctx, const pc_reply *reply, const pc_err *why)
{
    source *src = ctx;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    if (pc_redis_check(src->conn, reply, &err) < 0) {
        pc_redis_bell_close(&src->bell);
        go_without_bell(src, &err);
        return;
    }
    src->tracking = true;
    src->dry = false;
    pc_redis_source_run_soon(src);
}

static void
on_bell_open(void *ctx, int64_t client)
{
    source *src = ctx;
    pc_err err = {0};
    if (!src->is_up) {
        return;
    }
    pc_redis_args_reset(&src->args);
    pc_redis_args_str(&src->args, "CLIENT");
    pc_redis_args_str(&src->args, "TRACKING");
    pc_redis_args_str(&src->args, "ON");
    pc_redis_args_str(&src->args, "REDIRECT");
    pc_redis_args_printf(&src->args, "%lld", (long long)client);
    pc_redis_args_str(&src->args, "OPTIN");
    if (pc_redis_args_send(&src->args, src->conn, on_tracking, src, &err) < 0) {
        pc_redis_source_fail(src, &err);
    }
}

static void
on_ring(void *ctx)
{
    source *src = ctx;
    src->rung = true;
    src->dry = false;
    pc_redis_source_run_soon(src);
}

static void
on_bell_gone(void *ctx, const pc_err *why)
{
    source *src = ctx;
    if (why->code != PC_EIO) {
        go_without_bell(src, why);
    }
    src->tracking = false;
    src->dry = false;
    pc_redis_source_run_soon(src);
}

void
pc_redis_source_tick(void *ctx, pc_mono now)
{
    source *src = ctx;
    pc_err err = {0};
    if (pc_loop_set_timer(src->loop, &src->tick, pc_mono_add(now, src->tracking ? TICK_NS : POLL_NS),
                          &err) < 0) {
        pc_redis_source_fail(src, &err);
        return;
    }
    if (!src->tracking && !src->no_bell && src->ticks++ % BELL_TICKS == 0) {
        (void)pc_redis_bell_connect(&src->bell, NULL);  // polled until it works
    }
    if (pc_redis_fanout_is_wanted(&src->fanout)) {
        (void)pc_redis_fanout_connect(&src->fanout, NULL);  // tried again until it works
    }
    src->dry = src->lean = false;
    pc_redis_source_run_soon(src);
}

const pc_redis_bell_hooks pc_redis_source_bell = {
    .open = on_bell_open,
    .ring = on_ring,
    .gone = on_bell_gone,
};
