/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads of the interpreter.
 *
 * DESIGN. The loop's thread owns everything but what `lock` guards: the list of jobs nobody has taken
 * (`waiting`), the lists of started and finished jobs, the count of live threads. A thread
 * sleeps on `work`, takes a job, runs it and puts a finished record; it rings `bell` (an
 * eventfd the loop watches). There are never more jobs than threads, so a job never waits behind a running one. A
 * start is not worth a wake-up: the loop looks after a millisecond, and at every outcome.
 * Shutdown: `quit` is set, all are woken. A thread can't be killed: when the pool is destroyed while one runs on, the
 * pool is `orphaned`: that thread frees the job it runs, and the last one to leave frees the pool. */
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "work/pool.h"

#define START_CHECK_NS PC_NS_PER_MS

/* A job on its way through a thread; job->slot points here. */
typedef struct task {
    pc_link link;  // waiting or finished: under the lock
    pc_link mine;  // in `given`: loop's thread only
    pc_job *job;
    unsigned long thread;  // interpreter's id of the thread that runs it
    bool started;          // under the lock: a thread has it
    bool over;             // under the lock: run() has returned
    bool reported;
    pc_outcome outcome;
    pc_buf memory;
} task;

typedef struct threads {
    pc_pool base;
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_cond_t gone;
    pc_link waiting;
    pc_link finished;
    pc_link given;     // loop's thread only: tasks not reported done
    int live;          // threads that have started and not ended
    int wanted;
    int in_hand;       // length of `given`
    int bell;
    bool quit;
    bool orphaned;     // no owner any more
    pc_watch watch;
    pc_timer look;
} threads;

static void
ring(threads *pool)
{
    uint64_t one = 1;
    ssize_t done = write(pool->bell, &one, sizeof(one));

    (void)done;  // only fails when the counter is full, and then the bell rings already
}

static void
free_task(task *at)
{
    pc_buf_fini(&at->memory);
    pc_free(at);
}

static void
free_pool(threads *pool)
{
    if (pool->bell >= 0) {
        (void)close(pool->bell);
    }
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->gone);
    pthread_mutex_destroy(&pool->lock);
    pc_free(pool);
}

/* --- in the threads ---------------------------------------------------- */

static task *
take_task(threads *pool)
{
    task *got = NULL;
    bool last = false;

    pthread_mutex_lock(&pool->lock);
    while (!pool->quit && pool->live <= pool->wanted && pc_list_empty(&pool->waiting)) {
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    if (!pc_list_empty(&pool->waiting)) {
        got = PC_CONTAINER_OF(pc_list_take_front(&pool->waiting), task, link);
        got->thread = pool->base.runner->thread_id(pool->base.runner->ctx);
        got->started = true;
    } else {
        pool->live--;
        last = pool->orphaned && pool->live == 0;
        pthread_cond_broadcast(&pool->gone);
    }
    pthread_mutex_unlock(&pool->lock);
    if (last) {
        free_pool(pool);
    }
    return got;
}

static void
hand_in(threads *pool, task *at)
{
    pthread_mutex_lock(&pool->lock);
    at->over = true;
    if (pool->orphaned) {
        pc_job_free(at->job);
        free_task(at);
    } else {
        pc_list_put_back(&pool->finished, &at->link);
        ring(pool);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void
thread_main(void *ctx)
{
    threads *pool = ctx;
    const pc_runner *runner = pool->base.runner;
    task *at;

    while ((at = take_task(pool)) != NULL) {
        at->outcome.state = PC_FAILURE;
        runner->run(runner->ctx, pc_job_frame(at->job), &at->outcome, &at->memory);
        hand_in(pool, at);
    }
}

/* --- in the loop's thread ---------------------------------------------- */

static void
report_started(threads *pool, task *at)
{
    if (!at->reported) {
        at->reported = true;
        pool->base.hooks.started(pool->base.hooks.ctx, at->job);
    }
}

static void
report_done(threads *pool, task *at)
{
    pc_job *job = at->job;

    report_started(pool, at);
    pc_link_remove(&at->mine);
    pool->in_hand--;
    job->slot = NULL;
    pool->base.hooks.done(pool->base.hooks.ctx, job, &at->outcome);
    free_task(at);
}

static task *
take_finished(threads *pool)
{
    pthread_mutex_lock(&pool->lock);
    pc_link *link = pc_list_take_front(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
    return link == NULL ? NULL : PC_CONTAINER_OF(link, task, link);
}

static void
report_finished(threads *pool)
{
    task *at;

    while ((at = take_finished(pool)) != NULL) {
        report_done(pool, at);
    }
}

static void
bell_rang(void *ctx, unsigned events)
{
    threads *pool = ctx;
    uint64_t count;

    (void)events;
    ssize_t got = read(pool->bell, &count, sizeof(count));
    (void)got;
    report_finished(pool);
    pool->base.hooks.room(pool->base.hooks.ctx);
}

/* Lock held. A job that runs on leaves the worker's hands: its thread frees it. */
static void
let_go(threads *pool, task *at)
{
    pc_link_remove(&at->mine);
    if (at->started && !at->over) {
        pc_loop_clear_timer(pool->base.loop, &at->job->timer);
        pc_link_remove(&at->job->link);
        return;
    }
    at->job->slot = NULL;
    pc_link_remove(&at->link);
    free_task(at);
}

static void
destroy(pc_pool *base)
{
    threads *pool = (threads *)base;

    if (pool == NULL) {
        return;
    }
    pc_loop_clear_timer(base->loop, &pool->look);
    pc_loop_unwatch(base->loop, &pool->watch);
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    while (!pc_list_empty(&pool->given)) {
        let_go(pool, PC_CONTAINER_OF(pool->given.next, task, mine));
    }
    pool->orphaned = pool->live > 0;
    bool orphaned = pool->orphaned;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    if (!orphaned) {
        free_pool(pool);
    }
}

static bool
has_started(threads *pool, const task *at)
{
    pthread_mutex_lock(&pool->lock);
    bool started = at->started;
    pthread_mutex_unlock(&pool->lock);
    return started;
}

static void
look_for_starts(void *ctx, pc_mono now)
{
    threads *pool = ctx;
    bool open = false;

    for (pc_link *link = pool->given.next; link != &pool->given; link = link->next) {
        task *at = PC_CONTAINER_OF(link, task, mine);
        if (has_started(pool, at)) {
            report_started(pool, at);
        } else {
            open = true;
        }
    }
    if (open) {
        (void)pc_loop_set_timer(pool->base.loop, &pool->look,
                                pc_mono_add(now, START_CHECK_NS), NULL);
    }
}

static pc_pool *
create(const pc_pool_config *config, pc_loop *loop, const pc_runner *runner,
       const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    threads *pool = pc_zalloc(sizeof(*pool));
    pthread_condattr_t attributes;

    if (pool == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pool->base = (pc_pool){&pc_pool_threads, *config, *hooks, runner, log, loop};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->gone, &attributes);
    pthread_condattr_destroy(&attributes);
    pc_link_init(&pool->waiting);
    pc_link_init(&pool->finished);
    pc_link_init(&pool->given);
    pc_timer_init(&pool->look, look_for_starts, pool);
    pool->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->bell < 0) {
        pc_fail_errno(err, PC_EIO, "eventfd");
        goto fail;
    }
    pc_watch_init(&pool->watch, pool->bell, bell_rang, pool);
    if (pc_loop_watch(loop, &pool->watch, PC_READ, err) < 0) {
        goto fail;
    }
    return &pool->base;

fail:
    destroy(&pool->base);
    return NULL;
}

static int
start_thread(threads *pool, int index, pc_err *err)
{
    const pc_runner *runner = pool->base.runner;

    pthread_mutex_lock(&pool->lock);
    pool->live++;
    pthread_mutex_unlock(&pool->lock);
    if (runner->thread(runner->ctx, thread_main, pool, index, err) == 0) {
        return 0;
    }
    pthread_mutex_lock(&pool->lock);
    pool->live--;
    pthread_mutex_unlock(&pool->lock);
    return -1;
}

static int
resize(pc_pool *base, int size, pc_err *err)
{
    threads *pool = (threads *)base;

    if (size < 1) {
        return pc_fail(err, PC_EDATA, "a pool needs at least one thread, not %d", size);
    }
    pthread_mutex_lock(&pool->lock);
    pool->wanted = size;
    int missing = size - pool->live;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < missing; i++) {
        if (start_thread(pool, size - missing + i, err) < 0) {
            pthread_mutex_lock(&pool->lock);
            pool->wanted = pool->live;  // or jobs would wait for threads that are not there
            pthread_mutex_unlock(&pool->lock);
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

static bool
room(pc_pool *base, const pc_job *job)
{
    threads *pool = (threads *)base;

    (void)job;
    return pool->in_hand < pool->wanted;
}

static int
submit(pc_pool *base, pc_job *job, pc_err *err)
{
    threads *pool = (threads *)base;
    task *at = pc_zalloc(sizeof(*at));

    if (at == NULL) {
        return pc_fail_nomem(err);
    }
    at->job = job;
    at->outcome.want_notes = job->wants_events;
    pc_buf_init(&at->memory);
    pc_link_init(&at->link);
    pc_link_init(&at->mine);
    job->slot = at;
    pc_list_put_back(&pool->given, &at->mine);
    pool->in_hand++;
    pthread_mutex_lock(&pool->lock);
    pc_list_put_back(&pool->waiting, &at->link);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    if (pool->look.node.place == 0) {
        (void)pc_loop_set_timer(base->loop, &pool->look,
                                pc_mono_add(pc_mono_now(), START_CHECK_NS), NULL);
    }
    return 0;
}

static int
soft_limit(pc_pool *base, pc_job *job, pc_err *err)
{
    threads *pool = (threads *)base;
    task *at = job->slot;

    // under the lock, so that it is this task that is interrupted, and not the thread's next
    pthread_mutex_lock(&pool->lock);
    int rc = at->over ? 0 : base->runner->interrupt(base->runner->ctx, at->thread);
    pthread_mutex_unlock(&pool->lock);
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

static void
recall(pc_pool *base)
{
    threads *pool = (threads *)base;
    pc_link *link;

    for (;;) {
        pthread_mutex_lock(&pool->lock);
        link = pc_list_empty(&pool->waiting) ? NULL : pool->waiting.prev;
        if (link != NULL) {
            pc_link_remove(link);
        }
        pthread_mutex_unlock(&pool->lock);
        if (link == NULL) {
            return;
        }
        task *at = PC_CONTAINER_OF(link, task, link);
        pc_job *job = at->job;
        pc_link_remove(&at->mine);
        pool->in_hand--;
        job->slot = NULL;
        free_task(at);
        base->hooks.back(base->hooks.ctx, job);
    }
}

static int
processes(pc_pool *base, pid_t *out, int max)
{
    (void)base;
    (void)out;
    (void)max;
    return 0;
}

static void
stop(pc_pool *base, pc_mono deadline)
{
    threads *pool = (threads *)base;
    struct timespec until = {deadline.ns / PC_NS_PER_SEC, deadline.ns % PC_NS_PER_SEC};

    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->work);
    while (pool->live > 0) {
        if (pthread_cond_timedwait(&pool->gone, &pool->lock, &until) != 0) {
            break;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    report_finished(pool);
    base->hooks.child(base->hooks.ctx, 0, 0, false, NULL);
}

const pc_pool_ops pc_pool_threads = {
    .name = "threads",
    .create = create,
    .start = start,
    .room = room,
    .submit = submit,
    .soft_limit = soft_limit,
    .kill = kill_job,
    .recall = recall,
    .resize = resize,
    .processes = processes,
    .stop = stop,
    .destroy = destroy,
};
