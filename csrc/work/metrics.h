/* SPDX-License-Identifier: BSD-3-Clause */
/* What a worker counts for its monitors, and the Prometheus text of it.
 *
 * DESIGN. The loop's thread writes, the probe's thread reads; every number is an atomic of its own, written
 * relaxed by the one writer, so that counting costs an ordinary addition. Numbers of one scrape may
 * therefore be a moment apart. Records of tasks are added at the front of a list and live as long as the
 * whole. A worker without an HTTP address has none of this: it pays one look at a NULL pointer. */
#ifndef PC_WORK_METRICS_H
#define PC_WORK_METRICS_H

#include <stdatomic.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/clock.h"
#include "wire/result.h"

#define PC_METRICS_BUCKETS 16    // the last one is infinity
#define PC_METRICS_PIDS 1024     // processes of the pool whose memory is looked at
#define PC_METRICS_QUEUES 64     // queues whose depth is told

typedef _Atomic uint64_t pc_count;

typedef struct pc_histogram {
    pc_count buckets[PC_METRICS_BUCKETS];  // not cumulative
    pc_count sum_ns;
} pc_histogram;

typedef struct pc_task_metrics {
    struct pc_task_metrics *next;
    char *name;
    pc_count states[PC_STATE_COUNT];
    pc_count requeued;  // given back to the broker after their start
    pc_histogram run;   // the body
    pc_histogram wait;  // from its arrival, or its ETA, to its start
} pc_task_metrics;

typedef enum pc_metrics_phase { PC_NOT_STARTED, PC_CONSUMING, PC_DISCONNECTED, PC_STOPPING } pc_metrics_phase;

typedef enum pc_gauge {
    PC_GAUGE_HELD,
    PC_GAUGE_LIMITED,
    PC_GAUGE_READY,
    PC_GAUGE_IN_POOL,
    PC_GAUGE_STORING,
    PC_GAUGE_PREFETCH,
    PC_GAUGE_POOL_SIZE,
    PC_GAUGE_BUSY,
    PC_GAUGE_COUNT
} pc_gauge;

typedef struct pc_queue_depth {
    char name[256];
    pc_count messages;
} pc_queue_depth;

typedef struct pc_metrics {
    _Atomic(pc_task_metrics *) tasks;  // the newest first
    _Atomic int phase;
    _Atomic int64_t gauges[PC_GAUGE_COUNT];
    pc_count bad[4];  // by pc_bad
    pc_count reconnects;
    pc_count scrapes;  // the probe's thread counts
    pc_count store_failures;
    _Atomic int pids_len;
    _Atomic pid_t pids[PC_METRICS_PIDS];
    _Atomic int queues_len;
    pc_queue_depth queues[PC_METRICS_QUEUES];  // names are written before queues_len
    pc_wall started;
} pc_metrics;

pc_metrics *pc_metrics_new(pc_err *err);
void pc_metrics_free(pc_metrics *metrics);
/* A record for a task; NULL when memory is out. */
pc_task_metrics *pc_metrics_task(pc_metrics *metrics, const char *name, pc_err *err);
/* Remembers how deep a queue is; beyond PC_METRICS_QUEUES names it is not told. */
void pc_metrics_depth(pc_metrics *metrics, const char *queue, uint64_t messages);
void pc_histogram_add(pc_histogram *histogram, int64_t ns);
/* Appends the Prometheus text (version 0.0.4). `hostname` labels nothing: scrapers know whom they ask. */
int pc_metrics_write(pc_metrics *metrics, pc_buf *out, pc_err *err);

/* The one writer adds: no locked instruction. */
static inline void
pc_count_add(pc_count *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void
pc_gauge_set(pc_metrics *metrics, pc_gauge gauge, int64_t value)
{
    atomic_store_explicit(&metrics->gauges[gauge], value, memory_order_relaxed);
}

#endif
