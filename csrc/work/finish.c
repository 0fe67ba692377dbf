/* SPDX-License-Identifier: BSD-3-Clause */
/* From the start of a run to the ack: limits, outcome, result, settlement.
 * The result is stored before the message is acknowledged. */
#include <math.h>
#include <signal.h>

#include "base/mem.h"
#include "work/machine.h"

/* The mean follows the last few dozen runs: it only tells short tasks from long ones. */
#define MEAN_WEIGHT 8

static void
set_limit_timer(pc_worker *worker, pc_job *job, double seconds)
{
    pc_mono when = pc_mono_add(job->started_mono, pc_worker_ns(seconds));
    pc_err err = {0};

    if (pc_loop_set_timer(worker->loop, &job->timer, when, &err) < 0) {
        pc_log_write(worker->log, PC_ERROR, "cannot set a time limit: %s", err.msg);
    }
}

static void
limit_due(void *ctx, pc_mono now)
{
    pc_job *job = ctx;
    pc_worker *worker = job->spec->worker;
    double soft = job->soft_time_limit;
    double hard = job->time_limit;
    pc_err err = {0};

    (void)now;
    if (!job->soft_sent && !isnan(soft) && !(hard <= soft)) {
        job->soft_sent = true;
        worker->hooks.soft_limit(worker->hooks.ctx, job, soft);
        if (worker->pool->ops->soft_limit(worker->pool, job, &err) < 0) {
            pc_log_write(worker->log, PC_WARNING, "soft time limit: %s", err.msg);
        }
        if (!isnan(hard)) {
            set_limit_timer(worker, job, hard);
        }
        return;
    }
    if (worker->pool->ops->kill(worker->pool, job, SIGTERM, PC_LOST_HARD, &err) < 0) {
        pc_log_write(worker->log, PC_WARNING, "hard time limit: %s", err.msg);
    }
}

static void
arm_limits(pc_worker *worker, pc_job *job)
{
    pc_job_fix_limits(job);
    double soft = job->soft_time_limit;
    double hard = job->time_limit;
    double first = isnan(soft) || hard <= soft ? hard : soft;

    if (!isnan(first)) {
        pc_timer_init(&job->timer, limit_due, job);
        set_limit_timer(worker, job, first);
    }
}

/* With disable_prefetch a task takes its part of the budget until it ends, whenever its message is settled. */
void
pc_worker_busy(pc_worker *worker, pc_job *job, bool busy)
{
    pc_source *source = worker->source;

    if (job->busy == busy) {
        return;
    }
    job->busy = busy;
    source->busy += busy ? 1u : -1u;
    if (!busy) {  // there is room again
        (void)source->ops->prefetch(source, worker->prefetch_sent, NULL);
    }
}

static void
settle_tag(pc_worker *worker, pc_job *job, pc_settle how)
{
    pc_err err = {0};

    // of a stale one the broker knows nothing, but the source may know it again
    if (job->settled || (job->stale && how == PC_REQUEUE)) {
        return;
    }
    job->settled = true;
    if (worker->source->ops->settle(worker->source, job->tag, how, &err) < 0) {
        pc_log_write(worker->log, PC_ERROR, "cannot settle a message: %s", err.msg);
    }
}

void
pc_finish_settle(pc_worker *worker, pc_job *job, pc_settle how)
{
    pc_worker_busy(worker, job, false);
    if (job->stale && worker->stale_len > 0) {
        worker->stale_len--;
        pc_intake_prefetch(worker);
    }
    settle_tag(worker, job, how);
    pc_job_free(job);
}

void
pc_finish_started(void *ctx, pc_job *job)
{
    pc_worker *worker = ctx;

    job->stage = PC_JOB_RUNNING;
    job->started = pc_wall_now();
    job->started_mono = pc_mono_now();
    if (!job->spec->acks_late) {
        pc_worker_busy(worker, job, worker->config.disable_prefetch);
        settle_tag(worker, job, PC_ACK);
    }
    arm_limits(worker, job);
    if (job->spec->metrics != NULL) {
        pc_observe_started(worker, job);
    }
    if (job->wants_events) {
        pc_report_started(worker, job);
    }
    if (worker->config.want_accepted) {
        worker->hooks.accepted(worker->hooks.ctx, job);
    }
}

static int
put(pc_worker *worker, const pc_store_item *item, pc_job *job, pc_err *err)
{
    const pc_store_ops *ops = worker->store->ops;
    int rc = ops->put(worker->store, item, job, err);

    if (rc < 0 && err->code == PC_ENOMEM && worker->reserve != NULL) {
        pc_free(worker->reserve);
        worker->reserve = NULL;
        *err = (pc_err){0};
        rc = ops->put(worker->store, item, job, err);
    }
    return rc;
}

/* 1: on its way to the store, 0: nothing to store. */
static int
store_result(pc_worker *worker, pc_job *job, const pc_outcome *outcome, pc_err *err)
{
    pc_message message;

    if (worker->store == NULL || !(outcome->flags & PC_OUT_DOCUMENT)) {
        return 0;
    }
    if (pc_job_message(job, &message, err) < 0) {
        return -1;
    }
    pc_slice id = pc_job_id(job);
    pc_store_item item = {
        .id = id,
        .state = outcome->state,
        .document = outcome->document,
        .content_type = pc_slice_str(worker->config.result_content_type),
        .content_encoding = pc_slice_str(worker->config.result_content_encoding),
        .reply_to = message.reply_to,
        .correlation_id = message.correlation_id.ptr == NULL ? id : message.correlation_id,
    };
    return put(worker, &item, job, err) < 0 ? -1 : 1;
}

static void
note_run_time(pc_spec *spec, int64_t run_ns)
{
    if (spec->mean_ns == 0) {
        spec->mean_ns = run_ns > 0 ? run_ns : 1;
    } else {
        spec->mean_ns += (run_ns - spec->mean_ns) / MEAN_WEIGHT;
    }
}

static void
store_failed(pc_worker *worker, pc_job *job, const pc_err *why)
{
    if (worker->metrics != NULL) {
        pc_count_add(&worker->metrics->store_failures, 1);
    }
    worker->hooks.store_failed(worker->hooks.ctx, job, why);
}

void
pc_finish_done(void *ctx, pc_job *job, const pc_outcome *outcome)
{
    pc_worker *worker = ctx;
    pc_err err = {0};

    worker->done++;
    pc_worker_unlist(worker, job);
    note_run_time(job->spec, outcome->run_ns);
    pc_settle how = pc_flight_after_outcome(job->spec, outcome);
    if (how == PC_REQUEUE && job->settled) {
        how = PC_ACK;  // acknowledged early: there is nothing to give back
    }
    int stored = store_result(worker, job, outcome, &err);
    if (stored < 0 && err.code == PC_ENOMEM && !job->settled) {
        how = PC_REQUEUE;  // our fault, and the task may run again
    }
    job->fate = (uint8_t)how;
    if (job->spec->metrics != NULL) {
        pc_observe_done(worker, job, outcome, how == PC_REQUEUE);
    }
    if (job->wants_events) {
        pc_report_done(worker, job, outcome);
    }
    if (stored == 1) {
        pc_worker_list(worker, job, PC_JOB_STORING, false);
        return;
    }
    if (stored < 0) {
        store_failed(worker, job, &err);
    }
    pc_finish_settle(worker, job, how);
}

void
pc_finish_stored(void *ctx, void *cookie, const pc_err *why)
{
    pc_worker *worker = ctx;
    pc_job *job = cookie;

    if (why != NULL) {
        store_failed(worker, job, why);
    }
    if (worker->reserve == NULL) {
        worker->reserve = pc_alloc(PC_RESERVE_BYTES);
    }
    pc_worker_unlist(worker, job);
    pc_finish_settle(worker, job, (pc_settle)job->fate);
    if (!pc_list_empty(&worker->ready)) {
        pc_loop_defer(worker->loop, &worker->dispatch);
    }
}

void
pc_finish_lost(void *ctx, pc_job *job, pc_lost why, const char *how)
{
    pc_worker *worker = ctx;

    worker->done++;
    pc_worker_unlist(worker, job);
    pc_settle fate = pc_flight_after_loss(job->spec, job, why);
    bool requeued = fate == PC_REQUEUE && !job->settled;
    if (job->spec->metrics != NULL) {
        pc_observe_lost(worker, job, why, requeued);
    }
    worker->hooks.lost(worker->hooks.ctx, job, why, how, requeued);
    pc_finish_settle(worker, job, fate);
}

void
pc_finish_back(void *ctx, pc_job *job)
{
    pc_worker *worker = ctx;

    pc_worker_unlist(worker, job);
    if (job->stale || (worker->phase != PC_PHASE_RUNNING && !job->local)) {
        pc_finish_settle(worker, job, PC_REQUEUE);
    } else {
        pc_worker_list(worker, job, PC_JOB_READY, true);
        pc_loop_defer(worker->loop, &worker->dispatch);
    }
}
