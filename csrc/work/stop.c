/* SPDX-License-Identifier: BSD-3-Clause */
/* Shutdown, because somebody asks for it or the broker is gone for good. Warm: nothing new, what has not started goes back
 * at once, what runs may finish, its results are stored and acknowledged, then pool and connection end. Cold: what runs is killed first. */
#include <signal.h>

#include "work/machine.h"

/* How long idle processes may take to end, and the broker to say goodbye. */
#define GRACE_NS (5 * PC_NS_PER_SEC)
#define LEAST_GRACE_NS PC_NS_PER_SEC
/* How long results may take when the broker is gone for good: so may be their store. */
#define STORE_GRACE_NS (20 * PC_NS_PER_SEC)

static void
move_list(pc_worker *worker, pc_link *from)
{
    while (!pc_list_empty(from)) {
        pc_job *job = PC_CONTAINER_OF(from->next, pc_job, link);
        pc_worker_unlist(worker, job);
        pc_worker_list(worker, job, PC_JOB_READY, false);
    }
}

static bool
earlier(const pc_link *a, const pc_link *b)
{
    return PC_CONTAINER_OF(a, pc_job, link)->tag < PC_CONTAINER_OF(b, pc_job, link)->tag;
}

/* By delivery. Merges runs of 1, 2, 4, … jobs: no recursion, no memory. */
static void
sort_by_tag(pc_link *list, size_t len)
{
    pc_link left, right, sorted;

    for (size_t run = 1; run < len; run *= 2) {
        pc_link_init(&sorted);
        while (!pc_list_empty(list)) {
            pc_link_init(&left);
            pc_link_init(&right);
            for (size_t i = 0; i < 2 * run && !pc_list_empty(list); i++) {
                pc_list_put_back(i < run ? &left : &right, pc_list_take_front(list));
            }
            while (!pc_list_empty(&left) || !pc_list_empty(&right)) {
                bool from_left = pc_list_empty(&right)
                                 || (!pc_list_empty(&left) && earlier(left.next, right.next));
                pc_list_put_back(&sorted, pc_list_take_front(from_left ? &left : &right));
            }
        }
        while (!pc_list_empty(&sorted)) {
            pc_list_put_back(list, pc_list_take_front(&sorted));
        }
    }
}

/* In order of delivery: what the broker puts back keeps its order then. What only this worker has stays, and is run. */
static void
give_back(pc_worker *worker)
{
    size_t at = 0;
    pc_spec *spec;

    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        move_list(worker, &spec->limited);
        pc_loop_clear_timer(worker->loop, &spec->token);
    }
    move_list(worker, &worker->held);
    sort_by_tag(&worker->ready, worker->ready_len);
    for (pc_link *link = worker->ready.next, *next; link != &worker->ready; link = next) {
        pc_job *job = PC_CONTAINER_OF(link, pc_job, link);
        next = link->next;
        if (!job->local) {
            pc_worker_unlist(worker, job);
            pc_finish_settle(worker, job, PC_REQUEUE);
        }
    }
}

void
pc_worker_cancel(pc_worker *worker, bool late_only)
{
    worker->pool->ops->recall(worker->pool);  // killing one must not give back others while the list is walked
    pc_link *at = worker->in_pool.next;

    while (at != &worker->in_pool) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        at = at->next;
        if (!job->cancelled && (!late_only || (job->spec->acks_late && job->stage == PC_JOB_RUNNING))) {
            job->cancelled = true;
            // a pool that can't kill lets its task run to the deadline
            (void)worker->pool->ops->kill(worker->pool, job, SIGKILL, PC_LOST_TERMINATED, NULL);
        }
    }
    if (!late_only) {
        pc_follow_lose(worker);
    }
}

void
pc_worker_stop(pc_worker *worker, pc_stop how, pc_mono deadline)
{
    if (worker->phase == PC_PHASE_STOPPED || worker->phase == PC_PHASE_FAILED) {
        return;
    }
    bool first = worker->phase != PC_PHASE_STOPPING;
    if (first) {  // while running on, so that all that comes back is in `ready`
        worker->pool->ops->recall(worker->pool);
    }
    worker->phase = PC_PHASE_STOPPING;
    if (worker->metrics != NULL) {
        pc_observe_phase(worker);
    }
    worker->stop_deadline = deadline;
    pc_loop_clear_timer(worker->loop, &worker->reconnect);
    if (first) {
        worker->stop_how = how;
        if (worker->connected) {
            (void)worker->source->ops->pause(worker->source, NULL);
        }
        give_back(worker);
    }
    if (how == PC_STOP_COLD) {
        worker->stop_how = PC_STOP_COLD;
        pc_worker_cancel(worker, false);
    }
    pc_loop_wake(worker->loop);
}

static bool
idle(const pc_worker *worker)
{
    return worker->in_pool_len == 0 && worker->ready_len == 0 && worker->storing_len == 0
           && (worker->store == NULL || worker->store->ops->pending(worker->store) == 0);
}

static void
bound_storing(pc_worker *worker)
{
    pc_mono soon = pc_mono_add(pc_mono_now(), STORE_GRACE_NS);

    if (worker->failure.code != PC_OK && worker->in_pool_len == 0 && soon.ns < worker->stop_deadline.ns) {
        worker->stop_deadline = soon;
    }
}

void
pc_stop_advance(pc_worker *worker)
{
    bound_storing(worker);
    bool late = pc_mono_now().ns >= worker->stop_deadline.ns;

    if (!idle(worker) && !late) {
        return;
    }
    pc_err err = {0};
    pc_mono now = pc_mono_now();
    pc_mono soon = pc_mono_add(now, GRACE_NS);
    pc_mono least = pc_mono_add(now, LEAST_GRACE_NS);
    pc_mono pool_end = worker->stop_deadline.ns < soon.ns ? worker->stop_deadline : soon;
    if (late) {
        pc_worker_cancel(worker, false);
        if (worker->storing_len > 0) {
            pc_log_write(worker->log, PC_ERROR, "%zu results could not be stored before the deadline: tasks with acks_late "
                         "run again, the results of the others are lost", worker->storing_len);
        }
    } else if (pool_end.ns < least.ns) {
        pool_end = least;
    }
    worker->pool->ops->stop(worker->pool, pool_end);
    if (worker->connected
        && worker->source->ops->close(worker->source, soon, &err) < 0) {
        pc_log_write(worker->log, PC_WARNING, "closing the broker connection: %s", err.msg);
    }
    worker->connected = false;
    worker->phase = worker->failure.code == PC_OK ? PC_PHASE_STOPPED : PC_PHASE_FAILED;
}
