/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/gate.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define CLOSED (UINT64_C(1) << 48)
#define SEQ_MASK (CLOSED - 1)
#define GENERATION (CLOSED << 1)

/* --- starts ------------------------------------------------------------ */

bool
pc_gate_enter(pc_gate *gate, uint64_t seq)
{
    for (;;) {
        uint64_t word = atomic_load(&gate->word);
        if (word & CLOSED) {
            sched_yield();  // the parent opens it again within a few instructions
            continue;
        }
        if (seq <= atomic_load(&gate->drop_upto)) {
            return false;
        }
        if (atomic_compare_exchange_strong(&gate->word, &word, (word & ~SEQ_MASK) | seq)) {
            return true;
        }
    }
}

uint64_t
pc_gate_started(pc_gate *gate)
{
    return atomic_load(&gate->word) & SEQ_MASK;
}

uint64_t
pc_gate_recall(pc_gate *gate, uint64_t sent)
{
    uint64_t word = atomic_fetch_or(&gate->word, CLOSED) & ~CLOSED;

    atomic_store(&gate->drop_upto, sent);
    atomic_store(&gate->word, word + GENERATION);
    return word & SEQ_MASK;
}

void
pc_gate_reset(pc_gate *gate, uint64_t seq)
{
    atomic_store(&gate->word, seq & SEQ_MASK);
    atomic_store(&gate->drop_upto, seq);
    atomic_store(&gate->soft_seq, 0);
    atomic_store(&gate->offer, 0);
}

/* --- offers ------------------------------------------------------------ */

#define STATE_BITS 3
#define STATE_MASK ((1u << STATE_BITS) - 1)
#define PATIENCE_NS (200 * PC_NS_PER_MS)  // for a parent that is busy: the broker's way leads through it, too
#define IN_HAND_NS (PC_NS_PER_SEC)       // a look at a parent that has it in hand

enum { ASKED, IN_HAND, GRANTED, REFUSED, WITHDRAWN };

static uint32_t
word_of(uint32_t number, uint32_t state)
{
    return number << STATE_BITS | state;
}

uint32_t
pc_gate_ask(pc_gate *gate)
{
    uint32_t number = ((atomic_load(&gate->offer) >> STATE_BITS) + 1) & (UINT32_MAX >> STATE_BITS);

    number += number == 0;
    atomic_store(&gate->offer, word_of(number, ASKED));
    return number;
}

/* The mapping is shared between processes, so the futex must not be a private one. Waking early is no harm. */
static void
wait_for_change(pc_gate *gate, uint32_t word, int64_t ns)
{
    struct timespec most = {(time_t)(ns / PC_NS_PER_SEC), (long)(ns % PC_NS_PER_SEC)};

    (void)syscall(SYS_futex, &gate->offer, FUTEX_WAIT, word, &most, NULL, 0);
}

bool
pc_gate_wait(pc_gate *gate, uint32_t number)
{
    pc_mono end = pc_mono_add(pc_mono_now(), PATIENCE_NS);

    for (;;) {
        uint32_t word = atomic_load(&gate->offer);
        uint32_t state = word & STATE_MASK;
        if (state == GRANTED || state == REFUSED) {
            return state == GRANTED;
        }
        int64_t left = state == IN_HAND ? IN_HAND_NS : end.ns - pc_mono_now().ns;
        if (left > 0) {
            wait_for_change(gate, word, left);
        } else if (atomic_compare_exchange_strong(&gate->offer, &word, word_of(number, WITHDRAWN))) {
            return false;
        }
    }
}

bool
pc_gate_take(pc_gate *gate, uint32_t number)
{
    uint32_t asked = word_of(number, ASKED);

    return atomic_compare_exchange_strong(&gate->offer, &asked, word_of(number, IN_HAND));
}

void
pc_gate_tell(pc_gate *gate, uint32_t number, bool granted)
{
    atomic_store(&gate->offer, word_of(number, granted ? GRANTED : REFUSED));
    (void)syscall(SYS_futex, &gate->offer, FUTEX_WAKE, 1, NULL, NULL, 0);
}
