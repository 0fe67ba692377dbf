/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads of the interpreter. A thread sleeps on `work`, takes a job, runs it and hands it in. There are never more
 * jobs than threads, so a job never waits behind a running one. */
#include "base/mem.h"
#include "work/handoff.h"

typedef struct threads {
    pc_handoff hand;
    pthread_cond_t work;
} threads;

static void
wake(pc_handoff *hand)
{
    threads *pool = (threads *)hand;

    if (hand->quit) {
        pthread_cond_broadcast(&pool->work);
    } else {
        pthread_cond_signal(&pool->work);
    }
}

static void
fini(pc_handoff *hand)
{
    pthread_cond_destroy(&((threads *)hand)->work);
}

/* --- in the threads ---------------------------------------------------- */

/* NULL: the thread has left. */
static pc_handed *
take(threads *pool)
{
    pc_handoff *hand = &pool->hand;

    pthread_mutex_lock(&hand->lock);
    while (!hand->quit && hand->live <= hand->wanted && pc_list_empty(&hand->waiting)) {
        pthread_cond_wait(&pool->work, &hand->lock);
    }
    pc_handed *got = pc_handoff_take(hand);
    if (got == NULL) {
        pc_handoff_leave(hand);
        return NULL;
    }
    got->started = true;
    got->thread = hand->base.runner->thread_id(hand->base.runner->ctx);
    pthread_mutex_unlock(&hand->lock);
    return got;
}

static void
thread_main(void *ctx)
{
    threads *pool = ctx;
    const pc_runner *runner = pool->hand.base.runner;
    pc_handed *at;

    while ((at = take(pool)) != NULL) {
        at->outcome.offer = pc_handoff_offer;
        at->outcome.offer_to = at;
        runner->run(runner->ctx, pc_job_frame(at->job), &at->outcome, &at->memory);
        pc_handoff_hand_in(&pool->hand, at, false);
    }
}

/* --- in the loop's thread ---------------------------------------------- */

static pc_pool *
create(const pc_pool_config *config, pc_loop *loop, const pc_runner *runner,
       const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    threads *pool = pc_zalloc(sizeof(*pool));

    if (pool == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pool->hand.wake = wake;
    pool->hand.fini = fini;
    pthread_cond_init(&pool->work, NULL);
    if (pc_handoff_init(&pool->hand, &pc_pool_threads, config, loop, runner, hooks, log, err) < 0) {
        pc_handoff_destroy(&pool->hand.base);
        return NULL;
    }
    return &pool->hand.base;
}

static int
resize(pc_pool *base, int size, pc_err *err)
{
    threads *pool = (threads *)base;
    pc_handoff *hand = &pool->hand;

    if (size < 1) {
        return pc_fail(err, PC_EDATA, "a pool needs at least one thread, not %d", size);
    }
    pthread_mutex_lock(&hand->lock);
    hand->wanted = size;
    int missing = size - hand->live;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&hand->lock);
    for (int i = 0; i < missing; i++) {
        if (pc_handoff_thread(hand, thread_main, size - missing + i, err) < 0) {
            pthread_mutex_lock(&hand->lock);
            hand->wanted = hand->live;  // or jobs would wait for threads that are not there
            pthread_mutex_unlock(&hand->lock);
            return -1;
        }
    }
    return 0;
}

static int
start(pc_pool *base, pc_err *err)
{
    if (resize(base, base->config.size, err) < 0) {
        return -1;
    }
    base->hooks.child(base->hooks.ctx, 0, 0, true, NULL);
    return 0;
}

static int
soft_limit(pc_pool *base, pc_job *job, pc_err *err)
{
    pc_handoff *hand = (pc_handoff *)base;
    pc_handed *at = job->slot;

    // under the lock, so that it is this task that is interrupted, and not the thread's next
    pthread_mutex_lock(&hand->lock);
    int rc = at->over ? 0 : base->runner->interrupt(base->runner->ctx, at->thread);
    pthread_mutex_unlock(&hand->lock);
    if (rc < 0) {
        return pc_fail(err, PC_ESTATE, "the thread that ran the task is gone");
    }
    return 0;
}

static int
kill_job(pc_pool *base, pc_job *job, int signum, pc_lost why, pc_err *err)
{
    (void)base;
    (void)job;
    (void)signum;
    (void)why;
    return pc_fail(err, PC_EUNSUP, "the threads pool cannot end a running task by force");
}

const pc_pool_ops pc_pool_threads = {
    .name = "threads",
    .create = create,
    .start = start,
    .room = pc_handoff_room,
    .submit = pc_handoff_submit,
    .soft_limit = soft_limit,
    .kill = kill_job,
    .recall = pc_handoff_recall,
    .resize = resize,
    .processes = pc_handoff_processes,
    .stop = pc_handoff_stop,
    .destroy = pc_handoff_destroy,
};
