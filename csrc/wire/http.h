/* SPDX-License-Identifier: BSD-3-Clause */
/* The little of HTTP that probes and scrapers need: a strict reader of request heads, and the head of an answer.
 * Nothing is allocated; a request that is not exactly what RFC 9112 allows is refused with a status. */
#ifndef PC_WIRE_HTTP_H
#define PC_WIRE_HTTP_H

#include "base/buf.h"

#define PC_HTTP_HEAD_MAX 4096   // bytes of request line and fields
#define PC_HTTP_FIELDS_MAX 64
#define PC_HTTP_ANSWER_MAX 512  // bytes that pc_http_answer_head() needs

typedef struct pc_http_request {
    pc_slice method;
    pc_slice path;   // without the query; points into the input
    int status;      // of the answer to a bad request: 400, 431, 505, 501
} pc_http_request;

/* Reads the head at the front of `input`: bytes used; 0: more is needed; -1: refuse it with out->status. */
ptrdiff_t pc_http_read(pc_slice input, pc_http_request *out);

/* "OK" for 200; "Unknown" for a status that we never send. */
const char *pc_http_reason(int status);
/* Writes status line and fields of an answer after which the connection is closed. Returns the length, less than `size` when
 * that is at least PC_HTTP_ANSWER_MAX. */
size_t pc_http_answer_head(char *out, size_t size, int status, const char *content_type, size_t body_len);

#endif
