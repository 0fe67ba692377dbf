/* SPDX-License-Identifier: BSD-3-Clause */
/* Shutdown. Warm: nothing new, what has not started goes back at once, what runs may finish, its results are
 * stored and acknowledged, then pool and connection end. Cold: what runs is killed first. */
#include <signal.h>

#include "work/machine.h"

static void
give_back_list(pc_worker *worker, pc_link *list)
{
    // from the back, so that each one put at the queue's front leaves the order as it was
    while (!pc_list_empty(list)) {
        pc_job *job = PC_CONTAINER_OF(list->prev, pc_job, link);
        pc_worker_unlist(worker, job);
        pc_finish_settle(worker, job, PC_REQUEUE);
    }
}

void
pc_stop_give_back(pc_worker *worker)
{
    size_t at = 0;
    pc_spec *spec;

    worker->pool->ops->recall(worker->pool);
    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        give_back_list(worker, &spec->limited);
        pc_loop_clear_timer(worker->loop, &spec->token);
    }
    give_back_list(worker, &worker->held);
    give_back_list(worker, &worker->ready);
}

static void
cancel_running(pc_worker *worker)
{
    pc_link *at = worker->in_pool.next;

    while (at != &worker->in_pool) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        at = at->next;
        if (!job->cancelled) {
            job->cancelled = true;
            // a pool that can't kill lets its task run to the deadline
            (void)worker->pool->ops->kill(worker->pool, job, SIGKILL, PC_LOST_TERMINATED, NULL);
        }
    }
}

void
pc_worker_stop(pc_worker *worker, pc_stop how, pc_mono deadline)
{
    if (worker->phase == PC_PHASE_STOPPED || worker->phase == PC_PHASE_FAILED) {
        return;
    }
    bool first = worker->phase != PC_PHASE_STOPPING;
    worker->phase = PC_PHASE_STOPPING;
    worker->stop_deadline = deadline;
    pc_loop_clear_timer(worker->loop, &worker->reconnect);
    if (first) {
        worker->stop_how = how;
        if (worker->connected) {
            (void)worker->source->ops->pause(worker->source, NULL);
        }
        pc_stop_give_back(worker);
    }
    if (how == PC_STOP_COLD) {
        worker->stop_how = PC_STOP_COLD;
        cancel_running(worker);
    }
    pc_loop_wake(worker->loop);
}

static bool
idle(const pc_worker *worker)
{
    return worker->in_pool_len == 0 && worker->storing_len == 0
           && (worker->store == NULL || worker->store->ops->pending(worker->store) == 0);
}

void
pc_stop_advance(pc_worker *worker)
{
    bool late = pc_mono_now().ns >= worker->stop_deadline.ns;

    if (!idle(worker) && !late) {
        return;
    }
    pc_err err = {0};
    pc_mono soon = pc_mono_add(pc_mono_now(), 5 * PC_NS_PER_SEC);
    worker->pool->ops->stop(worker->pool, late ? pc_mono_now() : soon);
    if (worker->connected
        && worker->source->ops->close(worker->source, soon, &err) < 0) {
        pc_log_write(worker->log, PC_WARNING, "closing the broker connection: %s", err.msg);
    }
    worker->connected = false;
    worker->phase = PC_PHASE_STOPPED;
}
