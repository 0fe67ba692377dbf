/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a result document out of a store; the same bytes as base64 and as a date. What was accepted survives writing and
 * reading. */
#include <stdlib.h>

#include "wire/base64.h"
#include "wire/json.h"
#include "wire/result.h"

#define CHECK(what) ((what) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
read_status(pc_slice input)
{
    pc_state state = PC_STATE_COUNT;

    if (pc_result_peek_status(input, &state, NULL) == 0) {
        CHECK(state <= PC_STATE_COUNT);
    }
}

/* A document with these texts begins with its status and is JSON, when it can be written. */
static void
write_document(pc_slice input)
{
    static const pc_visit nothing = {0};
    pc_result result = {.status = pc_slice_str("RETRY"), .traceback = input, .group_id = input, .task_id = input};
    pc_state state = PC_STATE_COUNT;
    pc_buf out;

    pc_buf_init(&out);
    if (pc_result_write(&result, &out, NULL) == 0) {
        CHECK(pc_result_peek_status(pc_buf_slice(&out), &state, NULL) == 0 && state == PC_RETRY);
        // the reader leaves half a character, which JSON can write as \udXXX, to Python's
        CHECK(pc_json_visit(pc_buf_slice(&out), &nothing, NULL, NULL) == 0
              || memmem(pc_buf_ptr(&out), pc_buf_len(&out), "\\ud", 3) != NULL);
    }
    pc_buf_fini(&out);
}

static void
read_base64(pc_slice input)
{
    pc_buf bytes, text, again;

    pc_buf_init(&bytes);
    pc_buf_init(&text);
    pc_buf_init(&again);
    if (pc_base64_take(&bytes, input, NULL) == 0) {
        CHECK(pc_base64_put(&text, pc_buf_slice(&bytes), NULL) == 0);
        CHECK(pc_base64_take(&again, pc_buf_slice(&text), NULL) == 0);
        CHECK(pc_slice_eq(pc_buf_slice(&bytes), pc_buf_slice(&again)));
    }
    pc_buf_fini(&bytes);
    pc_buf_fini(&text);
    pc_buf_fini(&again);
}

static void
read_date(pc_slice input)
{
    char text[PC_ISO_MAX];
    pc_wall when, again;
    bool has_offset;

    if (pc_wall_parse(input, &when, &has_offset, NULL) == 0) {
        pc_slice written = pc_slice_of(text, (size_t)pc_wall_format(when, 0, text));
        CHECK(written.len < PC_ISO_MAX && pc_wall_parse(written, &again, NULL, NULL) == 0);
        // an offset can lead out of the years that can be written
        CHECK(again.us == when.us || pc_slice_is(written, "9999-12-31T23:59:59.999999+00:00")
              || pc_slice_is(written, "0001-01-01T00:00:00+00:00"));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice input = pc_slice_of((const char *)data, len);

    read_status(input);
    write_document(input);
    read_base64(input);
    read_date(input);
    return 0;
}
