/* SPDX-License-Identifier: BSD-3-Clause */
/* The transactions of a source: settlements and the next claim together. */
#include <stdlib.h>

#include "base/mem.h"
#include "io/sqlite_source.h"

/* --- settling --- */

int
pc_sqlite_source_push(pc_sqlite_source *self, int64_t id, int how, pc_err *err)
{
    if (self->pending_len == self->pending_cap) {
        size_t cap = self->pending_cap == 0 ? 64 : self->pending_cap * 2;
        pc_settled *grown = pc_realloc(self->pending, cap * sizeof *grown);
        if (grown == NULL) {
            return pc_fail_nomem(err);
        }
        self->pending = grown;
        self->pending_cap = cap;
    }
    self->pending[self->pending_len++] = (pc_settled){id, how};
    return 0;
}

int
pc_sqlite_source_write_settled(pc_sqlite_source *self, pc_err *err)
{
    static const pc_sql how[] = {
        [PC_ACK] = PC_SQL_MSG_DELETE,
        [PC_REJECT] = PC_SQL_MSG_DELETE,
        [PC_REQUEUE] = PC_SQL_MSG_REQUEUE,
        [PC_UNCLAIM] = PC_SQL_MSG_UNCLAIM,
    };
    int ready = 0;
    for (size_t i = 0; i < self->pending_len; i++) {
        pc_sql which = how[self->pending[i].how];
        pc_sqlite_bind_int(self->db, which, 1, self->pending[i].id);
        pc_sqlite_bind_int(self->db, which, 2, self->worker.id);
        int n = pc_sqlite_run(self->db, which, err);
        if (n < 0) {
            return -1;
        }
        ready += which == PC_SQL_MSG_DELETE ? 0 : n;
    }
    return ready;
}

/* --- claiming; all in a transaction --- */

static int
claim_from(pc_sqlite_source *self, const pc_consumer *from, unsigned most, pc_err *err)
{
    pc_sqlite *db = self->db;
    unsigned before = self->rows_len;
    pc_sqlite_bind_int(db, PC_SQL_MSG_CLAIM, 1, self->worker.id);
    pc_sqlite_bind_int(db, PC_SQL_MSG_CLAIM, 2, from->id);
    pc_sqlite_bind_int(db, PC_SQL_MSG_CLAIM, 3, most);
    int rc;
    while ((rc = pc_sqlite_step(db, PC_SQL_MSG_CLAIM, err)) > 0) {
        pc_sqlite_row *row = &self->rows[self->rows_len];
        if (pc_sqlite_row_read(db, PC_SQL_MSG_CLAIM, &self->bytes, row, err) < 0) {
            return -1;
        }
        row->no_ack = from->queue.no_ack;
        self->rows_len++;
    }
    return rc < 0 ? -1 : (int)(self->rows_len - before);
}

static int
by_order(const void *left, const void *right)
{
    const pc_sqlite_row *a = left;
    const pc_sqlite_row *b = right;
    if (a->priority != b->priority) {
        return a->priority > b->priority ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Every queue gets its share of the room; the first one of this turn is the last of the next.
 * RETURNING has no order: sorted here. */
static int
claim(pc_sqlite_source *self, unsigned most, pc_err *err)
{
    unsigned queues = self->queues;
    bool more = false;
    for (unsigned left = queues; left > 0 && most > self->rows_len; left--) {
        pc_link *first = pc_list_take_front(&self->consumers);
        pc_list_put_back(&self->consumers, first);
        unsigned share = (most - self->rows_len + left - 1) / left;
        int n = claim_from(self, PC_CONTAINER_OF(first, pc_consumer, link), share, err);
        if (n < 0) {
            return -1;
        }
        more = more || (unsigned)n == share;
    }
    if (self->rows_len > 0) {
        self->average = pc_buf_len(&self->bytes) / self->rows_len;
    }
    qsort(self->rows, self->rows_len, sizeof *self->rows, by_order);
    // with all the room used up some queue may not have been looked at
    self->suspect = more || self->rows_len == most;
    return 0;
}

/* Of huge messages fewer at a time. */
static unsigned
limit_bytes(const pc_sqlite_source *self, unsigned most)
{
    size_t fit = PC_CLAIM_BYTES / (self->average + 1);
    if (fit == 0) {
        return most > 0 ? 1 : 0;
    }
    return fit < most ? (unsigned)fit : most;
}

static int
promote(pc_sqlite_source *self, pc_err *err)
{
    int64_t now = pc_wall_now().us;
    if (self->next_due == 0 || self->next_due > now) {
        return 0;
    }
    pc_sqlite_bind_int(self->db, PC_SQL_MSG_PROMOTE, 1, now);
    return pc_sqlite_run(self->db, PC_SQL_MSG_PROMOTE, err);
}

/* What another connection has committed up to now is covered by the look that follows. */
static int
look_at_version(pc_sqlite_source *self, pc_err *err)
{
    int64_t version = pc_sqlite_data_version(self->db, err);
    if (version < 0) {
        return -1;
    }
    if (version != self->seen) {
        self->seen = version;
        self->suspect = true;
        self->next_due = PC_DUE_UNKNOWN;
    }
    return 0;
}

static int
fill_transaction(pc_sqlite_source *self, unsigned *woken, pc_err *err)
{
    if (look_at_version(self, err) < 0) {
        return -1;
    }
    int requeued = pc_sqlite_source_write_settled(self, err);
    bool unknown = self->next_due == PC_DUE_UNKNOWN;
    int promoted = requeued < 0 ? -1 : promote(self, err);
    if (promoted < 0) {
        return -1;
    }
    *woken = (unsigned)(requeued + promoted);
    self->suspect = self->suspect || *woken > 0;
    unsigned most = limit_bytes(self, pc_sqlite_source_room(self));
    if (most > 0 && self->suspect && claim(self, most, err) < 0) {
        return -1;
    }
    return unknown || promoted > 0
               ? pc_sqlite_int(self->db, PC_SQL_MSG_NEXT_DUE, &self->next_due, err)
               : 0;
}

/* None while paused: what falls due then is for others, and would find us idle over and over. */
void
pc_sqlite_source_set_due_timer(pc_sqlite_source *self)
{
    if (self->next_due <= 0 || self->paused) {
        pc_loop_clear_timer(self->loop, &self->due);
        return;
    }
    pc_mono when = pc_mono_at_wall((pc_wall){self->next_due}, pc_wall_now(), pc_mono_now());
    (void)pc_loop_set_timer(self->loop, &self->due, when,
                            NULL);  // without it the tick finds the message
}

/* One transaction: settle, wake the due, claim. */
int
pc_sqlite_source_transact(pc_sqlite_source *self, pc_err *err)
{
    unsigned woken = 0;
    self->rows_len = 0;
    pc_buf_reset(&self->bytes, 1 << 20);
    if (pc_sqlite_begin(self->db, pc_mono_add(pc_mono_now(), PC_LOCK_WAIT_NS), err) < 0 ||
        pc_sqlite_source_finish(self, fill_transaction(self, &woken, err), err) < 0) {
        self->rows_len = 0;
        self->seen = -1;
        return -1;
    }
    self->pending_len = 0;
    self->failures = 0;
    pc_sqlite_source_set_due_timer(self);
    if (woken > self->rows_len) {
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, PC_BELL_ALL, woken - self->rows_len);
    }
    return 0;
}

/* --- delivering --- */

static uint64_t
tag_of(const pc_sqlite_source *self, const pc_sqlite_row *row)
{
    uint64_t tag = (uint64_t)self->generation << PC_TAG_ID_BITS | (uint64_t)row->id;
    return row->no_ack ? tag | PC_TAG_NO_ACK : tag;
}

/* A failure to note what becomes of the message leaves it held: the next connect gives it back. */
static void
settle_row(pc_sqlite_source *self, const pc_sqlite_row *row, int how)
{
    (void)pc_sqlite_source_push(self, row->id, how, NULL);
    if (!row->no_ack) {
        self->held--;
    }
}

static void
deliver_row(pc_sqlite_source *self, const pc_sqlite_row *row)
{
    pc_message message;
    pc_err err;
    if (pc_sqlite_row_message(row, &self->bytes, &message, &err) < 0) {
        pc_log_write(self->base.log, PC_ERROR, "%s: deleted", err.msg);
        settle_row(self, row, PC_REJECT);
        return;
    }
    message.tag = tag_of(self, row);
    if (row->no_ack) {
        settle_row(self, row, PC_ACK);
    }
    self->base.hooks.message(self->base.hooks.ctx, &message);
}

void
pc_sqlite_source_deliver(pc_sqlite_source *self)
{
    for (unsigned i = 0; i < self->rows_len; i++) {
        self->held += self->rows[i].no_ack ? 0 : 1;
    }
    // a hook may pause or close us
    for (unsigned i = 0; i < self->rows_len && self->state == PC_SOURCE_UP; i++) {
        if (self->paused) {
            settle_row(self, &self->rows[i], PC_UNCLAIM);
        } else {
            deliver_row(self, &self->rows[i]);
        }
    }
    self->rows_len = 0;
}

/* --- sleeping --- */

static int
look_for_ready(pc_sqlite_source *self, pc_err *err)
{
    for (pc_link *at = self->consumers.next; at != &self->consumers; at = at->next) {
        int64_t ready;
        pc_sqlite_bind_int(self->db, PC_SQL_MSG_IS_READY, 1,
                           PC_CONTAINER_OF(at, pc_consumer, link)->id);
        if (pc_sqlite_int(self->db, PC_SQL_MSG_IS_READY, &ready, err) < 0) {
            return -1;
        }
        if (ready) {
            self->suspect = true;
            return 0;
        }
    }
    return 0;
}

/* Only reads, so that many idle workers beside a busy one cost it nothing. What is committed after
 * the mark rings the bell. */
int
pc_sqlite_source_rest(pc_sqlite_source *self, bool *asleep, pc_err *err)
{
    *asleep = true;
    if (pc_sqlite_source_room(self) == 0) {
        pc_bell_awake(&self->bell);
        return 0;
    }
    pc_bell_sleep(&self->bell, self->mask);
    int64_t version = pc_sqlite_data_version(self->db, err);
    if (version < 0 || version == self->seen) {
        return version < 0 ? -1 : 0;
    }
    self->seen = version;
    if (look_for_ready(self, err) < 0 ||
        pc_sqlite_int(self->db, PC_SQL_MSG_NEXT_DUE, &self->next_due, err) < 0) {
        self->seen = -1;
        return -1;
    }
    pc_sqlite_source_set_due_timer(self);
    if (self->suspect) {
        pc_bell_awake(&self->bell);
        *asleep = false;
    }
    return 0;
}
