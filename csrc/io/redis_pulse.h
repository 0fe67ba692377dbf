/* SPDX-License-Identifier: BSD-3-Clause */
/* Renews the lease of a worker whose loop stands still because a task runs in it (the solo pool).
 *
 * DESIGN. A thread of its own, with a connection of its own, which sleeps as long as the loop turns: most
 * workers never connect it. Once the loop has not turned for a third of a lease it renews the lease, and
 * goes on until the loop turns again. A process that was stopped (SIGSTOP) has no thread that runs, so its
 * lease ends, and others take its messages. The thread notes when it renewed the lease last: the loop
 * asks for that before it does anything else. `lock` guards all that both use; it is not held over I/O. The
 * thread begins with the first lease and ends in free(). */
#ifndef PC_IO_REDIS_PULSE_H
#define PC_IO_REDIS_PULSE_H

#include "base/clock.h"
#include "io/redis_names.h"

typedef struct pc_redis_pulse pc_redis_pulse;

/* `lease` in seconds. Copies everything. */
pc_redis_pulse *pc_redis_pulse_new(const pc_broker_config *config, pc_slice workers, const char *id,
                                   double lease, pc_err *err);
/* Waits for the thread, at most for an answer that it waits for. */
void pc_redis_pulse_free(pc_redis_pulse *pulse);
/* In a forked child, where the thread is not. */
void pc_redis_pulse_abandon(pc_redis_pulse *pulse);
/* From now on at another server. */
int pc_redis_pulse_redirect(pc_redis_pulse *pulse, const pc_broker_config *config, pc_err *err);

/* A lease has begun. */
int pc_redis_pulse_begin(pc_redis_pulse *pulse, pc_err *err);
/* There is none any more. */
void pc_redis_pulse_end(pc_redis_pulse *pulse);
/* The loop turns. *alive becomes the time of the last renewal, if that is later. False: another worker has
 * ended the lease. */
bool pc_redis_pulse_turn(pc_redis_pulse *pulse, pc_mono now, pc_mono *alive);

#endif
