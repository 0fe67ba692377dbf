/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/park.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(atomic_int) == 4, "a futex is 32 bits wide");

void
pc_park_init(pc_park *park)
{
    atomic_init(&park->woken, 0);
}

/* FUTEX_WAIT_BITSET, because it takes an absolute time of CLOCK_MONOTONIC and
 * returns EINTR. */
static pc_park_end
wait_once(pc_park *park, const struct timespec *until)
{
    long rc = syscall(SYS_futex, &park->woken, FUTEX_WAIT_BITSET_PRIVATE, 0, until, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    if (rc != 0 && errno == ETIMEDOUT) {
        return PC_PARK_TIMEOUT;
    }
    return rc != 0 && errno == EINTR ? PC_PARK_SIGNAL : PC_PARK_WOKEN;
}

pc_park_end
pc_park_sleep(pc_park *park, pc_mono deadline)
{
    int64_t ns = deadline.ns < 0 ? 0 : deadline.ns;
    struct timespec until = {.tv_sec = (time_t)(ns / PC_NS_PER_SEC),
                             .tv_nsec = (long)(ns % PC_NS_PER_SEC)};
    const struct timespec *limit = deadline.ns == PC_MONO_NEVER.ns ? NULL : &until;
    while (atomic_exchange(&park->woken, 0) == 0) {
        pc_park_end end = wait_once(park, limit);
        if (end != PC_PARK_WOKEN) {
            return end;
        }
    }
    return PC_PARK_WOKEN;
}

void
pc_park_wake(pc_park *park)
{
    if (atomic_exchange(&park->woken, 1) == 0) {
        (void)syscall(SYS_futex, &park->woken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}
