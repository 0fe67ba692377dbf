/* SPDX-License-Identifier: BSD-3-Clause */
/* What the machine tells its metrics (metrics.h). Nothing of it is called while there are none. */
#include "work/machine.h"
#include "work/probe.h"

#define LOOK_NS (5 * PC_NS_PER_SEC)

int
pc_observe_task(pc_worker *worker, pc_spec *spec, pc_err *err)
{
    if (worker->metrics == NULL || spec->metrics != NULL) {
        return 0;
    }
    spec->metrics = pc_metrics_task(worker->metrics, spec->name, err);
    return spec->metrics == NULL ? -1 : 0;
}

int
pc_worker_http(pc_worker *worker, const char *host, int port, pc_err *err)
{
    size_t at = 0;
    pc_spec *spec;

    if (worker->phase != PC_PHASE_NEW || worker->metrics != NULL) {
        return pc_fail(err, PC_ESTATE, "an HTTP address is set once, before the worker starts");
    }
    worker->metrics = pc_metrics_new(err);
    if (worker->metrics == NULL) {
        return -1;
    }
    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        if (pc_observe_task(worker, spec, err) < 0) {
            return -1;
        }
    }
    pc_gauge_set(worker->metrics, PC_GAUGE_POOL_SIZE, worker->config.pool_config.size);
    worker->scrapes = UINT64_MAX;  // once without being asked
    pc_observe_queues(worker, pc_mono_now());
    worker->probe = pc_probe_new(worker->metrics, host, port, err);
    return worker->probe == NULL ? -1 : pc_probe_port(worker->probe);
}

void
pc_observe_queues(void *ctx, pc_mono now)
{
    pc_worker *worker = ctx;
    uint64_t scrapes = atomic_load_explicit(&worker->metrics->scrapes, memory_order_relaxed);
    void (*look)(pc_source *source) = worker->source->ops->look;

    if (look != NULL && worker->connected && worker->phase == PC_PHASE_RUNNING && scrapes != worker->scrapes) {
        worker->scrapes = scrapes;
        look(worker->source);
    }
    // without memory for the timer the depths stay as they are
    (void)pc_loop_set_timer(worker->loop, &worker->look, pc_mono_add(now, LOOK_NS), NULL);
}

void
pc_observe_depth(void *ctx, const char *queue, uint64_t messages)
{
    const pc_worker *worker = ctx;

    pc_metrics_depth(worker->metrics, queue, messages);
}

void
pc_observe_phase(const pc_worker *worker)
{
    int phase = worker->was_connected ? PC_DISCONNECTED : PC_NOT_STARTED;

    if (worker->phase != PC_PHASE_NEW && worker->phase != PC_PHASE_RUNNING) {
        phase = PC_STOPPING;
    } else if (worker->connected) {
        phase = PC_CONSUMING;
    }
    atomic_store(&worker->metrics->phase, phase);
    atomic_store_explicit(&worker->metrics->reconnects, worker->reconnects, memory_order_relaxed);
}

void
pc_observe_turn(const pc_worker *worker)
{
    pc_metrics *metrics = worker->metrics;

    pc_gauge_set(metrics, PC_GAUGE_HELD, (int64_t)worker->held_len);
    pc_gauge_set(metrics, PC_GAUGE_LIMITED, (int64_t)worker->limited_len);
    pc_gauge_set(metrics, PC_GAUGE_READY, (int64_t)worker->ready_len);
    pc_gauge_set(metrics, PC_GAUGE_IN_POOL, (int64_t)worker->in_pool_len);
    pc_gauge_set(metrics, PC_GAUGE_STORING, (int64_t)worker->storing_len);
    pc_gauge_set(metrics, PC_GAUGE_PREFETCH, (int64_t)worker->prefetch_sent);
    pc_gauge_set(metrics, PC_GAUGE_BUSY, (int64_t)worker->busy);
}

void
pc_observe_pool(const pc_worker *worker)
{
    pid_t pids[PC_METRICS_PIDS];
    int n = worker->pool->ops->processes(worker->pool, pids, PC_METRICS_PIDS);

    for (int i = 0; i < n; i++) {
        atomic_store_explicit(&worker->metrics->pids[i], pids[i], memory_order_relaxed);
    }
    atomic_store_explicit(&worker->metrics->pids_len, n, memory_order_release);
}

void
pc_observe_received(pc_job *job)
{
    pc_count_add(&job->spec->metrics->states[PC_RECEIVED], 1);
}

void
pc_observe_ready(pc_job *job)
{
    job->ready_mono = pc_mono_now();
}

void
pc_observe_started(pc_worker *worker, const pc_job *job)
{
    pc_task_metrics *task = job->spec->metrics;

    worker->busy++;
    pc_count_add(&task->states[PC_STARTED], 1);
    pc_histogram_add(&task->wait, job->started_mono.ns - job->ready_mono.ns);
    pc_observe_turn(worker);  // the solo pool's loop stands still until the task is over
}

void
pc_observe_done(pc_worker *worker, const pc_job *job, const pc_outcome *outcome, bool requeued)
{
    pc_task_metrics *task = job->spec->metrics;

    worker->busy--;
    pc_count_add(&task->states[outcome->state], 1);
    pc_count_add(&task->requeued, requeued);
    pc_histogram_add(&task->run, outcome->run_ns);
}

void
pc_observe_lost(pc_worker *worker, const pc_job *job, pc_lost why, bool requeued)
{
    pc_task_metrics *task = job->spec->metrics;

    worker->busy--;
    if (requeued) {
        pc_count_add(&task->requeued, 1);
    } else if (job->cancelled) {
        pc_count_add(&task->states[PC_RETRY], 1);
    } else {
        pc_count_add(&task->states[why == PC_LOST_TERMINATED ? PC_REVOKED : PC_FAILURE], 1);
    }
}
