/* SPDX-License-Identifier: BSD-3-Clause */
/* What may be asked of and told to a running worker. */
#include <string.h>

#include "base/mem.h"
#include "work/machine.h"

#define REVOKED_MAX 50000

typedef struct revoked_id {
    pc_link link;
    size_t len;
    char id[];
} revoked_id;

void
pc_worker_free_revoked(pc_worker *worker)
{
    pc_link *link;

    while ((link = pc_list_take_front(&worker->revoked_order)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, revoked_id, link));
    }
    pc_map_fini(&worker->revoked);
}

static int
remember_revoked(pc_worker *worker, pc_slice id, pc_err *err)
{
    if (pc_intake_revoked(worker, id)) {
        return 0;
    }
    revoked_id *entry = pc_alloc(sizeof(*entry) + id.len);
    if (entry == NULL) {
        return pc_fail_nomem(err);
    }
    entry->len = id.len;
    memcpy(entry->id, id.ptr, id.len);
    if (pc_map_put(&worker->revoked, pc_slice_of(entry->id, id.len), entry, NULL, err) < 0) {
        pc_free(entry);
        return -1;
    }
    pc_list_put_back(&worker->revoked_order, &entry->link);
    worker->revoked_len++;
    if (worker->revoked_len > REVOKED_MAX) {
        pc_link *oldest = pc_list_take_front(&worker->revoked_order);
        revoked_id *old = PC_CONTAINER_OF(oldest, revoked_id, link);
        (void)pc_map_take(&worker->revoked, pc_slice_of(old->id, old->len));
        pc_free(old);
        worker->revoked_len--;
    }
    return 0;
}

typedef struct search {
    pc_slice id;
    pc_job *found;
    bool given;  // to the pool, and not known to run
} search;

static void
match_id(void *ctx, pc_job *job)
{
    search *wanted = ctx;

    if (pc_slice_eq(pc_job_id(job), wanted->id)) {
        wanted->given = wanted->given || job->stage == PC_JOB_POOL;
        // of several one that runs
        if (wanted->found == NULL || job->stage == PC_JOB_RUNNING) {
            wanted->found = job;
        }
    }
}

/* Ends every run of the id: the broker may have given the task out again while the first copy runs on. */
static void
terminate_runs(pc_worker *worker, pc_slice id, int signum, pc_err *err)
{
    for (pc_link *at = worker->in_pool.next; at != &worker->in_pool; at = at->next) {
        pc_job *job = PC_CONTAINER_OF(at, pc_job, link);
        if (job->stage == PC_JOB_RUNNING && pc_slice_eq(pc_job_id(job), id)) {
            (void)worker->pool->ops->kill(worker->pool, job, signum, PC_LOST_TERMINATED, err);
        }
    }
}

pc_job *
pc_worker_revoke(pc_worker *worker, pc_slice id, bool terminate, int signum, pc_err *err)
{
    search wanted = {.id = id};

    if (remember_revoked(worker, id, err) < 0) {
        return NULL;
    }
    pc_worker_each_job(worker, match_id, &wanted);
    if (wanted.given) {
        // either it comes back and is discarded, or it turns out to run; it may be gone then
        worker->pool->ops->recall(worker->pool);
        wanted = (search){.id = id};
        pc_worker_each_job(worker, match_id, &wanted);
    }
    if (terminate) {
        terminate_runs(worker, id, signum, err);
    }
    return wanted.found;
}

int
pc_worker_redirect(pc_worker *worker, const pc_broker_config *broker, pc_err *err)
{
    const pc_source_ops *ops = worker->source->ops;

    if (ops->redirect == NULL) {
        return pc_fail(err, PC_EUNSUP, "a worker cannot go from one %s broker to another", ops->scheme);
    }
    return ops->redirect(worker->source, broker, err);
}

int
pc_worker_prefetch(pc_worker *worker, unsigned count, pc_err *err)
{
    if (worker->source->ops->prefetch(worker->source, count, err) < 0) {
        return -1;
    }
    worker->config.prefetch = count;
    worker->prefetch_sent = count;
    pc_intake_prefetch(worker);
    return 0;
}

void
pc_worker_restart_pool(pc_worker *worker)
{
    if (worker->pool->ops->restart != NULL) {
        worker->pool->ops->restart(worker->pool);
    }
}

int
pc_worker_resize(pc_worker *worker, int size, pc_err *err)
{
    if (worker->pool->ops->resize(worker->pool, size, err) < 0) {
        return -1;
    }
    pc_loop_defer(worker->loop, &worker->dispatch);  // there may be room for what waits
    if (worker->metrics != NULL) {
        pc_gauge_set(worker->metrics, PC_GAUGE_POOL_SIZE, size);
    }
    return 0;
}

void
pc_worker_get_stats(const pc_worker *worker, pc_worker_stats *stats)
{
    *stats = (pc_worker_stats){
        .received = worker->received,
        .done = worker->done,
        .held = worker->held_len,
        .limited = worker->limited_len,
        .ready = worker->ready_len,
        .in_pool = worker->in_pool_len,
        .storing = worker->storing_len,
        .prefetch = worker->prefetch_sent,
        .reconnects = worker->reconnects,
        .connected = worker->connected,
    };
}

static void
each_in(pc_link *list, void (*each)(void *ctx, pc_job *job), void *ctx)
{
    for (pc_link *at = list->next; at != list; at = at->next) {
        each(ctx, PC_CONTAINER_OF(at, pc_job, link));
    }
}

void
pc_worker_each_job(pc_worker *worker, void (*each)(void *ctx, pc_job *job), void *ctx)
{
    size_t at = 0;
    pc_spec *spec;

    each_in(&worker->held, each, ctx);
    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        each_in(&spec->limited, each, ctx);
    }
    each_in(&worker->ready, each, ctx);
    each_in(&worker->in_pool, each, ctx);
    each_in(&worker->storing, each, ctx);
}

void
pc_worker_each_spec(pc_worker *worker, void (*each)(void *ctx, pc_spec *spec), void *ctx)
{
    size_t at = 0;
    pc_spec *spec;

    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        each(ctx, spec);
    }
}

int
pc_worker_pids(pc_worker *worker, pid_t *out, int max)
{
    return worker->pool->ops->processes(worker->pool, out, max);
}

/* The memory stays: the child never returns to the worker's code and leaves by _exit. */
void
pc_worker_abandon(pc_worker *worker)
{
    worker->source->ops->abandon(worker->source);
    if (worker->probe != NULL) {
        pc_probe_abandon(worker->probe);
    }
    if (worker->store != NULL) {
        worker->store->ops->abandon(worker->store);
    }
}

void
pc_worker_want(pc_worker *worker, bool received, bool accepted)
{
    worker->config.want_received = received;
    worker->config.want_accepted = accepted;
}
