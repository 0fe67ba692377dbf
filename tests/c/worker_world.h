/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker machine on the in-memory broker and store, with a runner that needs no interpreter: it
 * takes the message's body as a script. What the machine does to the outside (settling, storing,
 * hooks) is written down as words; what the tasks do is counted in memory that children share.
 *
 * A script is words, each with an optional number: ok fail ignore retry reject requeue refuse
 * undecodable (how it ends) · sleep:ms · raise:signal · exit:code · big:kB (document) · nodoc ·
 * deaf (SIGTERM is ignored) · gate (waits until ledger->open) · chain:n (offers the next number's message, whose
 * script is chain:n-1 in the end ok; see rig_next). Without an ending it is ok. */
#ifndef PC_TESTS_WORKER_WORLD_H
#define PC_TESTS_WORKER_WORLD_H

#include <stdatomic.h>

#include "io/broker.h"
#include "memory_world.h"
#include "work/machine.h"

#define LEDGER_MAX 60000

/* Shared with the children. */
typedef struct ledger {
    atomic_int runs[LEDGER_MAX];    // by number of the task
    atomic_int ended[LEDGER_MAX];
    atomic_int first[LEDGER_MAX];   // place of its first start among all starts
    atomic_int total;               // starts
    atomic_int open;
    atomic_int soft;                // soft limits that reached a task
    atomic_int granted;             // offers
    atomic_int refused;
    atomic_int child_starts;
    atomic_int child_stops;
    atomic_int loop_fails;          // the event loop ends, and was not told to
} ledger;

/* The message that chain:n offers; NULL: as those of rig_send(). */
typedef struct rig_next {
    const char *task;
    const char *script;
    const char *queue;
    const char *exchange;
    const char *content_type;
    const char *headers;  // more JSON members, each with a leading comma
    pc_slice big;         // body
} rig_next;

typedef struct rig {
    world w;
    pc_worker_config config;
    pc_store_config store;
    pc_runner runner;
    pc_worker_hooks hooks;
    pc_log log;
    pc_worker *worker;
    ledger *shared;
    bool quiet;            // no words: for masses
    // what the runner does
    bool fork_fails;
    int forks;
    int start_code;        // of child_start
    bool start_hangs;
    const pc_child *child; // in the child
    rig_next next;         // set before the start
    // what the store does
    bool store_paused;
    bool store_refuses;    // put() fails
    int store_starves;     // so many times for want of memory
    bool store_rejects;    // stored() comes with an error
    size_t cookies_len;
    void *cookies[64];
    // what was seen
    int ready;
    int down;
    int gave_up;
    int ups;
    int deaths;
    int errors;            // logged
    int waits;             // turns
    int settled;
    unsigned prefetch;
    unsigned char fate[LEDGER_MAX];  // by tag: 1 + pc_settle
    const char *refuse;              // id of the task that received() settles, with refuse_how
    pc_settle refuse_how;
    int number[LEDGER_MAX];          // by tag: the task's, when received() was called
    char words[16384];
    // given to the machine
    const pc_source_ops *source_real;
    pc_source_ops source_spy;
    const pc_store_ops *store_real;
    pc_store_ops store_spy;
    void (*stored_real)(void *ctx, void *cookie, const pc_err *why);
    void (*on_hook)(struct rig *rig, const char *word);  // called for each word
} rig;

/* worker_script.c: fills r->runner. */
void rig_runner(rig *r);
/* One of the endings. */
void rig_end_with(pc_outcome *outcome, const char *word);
/* worker_line.c: the runner's part in the pool asyncio. */
void rig_turn_line(void *ctx, struct pc_line *line);
bool rig_strike(void *ctx, void *run, bool soft);
/* Of "t<number>" in the headers, 0 when there is none. */
int rig_number(const pc_message *message);
/* Pool "prefork", "threads", "asyncio" or "solo"; change `config` between init and start. */
void rig_init(rig *r, const char *pool, int size);
void rig_make(rig *r);   // the worker, not started
void rig_start(rig *r);  // makes, starts, waits until it consumes
/* Frees; with `stopped` false as it stands. */
void rig_free(rig *r);
/* Warm or cold stop, turned to the end; then what is left in the queue, in order: "t1 t2 ". */
const char *rig_stop(rig *r, pc_stop how, int ms);
const char *rig_queue(rig *r);

pc_spec rig_spec(const char *name);
void rig_task(rig *r, const char *name, bool late);
void rig_add(rig *r, pc_spec spec);
void rig_send(rig *r, int number, const char *task, const char *script);
/* `headers`: more JSON members, each with a leading comma. */
void rig_send_with(rig *r, int number, const char *task, const char *script, const char *headers);
/* ,"eta": "…" in so many ms */
const char *rig_eta(int ms);
const char *rig_expires(int ms);
/* The connection is lost now; the machine reconnects by itself. */
void rig_break(rig *r);
void rig_release_store(rig *r);
int rig_turn(rig *r, int ms);
void rig_turns(rig *r, int ms);
/* How often the word was written. */
int rig_seen(const rig *r, const char *word);
/* Is `a` before `b`? */
bool rig_before(const rig *r, const char *a, const char *b);
pc_worker_stats rig_stats(const rig *r);
bool rig_is_idle(const rig *r);

/* Turns until the condition holds. */
#define RIG_UNTIL(r, cond)                                                                       \
    for (pc_mono rig_end = in_ms(8000); !(cond);) {                                              \
        PC_ASSERT(pc_mono_now().ns < rig_end.ns, "waited too long; %s", (r)->words);             \
        PC_ASSERT(rig_turn((r), 20) >= 0);                                                       \
    }

#endif
