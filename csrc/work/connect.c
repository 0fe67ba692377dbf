/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's connection to its broker: retries, and what becomes of the deliveries of a
 * connection that is lost. */
#include "work/machine.h"

#define FIRST_RETRY_NS (200 * PC_NS_PER_MS)
#define LAST_RETRY_NS (4 * PC_NS_PER_SEC)

/* What runs may have been acknowledged when it began: it comes to its end first. */
static void
give_up(pc_worker *worker, const pc_err *why)
{
    worker->failure = *why;
    pc_worker_stop(worker, PC_STOP_WARM, PC_MONO_NEVER);
}

static int64_t
retry_delay(const pc_worker *worker)
{
    int shift = worker->attempt < 6 ? worker->attempt : 6;
    int64_t delay = FIRST_RETRY_NS << shift;

    return delay < LAST_RETRY_NS ? delay : LAST_RETRY_NS;
}

static bool
may_retry(const pc_worker *worker, const pc_err *why)
{
    bool enabled = worker->was_connected ? worker->config.retry : worker->config.retry_on_startup;

    if (!worker->was_connected
        && (why->code == PC_EAUTH || (worker->source->refused && worker->config.end_if_refused))) {
        return false;
    }
    return enabled && (worker->config.max_retries < 0
                       || worker->attempt < worker->config.max_retries);
}

/* The deliveries in hand are void: the broker will give them to somebody again. What has
 * not started is forgotten; what runs goes on, without anybody to acknowledge to. */
void
pc_worker_forget(pc_worker *worker, pc_link *list)
{
    while (!pc_list_empty(list)) {
        pc_job *job = PC_CONTAINER_OF(list->next, pc_job, link);
        pc_worker_unlist(worker, job);
        pc_job_free(job);
    }
}

static void
forget_delivered(pc_worker *worker, pc_link *list)
{
    for (pc_link *at = list->next, *next; at != list; at = next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        next = at->next;
        if (!job->local) {
            pc_worker_unlist(worker, job);
            pc_job_free(job);
        }
    }
}

static void
mark_stale(pc_worker *worker, pc_link *list)
{
    for (pc_link *at = list->next; at != list; at = at->next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        if (!job->stale && !job->local) {
            pc_worker_busy(worker, job, false);
            job->stale = true;
            worker->stale_len++;
        }
    }
}

static void
void_deliveries(pc_worker *worker)
{
    size_t at = 0;
    pc_spec *spec;

    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        pc_worker_forget(worker, &spec->limited);
        pc_loop_clear_timer(worker->loop, &spec->token);
    }
    pc_worker_forget(worker, &worker->held);
    forget_delivered(worker, &worker->ready);
    mark_stale(worker, &worker->in_pool);
    mark_stale(worker, &worker->storing);
    worker->pool->ops->recall(worker->pool);
    if (worker->config.cancel_on_loss) {
        pc_worker_cancel(worker, true);  // the broker gives them to somebody again
    }
}

void
pc_worker_source_down(void *ctx, const pc_err *why)
{
    pc_worker *worker = ctx;
    pc_err copy = *why;

    if (worker->connected) {
        worker->connected = false;
        if (worker->metrics != NULL) {
            pc_observe_phase(worker);
        }
        void_deliveries(worker);
    }
    if (worker->phase != PC_PHASE_RUNNING) {
        return;
    }
    if (!may_retry(worker, &copy)) {
        worker->hooks.down(worker->hooks.ctx, &copy, worker->attempt, -1);
        give_up(worker, &copy);
        return;
    }
    int64_t delay = retry_delay(worker);
    worker->hooks.down(worker->hooks.ctx, &copy, worker->attempt, (double)delay / 1e9);
    if (worker->phase != PC_PHASE_RUNNING) {  // the hook stopped us
        return;
    }
    worker->attempt++;
    if (pc_loop_set_timer(worker->loop, &worker->reconnect,
                          pc_mono_add(pc_mono_now(), delay), &copy) < 0) {
        give_up(worker, &copy);
    }
}

void
pc_worker_connect(void *ctx)
{
    pc_worker *worker = ctx;
    pc_err err = {0};

    if (worker->source->ops->connect(worker->source, &err) < 0) {
        pc_worker_source_down(worker, &err);
    }
}

void
pc_worker_reconnect_due(void *ctx, pc_mono now)
{
    (void)now;
    pc_worker_connect(ctx);
}

void
pc_worker_source_up(void *ctx)
{
    pc_worker *worker = ctx;

    worker->connected = true;
    worker->attempt = 0;
    worker->reconnects += worker->was_connected;
    worker->was_connected = true;
    if (worker->metrics != NULL) {
        pc_observe_phase(worker);
    }
    if (worker->phase != PC_PHASE_RUNNING) {  // stopped while it connected
        (void)worker->source->ops->pause(worker->source, NULL);
        return;
    }
    pc_intake_prefetch(worker);
    worker->hooks.ready(worker->hooks.ctx);
}

void
pc_worker_source_cancelled(void *ctx, const char *queue)
{
    pc_worker *worker = ctx;

    pc_follow_no_queue(worker, queue);
    worker->hooks.cancelled(worker->hooks.ctx, queue);
}

void
pc_worker_source_refused(void *ctx, const char *queue, const pc_err *why)
{
    pc_worker *worker = ctx;

    worker->hooks.refused(worker->hooks.ctx, queue, why);
}
