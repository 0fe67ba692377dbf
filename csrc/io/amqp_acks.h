/* SPDX-License-Identifier: BSD-3-Clause */
/* The delivery tags of one channel, from delivery to settlement. Acks are gathered and written once
 * a turn: the contiguous settled prefix as one ack(multiple), what is settled behind a gap one by
 * one (a long task at a low tag must not pin the prefetch window). */
#ifndef PC_IO_AMQP_ACKS_H
#define PC_IO_AMQP_ACKS_H

#include "io/broker.h"

typedef struct pc_amqp_acks {
    uint8_t *marks;   // ring of what became of the tags low … next - 1
    uint64_t *prints; // beside it: what the messages look like, 0: nobody asks
    size_t cap;       // power of two, or 0
    uint64_t low;     // oldest tag not settled and written
    uint64_t next;    // tag of the next delivery
    uint64_t *acked;  // acks not yet written, as they came
    size_t acked_len;
    size_t acked_cap;
} pc_amqp_acks;

void pc_amqp_acks_init(pc_amqp_acks *acks);
void pc_amqp_acks_fini(pc_amqp_acks *acks);
/* A new channel: all tags are void. */
void pc_amqp_acks_reset(pc_amqp_acks *acks);

/* A delivery; with no_ack it is settled already. PC_EPROTO when tags leap. */
int pc_amqp_acks_deliver(pc_amqp_acks *acks, uint64_t tag, bool no_ack, uint64_t print, pc_err *err);
/* As given to deliver(), while the tag is not settled; else 0. */
uint64_t pc_amqp_acks_print(const pc_amqp_acks *acks, uint64_t tag);
/* Settles; rejects are written to `out` at once, acks with write(). An unknown or settled tag is
 * ignored. */
int pc_amqp_acks_settle(pc_amqp_acks *acks, uint64_t tag, pc_settle how, pc_buf *out, pc_err *err);
int pc_amqp_acks_write(pc_amqp_acks *acks, pc_buf *out, pc_err *err);

#endif
