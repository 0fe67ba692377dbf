/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a message envelope. What is accepted must survive writing and reading, and its
 * headers must be an object by themselves. */
#include <stdlib.h>

#include "wire/envelope.h"
#include "wire/json.h"
#include "wire/proto2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
check(const pc_message *a, const pc_message *b)
{
    bool same = pc_slice_eq(a->body, b->body) && pc_slice_eq(a->headers, b->headers)
                && pc_slice_eq(a->correlation_id, b->correlation_id)
                && pc_slice_eq(a->routing_key, b->routing_key) && a->priority == b->priority
                && pc_slice_eq(a->expiration, b->expiration);
    if (!same) {
        abort();
    }
}

static void
write_and_read(const pc_message *message, pc_slice tag)
{
    pc_buf out, scratch;
    pc_message copy;
    pc_slice copy_tag;
    pc_buf_init(&out);
    pc_buf_init(&scratch);
    if (pc_envelope_write(message, tag, &out, NULL) == 0) {
        if (pc_envelope_read(pc_buf_slice(&out), &copy, &copy_tag, &scratch, NULL) == 0) {
            if (message->headers_kind == PC_HEADERS_JSON) {
                check(message, &copy);
            }
        }
    }
    pc_buf_fini(&out);
    pc_buf_fini(&scratch);
}

/* JSON, or JSON but for what only Python's has. */
static bool
is_readable(pc_slice text)
{
    static const pc_visit nothing = {0};
    pc_buf tamed;
    pc_buf_init(&tamed);
    bool good = pc_json_visit(text, &nothing, NULL, NULL) == 0
                || (pc_json_tame(text, &tamed, NULL) == 0 && pc_buf_len(&tamed) == text.len
                    && pc_json_visit(pc_buf_slice(&tamed), &nothing, NULL, NULL) == 0);
    pc_buf_fini(&tamed);
    return good;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_buf scratch, head_scratch;
    pc_message message;
    pc_slice tag;
    pc_head head;
    pc_buf_init(&scratch);
    pc_buf_init(&head_scratch);
    if (pc_envelope_read(pc_slice_of((const char *)data, len), &message, &tag, &scratch, NULL)
        == 0) {
        if (message.headers_kind == PC_HEADERS_JSON
            && (message.headers.ptr[0] != '{' || !is_readable(message.headers))) {
            abort();
        }
        pc_head_read(&message, &head, &head_scratch, NULL);
        write_and_read(&message, tag);
    }
    pc_buf_fini(&scratch);
    pc_buf_fini(&head_scratch);
    return 0;
}
