/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's inside, shared by worker.c (life), connect.c (broker), control.c (remote control), intake.c (from delivery to pool), follow.c (from
 * task to task of a chain), finish.c (from outcome to ack), stop.c (shutdown), observe.c (metrics) and report.c (events). Nobody outside work/ includes this. */
#ifndef PC_WORK_MACHINE_H
#define PC_WORK_MACHINE_H

#include "base/map.h"
#include "work/events.h"
#include "work/flight.h"
#include "work/probe.h"
#include "work/worker.h"

/* Given up when there is no memory for a result, had again when one is stored. Untouched it costs none. */
#define PC_RESERVE_BYTES (1 << 20)
/* Results waiting for a store that does not answer: beyond this nothing new is started. */
#define PC_STORING_MAX 10000

typedef enum pc_phase {
    PC_PHASE_NEW,
    PC_PHASE_RUNNING,
    PC_PHASE_STOPPING,
    PC_PHASE_STOPPED,
    PC_PHASE_FAILED
} pc_phase;

struct pc_worker {
    pc_worker_config config;  // strings are the owner's (see worker.h)
    pc_worker_hooks hooks;
    const pc_runner *runner;
    const pc_log *log;
    pc_loop *loop;
    pc_source *source;
    pc_store *store;
    pc_pool *pool;
    pc_map specs;    // name -> pc_spec
    pc_map queues;   // names of those that are consumed; key and value are the same text
    pc_map revoked;  // id -> revoked_id
    pc_link revoked_order;
    size_t revoked_len;
    // jobs by stage, each in exactly one list
    pc_link held;
    pc_link ready;
    pc_link in_pool;  // POOL and RUNNING
    pc_link storing;
    size_t held_len;
    size_t limited_len;
    size_t ready_len;
    size_t in_pool_len;
    size_t storing_len;
    size_t stale_len;  // running on, but their delivery is void
    pc_defer dispatch;
    pc_buf scratch;
    pc_buf head_text;
    void *reserve;    // PC_RESERVE_BYTES or NULL
    pc_buf upgraded;  // a message of an older protocol, as one of protocol 2
    // connection
    bool connected;
    bool was_connected;
    int attempt;
    pc_timer reconnect;
    unsigned prefetch_sent;   // what the source was told last
    int64_t clock_offset_us;  // wall minus mono, to notice steps of the wall clock
    // life
    pc_phase phase;
    pc_stop stop_how;
    pc_mono stop_deadline;
    pc_err failure;
    uint64_t received;
    uint64_t done;
    uint64_t reconnects;
    pc_events events;
    // for monitors; NULL: there are none
    pc_metrics *metrics;
    pc_probe *probe;
    size_t busy;  // jobs that run
    pc_timer look;     // at the depth of the queues
    uint64_t scrapes;  // at the last look
};

/* intake.c */
void pc_intake_message(void *worker, const pc_message *message);
void pc_intake_dispatch(void *worker);
/* A job that is in no list: where it waits now. */
void pc_intake_place(pc_worker *worker, pc_job *job);
void pc_intake_token(void *spec, pc_mono now);
/* The broker can keep far ETAs again. */
size_t pc_intake_park_again(void *worker, size_t most);
/* The wall clock was set: ETAs are moved. */
void pc_intake_rekey(pc_worker *worker);
/* How many unsettled deliveries the broker should give. */
void pc_intake_prefetch(pc_worker *worker);
bool pc_intake_revoked(const pc_worker *worker, pc_slice id);
bool pc_intake_accepted(const pc_worker *worker, pc_slice content_type);
/* A new job is counted and told. True: it is not to run, *how settles it. */
bool pc_intake_announce(pc_worker *worker, pc_job *job, const pc_head *head, pc_settle *how);
/* A job that is in no list goes to the pool, which has room for it. -1: it is in no list again. */
int pc_intake_submit(pc_worker *worker, pc_job *job, pc_err *err);

/* follow.c */
bool pc_follow_offered(void *worker, const pc_job *job, pc_slice frame);
/* The queue is consumed from now on, or no longer. */
int pc_follow_queue(pc_worker *worker, const char *name, pc_err *err);
void pc_follow_no_queue(pc_worker *worker, const char *name);
void pc_follow_fini(pc_worker *worker);
/* Those that have not started are given up. */
void pc_follow_lose(pc_worker *worker);

/* finish.c */
void pc_finish_started(void *worker, pc_job *job);
void pc_finish_done(void *worker, pc_job *job, const pc_outcome *outcome);
void pc_finish_lost(void *worker, pc_job *job, pc_lost why, const char *how);
void pc_finish_back(void *worker, pc_job *job);
void pc_finish_stored(void *worker, void *cookie, const pc_err *why);
/* Settles (unless that is done or void) and frees a job that is in no list. */
void pc_finish_settle(pc_worker *worker, pc_job *job, pc_settle how);

/* Takes the job out of its list and clears its timer. */
void pc_worker_unlist(pc_worker *worker, pc_job *job);
void pc_worker_list(pc_worker *worker, pc_job *job, pc_stage stage, bool front);

/* connect.c */
void pc_worker_connect(void *worker);
void pc_worker_reconnect_due(void *worker, pc_mono now);
void pc_worker_source_up(void *worker);
void pc_worker_source_down(void *worker, const pc_err *why);
void pc_worker_source_cancelled(void *worker, const char *queue);
void pc_worker_source_refused(void *worker, const char *queue, const pc_err *why);
/* Frees all jobs of a list, settling nothing. */
void pc_worker_forget(pc_worker *worker, pc_link *list);
void pc_worker_busy(pc_worker *worker, pc_job *job, bool busy);
void pc_worker_cancel(pc_worker *worker, bool late_only);  // what has been given to the pool; late_only: late-ack tasks that run

/* observe.c: only with metrics, but for pc_observe_task */
int pc_observe_task(pc_worker *worker, pc_spec *spec, pc_err *err);
void pc_observe_phase(const pc_worker *worker);
/* Timer: asks for the depth of the queues while somebody scrapes. */
void pc_observe_queues(void *worker, pc_mono now);
void pc_observe_depth(void *worker, const char *queue, uint64_t messages);
void pc_observe_turn(const pc_worker *worker);
void pc_observe_pool(const pc_worker *worker);
void pc_observe_received(pc_job *job);
/* From now on it waits for the pool. */
void pc_observe_ready(pc_job *job);
void pc_observe_started(pc_worker *worker, const pc_job *job);
void pc_observe_done(pc_worker *worker, const pc_job *job, const pc_outcome *outcome, bool requeued);
void pc_observe_lost(pc_worker *worker, const pc_job *job, pc_lost why, bool requeued);

/* report.c: only for tasks whose events are wanted */
void pc_report_received(pc_worker *worker, const pc_job *job, const pc_head *head);
void pc_report_started(pc_worker *worker, const pc_job *job);
void pc_report_done(pc_worker *worker, const pc_job *job, const pc_outcome *outcome);

/* control.c */
void pc_worker_free_revoked(pc_worker *worker);

/* stop.c */
/* One look at how far the shutdown is; sets the phase. */
void pc_stop_advance(pc_worker *worker);

/* Saturating: nanoseconds of a user's number of seconds. */
static inline int64_t
pc_worker_ns(double seconds)
{
    return seconds < 9e9 ? (int64_t)(seconds * 1e9) : INT64_MAX;
}

#endif
