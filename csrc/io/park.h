/* SPDX-License-Identifier: BSD-3-Clause */
/* One thread's place to sleep until another wakes it, a deadline passes or a signal
 * arrives. (A condition variable sleeps on through signals, and a program that
 * waits for a result wants its Ctrl-C.) Lives on the sleeper's stack; the waker must
 * hold the lock that the sleeper takes before the place goes away. */
#ifndef PC_IO_PARK_H
#define PC_IO_PARK_H

#include <stdatomic.h>

#include "base/clock.h"

typedef struct pc_park {
    atomic_int woken;
} pc_park;

typedef enum pc_park_end { PC_PARK_WOKEN, PC_PARK_TIMEOUT, PC_PARK_SIGNAL } pc_park_end;

void pc_park_init(pc_park *park);
/* Returns at once when woken since the last sleep. */
pc_park_end pc_park_sleep(pc_park *park, pc_mono deadline);
void pc_park_wake(pc_park *park);

#endif
