/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as what a Redis server replies. Replies are the same whether they come at once or in two pieces; error texts have a
 * meaning. */
#include <stdlib.h>

#include "io/redis_reader.h"

#define CHECK(what) ((what) ? (void)0 : abort())
#define PARTS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Text of a whole tree: hiredis lets arrays be 9 deep at most. */
static void
describe(const pc_reply *reply, pc_buf *out)
{
    CHECK(pc_buf_printf(out, NULL, "%d:%lld:%zu:", (int)reply->type, (long long)reply->integer, reply->text.len) == 0);
    if (reply->text.len > 0) {
        CHECK(pc_buf_put_slice(out, reply->text, NULL) == 0);
    }
    if (reply->type == PC_REPLY_ERROR) {
        CHECK(pc_redis_code(reply->text) != 0);
    }
    for (size_t i = 0; i < reply->len; i++) {
        CHECK(reply->children[i] != NULL);
        describe(reply->children[i], out);
    }
}

/* -1 when what follows is no reply. */
static int
take_all(pc_redis_reader *reader, pc_buf *out)
{
    for (;;) {
        pc_reply *reply = NULL;
        if (pc_redis_reader_next(reader, &reply, NULL) < 0) {
            return -1;
        }
        if (reply == NULL) {
            return 0;
        }
        describe(reply, out);
        pc_reply_free(reply);
    }
}

static void
read_pieces(const pc_slice *pieces, size_t n, pc_buf *out)
{
    pc_redis_reader *reader = pc_redis_reader_new(NULL);

    CHECK(reader != NULL);
    for (size_t i = 0; i < n; i++) {
        CHECK(pc_redis_reader_feed(reader, pieces[i], NULL) == 0);
        if (take_all(reader, out) < 0) {
            break;
        }
    }
    pc_redis_reader_free(reader);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice whole = pc_slice_of((const char *)data, len);
    size_t cut = len / 3;
    pc_slice pieces[PARTS] = {pc_slice_of(whole.ptr, cut), pc_slice_of(whole.ptr + cut, len - cut)};
    pc_buf once, twice;

    pc_buf_init(&once);
    pc_buf_init(&twice);
    read_pieces(&whole, 1, &once);
    read_pieces(pieces, PARTS, &twice);
    CHECK(pc_slice_eq(pc_buf_slice(&once), pc_buf_slice(&twice)));
    pc_buf_fini(&once);
    pc_buf_fini(&twice);
    return 0;
}
