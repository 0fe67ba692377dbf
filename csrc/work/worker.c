/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's life: parts, registration, connection, turns. */
#include "work/worker.h"

#include <string.h>

#include "base/mem.h"
#include "work/machine.h"

#define CLOCK_STEP_US 100000

/* --- lists ------------------------------------------------------------ */

static pc_link *
list_of(pc_worker *worker, const pc_job *job, size_t **len)
{
    switch ((pc_stage)job->stage) {
    case PC_JOB_HELD:
        *len = &worker->held_len;
        return &worker->held;
    case PC_JOB_LIMITED:
        *len = &worker->limited_len;
        return &job->spec->limited;
    case PC_JOB_READY:
        *len = &worker->ready_len;
        return &worker->ready;
    case PC_JOB_POOL:
    case PC_JOB_RUNNING:
        *len = &worker->in_pool_len;
        return &worker->in_pool;
    case PC_JOB_STORING:
        break;
    }
    *len = &worker->storing_len;
    return &worker->storing;
}

void
pc_worker_list(pc_worker *worker, pc_job *job, pc_stage stage, bool front)
{
    size_t *len;

    job->stage = (uint8_t)stage;
    pc_link *list = list_of(worker, job, &len);
    if (front) {
        pc_list_put_front(list, &job->link);
    } else {
        pc_list_put_back(list, &job->link);
    }
    ++*len;
}

void
pc_worker_unlist(pc_worker *worker, pc_job *job)
{
    size_t *len;

    pc_loop_clear_timer(worker->loop, &job->timer);
    if (!pc_link_in(&job->link)) {
        return;
    }
    (void)list_of(worker, job, &len);
    pc_link_remove(&job->link);
    --*len;
}

/* --- store and pool events -------------------------------------------- */

static void
store_down(void *ctx, const pc_err *why)
{
    pc_worker *worker = ctx;

    worker->hooks.store_down(worker->hooks.ctx, why, false);
}

static void
store_up(void *ctx)
{
    pc_worker *worker = ctx;

    worker->hooks.store_down(worker->hooks.ctx, NULL, true);
}

static void
pool_room(void *ctx)
{
    pc_worker *worker = ctx;

    if (!pc_list_empty(&worker->ready)) {
        pc_loop_defer(worker->loop, &worker->dispatch);
    }
}

static void
pool_child(void *ctx, int index, pid_t pid, bool up, const char *how)
{
    pc_worker *worker = ctx;

    if (worker->metrics != NULL) {
        pc_observe_pool(worker);
    }
    worker->hooks.child(worker->hooks.ctx, index, pid, up, how);
    pool_room(worker);
}

/* --- making ----------------------------------------------------------- */

static int
make_source(pc_worker *worker, pc_err *err)
{
    const pc_broker_config *config = worker->config.broker;
    const pc_source_ops *ops = config->source != NULL ? config->source : pc_source_find(config->scheme);
    pc_source_hooks hooks = {pc_intake_message, pc_worker_source_up, pc_worker_source_down,
                             pc_worker_source_cancelled, worker, pc_observe_depth, pc_intake_park_again,
                             pc_worker_source_refused};

    if (ops == NULL) {
        return pc_fail(err, PC_EUNSUP, "no C driver for broker scheme %s", config->scheme);
    }
    worker->source = ops->create(config, worker->loop, &hooks, worker->log, err);
    if (worker->source == NULL) {
        return -1;
    }
    worker->prefetch_sent = worker->config.prefetch;
    return ops->prefetch(worker->source, worker->config.prefetch, err);
}

static int
make_store(pc_worker *worker, pc_err *err)
{
    const pc_store_config *config = worker->config.store;
    pc_store_hooks hooks = {pc_finish_stored, store_down, store_up, worker};

    if (config == NULL) {
        return 0;
    }
    const pc_store_ops *ops = pc_store_find(config->scheme);
    if (ops == NULL) {
        return pc_fail(err, PC_EUNSUP, "no C driver for result store %s", config->scheme);
    }
    worker->store = ops->create(config, worker->loop, &hooks, worker->log, err);
    return worker->store == NULL ? -1 : 0;
}

static int
make_pool(pc_worker *worker, pc_err *err)
{
    const pc_pool_ops *ops = pc_pool_find(worker->config.pool);
    pc_pool_hooks hooks = {pc_finish_started, pc_finish_done, pc_finish_lost, pc_finish_back,
                           pc_follow_offered, pool_room, pool_child, worker};

    if (ops == NULL) {
        return pc_fail(err, PC_EUNSUP, "no pool named %s; there are prefork, threads and solo",
                       worker->config.pool);
    }
    worker->pool = ops->create(&worker->config.pool_config, worker->loop, worker->runner, &hooks,
                               worker->log, err);
    return worker->pool == NULL ? -1 : 0;
}

static void
init(pc_worker *worker)
{
    pc_map_init(&worker->specs);
    pc_map_init(&worker->queues);
    pc_map_init(&worker->revoked);
    pc_link_init(&worker->revoked_order);
    pc_link_init(&worker->held);
    pc_link_init(&worker->ready);
    pc_link_init(&worker->in_pool);
    pc_link_init(&worker->storing);
    pc_buf_init(&worker->scratch);
    pc_buf_init(&worker->head_text);
    pc_buf_init(&worker->upgraded);
    pc_defer_init(&worker->dispatch, pc_intake_dispatch, worker);
    pc_timer_init(&worker->reconnect, pc_worker_reconnect_due, worker);
    pc_timer_init(&worker->look, pc_observe_queues, worker);
}

pc_worker *
pc_worker_new(const pc_worker_config *config, const pc_runner *runner,
              const pc_worker_hooks *hooks, const pc_log *log, pc_err *err)
{
    pc_worker *worker = pc_zalloc(sizeof(*worker));

    if (worker == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    init(worker);
    worker->config = *config;
    worker->runner = runner;
    worker->hooks = *hooks;
    worker->log = log;
    worker->reserve = pc_alloc(PC_RESERVE_BYTES);
    if (worker->reserve == NULL) {
        pc_fail_nomem(err);
        goto fail;
    }
    worker->loop = pc_loop_new(err);
    if (worker->loop != NULL) {
        pc_events_init(&worker->events, worker->loop, log);
    }
    if (worker->loop == NULL || make_pool(worker, err) < 0 || make_store(worker, err) < 0
        || make_source(worker, err) < 0) {
        goto fail;
    }
    return worker;

fail:
    pc_worker_free(worker);
    return NULL;
}

static void
free_specs(pc_worker *worker)
{
    size_t at = 0;
    pc_spec *spec;

    while ((spec = pc_map_next(&worker->specs, &at)) != NULL) {
        pc_worker_forget(worker, &spec->limited);
        pc_loop_clear_timer(worker->loop, &spec->token);
        pc_free(spec->name);
        pc_free(spec);
    }
    pc_map_fini(&worker->specs);
}

void
pc_worker_free(pc_worker *worker)
{
    if (worker == NULL) {
        return;
    }
    pc_probe_free(worker->probe);
    if (worker->pool != NULL) {
        worker->pool->ops->destroy(worker->pool);
    }
    if (worker->source != NULL) {
        worker->source->ops->destroy(worker->source);
    }
    if (worker->store != NULL) {
        worker->store->ops->destroy(worker->store);
    }
    pc_worker_forget(worker, &worker->held);
    pc_worker_forget(worker, &worker->ready);
    pc_worker_forget(worker, &worker->in_pool);
    pc_worker_forget(worker, &worker->storing);
    free_specs(worker);
    pc_worker_free_revoked(worker);
    pc_follow_fini(worker);
    if (worker->loop != NULL) {
        pc_loop_clear_timer(worker->loop, &worker->reconnect);
        pc_loop_clear_timer(worker->loop, &worker->look);
        pc_loop_undefer(worker->loop, &worker->dispatch);
    }
    pc_events_fini(&worker->events);
    pc_buf_fini(&worker->scratch);
    pc_buf_fini(&worker->head_text);
    pc_buf_fini(&worker->upgraded);
    pc_free(worker->reserve);
    pc_loop_free(worker->loop);
    pc_metrics_free(worker->metrics);
    pc_free(worker);
}

pc_events *
pc_worker_events(pc_worker *worker)
{
    return &worker->events;
}

pc_loop *
pc_worker_loop(pc_worker *worker)
{
    return worker->loop;
}

/* --- registration ----------------------------------------------------- */

static pc_spec *
new_spec(pc_worker *worker, const char *name, pc_err *err)
{
    pc_spec *spec = pc_zalloc(sizeof(*spec));

    if (spec == NULL || (spec->name = pc_strdup(name, strlen(name))) == NULL) {
        pc_fail_nomem(err);
        goto fail;
    }
    spec->worker = worker;
    pc_link_init(&spec->limited);
    pc_timer_init(&spec->token, pc_intake_token, spec);
    if (pc_map_put(&worker->specs, pc_slice_str(spec->name), spec, NULL, err) < 0) {
        goto fail;
    }
    return spec;

fail:
    if (spec != NULL) {
        pc_free(spec->name);
    }
    pc_free(spec);
    return NULL;
}

int
pc_worker_task(pc_worker *worker, const pc_spec *options, pc_err *err)
{
    pc_spec *spec = pc_worker_spec(worker, pc_slice_str(options->name));

    if (spec == NULL && (spec = new_spec(worker, options->name, err)) == NULL) {
        return -1;
    }
    if (pc_observe_task(worker, spec, err) < 0) {
        return -1;
    }
    spec->acks_late = options->acks_late;
    spec->acks_on_failure = options->acks_on_failure;
    spec->acks_on_timeout = options->acks_on_timeout;
    spec->reject_on_worker_lost = options->reject_on_worker_lost;
    spec->ignore_result = options->ignore_result;
    spec->send_events = options->send_events;
    spec->watched = options->watched;
    spec->time_limit = options->time_limit;
    spec->soft_time_limit = options->soft_time_limit;
    spec->rate = options->rate;
    spec->next_start = (pc_mono){0};
    if (!pc_list_empty(&spec->limited)) {
        pc_loop_clear_timer(worker->loop, &spec->token);
        pc_intake_token(spec, pc_mono_now());
    }
    return 0;
}

pc_spec *
pc_worker_spec(pc_worker *worker, pc_slice name)
{
    return pc_map_get(&worker->specs, name);
}

int
pc_worker_add_queue(pc_worker *worker, const pc_queue *queue, pc_err *err)
{
    if (pc_follow_queue(worker, queue->name, err) < 0) {
        return -1;
    }
    int rc = worker->source->ops->add_queue(worker->source, queue, err);
    if (rc < 0) {
        pc_follow_no_queue(worker, queue->name);
    }
    return rc;
}

int
pc_worker_drop_queue(pc_worker *worker, const char *name, pc_err *err)
{
    pc_follow_no_queue(worker, name);
    return worker->source->ops->drop_queue(worker->source, name, err);
}

/* --- turns ------------------------------------------------------------ */

static int64_t
clock_offset(void)
{
    return pc_wall_now().us - pc_mono_now().ns / 1000;
}

int
pc_worker_start(pc_worker *worker, pc_err *err)
{
    if (worker->phase != PC_PHASE_NEW) {
        return pc_fail(err, PC_ESTATE, "this worker was started before");
    }
    if (worker->pool->ops->start(worker->pool, err) < 0) {
        return -1;
    }
    worker->phase = PC_PHASE_RUNNING;
    worker->clock_offset_us = clock_offset();
    pc_worker_connect(worker);
    return 0;
}

static void
watch_clock(pc_worker *worker)
{
    if (worker->held_len == 0) {
        return;
    }
    int64_t offset = clock_offset();
    int64_t step = offset - worker->clock_offset_us;
    if (step > CLOCK_STEP_US || step < -CLOCK_STEP_US) {
        worker->clock_offset_us = offset;
        pc_intake_rekey(worker);
    }
}

/* With tasks held for a wall time the clock is looked at once a second at least. */
static pc_mono
sooner(const pc_worker *worker, pc_mono until)
{
    pc_mono second = pc_mono_add(pc_mono_now(), PC_NS_PER_SEC);

    if (worker->phase == PC_PHASE_STOPPING) {
        pc_mono soon = pc_mono_add(pc_mono_now(), 50 * PC_NS_PER_MS);
        return soon.ns < until.ns ? soon : until;
    }
    return worker->held_len > 0 && second.ns < until.ns ? second : until;
}

static int
step(pc_worker *worker, pc_mono until, pc_err *err)
{
    void (*sleeping)(void *ctx, bool yes) = worker->hooks.sleeping;
    int wait_ms = pc_loop_prepare(worker->loop, until);

    if (sleeping != NULL) {
        sleeping(worker->hooks.ctx, true);
    }
    int rc = pc_loop_wait(worker->loop, wait_ms, err);
    if (sleeping != NULL) {
        sleeping(worker->hooks.ctx, false);
    }
    (void)pc_loop_dispatch(worker->loop);
    return rc;
}

int
pc_worker_turn(pc_worker *worker, pc_mono until, pc_err *err)
{
    if (worker->phase == PC_PHASE_STOPPING) {
        pc_stop_advance(worker);
    }
    if (worker->phase == PC_PHASE_STOPPED) {
        return 0;
    }
    if (worker->phase == PC_PHASE_FAILED) {
        if (err != NULL) {
            *err = worker->failure;
        }
        return -1;
    }
    if (worker->phase == PC_PHASE_NEW) {
        return pc_fail(err, PC_ESTATE, "start the worker first");
    }
    if (step(worker, sooner(worker, until), err) < 0) {
        return -1;
    }
    watch_clock(worker);
    if (worker->metrics != NULL) {
        pc_observe_turn(worker);
    }
    return 1;
}
