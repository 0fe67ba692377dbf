/* SPDX-License-Identifier: BSD-3-Clause */
/* Two clocks that cannot be mixed up: pc_mono never jumps and is what the core
 * waits on; pc_wall is UTC and is what messages carry. */
#ifndef PC_BASE_CLOCK_H
#define PC_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

typedef struct pc_mono {
    int64_t ns;
} pc_mono;

typedef struct pc_wall {
    int64_t us;  // since 1970-01-01T00:00:00Z
} pc_wall;

#define PC_NS_PER_SEC INT64_C(1000000000)
#define PC_NS_PER_MS INT64_C(1000000)
#define PC_US_PER_SEC INT64_C(1000000)
#define PC_MONO_NEVER ((pc_mono){INT64_MAX})

pc_mono pc_mono_now(void);
pc_wall pc_wall_now(void);
/* Saturating: never overflows. */
pc_mono pc_mono_add(pc_mono when, int64_t ns);
/* Milliseconds from now until `when` for epoll and poll: 0 when past, rounded up
 * to at least 1 ms when not, -1 for PC_MONO_NEVER, capped at one hour. */
int pc_mono_wait_ms(pc_mono now, pc_mono when);
/* The moment on the monotonic clock that is `wall`, given both clocks now. */
pc_mono pc_mono_at_wall(pc_wall when, pc_wall wall_now, pc_mono mono_now);

/* ISO-8601 date and time as Python's datetime.isoformat() and Celery write it:
 * "2026-11-20T07:49:01.705409+00:00", "T" or space, fraction of 1-9 digits optional,
 * seconds optional, offset "Z", "+hh:mm", "+hhmm", "+hh" or none. *has_offset tells (may be
 * NULL); without an offset the text is taken as UTC. A date alone is midnight. */
int pc_wall_parse(pc_slice text, pc_wall *out, bool *has_offset, pc_err *err);

/* Writes "YYYY-MM-DDTHH:MM:SS[.ffffff]+hh:mm" (fraction left out when 0, as
 * isoformat does) with the given offset in minutes east; returns the length (< PC_ISO_MAX). */
#define PC_ISO_MAX 40
int pc_wall_format(pc_wall when, int offset_min, char out[PC_ISO_MAX]);

#endif
