/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a packed message; and the same bytes as JSON headers of a task. */
#include <stdlib.h>

#include "wire/message.h"
#include "wire/proto2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice input = pc_slice_of((const char *)data, len);
    pc_message message;
    pc_head head;
    pc_buf out, scratch;
    pc_buf_init(&out);
    pc_buf_init(&scratch);
    if (pc_message_unpack(input, &message, NULL) == 0) {
        if (pc_message_pack(&message, &out, NULL) < 0 || pc_buf_len(&out) != len) {
            abort();
        }
        pc_head_read(&message, &head, &scratch, NULL);
    }
    pc_message_init(&message);
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = input;
    pc_head_read(&message, &head, &scratch, NULL);
    pc_buf_fini(&out);
    pc_buf_fini(&scratch);
    return 0;
}
