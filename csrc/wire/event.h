/* SPDX-License-Identifier: BSD-3-Clause */
/* Monitoring events as Celery's workers send them (PROTOCOL §3.7): JSON objects, the common members
 * first, the event's own next, timestamp and type last. */
#ifndef PC_WIRE_EVENT_H
#define PC_WIRE_EVENT_H

#include "base/buf.h"
#include "base/clock.h"

/* One event under way. What fails is remembered; pc_event_end takes the half-written event back then. */
typedef struct pc_event {
    pc_buf *out;  // borrowed
    size_t before;
    bool failed;
} pc_event;

/* Appends what every event of a node begins with: {"hostname": …, "utcoffset": …, "pid": …, "clock": */
int pc_event_put_prefix(pc_slice hostname, int utcoffset, int pid, pc_buf *out, pc_err *err);

void pc_event_begin(pc_event *event, pc_buf *out, pc_slice prefix, uint64_t clock);
/* UTF-8; null when absent, and for bytes that are no text. */
void pc_event_text(pc_event *event, const char *name, pc_slice text);
void pc_event_integer(pc_event *event, const char *name, int64_t value);
void pc_event_boolean(pc_event *event, const char *name, bool value);
/* A float. */
void pc_event_seconds(pc_event *event, const char *name, int64_t ns);
/* JSON members as they are: "a": 1, "b": 2. Absent or empty: nothing. */
void pc_event_members(pc_event *event, pc_slice members);
/* -1: nothing was appended. */
int pc_event_end(pc_event *event, pc_slice type, pc_wall when);

#endif
