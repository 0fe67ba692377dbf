/* SPDX-License-Identifier: BSD-3-Clause */
/* What parent and child of the prefork pool share in memory, without a system call for an ordinary task.
 *
 * Starts. The child must pass the gate before it starts job number seq. The parent can close it for a moment, which stops the
 * child from starting anything, so that the parent knows for certain which jobs have started and can take the others back. One
 * atomic word holds generation, closed bit and the last started number; the generation makes a child that was between reading and
 * writing the word during a whole close-open cycle try again.
 *
 * Offers. The child says on its socket what it would like to have run next (pc_outcome.offer), and waits for the answer here: on the
 * socket it would stand behind jobs. An offer ends in one way only: the parent takes it in hand and then tells what came of it, or the
 * child withdraws it. */
#ifndef PC_WORK_GATE_H
#define PC_WORK_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct pc_gate {
    _Atomic uint64_t word;
    _Atomic uint64_t drop_upto;  // jobs up to here were taken back
    _Atomic uint64_t soft_seq;   // the job whose soft limit has passed
    _Atomic uint32_t offer;      // number and state of the child's last offer; a futex
} pc_gate;

/* Child: false when the job was taken back. */
bool pc_gate_enter(pc_gate *gate, uint64_t seq);
/* Parent: the last started number. */
uint64_t pc_gate_started(pc_gate *gate);
/* Parent: takes back all that has not started up to `sent`; returns the last started. */
uint64_t pc_gate_recall(pc_gate *gate, uint64_t sent);
/* Parent, for a new child. */
void pc_gate_reset(pc_gate *gate, uint64_t seq);

/* Child: a new offer; its number, never 0. */
uint32_t pc_gate_ask(pc_gate *gate);
/* Child: whether it was granted. Withdraws it when nobody takes it in hand for a moment. */
bool pc_gate_wait(pc_gate *gate, uint32_t number);
/* Parent: false when it was withdrawn. */
bool pc_gate_take(pc_gate *gate, uint32_t number);
void pc_gate_tell(pc_gate *gate, uint32_t number, bool granted);

#endif
