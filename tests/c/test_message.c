/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/message.h"

#include <stdlib.h>

#include "base/mem.h"
#include "golden.h"
#include "harness.h"

static pc_message
sample(void)
{
    pc_message m;
    pc_message_init(&m);
    m.content_type = pc_slice_str("application/json");
    m.content_encoding = pc_slice_str("utf-8");
    m.correlation_id = pc_slice_str("c-1");
    m.reply_to = pc_slice_str("");
    m.expiration = pc_slice_str("60000");
    m.message_id = pc_slice_str("m-1");
    m.type = pc_slice_str("t");
    m.app_id = pc_slice_str("app");
    m.timestamp = 1893456000;
    m.delivery_mode = 2;
    m.priority = 9;
    m.headers_kind = PC_HEADERS_JSON;
    m.headers = pc_slice_str("{\"task\": \"add\"}");
    m.body = pc_slice_of("\0\1\2", 3);
    m.exchange = pc_slice_str("");
    m.routing_key = pc_slice_str("celery");
    m.redelivered = true;
    m.tag = UINT64_MAX;
    return m;
}

static void
expect_equal(const pc_message *got, const pc_message *want)
{
    PC_ASSERT_SLICE(got->content_type, want->content_type);
    PC_ASSERT_SLICE(got->content_encoding, want->content_encoding);
    PC_ASSERT_SLICE(got->correlation_id, want->correlation_id);
    PC_ASSERT_SLICE(got->reply_to, want->reply_to);
    PC_ASSERT_SLICE(got->expiration, want->expiration);
    PC_ASSERT_SLICE(got->message_id, want->message_id);
    PC_ASSERT_SLICE(got->type, want->type);
    PC_ASSERT_SLICE(got->user_id, want->user_id);
    PC_ASSERT_SLICE(got->app_id, want->app_id);
    PC_ASSERT_SLICE(got->cluster_id, want->cluster_id);
    PC_ASSERT_SLICE(got->headers, want->headers);
    PC_ASSERT_SLICE(got->body, want->body);
    PC_ASSERT_SLICE(got->exchange, want->exchange);
    PC_ASSERT_SLICE(got->routing_key, want->routing_key);
    PC_ASSERT_INT(got->timestamp, want->timestamp);
    PC_ASSERT_INT(got->delivery_mode, want->delivery_mode);
    PC_ASSERT_INT(got->priority, want->priority);
    PC_ASSERT_INT(got->headers_kind, want->headers_kind);
    PC_ASSERT_INT(got->redelivered, want->redelivered);
    PC_ASSERT(got->tag == want->tag);
}

void
test_message_pack_unpack(void)
{
    pc_message in = sample(), none, out;
    pc_buf frame;
    pc_buf_init(&frame);
    PC_ASSERT_INT(pc_message_pack(&in, &frame, NULL), 0);
    PC_ASSERT_INT(pc_buf_len(&frame), pc_message_packed_size(&in));
    PC_ASSERT_INT(pc_message_unpack(pc_buf_slice(&frame), &out, NULL), 0);
    expect_equal(&out, &in);
    pc_message_init(&none);
    pc_buf_reset(&frame, 0);
    PC_ASSERT_INT(pc_message_pack(&none, &frame, NULL), 0);
    PC_ASSERT_INT(pc_message_unpack(pc_buf_slice(&frame), &out, NULL), 0);
    expect_equal(&out, &none);
    PC_ASSERT_INT(out.timestamp, -1);
    PC_ASSERT_INT(out.priority, -1);
    pc_buf_fini(&frame);
}

void
test_message_packs_behind_other_bytes(void)
{
    pc_message in = sample(), out;
    pc_buf frame;
    pc_buf_init(&frame);
    PC_ASSERT_INT(pc_buf_put_str(&frame, "odd", NULL), 0);
    PC_ASSERT_INT(pc_message_pack(&in, &frame, NULL), 0);
    pc_buf_consume(&frame, 3);
    PC_ASSERT_INT(pc_message_unpack(pc_buf_slice(&frame), &out, NULL), 0);
    expect_equal(&out, &in);
    pc_buf_fini(&frame);
}

void
test_message_unpack_malformed(void)
{
    pc_message in = sample(), out;
    pc_buf frame;
    pc_err err;
    pc_buf_init(&frame);
    PC_ASSERT_INT(pc_message_pack(&in, &frame, NULL), 0);
    for (size_t len = 0; len < pc_buf_len(&frame); len++) {
        char *exact = malloc(len == 0 ? 1 : len);
        memcpy(exact, frame.data, len);
        err.code = PC_OK;
        PC_ASSERT_INT(pc_message_unpack(pc_slice_of(exact, len), &out, &err), -1);
        PC_ASSERT_INT(err.code, PC_EDATA);
        free(exact);
    }
    PC_ASSERT_INT(pc_buf_put_u8(&frame, 0, NULL), 0);
    PC_ASSERT_INT(pc_message_unpack(pc_buf_slice(&frame), &out, &err), -1);
    memset(frame.data, 0xfe, 8);  // a length far beyond the frame
    PC_ASSERT_INT(pc_message_unpack(pc_buf_slice(&frame), &out, &err), -1);
    pc_buf_fini(&frame);
}

void
test_message_copy(void)
{
    pc_message in = sample(), want = sample(), out, none, copy;
    char body[] = "bytes of somebody else";
    in.body = pc_slice_str(body);
    want.body = pc_slice_str("bytes of somebody else");
    char *memory = pc_alloc(pc_message_slices_size(&in));
    PC_ASSERT(memory != NULL);
    pc_message_copy_to(&out, &in, memory);
    memset(body, 'x', sizeof body - 1);
    expect_equal(&out, &want);
    pc_free(memory);
    pc_message_init(&none);
    PC_ASSERT_INT(pc_message_slices_size(&none), 0);
    pc_message_copy_to(&copy, &none, NULL);
    expect_equal(&copy, &none);
}

void
test_message_visit_headers(void)
{
    static const char table[] = "\4taskS\0\0\0\3add";
    pc_message m = sample();
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(ct_headers_text(&m, &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), "{\"task\": \"add\"}");
    pc_buf_reset(&out, SIZE_MAX);
    m.headers_kind = PC_HEADERS_TABLE;
    m.headers = pc_slice_of(table, sizeof table - 1);
    PC_ASSERT_INT(ct_headers_text(&m, &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), "{\"task\": \"add\"}");
    pc_buf_reset(&out, SIZE_MAX);
    m.headers_kind = PC_HEADERS_NONE;
    PC_ASSERT_INT(ct_headers_text(&m, &out, NULL), 0);
    PC_ASSERT_INT(pc_buf_len(&out), 0);
    pc_buf_fini(&out);
}

static int
pack(void *arg)
{
    pc_buf frame;
    pc_err err = {0};
    pc_buf_init(&frame);
    int rc = pc_message_pack(arg, &frame, &err);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    pc_buf_fini(&frame);
    return rc;
}

void
test_message_out_of_memory(void)
{
    pc_message m = sample();
    PC_ASSERT_INT(PC_OOM(pack, &m), 1);
}

void
bench_message_pack_unpack(long n)
{
    pc_message in = sample(), out;
    pc_buf frame;
    pc_buf_init(&frame);
    for (long i = 0; i < n; i++) {
        pc_buf_reset(&frame, SIZE_MAX);
        PC_ASSERT(pc_message_pack(&in, &frame, NULL) == 0);
        PC_ASSERT(pc_message_unpack(pc_buf_slice(&frame), &out, NULL) == 0);
    }
    pc_buf_fini(&frame);
}
