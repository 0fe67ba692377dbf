/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/http.h"

#include <stdio.h>

static ptrdiff_t
refuse(pc_http_request *out, int status)
{
    out->status = status;
    return -1;
}

static bool
is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
           || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool
is_token(pc_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!is_token_char(text.ptr[i])) {
            return false;
        }
    }
    return text.len > 0;
}

static bool
is_visible(pc_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x21 || c > 0x7e) {
            return false;
        }
    }
    return text.len > 0;
}

/* A field's value: spaces, tabs, anything printable, and bytes from 0x80 on, which are nobody's business. */
static bool
is_value(pc_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool
is_name(pc_slice text, const char *lower)
{
    size_t i = 0;

    for (; i < text.len && lower[i] != '\0'; i++) {
        char c = text.ptr[i];
        char small = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        if (small != lower[i]) {
            return false;
        }
    }
    return i == text.len && lower[i] == '\0';
}

/* Cuts off what is before `mark`; false when it is not there. */
static bool
cut(pc_slice *rest, char mark, pc_slice *out)
{
    const char *at = rest->len == 0 ? NULL : memchr(rest->ptr, mark, rest->len);

    if (at == NULL) {
        return false;
    }
    *out = pc_slice_of(rest->ptr, (size_t)(at - rest->ptr));
    *rest = pc_slice_of(at + 1, rest->len - out->len - 1);
    return true;
}

/* METHOD SP /path[?query] SP HTTP/1.x. Returns the minor version or -1. */
static int
read_request_line(pc_slice line, pc_http_request *out)
{
    pc_slice target;

    if (!cut(&line, ' ', &out->method) || !is_token(out->method) || !cut(&line, ' ', &target) || !is_visible(target)
        || target.ptr[0] != '/') {
        return (int)refuse(out, 400);
    }
    pc_slice rest = target;
    if (!cut(&rest, '?', &out->path)) {
        out->path = target;
    }
    if (line.len != 8 || memcmp(line.ptr, "HTTP/", 5) != 0 || line.ptr[6] != '.' || line.ptr[5] < '0'
        || line.ptr[5] > '9' || line.ptr[7] < '0' || line.ptr[7] > '9') {
        return (int)refuse(out, 400);
    }
    return line.ptr[5] == '1' ? line.ptr[7] - '0' : (int)refuse(out, 505);
}

static pc_slice
trimmed(pc_slice text)
{
    while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
        text = pc_slice_of(text.ptr + 1, text.len - 1);
    }
    while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* Nothing here has a body: a request that announces one is refused, rather than its body read as the next request. */
static int
read_field(pc_slice line, pc_http_request *out, int *hosts)
{
    pc_slice name;
    pc_slice value = line;

    if (!cut(&value, ':', &name) || !is_token(name) || !is_value(value)) {
        return (int)refuse(out, 400);
    }
    *hosts += is_name(name, "host");
    if (is_name(name, "transfer-encoding")) {
        return (int)refuse(out, 501);
    }
    if (is_name(name, "content-length") && !pc_slice_is(trimmed(value), "0")) {
        return (int)refuse(out, 400);
    }
    return 0;
}

static int
read_fields(pc_slice head, pc_http_request *out, int minor)
{
    pc_slice line;
    int hosts = 0;

    for (int n = 0; cut(&head, '\n', &line); n++) {
        if (n == PC_HTTP_FIELDS_MAX) {
            return (int)refuse(out, 431);
        }
        if (line.len == 0 || line.ptr[line.len - 1] != '\r') {
            return (int)refuse(out, 400);
        }
        line.len--;
        if (line.len > 0 && read_field(line, out, &hosts) < 0) {
            return -1;
        }
    }
    return hosts > 1 || (minor > 0 && hosts == 0) ? (int)refuse(out, 400) : 0;
}

ptrdiff_t
pc_http_read(pc_slice input, pc_http_request *out)
{
    *out = (pc_http_request){.status = 0};
    size_t most = input.len < PC_HTTP_HEAD_MAX ? input.len : PC_HTTP_HEAD_MAX;
    const char *end = most < 4 ? NULL : memmem(input.ptr, most, "\r\n\r\n", 4);

    if (end == NULL) {
        // a line without its CR would have us wait for an end that has come already
        bool bare = most >= 2 && memmem(input.ptr, most, "\n\n", 2) != NULL;
        return bare ? refuse(out, 400) : most == PC_HTTP_HEAD_MAX ? refuse(out, 431) : 0;
    }
    pc_slice head = pc_slice_of(input.ptr, (size_t)(end - input.ptr) + 2);
    pc_slice line;
    if (!cut(&head, '\n', &line) || line.len == 0 || line.ptr[line.len - 1] != '\r') {
        return refuse(out, 400);
    }
    line.len--;
    int minor = read_request_line(line, out);
    if (minor < 0 || read_fields(head, out, minor) < 0) {
        return -1;
    }
    return end - input.ptr + 4;
}

const char *
pc_http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } rows[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].status == status) {
            return rows[i].reason;
        }
    }
    return "Unknown";
}

size_t
pc_http_answer_head(char *out, size_t size, int status, const char *content_type, size_t body_len)
{
    const char *more = status == 405 ? "Allow: GET, HEAD\r\n" : status == 503 ? "Retry-After: 1\r\n" : "";
    int len = snprintf(out, size,
                       "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n%s"
                       "Connection: close\r\n\r\n",
                       status, pc_http_reason(status), content_type, body_len, more);

    return len < 0 ? 0 : (size_t)len;
}
