/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/envelope.h"

#include <stdlib.h>

#include "golden.h"
#include "harness.h"

typedef struct {
    pc_message message;
    pc_slice tag;
    pc_buf scratch;
    pc_err err;
} opened;

static int
open_text(opened *o, pc_slice text)
{
    o->tag = (pc_slice){0};
    o->err.code = PC_OK;
    pc_message_init(&o->message);
    return pc_envelope_read(text, &o->message, &o->tag, &o->scratch, &o->err);
}

void
test_envelope_write(void)
{
    pc_message m;
    pc_buf out;
    pc_message_init(&m);
    m.content_type = pc_slice_str("application/json");
    m.body = pc_slice_str("[[], {}, {}]");
    m.correlation_id = pc_slice_str("c\xc3\xa9");
    m.priority = 0;
    m.timestamp = 5;
    m.routing_key = pc_slice_str("celery");
    m.redelivered = true;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_envelope_write(&m, pc_slice_str("tag"), &out, NULL), 0);
    PC_ASSERT_TEXT(
        pc_buf_slice(&out),
        "{\"body\": \"W1tdLCB7fSwge31d\", \"content-encoding\": null, \"content-type\": "
        "\"application/json\", \"headers\": {}, \"properties\": {\"correlation_id\": "
        "\"c\\u00e9\", "
        "\"timestamp\": 5, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": \"celery\", "
        "\"redelivered\": true}, \"priority\": 0, \"body_encoding\": \"base64\", "
        "\"delivery_tag\": \"tag\"}}");
    pc_buf_fini(&out);
}

void
test_envelope_table_headers_become_json(void)
{
    static const char table[] = "\1aA\0\0\0\6VI\0\0\0\7\1bT\0\0\0\0\0\0\0\0";
    pc_message m;
    pc_buf out;
    pc_message_init(&m);
    m.headers_kind = PC_HEADERS_TABLE;
    m.headers = pc_slice_of(table, sizeof table - 1);
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_envelope_write(&m, pc_slice_str("t"), &out, NULL), 0);
    PC_ASSERT_INT(pc_buf_put_u8(&out, 0, NULL), 0);
    PC_ASSERT(strstr(out.data,
                     "\"headers\": {\"a\": [null, 7], \"b\": {\"__type__\": \"datetime\", "
                     "\"__value__\": \"1970-01-01T00:00:00+00:00\"}}, \"prop")
                  != NULL,
              "%s", out.data);
    pc_buf_fini(&out);
}

/* All that may be unusual: order, white space, escapes, plain body, other types. */
static const char odd[] = " {\"properties\": {\"delivery_tag\": \"t\\u00e9\", \"delivery_info\": "
                          "{\"routing_key\": \"r\\/k\", "
                          "\"exchange\": null, \"redelivered\": true, \"x\": {\"exchange\": "
                          "\"no\"}}, \"expiration\": 60000, "
                          "\"priority\": 3, \"delivery_mode\": null, \"timestamp\": 12, "
                          "\"message_id\": 77, \"type\": [\"x\"], "
                          "\"headers\": {}}, \"extra\": {\"properties\": {\"priority\": 9}, "
                          "\"body\": \"no\"}, \"headers\"\n :\t "
                          "{\"a\": \"}\\\"}{\\\\\", \"headers\": {\"body\": \"no\"}, \"n\": [{}, "
                          "[]]} ,\"body\": \"pl\\u0061in\"}";

void
test_envelope_read_odd(void)
{
    opened o;
    pc_buf_init(&o.scratch);
    PC_ASSERT(open_text(&o, pc_slice_str(odd)) == 0, "%s", o.err.msg);
    PC_ASSERT_TEXT(o.tag, "t\xc3\xa9");
    PC_ASSERT_TEXT(o.message.routing_key, "r/k");
    PC_ASSERT_TEXT(o.message.exchange, NULL);
    PC_ASSERT(o.message.redelivered);
    PC_ASSERT_TEXT(o.message.expiration, "60000");
    PC_ASSERT_TEXT(o.message.message_id, "77");
    PC_ASSERT_TEXT(o.message.type, NULL);
    PC_ASSERT_INT(o.message.priority, 3);
    PC_ASSERT_INT(o.message.delivery_mode, 0);
    PC_ASSERT_INT(o.message.timestamp, 12);
    PC_ASSERT_TEXT(o.message.body, "plain");
    PC_ASSERT_INT(o.message.headers_kind, PC_HEADERS_JSON);
    PC_ASSERT_TEXT(o.message.headers, "{\"a\": \"}\\\"}{\\\\\", \"headers\": {\"body\": \"no\"}, "
                                      "\"n\": [{}, []]}");
    pc_buf_fini(&o.scratch);
}

/* What only Python's JSON knows, in somebody's headers: they stay as they are. */
void
test_envelope_headers_for_python(void)
{
    opened o;
    pc_buf_init(&o.scratch);
    PC_ASSERT_INT(open_text(&o, pc_slice_str("{\"body\": \"aGk=\", \"headers\": {\"task\": \"t\", \"x\": [NaN, \"\\ud800\"]}, "
                                             "\"content-type\": \"a/b\", \"properties\": {\"body_encoding\": \"base64\", "
                                             "\"delivery_tag\": \"d\\u0065\"}}")), 0);
    PC_ASSERT_TEXT(o.message.headers, "{\"task\": \"t\", \"x\": [NaN, \"\\ud800\"]}");
    PC_ASSERT_TEXT(o.message.body, "hi");
    PC_ASSERT_TEXT(o.message.content_type, "a/b");
    PC_ASSERT_TEXT(o.tag, "de");
    PC_ASSERT(open_text(&o, pc_slice_str("{\"body\": NaN nonsense")) < 0);
    pc_buf_fini(&o.scratch);
}

void
test_envelope_escaped_base64(void)
{
    opened o;
    pc_buf_init(&o.scratch);
    PC_ASSERT_INT(
        open_text(&o, pc_slice_str("{\"body\":\"\\/\\/79\",\"headers\":null,\"properties\":"
                                   "{\"body_encoding\":\"b\\u0061se64\"}}")),
        0);
    PC_ASSERT_TEXT(o.message.body, "\xff\xfe\xfd");
    PC_ASSERT_INT(o.message.headers_kind, PC_HEADERS_NONE);
    PC_ASSERT_TEXT(o.message.headers, NULL);
    PC_ASSERT_TEXT(o.tag, NULL);
    pc_buf_fini(&o.scratch);
}

void
test_envelope_refuses(void)
{
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "5",
        "\"body\"",
        "{}",
        "{\"body\": \"\"}",
        "{\"properties\": {}}",
        "{\"body\": 5, \"properties\": {}}",
        "{\"body\": null, \"properties\": {}}",
        "{\"body\": \"\", \"properties\": []}",
        "{\"body\": \"a\", \"properties\": {\"body_encoding\": \"base64\"}}",
        "{\"body\": \"\", \"properties\": {}, \"he\\u0061ders\": {}}",
        "{\"body\": \"\", \"properties\": {}} x",
        "{\"body\": \"\", \"properties\": {\"a\": NaNa}}",
    };
    opened o;
    pc_buf_init(&o.scratch);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        PC_ASSERT(open_text(&o, pc_slice_str(bad[i])) < 0, "%s", bad[i]);
        PC_ASSERT(o.err.code == PC_EDATA, "%s: %s", bad[i], o.err.msg);
    }
    PC_ASSERT_INT(open_text(&o, (pc_slice){0}), -1);
    pc_buf_fini(&o.scratch);
}

void
test_envelope_truncated(void)
{
    opened o;
    pc_buf_init(&o.scratch);
    for (size_t len = 0; len < sizeof odd - 1; len++) {
        char *exact = malloc(len == 0 ? 1 : len);
        memcpy(exact, odd, len);
        PC_ASSERT_INT(open_text(&o, pc_slice_of(exact, len)), -1);
        PC_ASSERT_INT(o.err.code, PC_EDATA);
        free(exact);
    }
    pc_buf_fini(&o.scratch);
}

static int
read_and_write(void *arg)
{
    opened o;
    pc_buf out;
    (void)arg;
    pc_buf_init(&o.scratch);
    pc_buf_init(&out);
    int rc = open_text(&o, pc_slice_str(odd));
    rc = rc < 0 ? rc : pc_envelope_write(&o.message, o.tag, &out, &o.err);
    PC_ASSERT(rc == 0 || o.err.code == PC_ENOMEM, "%s", o.err.msg);
    pc_buf_fini(&o.scratch);
    pc_buf_fini(&out);
    return rc;
}

void
test_envelope_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(read_and_write, NULL) >= 2);
}

/* What kombu wrote comes out of our writer byte for byte. */
static void
golden(const ct_record *record)
{
    opened o;
    pc_buf out, body;
    pc_buf_init(&o.scratch);
    pc_buf_init(&out);
    pc_buf_init(&body);
    pc_slice text = ct_field(record, "envelope");
    PC_ASSERT(open_text(&o, text) == 0, "%s", o.err.msg);
    PC_ASSERT_SLICE(o.message.headers, ct_field(record, "headers"));
    PC_ASSERT_SLICE(o.message.body, ct_bytes(record, "body", &body));
    PC_ASSERT_SLICE(o.message.content_type, ct_field(record, "content-type"));
    PC_ASSERT_SLICE(o.message.content_encoding, ct_field(record, "content-encoding"));
    PC_ASSERT_SLICE(o.message.correlation_id, ct_field(record, "correlation_id"));
    PC_ASSERT_SLICE(o.message.reply_to, ct_field(record, "reply_to"));
    PC_ASSERT_SLICE(o.message.expiration, ct_field(record, "expiration"));
    PC_ASSERT_SLICE(o.message.routing_key, ct_field(record, "routing_key"));
    PC_ASSERT_SLICE(o.tag, ct_field(record, "delivery_tag"));
    PC_ASSERT_INT(o.message.priority, ct_field(record, "priority").ptr[0] - '0');
    PC_ASSERT_INT(o.message.delivery_mode, ct_field(record, "delivery_mode").ptr[0] - '0');
    // Publish arguments that Celery passes on stand in the order of the call, or are unknown to
    // AMQP.
    pc_slice name = ct_field(record, "case");
    bool passed_on = pc_slice_is(name, "extra_properties") || pc_slice_is(name, "reprs")
                     || pc_slice_is(name, "retry");
    PC_ASSERT_INT(pc_envelope_write(&o.message, o.tag, &out, NULL), 0);
    if (!passed_on) {
        PC_ASSERT_SLICE(pc_buf_slice(&out), text);
    }
    pc_buf_fini(&o.scratch);
    pc_buf_fini(&out);
    pc_buf_fini(&body);
}

void
test_envelope_golden(void)
{
    PC_ASSERT(ct_golden("redis.json", golden) > 30);
}

void
bench_envelope_read(long n)
{
    opened o;
    pc_buf_init(&o.scratch);
    for (long i = 0; i < n; i++) {
        PC_ASSERT(open_text(&o, pc_slice_str(odd)) == 0);
    }
    pc_buf_fini(&o.scratch);
}
