/* SPDX-License-Identifier: BSD-3-Clause */
/* Where tasks run. A pool takes jobs when it has room and reports what became of
 * them; it knows nothing of acks, results and messages' meaning.
 *
 * The third door of the core (DESIGN §5.3): `pc_runner` is filled by the Python glue. Nothing else here knows an interpreter exists. */
#ifndef PC_WORK_POOL_H
#define PC_WORK_POOL_H

#include <sys/types.h>

#include "base/log.h"
#include "work/job.h"

#define PC_OUT_REQUEUE 1u      // Reject(requeue=True)
#define PC_OUT_REFUSED 2u      // not acceptable: reject, whatever acks_late says
#define PC_OUT_UNDECODABLE 4u  // body unreadable: ack
#define PC_OUT_DOCUMENT 8u     // there is a document to store

/* What a run came to. The document is lent for the duration of the call that hands it over. */
typedef struct pc_outcome {
    pc_state state;
    unsigned flags;
    int64_t run_ns;
    int64_t rss_kib;  // of the process, 0: not measured
    pc_slice document;
    pc_slice notes;   // JSON members for the event about it; lent like the document
    // set by the caller of run()
    bool want_notes;
    /* The task wants this packed message to run after it; while run() lasts, on its thread, without the GIL. True: it will, here, and
     * need not be sent. NULL: nobody can be asked. */
    bool (*offer)(void *offer_to, pc_slice frame);
    void *offer_to;
} pc_outcome;

/* Where offers are refused, because others wait for the pool and will for a while, not each is worth asking. */
typedef struct pc_asking {
    unsigned refused;  // in a row
    unsigned skip;     // so many are not made
} pc_asking;

/* Is this offer to be skipped? */
bool pc_asking_skips(pc_asking *asking);
/* What came of one; returns `granted`. */
bool pc_asking_note(pc_asking *asking, bool granted);

/* A prefork child's view of itself; the glue asks it from signal handlers. */
typedef struct pc_child pc_child;
/* The soft limit of the task that runs right now has passed (and not that of an earlier one). */
bool pc_child_soft_due(const pc_child *child);

struct pc_line;

/* Filled by the glue. Called without the GIL held; they take it if they need it. */
typedef struct pc_runner {
    /* Runs the packed message; `memory` (reset by the caller) keeps document and notes. Never fails: whatever goes wrong is an outcome. */
    void (*run)(void *ctx, pc_slice frame, pc_outcome *outcome, pc_buf *memory);
    /* fork() with the interpreter's fork hooks around it. -1: failed, errno set. */
    pid_t (*fork)(void *ctx);
    /* In the new child, before its first task. Non-zero: exit with that code. */
    int (*child_start)(void *ctx, int index, const pc_child *child);
    /* In the child, about to exit; returns the exit code to use. */
    int (*child_stop)(void *ctx, int code);
    /* In the child: ends the process, without the parent's clean-up (_exit). Does not return. */
    void (*child_exit)(void *ctx, int code);
    /* Between tasks in child or thread: runs pending signal handlers. Non-zero: leave the loop. */
    int (*child_signals)(void *ctx);
    /* Before the child waits for its next task; may be NULL. As pc_producer_ops.confirming for what its tasks have published. */
    int (*confirming)(void *ctx);
    /* Starts a thread of the interpreter that calls main(arg). */
    int (*thread)(void *ctx, void (*main)(void *arg), void *arg, int index, pc_err *err);
    /* Raises the soft-limit exception in the thread that runs (threads pool); in a prefork child the signal handler does it. */
    int (*interrupt)(void *ctx, unsigned long thread_id);
    /* The interpreter's name for the calling thread, for interrupt(). */
    unsigned long (*thread_id)(void *ctx);
    /* Pool asyncio: turns an event loop in the calling thread and serves the line (line.h) until it says QUIT. */
    void (*turn)(void *ctx, struct pc_line *line);
    /* If `run` is just what keeps its event loop from turning it is interrupted here and now, by its soft limit or for good. True: it was. */
    bool (*strike)(void *ctx, void *run, bool soft);
    void *ctx;
} pc_runner;

typedef enum pc_lost {
    PC_LOST_DIED,      // killed or exited by itself
    PC_LOST_HARD,      // its hard time limit
    PC_LOST_TERMINATED // pool.terminate()
} pc_lost;

/* Filled by the worker; called on the loop's thread. */
typedef struct pc_pool_hooks {
    void (*started)(void *ctx, pc_job *job);
    void (*done)(void *ctx, pc_job *job, const pc_outcome *outcome);
    /* It started, and its process is gone without an outcome. `how`: "signal 9 (SIGKILL)", "exitcode 1". */
    void (*lost)(void *ctx, pc_job *job, pc_lost why, const char *how);
    /* Taken back, or its process died before it started. */
    void (*back)(void *ctx, pc_job *job);
    /* The task of `job`, which runs, offers the message of its next one (pc_outcome.offer). True: it was submitted; there is room. */
    bool (*follow)(void *ctx, const pc_job *job, pc_slice frame);
    /* There may be room again. */
    void (*room)(void *ctx);
    void (*child)(void *ctx, int index, pid_t pid, bool up, const char *how);
    void *ctx;
} pc_pool_hooks;

typedef struct pc_pool_config {
    int size;
    int64_t max_tasks;       // per child, 0: no limit
    int64_t max_rss_kib;     // per child, 0: no limit
    bool fair;               // never queue behind a running task longer than a moment (always true today)
    double start_timeout;    // seconds for a new child to say it is up
} pc_pool_config;

typedef struct pc_pool pc_pool;

typedef struct pc_pool_ops {
    const char *name;
    pc_pool *(*create)(const pc_pool_config *config, pc_loop *loop,
                       const pc_runner *runner, const pc_pool_hooks *hooks,
                       const pc_log *log, pc_err *err);
    int (*start)(pc_pool *pool, pc_err *err);
    /* May this job be given now? */
    bool (*room)(pc_pool *pool, const pc_job *job);
    /* Only after room(). The job stays the worker's; the pool lends its slot pointer to it. */
    int (*submit)(pc_pool *pool, pc_job *job, pc_err *err);
    /* The soft limit of a started job. -1 PC_EUNSUP where it can't be done. */
    int (*soft_limit)(pc_pool *pool, pc_job *job, pc_err *err);
    /* Ends a started job by force; lost() follows with `why`. */
    int (*kill)(pc_pool *pool, pc_job *job, int signum, pc_lost why, pc_err *err);
    /* Jobs given but not started come back through back() now. */
    void (*recall)(pc_pool *pool);
    int (*resize)(pc_pool *pool, int size, pc_err *err);
    /* Replaces all children, each when its jobs are done. NULL where there are none. */
    void (*restart)(pc_pool *pool);
    int (*processes)(pc_pool *pool, pid_t *out, int max);
    /* Ends all children or threads: nicely until the deadline, then by force. Running jobs are lost(). */
    void (*stop)(pc_pool *pool, pc_mono deadline);
    void (*destroy)(pc_pool *pool);
} pc_pool_ops;

struct pc_pool {
    const pc_pool_ops *ops;
    pc_pool_config config;
    pc_pool_hooks hooks;
    const pc_runner *runner;
    const pc_log *log;
    pc_loop *loop;
};

const pc_pool_ops *pc_pool_find(const char *name);
extern const pc_pool_ops pc_pool_solo;
extern const pc_pool_ops pc_pool_threads;
extern const pc_pool_ops pc_pool_asyncio;
extern const pc_pool_ops pc_pool_prefork;

#endif
