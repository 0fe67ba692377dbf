/* SPDX-License-Identifier: BSD-3-Clause */
/* The next task of a chain, right behind the one that has succeeded: not by way of the broker, where it would be back in this worker
 * a moment later. That is so when its queue is one of this worker's, nothing else waits here, and both tasks are acknowledged as they
 * start: then the broker would not keep the message either. For anybody who looks it has been received and acknowledged.
 *
 * Such a job is `local`. Until it runs, only this worker has it: it outlives a lost connection, and a warm shutdown runs it. */
#include <string.h>

#include "base/mem.h"
#include "work/machine.h"

/* --- the queues that are consumed -------------------------------------- */

void
pc_follow_no_queue(pc_worker *worker, const char *name)
{
    pc_free(pc_map_take(&worker->queues, pc_slice_str(name)));
}

int
pc_follow_queue(pc_worker *worker, const char *name, pc_err *err)
{
    char *copy = pc_strdup(name, strlen(name));
    void *old = NULL;

    if (copy == NULL) {
        return pc_fail_nomem(err);
    }
    if (pc_map_put(&worker->queues, pc_slice_str(copy), copy, &old, err) < 0) {
        pc_free(copy);
        return -1;
    }
    pc_free(old);
    return 0;
}

void
pc_follow_fini(pc_worker *worker)
{
    size_t at = 0;
    char *name;

    while ((name = pc_map_next(&worker->queues, &at)) != NULL) {
        pc_free(name);
    }
    pc_map_fini(&worker->queues);
}

/* --- offers ------------------------------------------------------------ */

/* Who waits here for the pool, or would be fetched only when it has room, comes first. Without a connection nobody else comes. */
static bool
is_nobodys_turn(const pc_worker *worker)
{
    return worker->phase == PC_PHASE_RUNNING && worker->ready_len == 0 && worker->storing_len < PC_STORING_MAX
           && !worker->config.disable_prefetch;
}

/* The default exchange takes a message to the queue of that name and to no other. */
static bool
comes_back(const pc_worker *worker, const pc_message *message)
{
    return message->exchange.len == 0 && pc_map_get(&worker->queues, message->routing_key) != NULL
           && pc_intake_accepted(worker, message->content_type);
}

/* Starts as soon as the pool has room, and is acknowledged then. */
static bool
starts_at_once(const pc_worker *worker, const pc_spec *spec, const pc_head *head)
{
    return !spec->acks_late && (spec->rate <= 0 || worker->config.disable_rate_limits) && !head->has_eta
           && !head->has_expires && (worker->revoked_len == 0 || !pc_intake_revoked(worker, head->id));
}

static pc_job *
make_job(pc_worker *worker, const pc_message *message, pc_head *head)
{
    pc_err err = {0};

    if (pc_head_read(message, head, &worker->head_text, &err) < 0) {
        return NULL;
    }
    pc_spec *spec = pc_map_get(&worker->specs, head->task);
    if (spec == NULL || !starts_at_once(worker, spec, head)) {
        return NULL;
    }
    pc_job *job = pc_job_new(message, head, spec, &worker->scratch, &err);
    if (job != NULL) {
        job->settled = true;
        job->local = true;
    }
    return job;
}

/* Whatever speaks against it: the broker's way leads to the same end, and to its reports. */
bool
pc_follow_offered(void *ctx, const pc_job *after, pc_slice frame)
{
    pc_worker *worker = ctx;
    pc_message message;
    pc_head head;
    pc_err err = {0};
    pc_settle how = PC_ACK;

    if (after->spec->acks_late || !is_nobodys_turn(worker) || pc_message_unpack(frame, &message, &err) < 0
        || !comes_back(worker, &message)) {
        return false;
    }
    pc_job *job = make_job(worker, &message, &head);
    if (job == NULL) {
        return false;
    }
    if (pc_intake_announce(worker, job, &head, &how)) {
        pc_job_free(job);
        return how == PC_ACK;
    }
    if (job->spec->metrics != NULL) {
        pc_observe_ready(job);
    }
    if (pc_intake_submit(worker, job, &err) < 0) {
        pc_job_free(job);
        return false;
    }
    worker->received++;
    return true;
}

void
pc_follow_lose(pc_worker *worker)
{
    for (pc_link *at = worker->ready.next, *next; at != &worker->ready; at = next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        next = at->next;
        if (job->local) {
            job->cancelled = true;
            pc_finish_lost(worker, job, PC_LOST_TERMINATED, "the worker was shut down before it started");
        }
    }
}
