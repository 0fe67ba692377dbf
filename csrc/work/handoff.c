/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/handoff.h"

#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define START_CHECK_NS PC_NS_PER_MS
#define PATIENCE_NS (200 * PC_NS_PER_MS)  // an offer waits for a loop that is busy

static void
ring(pc_handoff *pool)
{
    uint64_t one = 1;
    ssize_t done = write(pool->bell, &one, sizeof(one));

    (void)done;  // only fails when the counter is full, and then the bell rings already
}

static void
free_handed(pc_handed *at)
{
    pc_buf_fini(&at->memory);
    pc_free(at);
}

static void
free_pool(pc_handoff *pool)
{
    pool->fini(pool);
    if (pool->bell >= 0) {
        (void)close(pool->bell);
    }
    pthread_cond_destroy(&pool->gone);
    pthread_cond_destroy(&pool->answered);
    pthread_mutex_destroy(&pool->lock);
    pc_free(pool);
}

/* --- in other threads ---------------------------------------------------- */

/* Lock held, which it lets go. */
static void
unlock_for_good(pc_handoff *pool)
{
    bool last = pool->orphaned && pool->live == 0 && pool->running == 0;

    pthread_mutex_unlock(&pool->lock);
    if (last) {
        free_pool(pool);
    }
}

pc_handed *
pc_handoff_take(pc_handoff *pool)
{
    pc_link *link = pc_list_take_front(&pool->waiting);

    if (link == NULL) {
        return NULL;
    }
    pc_handed *at = PC_CONTAINER_OF(link, pc_handed, link);
    at->taken = true;
    at->outcome.state = PC_FAILURE;
    pool->running++;
    return at;
}

void
pc_handoff_hand_in(pc_handoff *pool, pc_handed *at, bool lost)
{
    pthread_mutex_lock(&pool->lock);
    at->over = true;
    at->lost = lost;
    pc_link_remove(&at->order);
    pool->running--;
    if (pool->orphaned) {
        pc_job_free(at->job);
        free_handed(at);
    } else {
        bool first = pc_list_empty(&pool->finished);
        pc_list_put_back(&pool->finished, &at->link);
        if (first) {
            ring(pool);
        }
    }
    unlock_for_good(pool);
}

/* Lock held. */
static bool
wait_for_answer(pc_handed *at)
{
    pc_mono end = pc_mono_add(pc_mono_now(), PATIENCE_NS);
    struct timespec until = {end.ns / PC_NS_PER_SEC, end.ns % PC_NS_PER_SEC};
    int late = 0;

    while (at->offer == PC_OFFER_IN_HAND || (at->offer == PC_OFFER_ASKED && late == 0)) {
        if (at->offer == PC_OFFER_IN_HAND) {
            pthread_cond_wait(&at->pool->answered, &at->pool->lock);
        } else {
            late = pthread_cond_timedwait(&at->pool->answered, &at->pool->lock, &until);
        }
    }
    bool granted = at->offer == PC_OFFER_GRANTED;
    at->offer = PC_NO_OFFER;
    at->pool->asked--;
    return granted;
}

bool
pc_handoff_offer(void *to, pc_slice frame)
{
    pc_handed *at = to;
    pc_handoff *pool = at->pool;
    bool granted = false;

    pthread_mutex_lock(&pool->lock);
    if (!pool->quit && !pc_asking_skips(&pool->asking)) {
        at->offered = frame;
        at->offer = PC_OFFER_ASKED;
        pool->asked++;
        ring(pool);
        granted = pc_asking_note(&pool->asking, wait_for_answer(at));
    }
    pthread_mutex_unlock(&pool->lock);
    return granted;
}

void
pc_handoff_leave(pc_handoff *pool)
{
    pool->live--;
    pthread_cond_broadcast(&pool->gone);
    unlock_for_good(pool);
}

/* --- in the loop's thread ------------------------------------------------ */

static void
report_started(pc_handoff *pool, pc_handed *at)
{
    if (!at->reported) {
        at->reported = true;
        pool->base.hooks.started(pool->base.hooks.ctx, at->job);
    }
}

static void
let_out(pc_handoff *pool, pc_handed *at)
{
    pc_link_remove(&at->mine);
    pool->in_hand--;
    at->job->slot = NULL;
}

static void
report_over(pc_handoff *pool, pc_handed *at)
{
    const pc_pool_hooks *hooks = &pool->base.hooks;
    bool back = at->lost && !at->started;

    if (!back) {
        report_started(pool, at);
    }
    let_out(pool, at);
    if (back) {
        hooks->back(hooks->ctx, at->job);
    } else if (at->lost) {
        hooks->lost(hooks->ctx, at->job, at->why, "cancelled");
    } else {
        hooks->done(hooks->ctx, at->job, &at->outcome);
    }
    free_handed(at);
}

static pc_handed *
take_finished(pc_handoff *pool)
{
    pthread_mutex_lock(&pool->lock);
    pc_link *link = pc_list_take_front(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
    return link == NULL ? NULL : PC_CONTAINER_OF(link, pc_handed, link);
}

static void
report_finished(pc_handoff *pool)
{
    pc_handed *at;

    while ((at = take_finished(pool)) != NULL) {
        report_over(pool, at);
    }
}

static bool
take_offer(pc_handoff *pool, pc_handed *at)
{
    pthread_mutex_lock(&pool->lock);
    bool asked = at->offer == PC_OFFER_ASKED;
    at->offer = asked ? PC_OFFER_IN_HAND : at->offer;
    pthread_mutex_unlock(&pool->lock);
    return asked;
}

static bool
somebody_asks(pc_handoff *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool any = pool->asked > 0;
    pthread_mutex_unlock(&pool->lock);
    return any;
}

/* What is granted stands at the end of `given`. */
static void
answer_offers(pc_handoff *pool)
{
    if (!somebody_asks(pool)) {
        return;
    }
    for (pc_link *link = pool->given.next; link != &pool->given; link = link->next) {
        pc_handed *at = PC_CONTAINER_OF(link, pc_handed, mine);
        if (!take_offer(pool, at)) {
            continue;
        }
        report_started(pool, at);
        bool granted = pool->base.hooks.follow(pool->base.hooks.ctx, at->job, at->offered);
        pthread_mutex_lock(&pool->lock);
        at->offer = granted ? PC_OFFER_GRANTED : PC_OFFER_REFUSED;
        pthread_cond_broadcast(&pool->answered);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void
bell_rang(void *ctx, unsigned events)
{
    pc_handoff *pool = ctx;
    uint64_t count;

    (void)events;
    ssize_t got = read(pool->bell, &count, sizeof(count));
    (void)got;
    report_finished(pool);
    answer_offers(pool);
    pool->base.hooks.room(pool->base.hooks.ctx);
}

static bool
has_started(pc_handoff *pool, const pc_handed *at)
{
    pthread_mutex_lock(&pool->lock);
    bool started = at->started;
    pthread_mutex_unlock(&pool->lock);
    return started;
}

static void
look_for_starts(void *ctx, pc_mono now)
{
    pc_handoff *pool = ctx;
    bool open = false;

    for (pc_link *link = pool->given.next; link != &pool->given; link = link->next) {
        pc_handed *at = PC_CONTAINER_OF(link, pc_handed, mine);
        if (has_started(pool, at)) {
            report_started(pool, at);
        } else {
            open = true;
        }
    }
    if (open) {
        (void)pc_loop_set_timer(pool->base.loop, &pool->look, pc_mono_add(now, START_CHECK_NS), NULL);
    }
}

int
pc_handoff_init(pc_handoff *pool, const pc_pool_ops *ops, const pc_pool_config *config, pc_loop *loop,
                const pc_runner *runner, const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    pthread_condattr_t attributes;

    pool->base = (pc_pool){ops, *config, *hooks, runner, log, loop};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->gone, &attributes);
    pthread_cond_init(&pool->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    pc_link_init(&pool->waiting);
    pc_link_init(&pool->finished);
    pc_link_init(&pool->given);
    pc_timer_init(&pool->look, look_for_starts, pool);
    pool->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->bell < 0) {
        return pc_fail_errno(err, PC_EIO, "eventfd");
    }
    pc_watch_init(&pool->watch, pool->bell, bell_rang, pool);
    return pc_loop_watch(loop, &pool->watch, PC_READ, err);
}

int
pc_handoff_thread(pc_handoff *pool, void (*main)(void *pool), int index, pc_err *err)
{
    const pc_runner *runner = pool->base.runner;

    pthread_mutex_lock(&pool->lock);
    pool->live++;
    pthread_mutex_unlock(&pool->lock);
    if (runner->thread(runner->ctx, main, pool, index, err) == 0) {
        return 0;
    }
    pthread_mutex_lock(&pool->lock);
    pool->live--;
    pthread_mutex_unlock(&pool->lock);
    return -1;
}

bool
pc_handoff_room(pc_pool *base, const pc_job *job)
{
    pc_handoff *pool = (pc_handoff *)base;

    (void)job;
    return pool->in_hand < pool->wanted;
}

int
pc_handoff_submit(pc_pool *base, pc_job *job, pc_err *err)
{
    pc_handoff *pool = (pc_handoff *)base;
    pc_handed *at = pc_zalloc(sizeof(*at));

    if (at == NULL) {
        return pc_fail_nomem(err);
    }
    at->pool = pool;
    at->job = job;
    at->outcome.want_notes = job->wants_events;
    pc_buf_init(&at->memory);
    pc_link_init(&at->link);
    pc_link_init(&at->mine);
    pc_link_init(&at->order);
    job->slot = at;
    pc_list_put_back(&pool->given, &at->mine);
    pool->in_hand++;
    pthread_mutex_lock(&pool->lock);
    pc_list_put_back(&pool->waiting, &at->link);
    pool->wake(pool);
    pthread_mutex_unlock(&pool->lock);
    if (pool->look.node.place == 0) {
        (void)pc_loop_set_timer(base->loop, &pool->look, pc_mono_add(pc_mono_now(), START_CHECK_NS), NULL);
    }
    return 0;
}

void
pc_handoff_recall(pc_pool *base)
{
    pc_handoff *pool = (pc_handoff *)base;

    for (;;) {
        pthread_mutex_lock(&pool->lock);
        pc_link *link = pc_list_empty(&pool->waiting) ? NULL : pool->waiting.prev;
        if (link != NULL) {
            pc_link_remove(link);
        }
        pthread_mutex_unlock(&pool->lock);
        if (link == NULL) {
            return;
        }
        pc_handed *at = PC_CONTAINER_OF(link, pc_handed, link);
        pc_job *job = at->job;
        let_out(pool, at);
        free_handed(at);
        base->hooks.back(base->hooks.ctx, job);
    }
}

int
pc_handoff_processes(pc_pool *base, pid_t *out, int max)
{
    (void)base;
    (void)out;
    (void)max;
    return 0;
}

void
pc_handoff_stop(pc_pool *base, pc_mono deadline)
{
    pc_handoff *pool = (pc_handoff *)base;
    struct timespec until = {deadline.ns / PC_NS_PER_SEC, deadline.ns % PC_NS_PER_SEC};

    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pool->wake(pool);
    while (pool->live > 0) {
        if (pthread_cond_timedwait(&pool->gone, &pool->lock, &until) != 0) {
            break;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    report_finished(pool);
    base->hooks.child(base->hooks.ctx, 0, 0, false, NULL);
}

/* Lock held. A job that runs on leaves the worker's hands: who finishes it frees it. */
static void
let_go(pc_handoff *pool, pc_handed *at)
{
    pc_link_remove(&at->mine);
    if (at->taken && !at->over) {
        pc_loop_clear_timer(pool->base.loop, &at->job->timer);
        pc_link_remove(&at->job->link);
        return;
    }
    at->job->slot = NULL;
    pc_link_remove(&at->link);
    free_handed(at);
}

void
pc_handoff_destroy(pc_pool *base)
{
    pc_handoff *pool = (pc_handoff *)base;

    if (pool == NULL) {
        return;
    }
    pc_loop_clear_timer(base->loop, &pool->look);
    pc_loop_unwatch(base->loop, &pool->watch);
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    while (!pc_list_empty(&pool->given)) {
        let_go(pool, PC_CONTAINER_OF(pool->given.next, pc_handed, mine));
    }
    pool->orphaned = true;
    pool->wake(pool);
    unlock_for_good(pool);
}
