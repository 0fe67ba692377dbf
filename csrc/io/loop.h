/* SPDX-License-Identifier: BSD-3-Clause */
/* epoll, timers and end-of-turn work on one thread.
 *
 * A turn is: run the deferred work (that is where output is flushed, so many small writes leave as
 * one), sleep until a descriptor is ready or a timer is due, call back. The
 * owner may split the turn (prepare, wait, dispatch) to hold a lock, or the GIL, around everything but the sleep.
 * Watches, timers and defers are embedded in their owner's struct; the loop never frees them. Any of them may be removed from inside any
 * callback, and a watch also by another thread during wait() if it holds the lock. */
#ifndef PC_IO_LOOP_H
#define PC_IO_LOOP_H

#include "base/clock.h"
#include "base/heap.h"
#include "base/list.h"

#define PC_READ 1u
#define PC_WRITE 2u
#define PC_HANGUP 4u  // reported, never asked for

typedef struct pc_watch {
    int fd;
    void (*ready)(void *ctx, unsigned events);
    void *ctx;
    // --
    unsigned events;
    uint32_t slot;  // index + 1 in the loop's table, 0 when not watched
} pc_watch;

typedef struct pc_timer {
    pc_heap_node node;  // key: pc_mono ns
    void (*due)(void *ctx, pc_mono now);
    void *ctx;
} pc_timer;

typedef struct pc_defer {
    pc_link link;
    void (*run)(void *ctx);
    void *ctx;
} pc_defer;

typedef struct pc_loop pc_loop;

pc_loop *pc_loop_new(pc_err *err);
void pc_loop_free(pc_loop *loop);

void pc_watch_init(pc_watch *watch, int fd,
                   void (*ready)(void *ctx, unsigned events), void *ctx);
/* Adds the watch or changes what it waits for; events 0 removes it. */
int pc_loop_watch(pc_loop *loop, pc_watch *watch, unsigned events,
                  pc_err *err);
/* Before the descriptor is closed. In a forked child it leaves the parent's epoll set, which the two share, alone. */
void pc_loop_unwatch(pc_loop *loop, pc_watch *watch);

void pc_timer_init(pc_timer *timer, void (*due)(void *ctx, pc_mono now),
                   void *ctx);
/* Sets or moves; a due timer is cleared before its callback runs. Moving cannot fail. */
int pc_loop_set_timer(pc_loop *loop, pc_timer *timer, pc_mono when,
                      pc_err *err);
void pc_loop_clear_timer(pc_loop *loop, pc_timer *timer);

void pc_defer_init(pc_defer *defer, void (*run)(void *ctx), void *ctx);
/* Runs once at the start of the next prepare(); adding twice is one. Cannot fail. */
void pc_loop_defer(pc_loop *loop, pc_defer *defer);
/* The same, before all that is deferred already: for what somebody idle waits for. */
void pc_loop_defer_next(pc_loop *loop, pc_defer *defer);
void pc_loop_undefer(pc_loop *loop, pc_defer *defer);
/* Runs at the beginning of every prepare() and dispatch(), before what was deferred or found, until undeferred: for who has
 * to know first that the loop stood still, before stale news is acted on. May undefer itself. */
void pc_loop_defer_first(pc_loop *loop, pc_defer *defer);

/* Time at the start of this turn's prepare or dispatch: cheap, good enough for timers set in callbacks. Outside of a turn
 * it is old: use pc_mono_now() there. */
pc_mono pc_loop_now(const pc_loop *loop);

/* Runs deferred work (also such as it adds itself); returns milliseconds to sleep for the next timer, at most up to `until`. */
int pc_loop_prepare(pc_loop *loop, pc_mono until);
/* Sleeps; touches nothing but the kernel and the loop's own event array. EINTR is an ordinary wake-up. */
int pc_loop_wait(pc_loop *loop, int wait_ms, pc_err *err);
/* The last wait() was ended by a signal. */
bool pc_loop_interrupted(const pc_loop *loop);
/* Calls back for what wait() found, then for due timers. Returns the number of callbacks made. */
int pc_loop_dispatch(pc_loop *loop);
/* prepare, wait, dispatch. Returns callbacks made or -1. */
int pc_loop_step(pc_loop *loop, pc_mono until, pc_err *err);

/* Readable when a turn would find something, timers and deferred work aside. For poll() only. */
int pc_loop_fd(const pc_loop *loop);

/* Ends a running or the next wait(). From any thread, and from a signal handler. */
void pc_loop_wake(pc_loop *loop);

#endif
