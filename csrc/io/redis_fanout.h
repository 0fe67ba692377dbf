/* SPDX-License-Identifier: BSD-3-Clause */
/* Fanout exchanges of a Redis source: kombu publishes to a channel, and who listens at that moment
 * gets a copy. A connection of its own, which is made when the first such queue is consumed. What is
 * sent while it is down is missed, as with kombu: nobody keeps it.
 *
 * A queue of a fanout exchange is consumed as a list, too: a kombu producer that has not declared the
 * exchange takes it for a direct one and pushes to the queues that are bound. */
#ifndef PC_IO_REDIS_FANOUT_H
#define PC_IO_REDIS_FANOUT_H

#include "io/redis_queues.h"

typedef struct pc_redis_fanout_hooks {
    /* Listening to all channels. */
    void (*ready)(void *ctx);
    void (*message)(void *ctx, const pc_redis_consumer *consumer, pc_slice text);
    /* Not listening any more, or not at all. */
    void (*gone)(void *ctx, const pc_err *why);
    void *ctx;
} pc_redis_fanout_hooks;

typedef struct pc_redis_fanout {
    const pc_redis_queues *queues;
    pc_redis *conn;
    // --
    pc_redis_fanout_hooks hooks;
    size_t unconfirmed;  // subscriptions until ready() is told
    bool told;
} pc_redis_fanout;

int pc_redis_fanout_init(pc_redis_fanout *fanout, const pc_redis_config *config, pc_loop *loop,
                         const pc_redis_queues *queues, const pc_redis_fanout_hooks *hooks,
                         pc_err *err);
void pc_redis_fanout_fini(pc_redis_fanout *fanout);
/* Any of the queues has a channel. */
bool pc_redis_fanout_is_wanted(const pc_redis_fanout *fanout);
/* Connects unless it is; ready() or gone() follows. */
int pc_redis_fanout_connect(pc_redis_fanout *fanout, pc_err *err);
/* One queue more, or less, while the source is up. */
int pc_redis_fanout_add(pc_redis_fanout *fanout, const pc_redis_consumer *consumer, pc_err *err);
void pc_redis_fanout_drop(pc_redis_fanout *fanout, const pc_redis_consumer *consumer);
void pc_redis_fanout_close(pc_redis_fanout *fanout);
void pc_redis_fanout_abandon(pc_redis_fanout *fanout);

#endif
