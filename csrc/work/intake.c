/* SPDX-License-Identifier: BSD-3-Clause */
/* From delivery to pool: read the headers, hold for the ETA, wait for a token, wait for room. */
#include <math.h>

#include "base/mem.h"
#include "work/machine.h"

#define UPGRADED_KEEP (1 << 16)  // bytes of memory kept for the next one

static bool
expired(const pc_job *job, pc_wall now)
{
    return job->has_expires && job->expires.us <= now.us;
}

static void
revoke(pc_worker *worker, pc_job *job, pc_revoked why)
{
    if (job->spec->metrics != NULL) {
        pc_count_add(&job->spec->metrics->states[PC_REVOKED], 1);
    }
    worker->hooks.revoked(worker->hooks.ctx, job, why);
    pc_finish_settle(worker, job, PC_ACK);
}

/* Returns true when the job was revoked and is gone. */
static bool
discard_revoked(pc_worker *worker, pc_job *job)
{
    if (worker->revoked_len > 0 && pc_intake_revoked(worker, pc_job_id(job))) {
        revoke(worker, job, PC_REVOKED_BY_ID);
        return true;
    }
    if (expired(job, pc_wall_now())) {
        revoke(worker, job, PC_REVOKED_EXPIRED);
        return true;
    }
    return false;
}

static void
limit_rate(pc_worker *worker, pc_job *job)
{
    pc_worker_list(worker, job, PC_JOB_LIMITED, false);
    if (job->spec->token.node.place == 0) {
        pc_intake_token(job->spec, pc_mono_now());
    }
}

/* The awake time came: the ETA, or the expiry if that is earlier. */
static void
awake(void *ctx, pc_mono now)
{
    pc_job *job = ctx;
    pc_worker *worker = job->spec->worker;

    (void)now;
    pc_worker_unlist(worker, job);
    pc_intake_place(worker, job);
    pc_intake_prefetch(worker);
}

static pc_wall
awake_wall(const pc_job *job)
{
    return job->has_expires && job->expires.us < job->eta.us ? job->expires : job->eta;
}

static pc_mono
awake_time(const pc_job *job)
{
    return pc_mono_at_wall(awake_wall(job), pc_wall_now(), pc_mono_now());
}

static void
hold(pc_worker *worker, pc_job *job)
{
    pc_timer_init(&job->timer, awake, job);
    if (pc_loop_set_timer(worker->loop, &job->timer, awake_time(job), NULL) < 0) {
        // no memory for a timer: better early into another worker's hands than lost
        pc_finish_settle(worker, job, PC_REQUEUE);
        return;
    }
    pc_worker_list(worker, job, PC_JOB_HELD, false);
    pc_intake_prefetch(worker);
}

void
pc_intake_place(pc_worker *worker, pc_job *job)
{
    if (job->stale || worker->phase != PC_PHASE_RUNNING) {  // it came while the worker stops
        pc_finish_settle(worker, job, PC_REQUEUE);
        return;
    }
    if (discard_revoked(worker, job)) {
        return;
    }
    if (job->has_eta && job->eta.us > pc_wall_now().us) {
        hold(worker, job);
        return;
    }
    if (job->spec->metrics != NULL) {
        pc_observe_ready(job);
    }
    if (job->spec->rate > 0 && !worker->config.disable_rate_limits) {
        limit_rate(worker, job);
    } else {
        pc_worker_list(worker, job, PC_JOB_READY, false);
        pc_loop_defer_next(worker->loop, &worker->dispatch);
    }
}

/* Hands out tokens: one start per 1/rate seconds, no more than one saved up. */
void
pc_intake_token(void *ctx, pc_mono now)
{
    pc_spec *spec = ctx;
    pc_worker *worker = spec->worker;

    while (!pc_list_empty(&spec->limited)) {
        if (spec->rate > 0 && spec->next_start.ns > now.ns) {
            if (pc_loop_set_timer(worker->loop, &spec->token, spec->next_start, NULL) == 0) {
                return;
            }
            // without memory for a timer the limit gives way, not the task
        }
        pc_job *job = PC_CONTAINER_OF(spec->limited.next, pc_job, link);
        pc_worker_unlist(worker, job);
        if (discard_revoked(worker, job)) {
            continue;
        }
        if (spec->rate > 0) {
            spec->next_start = pc_mono_add(now, pc_worker_ns(1 / spec->rate));
        }
        pc_worker_list(worker, job, PC_JOB_READY, false);
        pc_loop_defer(worker->loop, &worker->dispatch);
    }
}

static void
settle_bad(pc_worker *worker, pc_bad why, const pc_message *message, const pc_err *err)
{
    pc_settle how = PC_REQUEUE;
    pc_err failed = {0};

    if (err->code == PC_ENOMEM) {  // our fault, not the message's
        pc_log_write(worker->log, PC_ERROR, "a message goes back to its queue: %s", err->msg);
    } else {
        if (worker->metrics != NULL) {
            pc_count_add(&worker->metrics->bad[why], 1);
        }
        how = worker->hooks.bad(worker->hooks.ctx, why, message, err);
    }

    if (worker->source->ops->settle(worker->source, message->tag, how, &failed) < 0) {
        pc_log_write(worker->log, PC_ERROR, "cannot settle a bad message: %s", failed.msg);
    }
}

bool
pc_intake_accepted(const pc_worker *worker, pc_slice content_type)
{
    const char *const *accept = worker->config.accept;

    for (; accept != NULL && *accept != NULL; accept++) {
        if (pc_slice_is(content_type, *accept)) {
            return true;
        }
    }
    return worker->config.accept == NULL;
}

/* Older clients write a map into the body, and little or nothing into the headers. */
static bool
is_old(const pc_message *message, const pc_head *head, const pc_err *err)
{
    bool incomplete = err->code == PC_ENOTFOUND || (err->code == PC_EDATA && head->id.ptr == NULL);

    return incomplete || (message->body.len > 0 && message->body.ptr[0] == '{');
}

/* *message is changed to point into the worker when it was upgraded. */
static int
read_head(pc_worker *worker, pc_message *message, pc_head *head, pc_err *err)
{
    int rc = pc_head_read(message, head, &worker->head_text, err);

    if (!is_old(message, head, err) || worker->hooks.upgrade == NULL) {
        return rc;
    }
    pc_buf_reset(&worker->upgraded, UPGRADED_KEEP);
    if (!worker->hooks.upgrade(worker->hooks.ctx, message, &worker->upgraded)
        || pc_message_unpack(pc_buf_slice(&worker->upgraded), message, err) < 0) {
        return rc;
    }
    *err = (pc_err){0};
    return pc_head_read(message, head, &worker->head_text, err);
}

static pc_spec *
find_spec(pc_worker *worker, pc_message *message, pc_head *head)
{
    pc_err err = {0};

    if (read_head(worker, message, head, &err) < 0) {
        settle_bad(worker, err.code == PC_ENOTFOUND ? PC_BAD_NO_TASK : PC_BAD_HEADERS, message, &err);
        return NULL;
    }
    if (!pc_intake_accepted(worker, message->content_type)) {
        settle_bad(worker, PC_BAD_REFUSED, message, &err);
        return NULL;
    }
    pc_spec *spec = pc_map_get(&worker->specs, head->task);
    if (spec == NULL) {
        settle_bad(worker, PC_BAD_UNKNOWN_TASK, message, &err);
    }
    return spec;
}

/* Not due for long: the broker keeps it if it can, see io/amqp_park.h. */
static bool
is_far(const pc_worker *worker, pc_wall when, int64_t *ahead_us)
{
    *ahead_us = when.us - pc_wall_now().us;
    return worker->config.park_after > 0 && (double)*ahead_us > worker->config.park_after * (double)PC_US_PER_SEC;
}

static bool
parked(pc_worker *worker, const pc_message *message, const pc_head *head, bool *later)
{
    pc_err err = {0};
    int64_t ahead_us;
    int (*park)(pc_source *, const pc_message *, int64_t, pc_err *) = worker->source->ops->park;

    if (!head->has_eta || park == NULL || worker->phase != PC_PHASE_RUNNING) {
        return false;
    }
    pc_wall when = head->has_expires && head->expires.us < head->eta.us ? head->expires : head->eta;
    if (!is_far(worker, when, &ahead_us)) {
        return false;
    }
    int rc = park(worker->source, message, ahead_us > INT64_MAX / 1000 ? INT64_MAX : ahead_us * 1000, &err);
    *later = rc < 0 && err.code != PC_ENOTFOUND;
    return rc == 0;
}

/* What is held since then goes back, to be parked when it comes again. */
size_t
pc_intake_park_again(void *ctx, size_t most)
{
    pc_worker *worker = ctx;
    size_t back = 0;
    int64_t ahead_us;

    if (worker->phase != PC_PHASE_RUNNING) {
        return 0;
    }
    for (pc_link *at = worker->held.next, *next; back < most && at != &worker->held; at = next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        next = at->next;
        if (job->unparked && is_far(worker, awake_wall(job), &ahead_us)) {
            pc_worker_unlist(worker, job);
            pc_finish_settle(worker, job, PC_REQUEUE);
            back++;
        }
    }
    pc_intake_prefetch(worker);
    return back;
}

bool
pc_intake_announce(pc_worker *worker, pc_job *job, const pc_head *head, pc_settle *how)
{
    job->spec->total++;
    if (job->spec->metrics != NULL) {
        pc_observe_received(job);
    }
    if ((worker->config.want_received || job->spec->watched)
        && worker->hooks.received(worker->hooks.ctx, job, how)) {
        return true;
    }
    if (worker->events.tasks && job->spec->send_events) {
        pc_report_received(worker, job, head);
    }
    return false;
}

void
pc_intake_message(void *ctx, const pc_message *delivery)
{
    pc_worker *worker = ctx;
    pc_message message = *delivery;
    pc_head head;
    pc_err err = {0};
    pc_settle how;
    bool later = false;

    worker->received++;
    pc_spec *spec = find_spec(worker, &message, &head);
    if (spec == NULL || parked(worker, &message, &head, &later)) {
        return;
    }
    pc_job *job = pc_job_new(&message, &head, spec, &worker->scratch, &err);
    if (job == NULL) {
        settle_bad(worker, PC_BAD_HEADERS, &message, &err);
        return;
    }
    job->unparked = later;
    if (pc_intake_announce(worker, job, &head, &how)) {
        pc_finish_settle(worker, job, how);
    } else {
        pc_intake_place(worker, job);
    }
}

int
pc_intake_submit(pc_worker *worker, pc_job *job, pc_err *err)
{
    pc_worker_list(worker, job, PC_JOB_POOL, false);
    job->wants_events = worker->events.tasks && job->spec->send_events;
    if (worker->pool->ops->submit(worker->pool, job, err) < 0) {
        pc_worker_unlist(worker, job);
        return -1;
    }
    return 0;
}

void
pc_intake_dispatch(void *ctx)
{
    pc_worker *worker = ctx;
    pc_err err = {0};

    while (!pc_list_empty(&worker->ready) && worker->storing_len < PC_STORING_MAX) {
        pc_job *job = PC_CONTAINER_OF(worker->ready.next, pc_job, link);
        if (!worker->pool->ops->room(worker->pool, job)) {
            return;
        }
        pc_worker_unlist(worker, job);
        if (discard_revoked(worker, job)) {
            continue;
        }
        if (pc_intake_submit(worker, job, &err) == 0) {
            continue;
        }
        // kept here, nothing would say when to try again
        if (job->local) {
            pc_finish_lost(worker, job, PC_LOST_DIED, err.msg);
        } else {
            pc_log_write(worker->log, PC_ERROR, "a task goes back to its queue, the pool cannot take it: %s", err.msg);
            pc_finish_settle(worker, job, PC_REQUEUE);
        }
        return;
    }
}

void
pc_intake_rekey(pc_worker *worker)
{
    for (pc_link *at = worker->held.next; at != &worker->held; at = at->next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        // moving a timer that is set cannot fail
        (void)pc_loop_set_timer(worker->loop, &job->timer, awake_time(job), NULL);
    }
}

/* Held tasks must not use up the budget of those that could run; tasks that run on after
 * a lost connection take part of the pool, so as many fewer are wanted. */
void
pc_intake_prefetch(pc_worker *worker)
{
    unsigned base = worker->config.prefetch;

    if (base == 0 || !worker->connected || worker->phase != PC_PHASE_RUNNING
        || !worker->source->global_qos) {
        return;
    }
    size_t extra = worker->held_len;
    if (worker->config.eta_limit > 0 && extra > worker->config.eta_limit) {
        extra = worker->config.eta_limit;
    }
    size_t less = worker->stale_len < base ? worker->stale_len : base - 1;
    size_t count = base - less + extra;
    unsigned wanted = count > UINT16_MAX ? 0 : (unsigned)count;
    if (wanted == worker->prefetch_sent) {
        return;
    }
    if (worker->source->ops->prefetch(worker->source, wanted, NULL) == 0) {
        worker->prefetch_sent = wanted;
    }
}

bool
pc_intake_revoked(const pc_worker *worker, pc_slice id)
{
    return pc_map_get(&worker->revoked, id) != NULL;
}
