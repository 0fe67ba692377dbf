/* SPDX-License-Identifier: BSD-3-Clause */
/* The Redis source between its files: source_redis.c connects and answers to the owner (DESIGN is
 * there), redis_claim.c takes messages out and waits for them. */
#ifndef PC_IO_REDIS_SOURCE_H
#define PC_IO_REDIS_SOURCE_H

#include "io/broker.h"
#include "io/redis_bell.h"
#include "io/redis_fanout.h"
#include "io/redis_keeper.h"
#include "io/redis_queues.h"
#include "io/redis_settle.h"

#define PC_REDIS_EPOCH_SHIFT 48
#define PC_REDIS_CLAIMS 4u  // under way at once

typedef struct pc_redis_claim {
    uint64_t first;   // number of its first message
    unsigned wanted;  // messages
    bool alone;       // no other was under way
    pc_redis_asked asked;
} pc_redis_claim;

typedef struct pc_redis_source {
    pc_source base;
    pc_loop *loop;
    pc_redis *conn;
    pc_redis_names names;
    pc_redis_scripts scripts;
    pc_redis_keeper keeper;
    pc_redis_settler settler;
    pc_redis_bell bell;
    pc_redis_fanout fanout;
    pc_redis_queues queues;
    pc_redis_args args;
    pc_buf scratch;
    // --
    bool is_up;
    bool paused;
    bool closing;
    bool drained;
    bool looking;   // EXISTS is under way
    bool dry;       // the lists are empty: wait for the bell
    bool rung;      // since the last EXISTS was sent
    bool lean;      // the last claim found less than it asked for
    bool tracking;
    bool no_bell;   // refused on this connection
    unsigned misses;  // lone claims in a row that found nothing although EXISTS had said there is something
    unsigned ticks;
    uint32_t depth_of;  // id of the consumer whose queue is looked at (redis_depth.c), 0: none
    unsigned prefetch;
    unsigned held;    // unsettled
    unsigned nclaims; // under way; the oldest is claims[first_claim]
    unsigned first_claim;
    unsigned wanted;  // by all claims under way
    pc_redis_claim claims[PC_REDIS_CLAIMS];
    uint64_t epoch;
    uint64_t last_epoch;  // of the connection on which messages were held last
    bool returned;        // what was held on the one before has gone back, or is about to
    uint64_t number;  // of the next message
    pc_mono complained;
    pc_defer flush;
    pc_timer tick;
} pc_redis_source;

/* redis_depth.c; look() of the source. */
void pc_redis_source_look(pc_source *base);
/* The turn ends with a flush. */
void pc_redis_source_run_soon(pc_redis_source *src);
/* The connection is of no use; down() is told, once. From the loop's callbacks. */
void pc_redis_source_fail(pc_redis_source *src, const pc_err *why);
/* A command was refused: does what that calls for. */
void pc_redis_source_refused(pc_redis_source *src, const pc_err *why);
/* Logs, but at most one line a minute. */
void pc_redis_source_complain(pc_redis_source *src, const pc_err *why);

/* Claims as many messages as there is room, unless the bell has to ring first, or enough is under way. */
int pc_redis_source_claim(pc_redis_source *src, pc_err *err);
/* A message of a fanout exchange: there is nothing to settle. */
void pc_redis_source_broadcast(void *ctx, const pc_redis_consumer *consumer, pc_slice text);
/* The clock of the claims: looks now and then, whatever the bell says. */
void pc_redis_source_tick(void *ctx, pc_mono now);
extern const pc_redis_bell_hooks pc_redis_source_bell;  // without ctx

#endif
