/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_fanout.h"

static pc_slice
channel_of(const pc_redis_consumer *c)
{
    return pc_buf_slice(&c->channel);
}

/* The queue with the lowest number above `id` that listens to the channel, or NULL. */
static const pc_redis_consumer *
next_on(const pc_redis_fanout *f, pc_slice channel, uint32_t id)
{
    const pc_redis_consumer *found = NULL;
    for (pc_link *at = f->queues->list.next; at != &f->queues->list; at = at->next) {
        const pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (c->id > id && (found == NULL || c->id < found->id) && pc_slice_eq(channel_of(c), channel)) {
            found = c;
        }
    }
    return found;
}

static void
close_with(pc_redis_fanout *f, const pc_err *why)
{
    pc_redis_fanout_close(f);
    f->hooks.gone(f->hooks.ctx, why);
}

static int
tell(pc_redis_fanout *f, const char *verb, const pc_redis_consumer *c, pc_err *err)
{
    pc_slice words[] = {pc_slice_str(verb), channel_of(c)};
    return pc_redis_subscribe(f->conn, 2, words, err);
}

static void
on_up(void *ctx)
{
    pc_redis_fanout *f = ctx;
    pc_err err = {0};
    f->told = false;
    f->unconfirmed = 0;
    for (pc_link *at = f->queues->list.next; at != &f->queues->list; at = at->next) {
        const pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (channel_of(c).len == 0) {
            continue;
        }
        if (tell(f, "PSUBSCRIBE", c, &err) < 0) {
            close_with(f, &err);
            return;
        }
        f->unconfirmed++;
    }
    if (f->unconfirmed == 0) {  // the queues it was made for were dropped since
        f->told = true;
        f->hooks.ready(f->hooks.ctx);
    }
}

static void
on_down(void *ctx, const pc_err *why)
{
    pc_redis_fanout *f = ctx;
    f->hooks.gone(f->hooks.ctx, why);
}

/* Whoever gets the message may change the queues: the next one is looked for anew. */
static void
hand_out(pc_redis_fanout *f, pc_slice channel, pc_slice text)
{
    const pc_redis_consumer *c = NULL;
    for (uint32_t id = 0; channel.len > 0 && (c = next_on(f, channel, id)) != NULL;) {
        id = c->id;
        f->hooks.message(f->hooks.ctx, c, text);
    }
}

static void
on_message(void *ctx, const pc_reply *reply)
{
    pc_redis_fanout *f = ctx;
    pc_err err = {0};
    if (pc_redis_check(f->conn, reply, &err) < 0) {
        close_with(f, &err);
        return;
    }
    if (reply->type != PC_REPLY_ARRAY || reply->len < 3) {
        return;
    }
    if (reply->len == 4 && pc_slice_is(reply->children[0]->text, "pmessage")) {
        hand_out(f, reply->children[1]->text, reply->children[3]->text);
    } else if (!f->told && pc_slice_is(reply->children[0]->text, "psubscribe")
               && --f->unconfirmed == 0) {
        f->told = true;
        f->hooks.ready(f->hooks.ctx);
    }
}

int
pc_redis_fanout_init(pc_redis_fanout *f, const pc_redis_config *config, pc_loop *loop,
                     const pc_redis_queues *queues, const pc_redis_fanout_hooks *hooks, pc_err *err)
{
    *f = (pc_redis_fanout){.queues = queues, .hooks = *hooks};
    pc_redis_hooks mine = {.up = on_up, .down = on_down, .message = on_message, .ctx = f};
    f->conn = pc_redis_new(config, loop, &mine, err);
    return f->conn == NULL ? -1 : 0;
}

void
pc_redis_fanout_fini(pc_redis_fanout *f)
{
    pc_redis_free(f->conn);
    f->conn = NULL;
}

bool
pc_redis_fanout_is_wanted(const pc_redis_fanout *f)
{
    for (pc_link *at = f->queues->list.next; at != &f->queues->list; at = at->next) {
        if (channel_of(PC_CONTAINER_OF(at, pc_redis_consumer, link)).len > 0) {
            return true;
        }
    }
    return false;
}

int
pc_redis_fanout_connect(pc_redis_fanout *f, pc_err *err)
{
    return pc_redis_connect(f->conn, err);
}

int
pc_redis_fanout_add(pc_redis_fanout *f, const pc_redis_consumer *c, pc_err *err)
{
    if (channel_of(c).len == 0) {
        return 0;
    }
    if (!pc_redis_is_up(f->conn)) {
        return pc_redis_fanout_connect(f, err);  // which subscribes to all
    }
    f->unconfirmed += !f->told;
    return tell(f, "PSUBSCRIBE", c, err);
}

static bool
is_alone(const pc_redis_fanout *f, const pc_redis_consumer *c)
{
    return next_on(f, channel_of(c), 0) == c && next_on(f, channel_of(c), c->id) == NULL;
}

/* Failing does no harm: what comes for it finds no queue. */
void
pc_redis_fanout_drop(pc_redis_fanout *f, const pc_redis_consumer *c)
{
    if (channel_of(c).len > 0 && pc_redis_is_up(f->conn) && is_alone(f, c)) {
        (void)tell(f, "PUNSUBSCRIBE", c, NULL);
    }
}

void
pc_redis_fanout_close(pc_redis_fanout *f)
{
    pc_redis_close(f->conn);
}

void
pc_redis_fanout_abandon(pc_redis_fanout *f)
{
    pc_redis_abandon(f->conn);
}
