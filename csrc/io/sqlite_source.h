/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the SQLite source, which is spread over three files: source_sqlite.c (life, turns,
 * ticks), sqlite_consumer.c (its queues), sqlite_claim.c (its transactions). Nobody else includes
 * this. */
#ifndef PC_IO_SQLITE_SOURCE_H
#define PC_IO_SQLITE_SOURCE_H

#include "io/broker.h"
#include "io/sqlite_bell.h"
#include "io/sqlite_db.h"
#include "io/sqlite_row.h"
#include "io/sqlite_worker.h"

#define PC_CLAIM_MAX 256u                     // messages per transaction
#define PC_CLAIM_BYTES ((size_t)32 << 20)     // about, per transaction
#define PC_LOCK_WAIT_NS (200 * PC_NS_PER_MS)  // the loop stands still that long at most
#define PC_UNCLAIM (PC_REQUEUE + 1)           // claimed, but not delivered any more
#define PC_DUE_UNKNOWN INT64_MIN

/* A tag: generation in 15 bits, so that tags of a lost connection are known, above the message id.
 */
#define PC_TAG_NO_ACK (UINT64_C(1) << 63)
#define PC_TAG_ID_BITS 48
#define PC_TAG_ID_MASK ((UINT64_C(1) << PC_TAG_ID_BITS) - 1)
#define PC_TAG_GENERATIONS 0x8000u

typedef enum pc_source_state {
    PC_SOURCE_CLOSED,
    PC_SOURCE_OPENING,
    PC_SOURCE_UP,
    PC_SOURCE_ABANDONED
} pc_source_state;

typedef struct pc_consumer {
    pc_link link;
    pc_queue queue;  // strings owned, tables not kept
    int64_t id;      // of the queue
} pc_consumer;

typedef struct pc_settled {
    int64_t id;
    int how;  // pc_settle or PC_UNCLAIM
} pc_settled;

typedef struct pc_sqlite_source {
    pc_source base;
    pc_loop *loop;
    char *path;
    int synchronous;
    pc_source_state state;
    pc_sqlite *db;
    pc_bell bell;
    pc_sqlite_worker worker;
    pc_link consumers;
    unsigned queues;
    uint64_t mask;      // of the bell
    unsigned prefetch;  // 0: no limit
    unsigned held;      // delivered, not settled
    bool paused;
    bool suspect;      // there may be ready messages
    int64_t seen;      // data_version
    int64_t next_due;  // microseconds, 0: none waits, or PC_DUE_UNKNOWN
    unsigned generation;
    unsigned held_by;  // generation of the messages that our row still holds while we are down
    bool checked_in;   // on this connection: what was held before has gone back
    unsigned failures;
    pc_mono owners_at;  // next look for dead workers
    pc_settled *pending;
    size_t pending_len;
    size_t pending_cap;
    pc_sqlite_row *rows;  // PC_CLAIM_MAX
    unsigned rows_len;
    pc_buf bytes;
    size_t average;  // bytes of a message in the last claim
    pc_watch watch;
    pc_defer defer;
    pc_timer tick;
    pc_timer retry;
    pc_timer due;
} pc_sqlite_source;

static inline pc_sqlite_source *
pc_sqlite_source_of(pc_source *base)
{
    return PC_CONTAINER_OF(base, pc_sqlite_source, base);
}

/* How many messages it may claim now. */
unsigned pc_sqlite_source_room(const pc_sqlite_source *self);
/* Asks for the end of the turn. */
void pc_sqlite_source_run_soon(pc_sqlite_source *self);
/* Commits if rc is not negative, else rolls back. */
int pc_sqlite_source_finish(pc_sqlite_source *self, int rc, pc_err *err);

/* --- sqlite_consumer.c --- */
int pc_sqlite_source_add_queue(pc_source *base, const pc_queue *queue, pc_err *err);
int pc_sqlite_source_drop_queue(pc_source *base, const char *name, pc_err *err);
/* In a transaction: declares all the queues, writes all the consumer rows. */
int pc_sqlite_source_start_consumers(pc_sqlite_source *self, pc_err *err);
/* Reports queues that were removed under us. */
int pc_sqlite_source_check_queues(pc_sqlite_source *self, pc_err *err);
void pc_sqlite_source_free_consumers(pc_sqlite_source *self);

/* --- sqlite_claim.c --- */
int pc_sqlite_source_push(pc_sqlite_source *self, int64_t id, int how, pc_err *err);
/* In a transaction. Returns how many messages are ready again, or -1. */
int pc_sqlite_source_write_settled(pc_sqlite_source *self, pc_err *err);
/* One transaction: settle, wake the due, claim. What was claimed is in rows. */
int pc_sqlite_source_transact(pc_sqlite_source *self, pc_err *err);
/* Hands the rows to the owner. */
void pc_sqlite_source_deliver(pc_sqlite_source *self);
/* Marks the bell and looks; *asleep: nothing is there. */
int pc_sqlite_source_rest(pc_sqlite_source *self, bool *asleep, pc_err *err);
void pc_sqlite_source_set_due_timer(pc_sqlite_source *self);

#endif
