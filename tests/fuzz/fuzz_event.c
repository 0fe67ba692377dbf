/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as the names and texts that an event is written of: they come from messages and hosts. Either an event is JSON, or
 * nothing of it is left in the buffer. */
#include <stdlib.h>

#include "wire/event.h"
#include "wire/json.h"

#define CHECK(what) ((what) ? (void)0 : abort())
#define LINES 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The input's lines; what is missing is absent. */
static void
split(pc_slice input, pc_slice lines[LINES])
{
    for (size_t i = 0; i < LINES; i++) {
        const char *end = input.len > 0 ? memchr(input.ptr, '\n', input.len) : NULL;
        size_t len = end == NULL ? input.len : (size_t)(end - input.ptr);
        lines[i] = input.len > 0 ? pc_slice_of(input.ptr, len) : (pc_slice){0};
        input = pc_slice_of(input.ptr + len + (end != NULL), input.len - len - (end != NULL));
    }
}

/* The reader leaves half a character, which JSON can write as \udXXX, to Python's: no verdict then. */
static bool
is_json(pc_slice text)
{
    static const pc_visit nothing = {0};

    return pc_json_visit(text, &nothing, NULL, NULL) == 0 || memmem(text.ptr, text.len, "\\ud", 3) != NULL;
}

static int64_t
number_of(pc_slice text)
{
    uint64_t number = 0;

    memcpy(&number, text.ptr, text.len < sizeof number ? text.len : sizeof number);
    return (int64_t)number;
}

/* A member whose value is the line when that is JSON; PC_JSON_MAX_DEPTH counts from the event. */
static void
put_members(pc_slice line, pc_buf *out)
{
    CHECK(pc_buf_put_str(out, "{\"result\": ", NULL) == 0);
    CHECK((line.len == 0 || pc_buf_put_slice(out, line, NULL) == 0) && pc_buf_put_u8(out, '}', NULL) == 0);
    if (!is_json(pc_buf_slice(out))) {
        pc_buf_reset(out, SIZE_MAX);
        CHECK(pc_buf_put_str(out, "{\"result\": null}", NULL) == 0);
    }
}

static void
write_event(const pc_slice lines[LINES], pc_slice prefix, pc_buf *out)
{
    size_t before = pc_buf_len(out);
    int64_t number = lines[1].len > 0 ? number_of(lines[1]) : 0;
    pc_event event;
    pc_buf members;

    pc_buf_init(&members);
    put_members(lines[3], &members);
    pc_event_begin(&event, out, prefix, (uint64_t)number);
    pc_event_text(&event, "uuid", lines[1]);
    pc_event_text(&event, "name", lines[2]);
    pc_event_integer(&event, "retries", number);
    pc_event_boolean(&event, "active", number > 0);
    pc_event_seconds(&event, "runtime", number);
    pc_event_members(&event, pc_slice_of(pc_buf_ptr(&members) + 1, pc_buf_len(&members) - 2));
    pc_buf_fini(&members);
    if (pc_event_end(&event, lines[2].ptr != NULL ? lines[2] : pc_slice_str("task-sent"), (pc_wall){number}) < 0) {
        CHECK(pc_buf_len(out) == before);
        return;
    }
    CHECK(is_json(pc_slice_of(pc_buf_ptr(out) + before, pc_buf_len(out) - before)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice lines[LINES];
    pc_buf prefix, out;

    split(pc_slice_of((const char *)data, len), lines);
    pc_buf_init(&prefix);
    pc_buf_init(&out);
    if (pc_event_put_prefix(lines[0], -1, 4711, &prefix, NULL) == 0) {
        write_event(lines, pc_buf_slice(&prefix), &out);
        write_event(lines, pc_buf_slice(&prefix), &out);
    }
    pc_buf_fini(&prefix);
    pc_buf_fini(&out);
    return 0;
}
