/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_content.h"

#include "base/mem.h"
#include "io/amqp_frame.h"

#define KEEP_BODY (1024u * 1024)

enum { IDLE, WANT_HEADER, WANT_BODY };

void
pc_amqp_content_init(pc_amqp_content *content)
{
    *content = (pc_amqp_content){.stage = IDLE};
    pc_buf_init(&content->body);
}

void
pc_amqp_content_reset(pc_amqp_content *content)
{
    content->stage = IDLE;
    content->is_pinned = false;
    if (content->pinned != NULL) {
        pc_free(content->pinned);
        content->pinned = NULL;
    }
    pc_buf_reset(&content->body, KEEP_BODY);
}

void
pc_amqp_content_fini(pc_amqp_content *content)
{
    pc_amqp_content_reset(content);
    pc_buf_fini(&content->body);
}

bool
pc_amqp_content_begun(const pc_amqp_content *content)
{
    return content->stage != IDLE;
}

int
pc_amqp_content_method(pc_amqp_content *content, const pc_amqp_method *method, pc_err *err)
{
    if (content->stage != IDLE) {
        return pc_fail(err, PC_EPROTO, "the server began a message inside another");
    }
    content->stage = WANT_HEADER;
    content->method = *method;
    content->method.exchange = content->method.routing_key = (pc_slice){0};  // in the message
    pc_message_init(&content->message);
    content->message.tag = method->tag;
    content->message.redelivered = method->redelivered;
    content->message.exchange = method->exchange;
    content->message.routing_key = method->routing_key;
    return 0;
}

int
pc_amqp_content_header(pc_amqp_content *content, pc_slice payload, pc_err *err)
{
    if (content->stage != WANT_HEADER) {
        return pc_fail(err, PC_EPROTO, "the server sent a content header out of turn");
    }
    content->is_pinned = false;
    content->stage = WANT_BODY;
    if (pc_amqp_header_read(payload, &content->message, &content->body_size, err) < 0) {
        return -1;
    }
    content->message.body = pc_slice_of("", 0);
    return content->body_size == 0;
}

int
pc_amqp_content_body(pc_amqp_content *content, pc_slice payload, pc_err *err)
{
    size_t have = pc_buf_len(&content->body);
    if (content->stage != WANT_BODY || payload.len > content->body_size - have) {
        return pc_fail(err, PC_EPROTO, "the server sent a message body out of turn");
    }
    if (have == 0 && payload.len == content->body_size) {
        content->message.body = payload;
        return 1;
    }
    if (pc_buf_put_slice(&content->body, payload, err) < 0) {
        return -1;
    }
    content->message.body = pc_buf_slice(&content->body);
    return content->message.body.len == content->body_size;
}

/* The slices of the method (consumer tag, text) travel behind those of the message. */
int
pc_amqp_content_pin(pc_amqp_content *content, pc_err *err)
{
    if (content->stage == IDLE || content->is_pinned) {
        return 0;
    }
    pc_amqp_method *method = &content->method;
    content->message.body = (pc_slice){0};  // body pieces have a buffer of their own
    size_t size = pc_message_slices_size(&content->message);
    char *memory = pc_alloc(size + method->consumer_tag.len + method->text.len);
    if (memory == NULL) {
        return pc_fail_nomem(err);
    }
    pc_message from = content->message;
    pc_message_copy_to(&content->message, &from, memory);
    char *tag = memory + size;
    char *text = tag + method->consumer_tag.len;
    if (method->consumer_tag.len > 0) {
        memcpy(tag, method->consumer_tag.ptr, method->consumer_tag.len);
    }
    if (method->text.len > 0) {
        memcpy(text, method->text.ptr, method->text.len);
    }
    method->consumer_tag.ptr = tag;
    method->text.ptr = text;
    pc_free(content->pinned);
    content->pinned = memory;
    content->is_pinned = true;
    return 0;
}
