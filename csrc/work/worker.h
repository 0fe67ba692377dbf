/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker machine: source → schedule → pool → store → ack. It decides nothing that Python decided before: it gets
 * options per task and numbers, and calls hooks where user-visible things happen. */
#ifndef PC_WORK_WORKER_H
#define PC_WORK_WORKER_H

#include "io/broker.h"
#include "io/store.h"
#include "work/events.h"
#include "work/pool.h"

typedef struct pc_worker_config {
    const pc_broker_config *broker;
    const pc_store_config *store;  // NULL: outcomes' documents are dropped
    const char *pool;
    pc_pool_config pool_config;
    unsigned prefetch;             // 0: unlimited
    bool retry;                    // reconnect after a lost connection
    bool retry_on_startup;
    bool end_if_refused;           // at the first connection, if the broker refuses a queue
    int max_retries;               // -1: for ever
    unsigned eta_limit;            // most held ETA jobs, 0: unlimited
    double park_after;             // seconds; what is due later waits in a broker that can, 0: is held here
    bool disable_rate_limits;
    bool disable_prefetch;         // never hold more than the pool can run at once, early-ack tasks that run included
    bool cancel_on_loss;           // end late-ack tasks when the connection is lost
    bool want_received;            // call received()
    bool want_accepted;            // call accepted()
    const char *result_content_type;
    const char *result_content_encoding;
    const char *const *accept;     // content types that tasks may have, NULL-terminated; NULL: any
} pc_worker_config;

typedef enum pc_bad { PC_BAD_UNKNOWN_TASK, PC_BAD_NO_TASK, PC_BAD_HEADERS, PC_BAD_REFUSED } pc_bad;
typedef enum pc_revoked { PC_REVOKED_EXPIRED, PC_REVOKED_BY_ID, PC_REVOKED_TERMINATED } pc_revoked;

/* Filled by the glue; called on the loop's thread without the GIL. */
typedef struct pc_worker_hooks {
    void (*ready)(void *ctx);                                 // consuming, first time and after each reconnect
    void (*down)(void *ctx, const pc_err *why, int attempt, double next_try);  // next_try < 0: gave up
    /* True: it is not to run, `how` settles it. */
    bool (*received)(void *ctx, pc_job *job, pc_settle *how);
    void (*accepted)(void *ctx, pc_job *job);
    /* A message that is not of protocol 2: packs what it is in protocol 2 into `frame`, or returns false. */
    bool (*upgrade)(void *ctx, const pc_message *message, pc_buf *frame);
    /* A message that is no runnable task. The return value settles it. */
    pc_settle (*bad)(void *ctx, pc_bad why, const pc_message *message, const pc_err *err);
    /* Started and its process is gone (worker lost, hard limit, terminated). Stores what is to be stored. */
    void (*lost)(void *ctx, pc_job *job, pc_lost why, const char *how, bool requeued);
    void (*revoked)(void *ctx, pc_job *job, pc_revoked why);
    void (*soft_limit)(void *ctx, pc_job *job, double seconds);
    void (*cancelled)(void *ctx, const char *queue);
    void (*refused)(void *ctx, const char *queue, const pc_err *why);  // added later on, and not consumed
    void (*store_failed)(void *ctx, pc_job *job, const pc_err *why);
    void (*store_down)(void *ctx, const pc_err *why, bool up);
    void (*child)(void *ctx, int index, pid_t pid, bool up, const char *how);
    /* May be NULL. Around each wait of the loop: until it is over (`yes` false) another thread may call the machine's functions. */
    void (*sleeping)(void *ctx, bool yes);
    void *ctx;
} pc_worker_hooks;

typedef struct pc_worker pc_worker;

typedef enum pc_stop { PC_STOP_WARM, PC_STOP_COLD } pc_stop;

pc_worker *pc_worker_new(const pc_worker_config *config, const pc_runner *runner,
                         const pc_worker_hooks *hooks, const pc_log *log, pc_err *err);
void pc_worker_free(pc_worker *worker);
pc_loop *pc_worker_loop(pc_worker *worker);
/* Its events; `tasks` is off at first. */
pc_events *pc_worker_events(pc_worker *worker);

/* Registers a task or changes its options; the name is copied. */
int pc_worker_task(pc_worker *worker, const pc_spec *spec, pc_err *err);
pc_spec *pc_worker_spec(pc_worker *worker, pc_slice name);
int pc_worker_add_queue(pc_worker *worker, const pc_queue *queue, pc_err *err);
int pc_worker_drop_queue(pc_worker *worker, const char *name, pc_err *err);

/* Answers /livez, /readyz and /metrics on this address (port 0: any), whatever the loop or an interpreter is busy with. Once, before
 * the start. Returns the port, or -1: the worker can be used all the same. */
int pc_worker_http(pc_worker *worker, const char *host, int port, pc_err *err);

/* Starts pool and connection. */
int pc_worker_start(pc_worker *worker, pc_err *err);
/* One turn of the loop. 1: go on, 0: stopped (everything settled, pool ended), -1: failed for good. */
int pc_worker_turn(pc_worker *worker, pc_mono until, pc_err *err);
/* Asks for the end; turns go on until pc_worker_turn returns 0. From the loop's thread. Calling again with COLD hurries. */
void pc_worker_stop(pc_worker *worker, pc_stop how, pc_mono deadline);

/* Marks the id revoked; with `terminate` all runs of it end. Returns the job (a running one rather) if it is here, else NULL. With
 * `err` set it is marked all the same, unless memory was out. */
pc_job *pc_worker_revoke(pc_worker *worker, pc_slice id, bool terminate, int signum, pc_err *err);
/* Another broker of the same kind from the next attempt to connect on; for the hook down(). PC_EUNSUP. */
int pc_worker_redirect(pc_worker *worker, const pc_broker_config *broker, pc_err *err);
int pc_worker_prefetch(pc_worker *worker, unsigned count, pc_err *err);
int pc_worker_resize(pc_worker *worker, int size, pc_err *err);
void pc_worker_restart_pool(pc_worker *worker);

typedef struct pc_worker_stats {
    uint64_t received;
    uint64_t done;
    size_t held;
    size_t limited;
    size_t ready;
    size_t in_pool;
    size_t storing;
    unsigned prefetch;
    uint64_t reconnects;
    bool connected;
} pc_worker_stats;
void pc_worker_get_stats(const pc_worker *worker, pc_worker_stats *stats);
/* Calls back for every job. */
void pc_worker_each_job(pc_worker *worker, void (*each)(void *ctx, pc_job *job), void *ctx);
void pc_worker_each_spec(pc_worker *worker, void (*each)(void *ctx, pc_spec *spec), void *ctx);
int pc_worker_pids(pc_worker *worker, pid_t *out, int max);
/* In a forked child: closes inherited descriptors. */
void pc_worker_abandon(pc_worker *worker);
void pc_worker_want(pc_worker *worker, bool received, bool accepted);

#endif
