/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as what an AMQP server sends: frames, the methods, the greeting and content headers in them. What is read lies within
 * the input, and a content header of ours says what the one that was read said. */
#include <stdlib.h>

#include "base/mem.h"
#include "io/amqp_codec.h"
#include "io/amqp_frame.h"
#include "io/amqp_login.h"

#define CHECK(what) ((what) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool
within(pc_slice part, pc_slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void
read_method(pc_amqp_codec *codec, pc_slice payload)
{
    pc_amqp_method method;
    pc_amqp_server server;
    pc_broker_config config = {.user = "guest", .password = "guest"};
    pc_buf out;

    if (pc_amqp_method_read(codec, payload, &method, NULL) < 0) {
        return;
    }
    CHECK(within(method.text, payload) && within(method.consumer_tag, payload) && within(method.exchange, payload)
          && within(method.routing_key, payload) && within(method.mechanisms, payload) && within(method.table, payload));
    if (method.id == PC_AMQP_START) {
        pc_buf_init(&out);
        (void)pc_amqp_server_read(method.table, &server, NULL);
        (void)pc_amqp_login_write(&out, &config, method.mechanisms, NULL);
        pc_buf_fini(&out);
    }
}

static void
check_same(const pc_message *a, const pc_message *b)
{
    CHECK(pc_slice_eq(a->content_type, b->content_type) && pc_slice_eq(a->content_encoding, b->content_encoding)
          && pc_slice_eq(a->correlation_id, b->correlation_id) && pc_slice_eq(a->reply_to, b->reply_to)
          && pc_slice_eq(a->expiration, b->expiration) && pc_slice_eq(a->message_id, b->message_id)
          && pc_slice_eq(a->type, b->type) && pc_slice_eq(a->user_id, b->user_id) && pc_slice_eq(a->app_id, b->app_id)
          && pc_slice_eq(a->cluster_id, b->cluster_id) && pc_slice_eq(a->headers, b->headers)
          && a->headers_kind == b->headers_kind && a->timestamp == b->timestamp && a->priority == b->priority
          && a->delivery_mode == b->delivery_mode);
}

/* basic.publish, the content header, the body. */
static void
read_again(const pc_message *message, pc_slice written)
{
    pc_amqp_frame frame;
    pc_message copy;
    uint64_t size;
    int64_t used = pc_amqp_frame_split(written, PC_AMQP_FRAME_MAX, &frame, NULL);

    CHECK(used > 0 && frame.type == PC_AMQP_METHOD);
    written = pc_slice_of(written.ptr + used, written.len - (size_t)used);
    CHECK(pc_amqp_frame_split(written, PC_AMQP_FRAME_MAX, &frame, NULL) > 0 && frame.type == PC_AMQP_HEADER);
    pc_message_init(&copy);
    CHECK(pc_amqp_header_read(frame.payload, &copy, &size, NULL) == 0 && size == message->body.len);
    check_same(message, &copy);
}

static void
read_header(pc_slice payload)
{
    pc_message message;
    uint64_t size;
    pc_buf out;

    pc_message_init(&message);
    if (pc_amqp_header_read(payload, &message, &size, NULL) < 0) {
        return;
    }
    CHECK(within(message.headers, payload) && within(message.content_type, payload) && within(message.cluster_id, payload));
    message.body = message.headers;  // any bytes will do
    pc_buf_init(&out);
    CHECK(pc_amqp_write_message(&out, 1, &message, false, PC_AMQP_FRAME_MAX, NULL) == 0);
    read_again(&message, pc_buf_slice(&out));
    pc_buf_fini(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    pc_amqp_codec *codec = pc_amqp_codec_new(NULL);
    pc_slice left = pc_slice_of((const char *)data, len);
    pc_amqp_frame frame;
    int64_t used;

    CHECK(codec != NULL);
    // a frame is said to be incomplete until its last byte is there
    while ((used = pc_amqp_frame_split(left, PC_AMQP_FRAME_MAX, &frame, NULL)) > 0) {
        CHECK((size_t)used <= left.len && within(frame.payload, left));
        CHECK(pc_amqp_frame_split(pc_slice_of(left.ptr, (size_t)used - 1), PC_AMQP_FRAME_MAX, &frame, NULL) == PC_MORE);
        if (frame.type == PC_AMQP_METHOD) {
            read_method(codec, frame.payload);
        } else if (frame.type == PC_AMQP_HEADER) {
            read_header(frame.payload);
        }
        left = pc_slice_of(left.ptr + used, left.len - (size_t)used);
    }
    pc_amqp_codec_free(codec);
    return 0;
}
