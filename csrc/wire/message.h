/* SPDX-License-Identifier: BSD-3-Clause */
/* A message between broker and task: properties, headers as raw bytes in either of two formats,
 * body as opaque bytes. The struct only points; who owns the bytes is said by the function that
 * hands it out. pc_message_copy_to makes one whose bytes are in one block. */
#ifndef PC_WIRE_MESSAGE_H
#define PC_WIRE_MESSAGE_H

#include "base/buf.h"
#include "wire/sink.h"
#include "wire/visit.h"

typedef enum pc_headers_kind {
    PC_HEADERS_NONE,
    PC_HEADERS_JSON,  // text of a JSON object (redis, sqlite, memory)
    PC_HEADERS_TABLE  // AMQP field table without its length
} pc_headers_kind;

typedef struct pc_message {
    // basic properties; absent slices have ptr NULL
    pc_slice content_type;
    pc_slice content_encoding;
    pc_slice correlation_id;
    pc_slice reply_to;
    pc_slice expiration;  // milliseconds as decimal text
    pc_slice message_id;
    pc_slice type;
    pc_slice user_id;
    pc_slice app_id;
    pc_slice cluster_id;
    int64_t timestamp;  // seconds, -1 when absent
    int delivery_mode;  // 1 or 2, 0 when absent
    int priority;       // -1 when absent
    // payload
    pc_headers_kind headers_kind;
    pc_slice headers;
    pc_slice body;
    // delivery
    pc_slice exchange;
    pc_slice routing_key;
    bool redelivered;
    uint64_t tag;  // driver's delivery tag
} pc_message;

/* All absent, nothing owned. */
void pc_message_init(pc_message *message);

/* Bytes that a packed copy needs. */
size_t pc_message_packed_size(const pc_message *message);
/* Appends the message as one self-contained frame (own format, native to this machine: pipe
 * between parent and child, never stored or sent to another host). */
int pc_message_pack(const pc_message *message, pc_buf *out, pc_err *err);
/* Points `out` into `frame`; the frame must outlive it. PC_EDATA when malformed. */
int pc_message_unpack(pc_slice frame, pc_message *out, pc_err *err);

/* Walks the headers whatever their format (nothing is called for NONE). */
int pc_message_visit_headers(const pc_message *message, const pc_visit *visit, void *ctx,
                             pc_err *err);

/* Copies all slices of `from` to `memory` (pc_message_slices_size bytes) and points `to` there. */
size_t pc_message_slices_size(const pc_message *message);
void pc_message_copy_to(pc_message *to, const pc_message *from, char *memory);

#endif
