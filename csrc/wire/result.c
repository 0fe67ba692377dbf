/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/result.h"

#include "wire/json.h"
#include "wire/json_out.h"

static const char *const names[PC_STATE_COUNT] = {
    [PC_PENDING] = "PENDING",   [PC_RECEIVED] = "RECEIVED", [PC_STARTED] = "STARTED",
    [PC_SUCCESS] = "SUCCESS",   [PC_FAILURE] = "FAILURE",   [PC_REVOKED] = "REVOKED",
    [PC_REJECTED] = "REJECTED", [PC_RETRY] = "RETRY",       [PC_IGNORED] = "IGNORED",
};

const char *
pc_state_name(pc_state state)
{
    return (unsigned)state < PC_STATE_COUNT ? names[state] : "UNKNOWN";
}

pc_state
pc_state_of(pc_slice name)
{
    pc_state state = PC_PENDING;
    while (state < PC_STATE_COUNT && !pc_slice_is(name, names[state])) {
        state++;
    }
    return state;
}

bool
pc_state_ready(pc_state state)
{
    return state == PC_SUCCESS || state == PC_FAILURE || state == PC_REVOKED;
}

typedef enum rule {
    TEXT,             // quoted, null when absent
    TEXT_IF_PRESENT,  // quoted, left out when absent or empty
    JSON,             // as it is, `absent` when absent
    MEMBERS           // as it is, with the keys, left out when absent or empty
} rule;

static const struct member {
    const char *key;
    rule rule;
    size_t offset;
    const char *absent;
} members[] = {
    {"\"status\": ", TEXT, offsetof(pc_result, status), "null"},
    {", \"result\": ", JSON, offsetof(pc_result, result), "null"},
    {", \"traceback\": ", TEXT, offsetof(pc_result, traceback), "null"},
    {", \"children\": ", JSON, offsetof(pc_result, children), "[]"},
    {", \"date_done\": ", TEXT, offsetof(pc_result, date_done), "null"},
    {", \"group_id\": ", TEXT_IF_PRESENT, offsetof(pc_result, group_id), ""},
    {", \"parent_id\": ", TEXT_IF_PRESENT, offsetof(pc_result, parent_id), ""},
    {", ", MEMBERS, offsetof(pc_result, extended), ""},
    {", \"task_id\": ", TEXT, offsetof(pc_result, task_id), "null"},
};

static int
put_member(const struct member *member, pc_slice value, pc_buf *out, pc_err *err)
{
    bool optional = member->rule == TEXT_IF_PRESENT || member->rule == MEMBERS;
    if (optional && value.len == 0) {
        return 0;
    }
    if (pc_buf_put_str(out, member->key, err) < 0) {
        return -1;
    }
    if (value.ptr == NULL) {
        return pc_buf_put_str(out, member->absent, err);
    }
    return member->rule == TEXT || member->rule == TEXT_IF_PRESENT
               ? pc_json_put_string(out, value, err)
               : pc_buf_put_slice(out, value, err);
}

int
pc_result_write(const pc_result *result, pc_buf *out, pc_err *err)
{
    if (pc_buf_put_u8(out, '{', err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const char *at = (const char *)result + members[i].offset;
        const pc_slice *value = (const pc_slice *)(const void *)at;
        if (put_member(&members[i], *value, out, err) < 0) {
            return -1;
        }
    }
    return pc_buf_put_u8(out, '}', err);
}

typedef struct peek {
    int depth;
    bool at_status;  // the key just read was "status", at the top
    bool found;
    pc_state state;
} peek;

static int
peek_enter(void *ctx)
{
    peek *p = ctx;
    p->depth++;
    p->at_status = false;
    return 0;
}

static int
peek_leave(void *ctx)
{
    peek *p = ctx;
    p->depth--;
    return 0;
}

static int
peek_key(void *ctx, pc_slice name)
{
    peek *p = ctx;
    p->at_status = p->depth == 1 && pc_slice_is(name, "status");
    return 0;
}

static int
peek_string(void *ctx, pc_slice text)
{
    peek *p = ctx;
    if (!p->at_status) {
        return 0;
    }
    p->found = true;
    p->state = pc_state_of(text);
    return -1;  // the rest of the document does not matter
}

static const pc_visit peek_visit = {
    .string = peek_string,
    .map_start = peek_enter,
    .key = peek_key,
    .map_end = peek_leave,
    .array_start = peek_enter,
    .array_end = peek_leave,
};

int
pc_result_peek_status(pc_slice document, pc_state *state, pc_err *err)
{
    pc_err inner;
    peek p = {.depth = 0};
    int rc = pc_json_visit(document, &peek_visit, &p, &inner);
    if (p.found) {
        *state = p.state;
        return 0;
    }
    if (rc < 0 && inner.code == PC_ENOMEM) {
        return pc_fail_nomem(err);
    }
    if (rc < 0) {
        return pc_fail(err, PC_EUNSUP, "result document is not plain JSON");
    }
    return pc_fail(err, PC_EDATA, "result document has no status");
}
