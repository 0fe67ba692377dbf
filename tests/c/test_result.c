/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/result.h"

#include <stdlib.h>

#include "golden.h"
#include "harness.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"

void
test_result_states(void)
{
    for (int i = 0; i < PC_STATE_COUNT; i++) {
        PC_ASSERT_INT(pc_state_of(pc_slice_str(pc_state_name((pc_state)i))), i);
    }
    PC_ASSERT_STR(pc_state_name(PC_RETRY), "RETRY");
    PC_ASSERT_STR(pc_state_name(PC_STATE_COUNT), "UNKNOWN");
    PC_ASSERT_INT(pc_state_of(pc_slice_str("PROGRESS")), PC_STATE_COUNT);
    PC_ASSERT_INT(pc_state_of(pc_slice_str("SUCCES")), PC_STATE_COUNT);
    PC_ASSERT_INT(pc_state_of((pc_slice){0}), PC_STATE_COUNT);
    PC_ASSERT(pc_state_ready(PC_SUCCESS) && pc_state_ready(PC_FAILURE)
              && pc_state_ready(PC_REVOKED));
    PC_ASSERT(!pc_state_ready(PC_RETRY) && !pc_state_ready(PC_PENDING));
    PC_ASSERT(!pc_state_ready(PC_REJECTED) && !pc_state_ready(PC_IGNORED));
    PC_ASSERT(!pc_state_ready(PC_STATE_COUNT));
}

void
test_result_write_defaults(void)
{
    pc_result result = {.status = pc_slice_str("SUCCESS"), .task_id = pc_slice_str("t\"1")};
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_result_write(&result, &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out),
                   "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, "
                   "\"children\": [], \"date_done\": null, \"task_id\": \"t\\\"1\"}");
    pc_buf_fini(&out);
}

static const pc_result full = {
    .status = {"FAILURE", 7},
    .result = {"{\"a\": 1}", 8},
    .traceback = {"line\n\xc3\xa9", 7},
    .children = {"[1]", 3},
    .date_done = {"2026-11-20T07:49:01", 19},
    .group_id = {"g", 1},
    .parent_id = {"", 0},
    .extended = {"\"name\": \"n\"", 11},
    .task_id = {"t", 1},
};

static int
write_full(void *arg)
{
    pc_buf out;
    pc_err err = {0};
    (void)arg;
    pc_buf_init(&out);
    int rc = pc_result_write(&full, &out, &err);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    if (rc == 0) {
        PC_ASSERT_TEXT(
            pc_buf_slice(&out),
            "{\"status\": \"FAILURE\", \"result\": {\"a\": 1}, \"traceback\": \"line\\n\\u00e9\", "
            "\"children\": [1], \"date_done\": \"2026-11-20T07:49:01\", \"group_id\": \"g\", "
            "\"name\": \"n\", \"task_id\": \"t\"}");
    }
    pc_buf_fini(&out);
    return rc;
}

void
test_result_write_full_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(write_full, NULL) >= 2);
}

void
test_result_peek(void)
{
    static const struct {
        const char *text;
        int state;  // or -code
    } rows[] = {
        {"{\"status\": \"SUCCESS\", \"result\": NaN", PC_SUCCESS},
        {"{\"result\": {\"status\": \"FAILURE\"}, \"status\": \"RETRY\"}", PC_RETRY},
        {"{\"a\": [\"status\", \"SUCCESS\"], \"status\": \"PROGRESS\"}", PC_STATE_COUNT},
        {"{\"stat\\u0075s\": \"REVOKED\"}", PC_REVOKED},
        {"{\"result\": 1}", -PC_EDATA},
        {"{\"status\": null}", -PC_EDATA},
        {"{\"status\": [\"SUCCESS\"]}", -PC_EDATA},
        {"[]", -PC_EDATA},
        {"", -PC_EUNSUP},
        {"\x80\x04\x95pickle", -PC_EUNSUP},
        {"status: SUCCESS", -PC_EUNSUP},
        {"{\"result\": NaN, \"status\": \"SUCCESS\"}", -PC_EUNSUP},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pc_state state = PC_PENDING;
        pc_err err = {0};
        int rc = pc_result_peek_status(pc_slice_str(rows[i].text), &state, &err);
        PC_ASSERT_INT(rc == 0 ? (int)state : -(int)err.code, rows[i].state);
    }
}

/* The text of a JSON string without its quotes and escapes; null gives the absent slice. */
static int
keep_string(void *ctx, pc_slice text)
{
    PC_ASSERT_INT(pc_buf_put_slice(ctx, text, NULL), 0);
    return 0;
}

static pc_slice
text_of(const ct_record *record, const char *name, pc_buf *memory)
{
    static const pc_visit visit = {.string = keep_string};
    pc_slice json = ct_field(record, name);
    size_t before = pc_buf_len(memory);
    if (json.ptr == NULL || pc_slice_is(json, "null")) {
        return (pc_slice){0};
    }
    PC_ASSERT_INT(pc_json_visit(json, &visit, memory, NULL), 0);
    return pc_slice_of(pc_buf_ptr(memory) + before, pc_buf_len(memory) - before);
}

/* Everything between the parent or date and the task id, as the worker wrote it. */
static pc_slice
extended_of(const ct_record *record)
{
    pc_slice document = ct_field(record, "document");
    char *start = memmem(document.ptr, document.len, "\"name\": ", 8);
    char *end = memmem(document.ptr, document.len, ", \"task_id\": ", 13);
    return start == NULL || ct_field(record, "name").ptr == NULL
               ? (pc_slice){0}
               : pc_slice_of(start, (size_t)(end - start));
}

static void
golden(const ct_record *record)
{
    pc_buf memory, out;
    pc_state state;
    pc_buf_init(&memory);
    pc_buf_init(&out);
    PC_ASSERT(pc_buf_reserve(&memory, 1 << 20, NULL) != NULL);  // slices into it stay
    if (ct_field(record, "document").ptr != NULL) {
        pc_result result = {
            .status = text_of(record, "status", &memory),
            .result = ct_field(record, "result"),
            .traceback = text_of(record, "traceback", &memory),
            .children = ct_field(record, "children"),
            .date_done = text_of(record, "date_done", &memory),
            .group_id = text_of(record, "group_id", &memory),
            .parent_id = text_of(record, "parent_id", &memory),
            .extended = extended_of(record),
            .task_id = text_of(record, "task_id", &memory),
        };
        PC_ASSERT_INT(pc_result_write(&result, &out, NULL), 0);
        PC_ASSERT_SLICE(pc_buf_slice(&out), ct_field(record, "document"));
        PC_ASSERT_INT(pc_result_peek_status(pc_buf_slice(&out), &state, NULL), 0);
        PC_ASSERT_SLICE(pc_slice_str(pc_state_name(state)), result.status);
    }
    pc_buf_fini(&memory);
    pc_buf_fini(&out);
}

void
test_result_golden(void)
{
    PC_ASSERT(ct_golden("results.json", golden) > 20);
}
