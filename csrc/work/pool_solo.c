/* SPDX-License-Identifier: BSD-3-Clause */
/* One task at a time, in the loop's own thread.
 *
 * DESIGN. submit() reports the start, which makes the worker send the ack of an early-ack
 * task; the task itself runs from a timer that is due at once, that is after the next
 * flush: so the ack is on its way before the body starts. */
#include "base/mem.h"
#include "work/pool.h"

typedef struct solo {
    pc_pool base;
    pc_job *job;
    pc_job *next;  // granted to the one that runs
    pc_timer run;
    pc_buf memory;
} solo;

static bool
offer(void *to, pc_slice frame)
{
    solo *pool = to;

    return pool->next == NULL && pool->base.hooks.follow(pool->base.hooks.ctx, pool->job, frame);
}

static int
start_job(solo *pool, pc_job *job, pc_err *err)
{
    if (pc_loop_set_timer(pool->base.loop, &pool->run, (pc_mono){0}, err) < 0) {
        return -1;
    }
    pool->job = job;
    pool->base.hooks.started(pool->base.hooks.ctx, job);
    return 0;
}

static void
start_next(solo *pool)
{
    pc_job *next = pool->next;

    pool->next = NULL;
    if (next != NULL && start_job(pool, next, NULL) < 0) {
        next->slot = NULL;
        pool->base.hooks.back(pool->base.hooks.ctx, next);
    }
}

static void
run_job(void *ctx, pc_mono now)
{
    solo *pool = ctx;
    pc_job *job = pool->job;
    pc_outcome outcome = {.state = PC_FAILURE, .want_notes = job->wants_events, .offer = offer, .offer_to = pool};

    (void)now;
    pc_buf_reset(&pool->memory, 1 << 20);
    pool->base.runner->run(pool->base.runner->ctx, pc_job_frame(job), &outcome,
                           &pool->memory);
    pool->job = NULL;
    job->slot = NULL;
    pool->base.hooks.done(pool->base.hooks.ctx, job, &outcome);
    start_next(pool);
    pool->base.hooks.room(pool->base.hooks.ctx);
}

static void
destroy(pc_pool *base)
{
    solo *pool = (solo *)base;

    if (pool == NULL) {
        return;
    }
    pc_loop_clear_timer(base->loop, &pool->run);
    pc_buf_fini(&pool->memory);
    pc_free(pool);
}

static pc_pool *
create(const pc_pool_config *config, pc_loop *loop, const pc_runner *runner,
       const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    solo *pool = pc_zalloc(sizeof(*pool));

    if (pool == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pool->base = (pc_pool){&pc_pool_solo, *config, *hooks, runner, log, loop};
    pc_timer_init(&pool->run, run_job, pool);
    pc_buf_init(&pool->memory);
    return &pool->base;
}

static int
start(pc_pool *base, pc_err *err)
{
    (void)err;
    base->hooks.child(base->hooks.ctx, 0, 0, true, NULL);
    return 0;
}

static bool
room(pc_pool *base, const pc_job *job)
{
    (void)job;
    return ((solo *)base)->job == NULL && ((solo *)base)->next == NULL;
}

static int
submit(pc_pool *base, pc_job *job, pc_err *err)
{
    solo *pool = (solo *)base;

    job->slot = pool;
    if (pool->job != NULL) {  // it runs, and has offered this one
        pool->next = job;
        return 0;
    }
    return start_job(pool, job, err);
}

static int
soft_limit(pc_pool *base, pc_job *job, pc_err *err)
{
    (void)base;
    (void)job;
    return pc_fail(err, PC_EUNSUP, "the solo pool cannot enforce time limits");
}

static int
kill_job(pc_pool *base, pc_job *job, int signum, pc_lost why, pc_err *err)
{
    (void)base;
    (void)job;
    (void)signum;
    (void)why;
    return pc_fail(err, PC_EUNSUP, "the solo pool cannot end a running task");
}

/* What was given counts as started, but for the next of a chain. */
static void
recall(pc_pool *base)
{
    solo *pool = (solo *)base;
    pc_job *next = pool->next;

    if (next != NULL) {
        pool->next = NULL;
        next->slot = NULL;
        base->hooks.back(base->hooks.ctx, next);
    }
}

static int
resize(pc_pool *base, int size, pc_err *err)
{
    (void)base;
    return size == 1 ? 0 : pc_fail(err, PC_EUNSUP, "the solo pool always has size 1");
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
    (void)deadline;
    base->hooks.child(base->hooks.ctx, 0, 0, false, NULL);
}

const pc_pool_ops pc_pool_solo = {
    .name = "solo",
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
