/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as the head of an HTTP request: it is read within its bounds, and a longer input never takes back what a shorter one said. */
#include <stdlib.h>

#include "wire/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_slice text = pc_slice_of((const char *)data, len);
    pc_http_request request, again;
    ptrdiff_t used = pc_http_read(text, &request);

    if (used > (ptrdiff_t)len || used > PC_HTTP_HEAD_MAX || (used < 0) != (request.status != 0)) {
        abort();
    }
    if (used > 0) {
        text.len = (size_t)used;
        if (pc_http_read(text, &again) != used || !pc_slice_eq(request.path, again.path)
            || request.path.len == 0 || request.path.ptr[0] != '/') {
            abort();
        }
    }
    return 0;
}
