/* SPDX-License-Identifier: BSD-3-Clause */
/* One event loop of the interpreter, in one thread, with many tasks under way at once.
 *
 * DESIGN. The thread sleeps in its event loop, which watches `call`, an eventfd; it takes jobs and orders (soft limit, kill) from
 * here and hands in what has ended. A task that is an ordinary function runs in a thread the event loop's side has for it: it can be
 * interrupted as one of the pool of threads, and no more. A coroutine is cancelled; that is over when it says so. One that keeps
 * the event loop from turning is interrupted by strike(). When the thread ends and was not told to, it begins again. */
#include "work/line.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define ORDER_SOFT 1u
#define ORDER_KILL 2u
/* What is cancelled may have something to clean up. */
#define LEAST_STOP_NS (3 * PC_NS_PER_SEC)
/* Before an event loop that has failed is tried again. */
#define AGAIN_NS PC_NS_PER_SEC

struct pc_line {
    pc_handoff hand;
    int call;
    // under the lock
    pc_link orders;
    bool called;
};

static void
wake(pc_handoff *hand)
{
    pc_line *line = (pc_line *)hand;
    uint64_t one = 1;

    if (!line->called) {
        line->called = write(line->call, &one, sizeof(one)) > 0;
    }
}

static void
fini(pc_handoff *hand)
{
    pc_line *line = (pc_line *)hand;

    if (line->call >= 0) {
        (void)close(line->call);
    }
}

/* --- in the event loop's thread ------------------------------------------ */

int
pc_line_fd(const pc_line *line)
{
    return line->call;
}

static pc_line_item
take_order(pc_line *line)
{
    pc_handed *at = PC_CONTAINER_OF(line->orders.next, pc_handed, order);
    bool soft = at->orders & ORDER_SOFT;

    at->orders &= soft ? ~ORDER_SOFT : ~ORDER_KILL;
    if (at->orders == 0) {
        pc_link_remove(&at->order);
    }
    return (pc_line_item){soft ? PC_LINE_SOFT : PC_LINE_KILL, at};
}

/* Lock held. False: there is nothing. */
static bool
take_one(pc_line *line, pc_line_item *out)
{
    *out = (pc_line_item){PC_LINE_RUN, pc_handoff_take(&line->hand)};
    if (out->at != NULL) {
        return true;
    }
    if (!pc_list_empty(&line->orders)) {
        *out = take_order(line);
        return true;
    }
    out->word = PC_LINE_QUIT;
    return line->hand.quit;
}

size_t
pc_line_take(pc_line *line, pc_line_item *out, size_t max)
{
    uint64_t count;
    size_t len = 0;

    pthread_mutex_lock(&line->hand.lock);
    while (len < max && take_one(line, &out[len]) && out[len++].word != PC_LINE_QUIT) {
    }
    if (len == 0 && line->called) {  // under the lock, so that no call is missed
        line->called = read(line->call, &count, sizeof(count)) < 0;
    }
    pthread_mutex_unlock(&line->hand.lock);
    return len;
}

void
pc_line_begin(pc_line *line, pc_handed *at, void *run, bool plain)
{
    pthread_mutex_lock(&line->hand.lock);
    at->run = run;
    at->plain = plain;
    if (plain) {  // nobody can obey what was ordered in between
        at->orders = 0;
        pc_link_remove(&at->order);
    }
    pthread_mutex_unlock(&line->hand.lock);
}

void
pc_line_start(pc_line *line, pc_handed *at, bool here)
{
    const pc_runner *runner = line->hand.base.runner;

    pthread_mutex_lock(&line->hand.lock);
    at->started = true;
    if (here) {
        at->thread = runner->thread_id(runner->ctx);
    }
    pthread_mutex_unlock(&line->hand.lock);
}

void
pc_line_hand_in(pc_line *line, pc_handed *at, bool lost)
{
    pc_handoff_hand_in(&line->hand, at, lost);
}

/* Lock held. False: it is to quit. */
static bool
wait_again(pc_handoff *hand)
{
    pc_mono end = pc_mono_add(pc_mono_now(), AGAIN_NS);
    struct timespec until = {end.ns / PC_NS_PER_SEC, end.ns % PC_NS_PER_SEC};
    int rc = 0;

    while (!hand->quit && rc == 0) {
        rc = pthread_cond_timedwait(&hand->gone, &hand->lock, &until);
    }
    return !hand->quit;
}

static void
thread_main(void *ctx)
{
    pc_line *line = ctx;
    pc_handoff *hand = &line->hand;
    const pc_runner *runner = hand->base.runner;

    do {
        runner->turn(runner->ctx, line);
        pthread_mutex_lock(&hand->lock);
    } while (wait_again(hand) && pthread_mutex_unlock(&hand->lock) == 0);
    pc_handoff_leave(hand);
}

/* --- in the loop's thread ------------------------------------------------ */

static pc_pool *
create(const pc_pool_config *config, pc_loop *loop, const pc_runner *runner,
       const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    pc_line *line = pc_zalloc(sizeof(*line));

    if (line == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    line->hand.wake = wake;
    line->hand.fini = fini;
    line->hand.wanted = config->size;
    pc_link_init(&line->orders);
    line->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = pc_handoff_init(&line->hand, &pc_pool_asyncio, config, loop, runner, hooks, log, err);
    if (rc == 0 && line->call < 0) {
        rc = pc_fail_errno(err, PC_EIO, "eventfd");
    }
    if (rc < 0) {
        pc_handoff_destroy(&line->hand.base);
        return NULL;
    }
    return &line->hand.base;
}

static int
start(pc_pool *base, pc_err *err)
{
    if (pc_handoff_thread((pc_handoff *)base, thread_main, 0, err) < 0) {
        return -1;
    }
    base->hooks.child(base->hooks.ctx, 0, 0, true, NULL);
    return 0;
}

static int
resize(pc_pool *base, int size, pc_err *err)
{
    if (size < 1) {
        return pc_fail(err, PC_EDATA, "a pool needs room for at least one task, not %d", size);
    }
    ((pc_handoff *)base)->wanted = size;
    return 0;
}

/* Lock held. */
static void
give_order(pc_line *line, pc_handed *at, unsigned order)
{
    at->orders |= order;
    if (!pc_link_in(&at->order)) {
        pc_list_put_back(&line->orders, &at->order);
    }
    wake(&line->hand);
}

static int
soft_limit(pc_pool *base, pc_job *job, pc_err *err)
{
    pc_line *line = (pc_line *)base;
    pc_handed *at = job->slot;
    const pc_runner *runner = base->runner;
    int rc = 0;

    pthread_mutex_lock(&line->hand.lock);
    if (at->plain && at->thread != 0 && !at->over) {
        rc = runner->interrupt(runner->ctx, at->thread);
    } else if (!at->plain && !at->over && (at->run == NULL || !runner->strike(runner->ctx, at->run, true))) {
        give_order(line, at, ORDER_SOFT);
    }
    pthread_mutex_unlock(&line->hand.lock);
    if (rc < 0) {
        return pc_fail(err, PC_ESTATE, "the thread that ran the task is gone");
    }
    return 0;
}

static int
kill_job(pc_pool *base, pc_job *job, int signum, pc_lost why, pc_err *err)
{
    pc_line *line = (pc_line *)base;
    pc_handed *at = job->slot;
    int rc = 0;

    (void)signum;
    pthread_mutex_lock(&line->hand.lock);
    if (at->plain) {
        rc = pc_fail(err, PC_EUNSUP, "the asyncio pool can end coroutines by force, but not a plain function that runs in a thread");
    } else if (!at->over) {
        at->why = why;
        give_order(line, at, ORDER_KILL);
        if (at->run != NULL) {  // under the lock, so that it is still that run
            (void)base->runner->strike(base->runner->ctx, at->run, false);
        }
    }
    pthread_mutex_unlock(&line->hand.lock);
    return rc;
}

static void
stop(pc_pool *base, pc_mono deadline)
{
    pc_mono least = pc_mono_add(pc_mono_now(), LEAST_STOP_NS);

    pc_handoff_stop(base, deadline.ns < least.ns ? least : deadline);
}

const pc_pool_ops pc_pool_asyncio = {
    .name = "asyncio",
    .create = create,
    .start = start,
    .room = pc_handoff_room,
    .submit = pc_handoff_submit,
    .soft_limit = soft_limit,
    .kill = kill_job,
    .recall = pc_handoff_recall,
    .resize = resize,
    .processes = pc_handoff_processes,
    .stop = stop,
    .destroy = pc_handoff_destroy,
};
