/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames, methods, content headers: golden bytes, cut-off and damaged ones. No broker. */
#include <stdio.h>

#include "base/mem.h"
#include "harness.h"
#include "io/amqp_codec.h"
#include "io/amqp_content.h"
#include "io/amqp_frame.h"
#include "io/amqp_login.h"
#include "wire/table.h"

#define BYTES(text) pc_slice_of(text, sizeof(text) - 1)

static void
expect_bytes(const pc_buf *buf, pc_slice want)
{
    PC_ASSERT_INT(pc_buf_len(buf), want.len);
    PC_ASSERT_MEM(pc_buf_ptr(buf), want.ptr, want.len);
}

/* One whole frame, checked and taken apart. */
static pc_amqp_frame
only_frame(const pc_buf *buf)
{
    pc_amqp_frame frame;
    int64_t used = pc_amqp_frame_split(pc_buf_slice(buf), PC_AMQP_FRAME_MAX, &frame, NULL);
    PC_ASSERT_INT(used, pc_buf_len(buf));
    return frame;
}

/* ---- golden frames ---- */

void
test_amqp_codec_writes_golden_methods(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_amqp_write_tune_ok(&out, 1, 131072, 60, NULL), 0);
    expect_bytes(&out, BYTES("\1\0\0\0\0\0\x0c\0\x0a\0\x1f\0\1\0\2\0\0\0\x3c\xce"));
    pc_buf_reset(&out, 0);
    PC_ASSERT_INT(pc_amqp_write_ack(&out, 1, 258, true, NULL), 0);
    expect_bytes(&out, BYTES("\1\0\1\0\0\0\x0d\0\x3c\0\x50\0\0\0\0\0\0\1\2\1\xce"));
    pc_buf_reset(&out, 0);
    PC_ASSERT_INT(pc_amqp_write_open(&out, pc_slice_str("/"), NULL), 0);
    expect_bytes(&out, BYTES("\1\0\0\0\0\0\x08\0\x0a\0\x28\1/\0\0\xce"));
    pc_buf_reset(&out, 0);
    PC_ASSERT_INT(pc_amqp_write_heartbeat(&out, NULL), 0);
    expect_bytes(&out, BYTES("\x08\0\0\0\0\0\0\xce"));
    pc_buf_fini(&out);
}

void
test_amqp_codec_writes_tables_behind_their_method(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_buf_put_str(&out, "before", NULL), 0);
    pc_amqp_queue queue = {
        .name = pc_slice_str("q"),
        .durable = true,
        .arguments = BYTES("\1aI\0\0\0\7"),
    };
    PC_ASSERT_INT(pc_amqp_write_queue_declare(&out, 1, &queue, NULL), 0);
    expect_bytes(&out,
                 BYTES("before\1\0\1\0\0\0\x14\0\x32\0\x0a\0\0\1q\2\0\0\0\7\1aI\0\0\0\7\xce"));
    pc_buf_fini(&out);
}

void
test_amqp_codec_writes_a_golden_message(void)
{
    pc_buf out;
    pc_message message;
    pc_buf_init(&out);
    pc_message_init(&message);
    message.exchange = pc_slice_str("");
    message.routing_key = pc_slice_str("q");
    message.content_type = pc_slice_str("a/b");
    message.delivery_mode = 2;
    message.priority = 0;
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = BYTES("\1at\1");
    message.body = pc_slice_str("hi");
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, true, 4096, NULL), 0);
    expect_bytes(&out,
                 BYTES("\1\0\1\0\0\0\x0a\0\x3c\0\x28\0\0\0\1q\1\xce"
                       "\2\0\1\0\0\0\x1c\0\x3c\0\0\0\0\0\0\0\0\0\2\xb8\0\3a/b\0\0\0\4\1at\1\2\0\xce"
                       "\3\0\1\0\0\0\2hi\xce"));
    pc_buf_fini(&out);
}

void
test_amqp_codec_names_and_properties_have_limits(void)
{
    pc_buf out;
    pc_err err = {0};
    pc_message message;
    char name[300];
    memset(name, 'n', sizeof name);
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_buf_put_str(&out, "kept", NULL), 0);
    pc_message_init(&message);
    message.exchange = pc_slice_str("");
    message.body = pc_slice_str("x");
    message.routing_key = pc_slice_of(name, 256);
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    message.routing_key = pc_slice_of(name, 255);
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, &err), 0);
    size_t before = pc_buf_len(&out);
    message.reply_to = pc_slice_of(name, 256);
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, &err), -1);
    PC_ASSERT(err.code == PC_EDATA && strstr(err.msg, "reply_to") != NULL, "%s", err.msg);
    message.reply_to = (pc_slice){0};
    char *headers = pc_zalloc(5000);
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = pc_slice_of(headers, 5000);
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, &err), -1);
    PC_ASSERT_INT(err.code, PC_ELIMIT);
    message.headers_kind = PC_HEADERS_JSON;
    PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(pc_buf_len(&out), before);
    PC_ASSERT_MEM(pc_buf_ptr(&out), "kept", 4);
    pc_free(headers);
    pc_buf_fini(&out);
}

/* ---- bodies ---- */

static size_t
count_frames(pc_slice frames, uint32_t frame_max, size_t *body_len)
{
    size_t n = 0;
    *body_len = 0;
    while (frames.len > 0) {
        pc_amqp_frame frame;
        pc_err err = {0};
        int64_t used = pc_amqp_frame_split(frames, frame_max, &frame, &err);
        PC_ASSERT(used > 0, "%s", err.msg);
        *body_len += frame.type == PC_AMQP_BODY ? frame.payload.len : 0;
        frames = pc_slice_of(frames.ptr + used, frames.len - (size_t)used);
        n++;
    }
    return n;
}

void
test_amqp_codec_cuts_bodies_at_the_frame_size(void)
{
    static const size_t lens[] = {0, 1, 4087, 4088, 4089, 8176, 8177, 100000};
    static const size_t frames[] = {2, 3, 3, 3, 4, 4, 5, 27};
    pc_buf out;
    pc_buf again;
    pc_buf_init(&out);
    pc_buf_init(&again);
    char *body = pc_zalloc(100000);
    for (int i = 0; i < 8; i++) {
        pc_message message;
        pc_message_init(&message);
        size_t len = 0;
        message.exchange = message.routing_key = pc_slice_str("q");
        message.body = pc_slice_of(body, lens[i]);
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 4096, NULL), 0);
        PC_ASSERT_INT(count_frames(pc_buf_slice(&out), 4096, &len), frames[i]);
        PC_ASSERT_INT(len, lens[i]);
        // and when written for larger frames first
        pc_buf_reset(&out, SIZE_MAX);
        pc_buf_reset(&again, SIZE_MAX);
        PC_ASSERT_INT(pc_amqp_write_message(&out, 1, &message, false, 131072, NULL), 0);
        PC_ASSERT_INT(pc_amqp_write_again(&again, pc_buf_slice(&out), 4096, NULL), 0);
        PC_ASSERT_INT(count_frames(pc_buf_slice(&again), 4096, &len), frames[i]);
        PC_ASSERT_INT(len, lens[i]);
    }
    pc_free(body);
    pc_buf_fini(&again);
    pc_buf_fini(&out);
}

/* ---- splitting ---- */

void
test_amqp_codec_splits_only_whole_and_sane_frames(void)
{
    pc_amqp_frame frame;
    pc_err err = {0};
    pc_slice good = BYTES("\1\0\1\0\0\0\4\0\x3c\0\x48\xce");
    for (size_t n = 0; n < good.len; n++) {
        PC_ASSERT_INT(pc_amqp_frame_split(pc_slice_of(good.ptr, n), 4096, &frame, &err), PC_MORE);
    }
    PC_ASSERT_INT(pc_amqp_frame_split(good, 4096, &frame, &err), good.len);
    PC_ASSERT_INT(frame.channel, 1);
    PC_ASSERT_INT(frame.payload.len, 4);
    static const char *const bad[] = {
        "\4\0\1\0\0\0\4\0\x3c\0\x48\xce",      // type
        "\1\0\1\0\0\0\4\0\x3c\0\x48\xcd",      // end
        "\1\0\1\0\0\x0f\xf9\0\x3c\0\x48\xce",  // larger than agreed on
        "\1\0\1\xff\xff\xff\xff\0\x3c\0\x48\xce",
        "AMQP\0\0\x09\1\0\0\0\0",  // another protocol version's answer
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        PC_ASSERT_INT(pc_amqp_frame_split(pc_slice_of(bad[i], 12), 4096, &frame, &err), -1);
        PC_ASSERT_INT(err.code, PC_EPROTO);
    }
}

/* ---- reading methods ---- */

static const char deliver[] = "\0\x3c\0\x3c\3pc1\0\0\0\0\0\0\1\1\1\2ex\2rk";

void
test_amqp_codec_reads_methods(void)
{
    pc_amqp_method m;
    pc_amqp_codec *codec = pc_amqp_codec_new(NULL);
    PC_ASSERT_INT(pc_amqp_method_read(codec, BYTES(deliver), &m, NULL), 0);
    PC_ASSERT_INT(m.id, PC_AMQP_DELIVER);
    PC_ASSERT_INT(m.tag, 257);
    PC_ASSERT(m.redelivered && pc_slice_is(m.consumer_tag, "pc1") && pc_slice_is(m.exchange, "ex"));
    PC_ASSERT(pc_slice_is(m.routing_key, "rk"));
    PC_ASSERT_INT(pc_amqp_method_read(codec, BYTES("\0\x14\0\x28\1\x94\2no\0\x3c\0\x28"), &m, NULL),
                  0);
    PC_ASSERT_INT(m.code, 404);
    PC_ASSERT(pc_slice_is(m.text, "no"));
    PC_ASSERT_INT(m.culprit, PC_AMQP_PUBLISH);
    PC_ASSERT_INT(pc_amqp_method_read(codec, BYTES("\0\x3c\0\x78\0\0\0\0\0\0\0\5\1"), &m, NULL), 0);
    PC_ASSERT_INT(m.id, PC_AMQP_NACK);
    PC_ASSERT(m.multiple && m.tag == 5);
    PC_ASSERT_INT(
        pc_amqp_method_read(
            codec, BYTES("\0\x0a\0\x0a\0\x09\0\0\0\4\1at\1\0\0\0\5PLAIN\0\0\0\5en_US"), &m, NULL),
        0);
    PC_ASSERT_INT(m.table.len, 4);
    PC_ASSERT(pc_slice_is(m.mechanisms, "PLAIN"));
    pc_amqp_codec_free(codec);
    pc_amqp_codec_free(NULL);
}

void
test_amqp_codec_refuses_cut_and_unknown_methods(void)
{
    static const char start[] = "\0\x0a\0\x0a\0\x09\0\0\0\4\1at\1\0\0\0\5PLAIN";
    pc_amqp_method m;
    pc_err err = {0};
    pc_amqp_codec *codec = pc_amqp_codec_new(NULL);
    for (size_t n = 0; n < sizeof deliver - 1; n++) {
        PC_ASSERT_INT(pc_amqp_method_read(codec, pc_slice_of(deliver, n), &m, &err), -1);
        PC_ASSERT_INT(err.code, PC_EPROTO);
    }
    for (size_t n = 4; n < sizeof start - 1; n++) {
        PC_ASSERT_INT(pc_amqp_method_read(codec, pc_slice_of(start, n), &m, &err), -1);
    }
    // a server's word to a server; a class that does not exist
    PC_ASSERT_INT(pc_amqp_method_read(codec, BYTES("\0\x3c\0\x28\0\0\0\0\0"), &m, &err), -1);
    PC_ASSERT_INT(pc_amqp_method_read(codec, BYTES("\0\xff\0\1"), &m, &err), -1);
    pc_amqp_codec_free(codec);
}

/* ---- content headers ---- */

static void
write_full(pc_buf *out)
{
    pc_message message;
    pc_message_init(&message);
    message.exchange = message.routing_key = pc_slice_str("q");
    message.content_type = pc_slice_str("application/json");
    message.content_encoding = pc_slice_str("utf-8");
    message.correlation_id = pc_slice_str("c");
    message.reply_to = pc_slice_str("");
    message.expiration = pc_slice_str("1");
    message.message_id = pc_slice_str("m");
    message.type = pc_slice_str("t");
    message.user_id = pc_slice_str("u");
    message.app_id = pc_slice_str("a");
    message.cluster_id = pc_slice_str("k");
    message.timestamp = 5;
    message.delivery_mode = 1;
    message.priority = 9;
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = BYTES("\1at\1");
    message.body = pc_slice_str("body");
    PC_ASSERT_INT(pc_amqp_write_message(out, 1, &message, false, 4096, NULL), 0);
}

static pc_slice
header_of(const pc_buf *out)
{
    pc_amqp_frame frame;
    int64_t used = pc_amqp_frame_split(pc_buf_slice(out), 4096, &frame, NULL);
    pc_slice rest = pc_slice_of(pc_buf_ptr(out) + used, pc_buf_len(out) - (size_t)used);
    PC_ASSERT(pc_amqp_frame_split(rest, 4096, &frame, NULL) > 0 && frame.type == PC_AMQP_HEADER);
    return frame.payload;
}

void
test_amqp_codec_content_headers_round_trip_and_are_checked(void)
{
    pc_buf out;
    pc_err err = {0};
    uint64_t size = 0;
    pc_message m;
    pc_buf_init(&out);
    write_full(&out);
    pc_slice header = header_of(&out);
    pc_message_init(&m);
    PC_ASSERT_INT(pc_amqp_header_read(header, &m, &size, &err), 0);
    PC_ASSERT_INT(size, 4);
    PC_ASSERT(pc_slice_is(m.content_type, "application/json") &&
              pc_slice_is(m.content_encoding, "utf-8"));
    PC_ASSERT(pc_slice_is(m.correlation_id, "c") && m.reply_to.ptr != NULL && m.reply_to.len == 0);
    PC_ASSERT(pc_slice_is(m.expiration, "1") && pc_slice_is(m.message_id, "m") &&
              pc_slice_is(m.type, "t"));
    PC_ASSERT(pc_slice_is(m.user_id, "u") && pc_slice_is(m.app_id, "a") &&
              pc_slice_is(m.cluster_id, "k"));
    PC_ASSERT(m.timestamp == 5 && m.delivery_mode == 1 && m.priority == 9);
    PC_ASSERT(m.headers_kind == PC_HEADERS_TABLE && m.headers.len == 4);
    for (size_t n = 0; n < header.len; n++) {
        pc_message_init(&m);
        PC_ASSERT_INT(pc_amqp_header_read(pc_slice_of(header.ptr, n), &m, &size, &err), -1);
        PC_ASSERT_INT(err.code, PC_EPROTO);
    }
    pc_buf_fini(&out);
}

/* ---- putting messages together ---- */

static void
begin(pc_amqp_content *content, const char *method)
{
    pc_amqp_method m = {
        .id = PC_AMQP_DELIVER,
        .tag = 3,
        .consumer_tag = pc_slice_str(method),
        .exchange = pc_slice_str(""),
        .routing_key = pc_slice_str(method),
    };
    PC_ASSERT_INT(pc_amqp_content_method(content, &m, NULL), 0);
}

void
test_amqp_content_copies_nothing_when_all_is_there(void)
{
    static const char body[] = "body";
    pc_amqp_content content;
    pc_buf out;
    pc_buf_init(&out);
    write_full(&out);
    pc_amqp_content_init(&content);
    begin(&content, "tag");
    PC_ASSERT_INT(pc_amqp_content_header(&content, header_of(&out), NULL), 0);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_of(body, 4), NULL), 1);
    PC_ASSERT(content.message.body.ptr == body);
    pc_amqp_content_fini(&content);
    pc_buf_fini(&out);
}

void
test_amqp_content_survives_an_input_that_moves(void)
{
    pc_amqp_content content;
    pc_buf out;
    char method[] = "tag";
    char part[] = "bo";
    pc_buf_init(&out);
    write_full(&out);
    pc_amqp_content_init(&content);
    begin(&content, method);
    PC_ASSERT_INT(pc_amqp_content_pin(&content, NULL), 0);
    memset(method, 'x', 3);
    PC_ASSERT_INT(pc_amqp_content_header(&content, header_of(&out), NULL), 0);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_str(part), NULL), 0);
    PC_ASSERT_INT(pc_amqp_content_pin(&content, NULL), 0);
    PC_ASSERT_INT(pc_amqp_content_pin(&content, NULL), 0);
    memset(pc_buf_ptr(&out), 'x', pc_buf_len(&out));
    memset(part, 'x', 2);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_str("dy"), NULL), 1);
    PC_ASSERT(pc_slice_is(content.message.body, "body"));
    PC_ASSERT(pc_slice_is(content.message.routing_key, "tag"));
    PC_ASSERT(pc_slice_is(content.method.consumer_tag, "tag"));
    PC_ASSERT(pc_slice_is(content.message.content_type, "application/json"));
    pc_amqp_content_fini(&content);
    pc_buf_fini(&out);
}

void
test_amqp_content_out_of_turn_is_refused(void)
{
    pc_amqp_content content;
    pc_amqp_method m = {.id = PC_AMQP_DELIVER};
    pc_buf out;
    pc_buf_init(&out);
    write_full(&out);
    pc_amqp_content_init(&content);
    PC_ASSERT_INT(pc_amqp_content_header(&content, header_of(&out), NULL), -1);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_str("x"), NULL), -1);
    begin(&content, "t");
    PC_ASSERT_INT(pc_amqp_content_method(&content, &m, NULL), -1);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_str("x"), NULL), -1);
    PC_ASSERT_INT(pc_amqp_content_header(&content, header_of(&out), NULL), 0);
    PC_ASSERT_INT(pc_amqp_content_body(&content, pc_slice_str("too long"), NULL), -1);
    pc_amqp_content_fini(&content);
    pc_buf_fini(&out);
}

/* ---- login ---- */

void
test_amqp_login_picks_an_offered_method(void)
{
    pc_broker_config config = {.user = "u", .password = "p", .client_name = "me"};
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_amqp_login_write(&out, &config, pc_slice_str("AMQPLAIN PLAIN"), &err), 0);
    pc_slice text = only_frame(&out).payload;
    PC_ASSERT_INT(pc_get_u32(text.ptr), 0x000A000B);
    PC_ASSERT(memmem(text.ptr, text.len, "\5PLAIN\0\0\0\4\0u\0p", 14) != NULL);
    PC_ASSERT(memmem(text.ptr, text.len, "pyceleryc", 9) != NULL);
    PC_ASSERT_INT(pc_amqp_login_write(&out, &config, pc_slice_str("AMQPLAIN XPLAIN"), &err), -1);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    config.login_method = "MAGIC";
    PC_ASSERT_INT(pc_amqp_login_write(&out, &config, pc_slice_str("MAGIC"), &err), -1);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    pc_buf_fini(&out);
}

void
test_amqp_server_versions_decide_about_global_qos(void)
{
    static const struct {
        const char *version;
        int major, minor;
        bool global;
    } rows[] = {{"3.10.8", 3, 10, true}, {"3.2.4", 3, 2, false}, {"4.1.0-rc.1", 4, 1, false},
                {"", 0, 0, false},       {"x.y", 0, 0, false},   {"3", 3, 0, false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pc_buf out;
        pc_table_out table;
        pc_amqp_server server;
        pc_buf_init(&out);
        pc_table_out_init(&table, &out);
        pc_sink *sink = &table.sink;
        sink->ops->map_start(sink, NULL);
        sink->ops->key(sink, pc_slice_str("product"), NULL);
        sink->ops->string(sink, pc_slice_str("RabbitMQ"), NULL);
        sink->ops->key(sink, pc_slice_str("version"), NULL);
        sink->ops->string(sink, pc_slice_str(rows[i].version), NULL);
        sink->ops->map_end(sink, NULL);
        PC_ASSERT_INT(pc_amqp_server_read(pc_slice_of(pc_buf_ptr(&out) + 4, pc_buf_len(&out) - 4),
                                          &server, NULL),
                      0);
        PC_ASSERT_INT(server.version_major, rows[i].major);
        PC_ASSERT_INT(server.version_minor, rows[i].minor);
        PC_ASSERT_INT(pc_amqp_server_global_qos(&server), rows[i].global);
        pc_buf_fini(&out);
    }
}

/* ---- damage ---- */

static uint32_t
next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Reads what a damaged stream has, as a connection would; only memory errors count. */
static void
read_all(pc_amqp_codec *codec, pc_amqp_content *content, pc_slice input)
{
    pc_amqp_frame frame;
    pc_amqp_method method;
    int64_t used = 0;
    while ((used = pc_amqp_frame_split(input, 4096, &frame, NULL)) > 0) {
        if (frame.type == PC_AMQP_METHOD &&
            pc_amqp_method_read(codec, frame.payload, &method, NULL) == 0) {
            (void)pc_amqp_content_method(content, &method, NULL);
        } else if (frame.type == PC_AMQP_HEADER) {
            (void)pc_amqp_content_header(content, frame.payload, NULL);
        } else if (frame.type == PC_AMQP_BODY &&
                   pc_amqp_content_body(content, frame.payload, NULL) == 1) {
            pc_amqp_content_reset(content);
        }
        input = pc_slice_of(input.ptr + used, input.len - (size_t)used);
    }
    PC_ASSERT_INT(pc_amqp_content_pin(content, NULL), 0);
    pc_amqp_content_reset(content);
}

void
test_amqp_codec_survives_damaged_streams(void)
{
    pc_amqp_codec *codec = pc_amqp_codec_new(NULL);
    pc_amqp_content content;
    pc_buf out;
    uint32_t state = 1;
    pc_amqp_content_init(&content);
    pc_buf_init(&out);
    pc_buf_put_slice(&out, BYTES("\1\0\1\0\0\0\x17\0\x3c\0\x3c\3pc1\0\0\0\0\0\0\1\1\1\2ex\2rk\xce"),
                     NULL);
    size_t method_len = pc_buf_len(&out);
    write_full(&out);
    for (int round = 0; round < 20000; round++) {
        size_t len = pc_buf_len(&out);
        char *copy = pc_alloc(len);  // exactly as long, so that a byte too many is seen
        memcpy(copy, pc_buf_ptr(&out), len);
        for (uint32_t n = next_random(&state) % 4 + 1; n > 0; n--) {
            copy[next_random(&state) % len] = (char)next_random(&state);
        }
        read_all(codec, &content,
                 pc_slice_of(copy, len - next_random(&state) % (len - method_len)));
        pc_free(copy);
    }
    pc_buf_fini(&out);
    pc_amqp_content_fini(&content);
    pc_amqp_codec_free(codec);
}

/* ---- memory ---- */

static int
write_and_keep(void *arg)
{
    pc_amqp_content content;
    pc_buf out;
    (void)arg;
    pc_amqp_codec *codec = pc_amqp_codec_new(NULL);
    pc_broker_config config = {.client_name = "me"};
    pc_amqp_method m = {.id = PC_AMQP_DELIVER, .consumer_tag = pc_slice_str("t")};
    pc_amqp_content_init(&content);
    pc_buf_init(&out);
    int rc = codec == NULL ? -1 : pc_amqp_login_write(&out, &config, pc_slice_str("PLAIN"), NULL);
    rc = rc < 0 ? rc : pc_amqp_content_method(&content, &m, NULL);
    rc = rc < 0 ? rc : pc_amqp_content_pin(&content, NULL);
    pc_amqp_content_fini(&content);
    pc_buf_fini(&out);
    pc_amqp_codec_free(codec);
    return rc;
}

void
test_amqp_codec_survives_the_lack_of_memory(void)
{
    PC_ASSERT(PC_OOM(write_and_keep, NULL) > 3);
}
