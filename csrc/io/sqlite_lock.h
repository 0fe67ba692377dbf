/* SPDX-License-Identifier: BSD-3-Clause */
/* The writer lock of a database file: an flock on `<path>-lock`, held around every write
 * transaction and every checkpoint by all our processes.
 *
 * Why not SQLite's busy handler: it sleeps up to 100 ms between tries, so waits have a long tail;
 * and checkpoints that are made only under this lock avoid SQLite's WAL-reset bug. Why flock: the
 * kernel frees it when its holder dies, whereas a plain flock() can't end at a deadline. So it is
 * tried without blocking, and between two tries the waiter sleeps on a futex in the mapped lock
 * file, which the holder bumps when it unlocks. The futex is a hint only: who misses it tries again
 * after a few milliseconds.
 *
 * A process that was forked in the middle of a transaction shares the open file with its parent:
 * the unlock by the parent frees the lock for both. One thread at a time may use an object; every
 * object has its own open file, so two of them in one process exclude each other as well. */
#ifndef PC_IO_SQLITE_LOCK_H
#define PC_IO_SQLITE_LOCK_H

#include <stdbool.h>

#include "base/clock.h"

typedef struct pc_sqlite_lock {
    char *path;
    int fd;  // -1: not open
    struct pc_turnstile *turnstile;
    bool held;
} pc_sqlite_lock;

void pc_sqlite_lock_init(pc_sqlite_lock *lock);
/* Opens or creates `<path>-lock`. PC_EIO. */
int pc_sqlite_lock_open(pc_sqlite_lock *lock, const char *path, pc_err *err);
/* PC_ETIMEOUT at the deadline. */
int pc_sqlite_lock_take(pc_sqlite_lock *lock, pc_mono deadline, pc_err *err);
/* Does nothing when it isn't held. */
void pc_sqlite_lock_drop(pc_sqlite_lock *lock);
/* Closes the descriptor, frees; in a forked child this leaves the parent's lock alone. */
void pc_sqlite_lock_fini(pc_sqlite_lock *lock);

#endif
