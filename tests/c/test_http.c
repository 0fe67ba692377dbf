/* SPDX-License-Identifier: BSD-3-Clause */
/* Heads of HTTP requests: what is read, what is refused, what is not enough. */
#include "wire/http.h"

#include <stdio.h>

#include "harness.h"

static ptrdiff_t
parse(const char *text, pc_http_request *out)
{
    return pc_http_read(pc_slice_str(text), out);
}

void
test_good_requests(void)
{
    static const char *const texts[] = {
        "GET /livez HTTP/1.1\r\nHost: here\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /livez?verbose=1 HTTP/1.1\r\nhost:x\r\nAccept: */*\r\nX-Odd: \t \xff ok\r\nContent-Length: 0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHOST: a\r\n\r\nGET /second HTTP/1.1\r\n",
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        pc_http_request request;
        ptrdiff_t used = parse(texts[i], &request);
        PC_ASSERT_INT(used, strstr(texts[i], "\r\n\r\n") + 4 - texts[i]);
        PC_ASSERT(pc_slice_is(request.method, "GET") && pc_slice_is(request.path, "/livez"), "%zu", i);
    }
}

void
test_every_prefix_asks_for_more(void)
{
    const char text[] = "GET /metrics HTTP/1.1\r\nHost: here\r\nAccept: text/plain\r\n\r\n";
    pc_http_request request;

    for (size_t len = 0; len < sizeof text - 1; len++) {
        PC_ASSERT_INT(pc_http_read(pc_slice_of(text, len), &request), 0);
    }
    PC_ASSERT_INT(pc_http_read(pc_slice_of(text, sizeof text - 1), &request), sizeof text - 1);
}

void
test_bad_requests(void)
{
    static const struct {
        const char *text;
        int status;
    } rows[] = {
        {"\r\n\r\n", 400},
        {"GET\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
        {"GET / http/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/11\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},                         // no Host
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: x\n\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pc_http_request request;
        PC_ASSERT_INT(parse(rows[i].text, &request), -1);
        PC_ASSERT(request.status == rows[i].status, "%s: %d", rows[i].text, request.status);
    }
}

void
test_too_much(void)
{
    char text[2 * PC_HTTP_HEAD_MAX];
    pc_http_request request;
    size_t len = (size_t)snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: x\r\nA: ");

    memset(text + len, 'a', sizeof text - len);
    PC_ASSERT_INT(pc_http_read(pc_slice_of(text, PC_HTTP_HEAD_MAX - 1), &request), 0);
    PC_ASSERT_INT(pc_http_read(pc_slice_of(text, PC_HTTP_HEAD_MAX), &request), -1);
    PC_ASSERT_INT(request.status, 431);
    memcpy(text + sizeof text - 4, "\r\n\r\n", 4);
    PC_ASSERT_INT(pc_http_read(pc_slice_of(text, sizeof text), &request), -1);
    for (int i = 0; i < PC_HTTP_FIELDS_MAX; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "\r\nB: b");
    }
    snprintf(text + len, sizeof text - len, "\r\n\r\n");
    PC_ASSERT_INT(parse(text, &request), -1);
    PC_ASSERT_INT(request.status, 431);
}

void
test_heads_of_answers_fit(void)
{
    char out[PC_HTTP_ANSWER_MAX];
    static const int statuses[] = {200, 400, 404, 405, 408, 431, 500, 501, 503, 505};

    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        size_t len = pc_http_answer_head(out, sizeof out, statuses[i], "text/plain; version=0.0.4; charset=utf-8", SIZE_MAX);
        PC_ASSERT(len < sizeof out && len == strlen(out));
        PC_ASSERT(strcmp(pc_http_reason(statuses[i]), "Unknown") != 0);
        PC_ASSERT_STR(out + len - 4, "\r\n\r\n");
    }
}
