/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_acks.h"

#include "base/mem.h"
#include "io/amqp_codec.h"
#include "io/amqp_conn.h"

#define MIN_MARKS 1024u

enum { OPEN, ACKED, DONE };  // DONE: the server knows

void
pc_amqp_acks_init(pc_amqp_acks *acks)
{
    *acks = (pc_amqp_acks){.low = 1, .next = 1};
}

void
pc_amqp_acks_fini(pc_amqp_acks *acks)
{
    pc_free(acks->marks);
    pc_free(acks->prints);
    pc_free(acks->acked);
    pc_amqp_acks_init(acks);
}

void
pc_amqp_acks_reset(pc_amqp_acks *acks)
{
    acks->low = acks->next = 1;
    acks->acked_len = 0;
}

static uint8_t *
mark_of(const pc_amqp_acks *acks, uint64_t tag)
{
    return &acks->marks[tag & (acks->cap - 1)];
}

static int
grow(pc_amqp_acks *acks, pc_err *err)
{
    size_t cap = acks->cap == 0 ? MIN_MARKS : acks->cap * 2;
    uint8_t *marks = pc_alloc(cap);
    uint64_t *prints = pc_alloc(cap * sizeof *prints);
    if (marks == NULL || prints == NULL) {
        pc_free(marks);
        pc_free(prints);
        return pc_fail_nomem(err);
    }
    for (uint64_t tag = acks->low; tag < acks->next; tag++) {
        marks[tag & (cap - 1)] = *mark_of(acks, tag);
        prints[tag & (cap - 1)] = acks->prints[tag & (acks->cap - 1)];
    }
    pc_free(acks->marks);
    pc_free(acks->prints);
    acks->marks = marks;
    acks->prints = prints;
    acks->cap = cap;
    return 0;
}

int
pc_amqp_acks_deliver(pc_amqp_acks *acks, uint64_t tag, bool no_ack, uint64_t print, pc_err *err)
{
    if (tag != acks->next) {
        return pc_fail(err, PC_EPROTO, "the server sent delivery tag %llu, %llu was due",
                       (unsigned long long)tag, (unsigned long long)acks->next);
    }
    if (acks->next - acks->low == acks->cap && grow(acks, err) < 0) {
        return -1;
    }
    acks->next++;
    *mark_of(acks, tag) = no_ack ? DONE : OPEN;
    acks->prints[tag & (acks->cap - 1)] = print;
    return 0;
}

uint64_t
pc_amqp_acks_print(const pc_amqp_acks *acks, uint64_t tag)
{
    bool open = tag >= acks->low && tag < acks->next && *mark_of(acks, tag) == OPEN;
    return open ? acks->prints[tag & (acks->cap - 1)] : 0;
}

static int
note_ack(pc_amqp_acks *acks, uint64_t tag, pc_err *err)
{
    if (acks->acked_len == acks->acked_cap) {
        size_t cap = acks->acked_cap == 0 ? 64 : acks->acked_cap * 2;
        uint64_t *acked = pc_realloc(acks->acked, cap * sizeof *acked);
        if (acked == NULL) {
            return pc_fail_nomem(err);
        }
        acks->acked = acked;
        acks->acked_cap = cap;
    }
    acks->acked[acks->acked_len++] = tag;
    return 0;
}

int
pc_amqp_acks_settle(pc_amqp_acks *acks, uint64_t tag, pc_settle how, pc_buf *out, pc_err *err)
{
    if (tag < acks->low || tag >= acks->next || *mark_of(acks, tag) != OPEN) {
        return 0;
    }
    int rc = how == PC_ACK
                 ? note_ack(acks, tag, err)
                 : pc_amqp_write_reject(out, PC_AMQP_CHANNEL, tag, how == PC_REQUEUE, err);
    if (rc < 0) {
        return -1;
    }
    *mark_of(acks, tag) = how == PC_ACK ? ACKED : DONE;
    return 0;
}

/* Steps over the settled prefix and acks it as a whole. The tag named must be one that the
 * server still knows: the last ACKED one, not a rejected one behind it. */
static int
write_prefix(pc_amqp_acks *acks, pc_buf *out, pc_err *err)
{
    uint64_t last = 0;
    unsigned count = 0;
    uint64_t tag = acks->low;
    for (; tag < acks->next && *mark_of(acks, tag) != OPEN; tag++) {
        if (*mark_of(acks, tag) == ACKED) {
            last = tag;
            count++;
        }
    }
    if (count > 0 && pc_amqp_write_ack(out, PC_AMQP_CHANNEL, last, count > 1, err) < 0) {
        return -1;
    }
    acks->low = tag;
    return 0;
}

int
pc_amqp_acks_write(pc_amqp_acks *acks, pc_buf *out, pc_err *err)
{
    if (write_prefix(acks, out, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < acks->acked_len; i++) {
        uint64_t tag = acks->acked[i];
        if (tag < acks->low || *mark_of(acks, tag) != ACKED) {
            continue;
        }
        if (pc_amqp_write_ack(out, PC_AMQP_CHANNEL, tag, false, err) < 0) {
            return -1;
        }
        *mark_of(acks, tag) = DONE;
    }
    acks->acked_len = 0;
    return 0;
}
