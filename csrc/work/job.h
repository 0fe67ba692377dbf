/* SPDX-License-Identifier: BSD-3-Clause */
/* A message in the worker's hands, from delivery until its fate is settled; and
 * what the worker knows about the task it names. One allocation per job: the struct, then the packed message. */
#ifndef PC_WORK_JOB_H
#define PC_WORK_JOB_H

#include "base/list.h"
#include "io/loop.h"
#include "wire/proto2.h"
#include "wire/result.h"
#include "work/metrics.h"

typedef struct pc_spec {
    // decided by Python when the task is registered
    char *name;
    bool acks_late;
    bool acks_on_failure;
    bool acks_on_timeout;
    bool reject_on_worker_lost;
    bool ignore_result;
    bool send_events;
    bool watched;            // the hook received() is asked about each message, and may settle it
    double time_limit;       // seconds, NaN: none
    double soft_time_limit;  // seconds, NaN: none
    double rate;             // starts per second, 0: no limit
    // -- bookkeeping
    uint64_t total;          // received
    int64_t mean_ns;         // moving mean of the run time, 0 until the first run
    pc_mono next_start;      // token bucket of capacity one
    pc_link limited;         // jobs waiting for a token, in order
    pc_timer token;          // when the first of them may start
    void *worker;            // for the token timer
    pc_task_metrics *metrics;  // NULL: nobody asks
} pc_spec;

typedef enum pc_stage {
    PC_JOB_HELD,     // waits for its ETA
    PC_JOB_LIMITED,  // waits for a token of its task
    PC_JOB_READY,    // waits for the pool
    PC_JOB_POOL,     // given to a pool slot, not known to have started
    PC_JOB_RUNNING,  // started
    PC_JOB_STORING,  // done, its result is on the way to the store
} pc_stage;

typedef struct pc_job {
    pc_link link;    // list of its stage
    pc_timer timer;  // its one awake time: ETA, expiry, soft limit, hard limit
    pc_spec *spec;   // never NULL
    void *slot;      // the pool's place for it
    uint64_t tag;
    uint64_t seq;    // number within its slot
    pc_wall eta;     // when has_eta
    pc_wall expires; // when has_expires
    pc_wall started; // when started
    pc_mono started_mono;
    pc_mono ready_mono;  // arrived, or its ETA came; only with metrics
    double time_limit;       // of this message; once it has started, what applies (pc_job_limits)
    double soft_time_limit;
    uint32_t frame_len;
    uint32_t id_at;         // the id inside frame
    uint16_t id_len;
    uint8_t stage;
    uint8_t fate;           // pc_settle, while its result is being stored
    int8_t ignore_result;   // of the message: -1 not said
    bool has_eta : 1;
    bool has_expires : 1;
    bool settled : 1;       // ack or reject was sent; the tag is void
    bool busy : 1;          // counted in the source's `busy`
    bool stale : 1;         // its connection is gone: nobody to settle with
    bool soft_sent : 1;
    bool cancelled : 1;     // killed by a cold shutdown, or with its connection
    bool redelivered : 1;
    bool wants_events : 1;  // since it was given to the pool
    bool limits_fixed : 1;
    bool unparked : 1;      // held because the broker could not keep it just then
    bool local : 1;         // never was the broker's (follow.c): nobody else has it, nothing is settled
    int pid;                // process that runs it, 0: unknown
    char frame[];           // pc_message_pack()
} pc_job;

/* Copies the message; `scratch` is reset and used on the way. */
pc_job *pc_job_new(const pc_message *message, const pc_head *head,
                   pc_spec *spec, pc_buf *scratch, pc_err *err);
/* The job must be in no list and have no timer set. */
void pc_job_free(pc_job *job);
pc_slice pc_job_id(const pc_job *job);
pc_slice pc_job_frame(const pc_job *job);
/* Seconds that apply to the job, NaN: no limit. A message's limit of 0 leaves it to the task. */
void pc_job_limits(const pc_job *job, double *hard, double *soft);
/* It starts: changed limits of the task are for later runs. */
void pc_job_fix_limits(pc_job *job);
/* Points `out` into the job. */
int pc_job_message(const pc_job *job, pc_message *out, pc_err *err);

#endif
