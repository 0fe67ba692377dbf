/* SPDX-License-Identifier: BSD-3-Clause */
/* Celery's task message protocol, version 2: the names, order and defaults of the
 * headers are here and nowhere else (PROTOCOL §3.1.2). */
#ifndef PC_WIRE_PROTO2_H
#define PC_WIRE_PROTO2_H

#include "base/clock.h"
#include "wire/message.h"
#include "wire/sink.h"

/* What a client says about a task. Absent slices are written as null. */
typedef struct pc_task_fields {
    pc_slice task;
    pc_slice id;
    pc_slice shadow;
    pc_slice eta;      // ISO-8601 text
    pc_slice expires;  // ISO-8601 text
    pc_slice group;
    bool has_group_index;
    int64_t group_index;
    int64_t retries;
    double time_limit;  // seconds, NaN when none; integral values are written as integers
    double soft_time_limit;
    pc_slice root_id;
    pc_slice parent_id;
    pc_slice argsrepr;
    pc_slice kwargsrepr;
    pc_slice origin;
    bool ignore_result;
    int64_t replaced_task_nesting;
} pc_task_fields;

void pc_task_fields_init(pc_task_fields *fields);

/* Writes the 19 headers in Celery's order (…, "stamped_headers": null, "stamps": {}) and, when
 * `compression` is present, that one as well, into an open map of the sink: the caller has called
 * map_start and calls map_end, and may add headers in between. */
int pc_proto2_write(const pc_task_fields *fields, pc_slice compression, pc_sink *sink,
                    pc_err *err);

/* What the worker's machine needs to know of a received message. Slices point into the message's
 * headers or into `scratch`. */
typedef struct pc_head {
    pc_slice id;
    pc_slice task;
    pc_slice shadow;
    pc_slice root_id;
    pc_slice parent_id;
    pc_slice group;
    pc_slice argsrepr;
    pc_slice kwargsrepr;
    pc_slice origin;
    pc_slice compression;
    bool has_eta;
    pc_wall eta;
    bool has_expires;
    pc_wall expires;
    pc_slice eta_text;       // as it came; absent when there is none
    pc_slice expires_text;
    double time_limit;       // NaN when none
    double soft_time_limit;  // NaN when none
    int64_t retries;
    int ignore_result;  // -1 absent, 0, 1
    bool has_stamps;    // "stamps" is a non-empty map
} pc_head;

/* Reads the headers. PC_ENOTFOUND: no "task" header, so this is not protocol 2. PC_EDATA: a header
 * of the wrong type, no id, an unreadable eta or expires, a timelimit that is no pair of numbers
 * or nulls (the text says which header). Unknown headers are ignored, and so are wrong types
 * of those that the machine only shows (shadow, argsrepr, kwargsrepr, origin). An empty eta or
 * expires means none. PC_EFALLBACK: JSON that only Python can read. `scratch` is reset first. */
int pc_head_read(const pc_message *message, pc_head *head, pc_buf *scratch, pc_err *err);

#endif
