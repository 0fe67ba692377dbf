/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as the body of a chain's task. Its parts lie within it, in their order; and what the next message is given is
 * taken apart again, or has no links any more. */
#include <stdlib.h>

#include "wire/embed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool
follows(pc_slice before, pc_slice after)
{
    return before.ptr + before.len <= after.ptr;
}

static void
check(pc_slice body, const pc_links *links)
{
    if (links->args.ptr < body.ptr || !follows(links->args, links->kwargs) || !follows(links->kwargs, links->embed)
        || links->rest.ptr < links->embed.ptr || !follows(links->rest, links->next)
        || links->next.ptr + links->next.len > body.ptr + body.len) {
        abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice body = pc_slice_of((const char *)data, len);
    pc_links links;
    pc_links again;
    pc_buf out;
    if (!pc_embed_split(body, &links)) {
        return 0;
    }
    check(body, &links);
    pc_buf_init(&out);
    if (pc_buf_put_str(&out, "[[], {}, ", NULL) == 0 && pc_embed_put_rest(&links, &out, NULL) == 0
        && pc_buf_put_str(&out, "]", NULL) == 0 && pc_embed_split(pc_buf_slice(&out), &again)) {
        check(pc_buf_slice(&out), &again);
    }
    pc_buf_fini(&out);
    return 0;
}
