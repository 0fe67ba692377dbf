/* SPDX-License-Identifier: BSD-3-Clause */
/* Task states and the result-meta document that every store holds (PROTOCOL §3.5.1). */
#ifndef PC_WIRE_RESULT_H
#define PC_WIRE_RESULT_H

#include "base/buf.h"
#include "base/clock.h"

typedef enum pc_state {
    PC_PENDING,
    PC_RECEIVED,
    PC_STARTED,
    PC_SUCCESS,
    PC_FAILURE,
    PC_REVOKED,
    PC_REJECTED,
    PC_RETRY,
    PC_IGNORED,
    PC_STATE_COUNT
} pc_state;

const char *pc_state_name(pc_state state);
/* PC_STATE_COUNT when it is none of ours (a custom state). */
pc_state pc_state_of(pc_slice name);
/* SUCCESS, FAILURE, REVOKED */
bool pc_state_ready(pc_state state);

typedef struct pc_result {
    pc_slice status;     // state name
    pc_slice result;     // JSON text; absent = null
    pc_slice traceback;  // UTF-8 text; absent = null
    pc_slice children;   // JSON text; absent = []
    pc_slice date_done;  // ISO text; absent = null
    pc_slice group_id;   // absent or empty: key left out
    pc_slice parent_id;  // absent or empty: key left out
    pc_slice extended;  // JSON members written as they are ("\"name\": …, …"); absent: left out
    pc_slice task_id;
} pc_result;

/* Appends {"status": …, "result": …, "traceback": …, "children": …, "date_done": …[, "group_id"][,
 * "parent_id"][, extended], "task_id": …}. */
int pc_result_write(const pc_result *result, pc_buf *out, pc_err *err);

/* Reads the status of a stored document (JSON only; another serializer: PC_EUNSUP). */
int pc_result_peek_status(pc_slice document, pc_state *state, pc_err *err);

#endif
