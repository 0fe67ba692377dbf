/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a field table: read as headers of a task, turned into JSON text, written as a
 * table again; a table of ours must come back as it was. */
#include <stdlib.h>

#include "wire/bridge.h"
#include "wire/json_out.h"
#include "wire/proto2.h"
#include "wire/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
to_json(pc_slice table)
{
    pc_buf out;
    pc_err err;
    pc_json_out json;
    pc_bridge bridge = {&json.sink, &err};
    pc_buf_init(&out);
    pc_json_out_init(&json, &out);
    pc_table_visit(table, &pc_bridge_visit, &bridge, &err);
    pc_buf_fini(&out);
}

/* 0 when `out` holds the table, without its length. */
static int
again(pc_slice table, pc_buf *out)
{
    pc_err err;
    pc_table_out copy;
    pc_bridge bridge = {&copy.sink, &err};
    pc_table_out_init(&copy, out);
    if (pc_table_visit(table, &pc_bridge_visit, &bridge, &err) < 0) {
        return -1;
    }
    pc_buf_consume(out, 4);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_buf scratch, once, twice;
    pc_message message;
    pc_head head;
    pc_buf_init(&scratch);
    pc_buf_init(&once);
    pc_buf_init(&twice);
    pc_message_init(&message);
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = pc_slice_of((const char *)data, len);
    pc_head_read(&message, &head, &scratch, NULL);
    to_json(message.headers);
    if (again(message.headers, &once) == 0 && pc_buf_len(&once) > 0) {
        if (again(pc_buf_slice(&once), &twice) < 0
            || !pc_slice_eq(pc_buf_slice(&once), pc_buf_slice(&twice))) {
            abort();
        }
    }
    pc_buf_fini(&scratch);
    pc_buf_fini(&once);
    pc_buf_fini(&twice);
    return 0;
}
