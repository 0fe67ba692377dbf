/* SPDX-License-Identifier: BSD-3-Clause */
/* What an AMQP source has settled without the broker's knowledge, maybe: nothing confirms an acknowledgement, and those on
 * their way when the connection breaks are lost. Such a message comes again, marked as redelivered. If it comes to us
 * it is recognised by a print of its content, and acknowledged instead of run a second time. Bounded: what was settled
 * after, or shortly before, the broker was heard for the last time, the newest of it, each once and for some minutes. */
#ifndef PC_IO_AMQP_SETTLED_H
#define PC_IO_AMQP_SETTLED_H

#include "base/clock.h"
#include "wire/message.h"

#define PC_AMQP_SETTLED_MAX 4096u  // power of two

typedef struct pc_amqp_settled_note {
    uint64_t print;
    pc_mono left;  // when it was written to the connection
} pc_amqp_settled_note;

typedef struct pc_amqp_settled {
    uint64_t seed;
    pc_amqp_settled_note notes[PC_AMQP_SETTLED_MAX];  // ring: settled on this connection
    uint64_t end;      // ever noted
    uint64_t written;  // of them
    uint64_t doubtful[PC_AMQP_SETTLED_MAX];  // ring: prints, of connections that were lost
    uint64_t doubts;   // ever added
    size_t waiting;    // of them not taken yet
    pc_mono until;     // the last doubt is forgotten then
} pc_amqp_settled;

void pc_amqp_settled_init(pc_amqp_settled *settled);
/* Of a message as it is delivered, for whom redelivery is no difference. */
uint64_t pc_amqp_settled_print(const pc_amqp_settled *settled, const pc_message *message);
void pc_amqp_settled_note_one(pc_amqp_settled *settled, uint64_t print);
/* All that was noted is on its way now. */
void pc_amqp_settled_flushed(pc_amqp_settled *settled, pc_mono now);
/* The connection is lost, on which the broker was heard for the last time at `heard`. */
void pc_amqp_settled_lost(pc_amqp_settled *settled, pc_mono heard, pc_mono now);
/* Settled when the connection was lost already. */
void pc_amqp_settled_too_late(pc_amqp_settled *settled, uint64_t print, pc_mono now);
/* A message comes again: was it settled? True once for each time it was. */
bool pc_amqp_settled_take(pc_amqp_settled *settled, const pc_message *message, pc_mono now);

#endif
