/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs on their way through other threads of this process, and back: what the pools threads and asyncio share.
 *
 * DESIGN. The loop's thread owns everything but what `lock` guards: the jobs nobody has taken (`waiting`), those that have come to
 * their end (`finished`), the counts of threads. Who finishes one rings `bell`, an eventfd the loop watches. A start is not worth a
 * wake-up: the loop looks after a millisecond, and at every outcome.
 * A thread cannot be killed: when the pool is destroyed while one is at work, the pool is `orphaned`: who finishes a job then frees
 * it, and the last one to leave frees the pool. The lock is never asked for by who has the interpreter's: the runner may be called under it. */
#ifndef PC_WORK_HANDOFF_H
#define PC_WORK_HANDOFF_H

#include <pthread.h>

#include "work/pool.h"

/* Of what a task wants to have run after it. The loop's thread takes it in hand and then says what came of it, unless it was
 * withdrawn by then (again PC_NO_OFFER). */
typedef enum pc_offer_state { PC_NO_OFFER, PC_OFFER_ASKED, PC_OFFER_IN_HAND, PC_OFFER_GRANTED, PC_OFFER_REFUSED } pc_offer_state;

/* job->slot points here. */
typedef struct pc_handed {
    struct pc_handoff *pool;
    pc_link link;  // waiting or finished: under the lock
    pc_link mine;  // in `given`: loop's thread only
    pc_job *job;
    // under the lock
    unsigned long thread;  // interpreter's id of the thread that runs it, 0: not said
    bool taken;
    bool started;  // the task may have done something
    bool over;
    bool lost;     // over, but by force; it goes back if it has not started
    pc_lost why;
    pc_offer_state offer;
    pc_slice offered;
    // of the pool asyncio, under the lock
    pc_link order;
    unsigned orders;
    bool plain;
    void *run;
    // loop's thread, and who runs it
    bool reported;
    pc_outcome outcome;
    pc_buf memory;
} pc_handed;

typedef struct pc_handoff {
    pc_pool base;
    pthread_mutex_t lock;
    pthread_cond_t gone;
    pthread_cond_t answered;  // an offer
    pc_asking asking;
    int asked;      // offers that wait for an answer
    pc_link waiting;
    pc_link finished;
    pc_link given;  // not reported done
    int live;       // threads that have started and not ended
    int running;    // jobs that are taken and not over
    int in_hand;    // length of `given`
    int wanted;     // as many may be given
    int bell;
    bool quit;
    bool orphaned;  // no owner any more
    pc_watch watch;
    pc_timer look;
    void (*wake)(struct pc_handoff *pool);  // lock held: there is something to take, or `quit`
    void (*fini)(struct pc_handoff *pool);  // before the pool is freed
} pc_handoff;

/* Of a zeroed struct whose wake and fini are set. After a failure the caller destroys it. */
int pc_handoff_init(pc_handoff *pool, const pc_pool_ops *ops, const pc_pool_config *config, pc_loop *loop,
                    const pc_runner *runner, const pc_pool_hooks *hooks, const pc_log *log, pc_err *err);

/* In other threads */

/* Lock held. The next job; NULL: there is none. */
pc_handed *pc_handoff_take(pc_handoff *pool);
void pc_handoff_hand_in(pc_handoff *pool, pc_handed *at, bool lost);
/* For pc_outcome.offer, with `at` for its offer_to: rings, and waits a moment for the answer. */
bool pc_handoff_offer(void *at, pc_slice frame);
/* Lock held, which it lets go: the calling thread ends. The pool may be gone then. */
void pc_handoff_leave(pc_handoff *pool);

/* In the loop's thread */

int pc_handoff_thread(pc_handoff *pool, void (*main)(void *pool), int index, pc_err *err);

/* Ready for the table of a pool */
bool pc_handoff_room(pc_pool *pool, const pc_job *job);
int pc_handoff_submit(pc_pool *pool, pc_job *job, pc_err *err);
void pc_handoff_recall(pc_pool *pool);
int pc_handoff_processes(pc_pool *pool, pid_t *out, int max);
void pc_handoff_stop(pc_pool *pool, pc_mono deadline);
void pc_handoff_destroy(pc_pool *pool);

#endif
