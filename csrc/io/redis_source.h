/* SPDX-License-Identifier: BSD-3-Clause */
/* The Redis source between its files: source_redis.c connects and answers to the owner (DESIGN is
 * there), redis_claim.c takes messages out and waits for them. */
#ifndef PC_IO_REDIS_SOURCE_H
#define PC_IO_REDIS_SOURCE_H

#include "io/broker.h"
#include "io/redis_bell.h"
#include "io/redis_keeper.h"
#include "io/redis_queues.h"
#include "io/redis_settle.h"

#define PC_REDIS_EPOCH_SHIFT 48

typedef struct pc_redis_source {
    pc_source base;
    pc_loop *loop;
    pc_redis *conn;
    pc_redis_names names;
    pc_redis_scripts scripts;
    pc_redis_keeper keeper;
    pc_redis_settler settler;
    pc_redis_bell bell;
    pc_redis_queues queues;
    pc_redis_args args;
    pc_buf scratch;
    // --
    bool is_up;
    bool paused;
    bool closing;
    bool drained;
    bool claiming;
    bool looking;   // EXISTS is under way
    bool dry;       // the lists are empty: wait for the bell
    bool rung;      // since the last EXISTS was sent
    bool lean;      // the last claim found less than it asked for
    bool tracking;
    bool no_bell;   // refused on this connection
    unsigned misses;  // claims in a row that found nothing although EXISTS had said there is something
    unsigned ticks;
    unsigned asked;
    unsigned prefetch;
    unsigned held;    // unsettled
    uint64_t epoch;
    uint64_t number;  // of the next message
    pc_mono complained;
    pc_defer flush;
    pc_timer tick;
} pc_redis_source;

/* The turn ends with a flush. */
void pc_redis_source_run_soon(pc_redis_source *src);
/* The connection is of no use; down() is told, once. From the loop's callbacks. */
void pc_redis_source_fail(pc_redis_source *src, const pc_err *why);
/* A command was refused: does what that calls for. */
void pc_redis_source_refused(pc_redis_source *src, const pc_err *why);
/* Logs, but at most one line a minute. */
void pc_redis_source_complain(pc_redis_source *src, const pc_err *why);

/* Claims as many messages as there is room, unless the bell has to ring first. */
int pc_redis_source_claim(pc_redis_source *src, pc_err *err);
/* The clock of the claims: looks now and then, whatever the bell says. */
void pc_redis_source_tick(void *ctx, pc_mono now);
extern const pc_redis_bell_hooks pc_redis_source_bell;  // without ctx

#endif
