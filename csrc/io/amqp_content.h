/* SPDX-License-Identifier: BSD-3-Clause */
/* Puts one message together from its method, header and body frames. As long as everything comes
 * in one read, nothing is copied; what is incomplete when the input ends is pinned. */
#ifndef PC_IO_AMQP_CONTENT_H
#define PC_IO_AMQP_CONTENT_H

#include "io/amqp_codec.h"
#include "wire/message.h"

typedef struct pc_amqp_content {
    int stage;              // 0: none begun
    pc_amqp_method method;  // deliver, get-ok or return
    pc_message message;
    uint64_t body_size;
    pc_buf body;   // pieces gathered so far
    char *pinned;  // copies of what lay in the input
    bool is_pinned;
} pc_amqp_content;

void pc_amqp_content_init(pc_amqp_content *content);
void pc_amqp_content_fini(pc_amqp_content *content);

/* True while frames of a message are awaited. */
bool pc_amqp_content_begun(const pc_amqp_content *content);
/* Each: 1 the message is complete, 0 more frames follow, -1 PC_EPROTO or PC_ENOMEM. */
int pc_amqp_content_method(pc_amqp_content *content, const pc_amqp_method *method, pc_err *err);
int pc_amqp_content_header(pc_amqp_content *content, pc_slice payload, pc_err *err);
int pc_amqp_content_body(pc_amqp_content *content, pc_slice payload, pc_err *err);
/* The input buffer is about to change: copies what still points into it. */
int pc_amqp_content_pin(pc_amqp_content *content, pc_err *err);
/* Ready for the next message; the last one's memory is gone. */
void pc_amqp_content_reset(pc_amqp_content *content);

#endif
