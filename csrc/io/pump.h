/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes loop-driven connections usable from any number of blocking threads (a client program's), without a thread of our own.
 *
 * DESIGN. Everything that hangs on the pump's loop is touched with the pump's lock held. A
 * thread that has to wait for something (a reply, a result, room in a window) calls pc_pump_wait: the first one
 * becomes the pumper and turns the loop, releasing the lock only while it sleeps in the kernel; the others sleep on the
 * condition and look at their predicate after each turn. When the pumper is satisfied it leaves and wakes a successor.
 * A predicate must be cheap and touch only what the lock guards: any thread that holds the lock may ask it. */
#ifndef PC_IO_PUMP_H
#define PC_IO_PUMP_H

#include "io/loop.h"

typedef struct pc_pump pc_pump;

pc_pump *pc_pump_new(pc_err *err);
void pc_pump_free(pc_pump *pump);
pc_loop *pc_pump_loop(pc_pump *pump);

void pc_pump_lock(pc_pump *pump);
void pc_pump_unlock(pc_pump *pump);
/* Lock held. Runs the deferred work now (flush) and handles what is ready, without sleeping. */
int pc_pump_poll(pc_pump *pump, pc_err *err);
/* Lock held. Until done(ctx) is non-zero (asked before the first sleep, too): 0; deadline passed: -1 with PC_ETIMEOUT;
 * interrupted by pc_pump_interrupt or by a signal (`eintr` was given and a signal arrived in this thread): -1 with PC_ESTATE and *eintr = true. */
int pc_pump_wait(pc_pump *pump, int (*done)(void *ctx), void *ctx,
                 pc_mono deadline, bool *eintr, pc_err *err);
/* Before the first wait. Those that give no `eintr` then end with PC_ESTATE when `interrupted` says so. It is called by the thread
 * that waits, without the lock: when a signal arrived in that thread, and about ten times a second. */
void pc_pump_ask(pc_pump *pump, int (*interrupted)(void));
/* Lock not held; any thread, but no signal handler. Ends all waits under way that gave `eintr`. */
void pc_pump_interrupt(pc_pump *pump);

#endif
