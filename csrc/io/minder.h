/* SPDX-License-Identifier: BSD-3-Clause */
/* Finishes what the callers of a pump have left under way. Publishing returns before the broker has
 * confirmed; a program that does something else for hours afterwards would not learn that the
 * connection broke, and its last messages would lie in its memory.
 *
 * DESIGN. A thread that looks ten times a second: it takes in answers, and turns the loop while
 * something has to be sent again. Asking for it costs a publisher a flag. It ends when there was
 * nothing to do for a second, and before a fork; it has all signals blocked, and calls nothing but
 * the pump and the two hooks. */
#ifndef PC_IO_MINDER_H
#define PC_IO_MINDER_H

#include <pthread.h>
#include <sys/types.h>

#include "io/park.h"
#include "io/pump.h"

typedef struct pc_minder_hooks {
    // with the pump's lock held
    bool (*open)(void *ctx);  // something waits for its answer
    bool (*sent)(void *ctx);  // all of it has left on the present connection
    void *ctx;
} pc_minder_hooks;

typedef struct pc_minder {
    pc_pump *pump;  // NULL: not made
    pc_minder_hooks hooks;
    pid_t owner;    // the process that made it: in a forked child there is no thread, and the lock may be held
    // -- what follows is guarded by the pump's lock
    bool running;   // the thread is there, or about to be
    bool joinable;
    bool stopping;
    bool needed;    // since its last look
    pthread_t thread;
    pc_park park;
} pc_minder;

void pc_minder_init(pc_minder *minder, pc_pump *pump, const pc_minder_hooks *hooks);

/* Lock held. Something was left under way. Without memory for a thread it is finished by the next
 * caller, as if there were no minder. */
void pc_minder_need(pc_minder *minder);
/* The same, and it looks at once: the rest cannot leave before an answer is in. */
void pc_minder_hurry(pc_minder *minder);
/* Lock held. Lets the thread end, does not wait for it. */
void pc_minder_end(pc_minder *minder);
/* Lock not held. When this returns the thread is gone; the next need() starts one. In a forked child:
 * nothing. */
void pc_minder_stop(pc_minder *minder);
/* Lock not held. Back after a stop, if something is open. */
void pc_minder_resume(pc_minder *minder);
/* As stop(), and what is called afterwards does nothing. */
void pc_minder_forget(pc_minder *minder);

#endif
