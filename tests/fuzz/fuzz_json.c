/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes through the JSON reader and back out. What was written must be read again, and
 * writing that must give the same text; strings must be the reader's or the input's. */
#include <stdlib.h>

#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int
echo(pc_slice text, pc_buf *out)
{
    pc_json_out json;
    pc_err err;
    pc_bridge bridge = {&json.sink, &err};
    pc_json_out_init(&json, out);
    return pc_json_visit(text, &pc_bridge_visit, &bridge, &err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const pc_visit nothing = {0};
    pc_buf once, twice;
    pc_buf_init(&once);
    pc_buf_init(&twice);
    pc_slice text = pc_slice_of((const char *)data, len);
    pc_json_visit(text, &nothing, NULL, NULL);
    // Infinity may be read as 1e999 but is not JSON when it is written.
    if (echo(text, &once) == 0 && memmem(once.data, pc_buf_len(&once), "Infinity", 8) == NULL
        && memmem(once.data, pc_buf_len(&once), "\\ud", 3) == NULL) {
        if (echo(pc_buf_slice(&once), &twice) < 0
            || !pc_slice_eq(pc_buf_slice(&once), pc_buf_slice(&twice))) {
            abort();
        }
    }
    pc_buf_fini(&once);
    pc_buf_fini(&twice);
    return 0;
}
