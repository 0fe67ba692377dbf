/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/table.h"

#include <math.h>
#include <stdlib.h>

#include "golden.h"
#include "harness.h"
#include "wire/bridge.h"
#include "wire/json.h"

#define BYTES(literal) literal, sizeof literal - 1
#define TABLE(literal) ((pc_slice){BYTES(literal)})

static int
to_json(pc_slice table, pc_buf *out, pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = table;
    pc_buf_reset(out, SIZE_MAX);
    return ct_headers_text(&message, out, err);
}

/* From JSON text; the result has its length in front. */
static int
from_json(pc_slice text, pc_buf *out, pc_err *err)
{
    pc_table_out table;
    pc_bridge bridge = {&table.sink, err};
    pc_buf_reset(out, SIZE_MAX);
    pc_table_out_init(&table, out);
    return pc_json_visit(text, &pc_bridge_visit, &bridge, err);
}

/* Every tag with values that tell one reading from another. */
static const struct {
    pc_slice table;
    const char *json;
} tags[] = {
    {{BYTES("")}, "{}"},
    {{BYTES("\1aV")}, "{\"a\": null}"},
    {{BYTES("\1aS\0\0\0\3b\xc3\xa9")}, "{\"a\": \"b\\u00e9\"}"},
    {{BYTES("\1ax\0\0\0\3\0\1\xff")},
     "{\"a\": {\"__type__\": \"base64\", \"__value__\": \"AAH/\"}}"},
    {{BYTES("\1ax\0\0\0\0")}, "{\"a\": {\"__type__\": \"base64\", \"__value__\": \"\"}}"},
    {{BYTES("\1at\1\1bt\0\1ct\x80")}, "{\"a\": true, \"b\": false, \"c\": true}"},
    {{BYTES("\1ab\xff\1bB\xff")}, "{\"a\": -1, \"b\": 255}"},
    {{BYTES("\1as\xff\xfe\1bU\xff\xfe\1cu\xff\xfe")}, "{\"a\": -2, \"b\": -2, \"c\": 65534}"},
    {{BYTES("\1aI\x80\0\0\0\1bi\x80\0\0\0")}, "{\"a\": -2147483648, \"b\": 2147483648}"},
    {{BYTES("\1al\xff\xff\xff\xff\xff\xff\xff\xff\1bL\xff\xff\xff\xff\xff\xff\xff\xff")},
     "{\"a\": -1, \"b\": -1}"},
    {{BYTES("\1al\x7f\xff\xff\xff\xff\xff\xff\xff\1bL\x80\0\0\0\0\0\0\0")},
     "{\"a\": 9223372036854775807, \"b\": -9223372036854775808}"},
    {{BYTES("\1af\x3f\xc0\0\0\1bd\xbf\xe0\0\0\0\0\0\0")}, "{\"a\": 1.5, \"b\": -0.5}"},
    {{BYTES("\1ad\x7f\xf8\0\0\0\0\0\0")}, "{\"a\": NaN}"},
    {{BYTES("\1aD\2\xff\xff\xff\x92")},
     "{\"a\": {\"__type__\": \"decimal\", \"__value__\": \"-1.10\"}}"},
    {{BYTES("\1aD\4\0\0\0\7")}, "{\"a\": {\"__type__\": \"decimal\", \"__value__\": \"0.0007\"}}"},
    {{BYTES("\1aD\0\x80\0\0\0")},
     "{\"a\": {\"__type__\": \"decimal\", \"__value__\": \"-2147483648\"}}"},
    {{BYTES("\1aT\0\0\0\0\x70\xdb\xd8\x80")},
     "{\"a\": {\"__type__\": \"datetime\", \"__value__\": \"2030-01-01T00:00:00+00:00\"}}"},
    {{BYTES("\1aA\0\0\0\0\1bF\0\0\0\0")}, "{\"a\": [], \"b\": {}}"},
    {{BYTES("\1aA\0\0\0\x0dVt\1A\0\0\0\0I\0\0\0\5")}, "{\"a\": [null, true, [], 5]}"},
};

void
test_table_every_tag(void)
{
    pc_buf out;
    pc_err err;
    pc_buf_init(&out);
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        int rc = to_json(tags[i].table, &out, &err);
        PC_ASSERT_INT(rc, tags[i].json == NULL ? -1 : 0);
        if (rc == 0) {
            PC_ASSERT_TEXT(pc_buf_slice(&out), tags[i].json);
        } else {
            PC_ASSERT_INT(err.code, PC_EDATA);
        }
    }
    pc_buf_fini(&out);
}

void
test_table_absent_is_empty(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(to_json((pc_slice){0}, &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), "{}");
    pc_buf_fini(&out);
}

void
test_table_unknown_tags(void)
{
    pc_buf out;
    pc_buf_init(&out);
    for (int tag = 0; tag < 256; tag++) {
        char table[16] = "\1a";
        pc_err err = {0};
        table[2] = (char)tag;
        bool known = tag != 0 && strchr("SxtbBsuUIilLfdDTVAF", tag) != NULL;
        int rc = to_json(pc_slice_of(table, sizeof table), &out, &err);
        if (!known) {
            PC_ASSERT(rc < 0 && err.code == PC_EDATA && strstr(err.msg, "unknown") != NULL, "%d",
                      tag);
        } else if (rc < 0) {  // what follows is nonsense
            PC_ASSERT(strstr(err.msg, "ends in the middle") || strstr(err.msg, "0x00"), "%d", tag);
        }
    }
    pc_buf_fini(&out);
}

static const char sample[] =
    "{\"text\": \"x\", \"int\": 5, \"big\": 5000000000, \"real\": 0.5, \"yes\": true, \"none\": "
    "null, "
    "\"list\": [1, [\"two\", {\"three\": []}], null], \"map\": {\"a\": {\"b\": {}}}}";

/* Cut anywhere, alone in its memory; inner lengths stay too large, so no cut is valid. */
void
test_table_truncated(void)
{
    pc_buf table, out;
    pc_buf_init(&table);
    pc_buf_init(&out);
    PC_ASSERT_INT(from_json(pc_slice_str(sample), &table, NULL), 0);
    pc_slice whole = pc_slice_of(table.data + 4, pc_buf_len(&table) - 4);
    size_t valid = 0;
    for (size_t len = 0; len <= whole.len; len++) {
        char *exact = malloc(len == 0 ? 1 : len);
        pc_err err = {0};
        memcpy(exact, whole.ptr, len);
        int rc = to_json(pc_slice_of(exact, len), &out, &err);
        PC_ASSERT(rc == 0 || err.code == PC_EDATA);
        valid += rc == 0;
        free(exact);
    }
    PC_ASSERT_INT(valid, 9);  // between the eight fields, and at both ends
    PC_ASSERT_TEXT(pc_buf_slice(&out), sample);
    pc_buf_fini(&table);
    pc_buf_fini(&out);
}

/* A list may not reach beyond the list that holds it. */
void
test_table_inner_length_beyond_outer(void)
{
    pc_buf out;
    pc_err err;
    pc_buf_init(&out);
    PC_ASSERT_INT(to_json(TABLE("\1aA\0\0\0\6A\0\0\0\1V\1bV"), &out, &err), 0);
    PC_ASSERT_INT(to_json(TABLE("\1aA\0\0\0\5A\0\0\0\1V\1bV"), &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(to_json(TABLE("\1aS\xff\xff\xff\xffx"), &out, &err), -1);
    PC_ASSERT_INT(to_json(TABLE("\1aF\xff\xff\xff\xffx"), &out, &err), -1);
    PC_ASSERT_INT(to_json(TABLE("\5a"), &out, &err), -1);
    pc_buf_fini(&out);
}

/* n lists in one another, in the field "a" */
static void
nest(pc_buf *out, uint32_t n)
{
    PC_ASSERT_INT(pc_buf_put(out, "\1a", 2, NULL), 0);
    for (uint32_t i = n; i > 0; i--) {
        PC_ASSERT_INT(pc_buf_put_u8(out, 'A', NULL), 0);
        PC_ASSERT_INT(pc_buf_put_u32(out, (i - 1) * 5, NULL), 0);
    }
}

void
test_table_depth(void)
{
    static const pc_visit nothing = {0};
    for (uint32_t n = 95; n < 20000; n = n < 105 ? n + 1 : n * 3) {
        pc_buf table;
        pc_err err;
        pc_buf_init(&table);
        nest(&table, n);
        int rc = pc_table_visit(pc_buf_slice(&table), &nothing, NULL, &err);
        PC_ASSERT_INT(rc, n < PC_TABLE_MAX_DEPTH ? 0 : -1);
        PC_ASSERT(rc == 0 || err.code == PC_ELIMIT);
        pc_buf_fini(&table);
    }
}

static int
stop(void *ctx, int64_t value)
{
    (void)value;
    return ctx == NULL ? -1 : pc_fail(ctx, PC_EIO, "enough");
}

void
test_table_callback_stops(void)
{
    static const pc_visit visit = {.integer = stop};
    pc_err err = {.code = PC_EAUTH};
    PC_ASSERT_INT(pc_table_visit(TABLE("\1aI\0\0\0\1"), &visit, NULL, &err), -1);
    PC_ASSERT_INT(err.code, PC_ESTATE);
    PC_ASSERT_INT(pc_table_visit(TABLE("\1aI\0\0\0\1"), &visit, &err, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    PC_ASSERT_INT(pc_table_visit(TABLE("\1aI\0\0\0\1"), &visit, NULL, NULL), -1);
}

void
test_table_out_bytes(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(from_json(pc_slice_str("{\"a\": [2147483647, -2147483647, 2147483648, "
                                         "-2147483648], \"b\": {\"\": \"\"}}"),
                            &out, NULL),
                  0);
    pc_slice want = TABLE("\0\0\0\x30"
                          "\1aA\0\0\0\x1cI\x7f\xff\xff\xffI\x80\0\0\1L\0\0\0\0\x80\0\0\0"
                          "L\xff\xff\xff\xff\x80\0\0\0\1bF\0\0\0\6\0S\0\0\0\0");
    PC_ASSERT_SLICE(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

void
test_table_out_refuses(void)
{
    char key[300];
    pc_table_out table;
    pc_buf out;
    pc_err err;
    memset(key, 'k', sizeof key);
    pc_buf_init(&out);
    PC_ASSERT_INT(from_json(pc_slice_str("[]"), &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(from_json(pc_slice_str("\"text\""), &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(from_json(pc_slice_str("{\"a\": 9223372036854775808}"), &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    pc_table_out_init(&table, &out);
    const pc_sink_ops *ops = table.sink.ops;
    PC_ASSERT_INT(ops->key(&table.sink, pc_slice_str("a"), &err), -1);
    PC_ASSERT_INT(ops->map_end(&table.sink, &err), -1);
    PC_ASSERT_INT(ops->map_start(&table.sink, &err), 0);
    PC_ASSERT_INT(ops->array_end(&table.sink, &err), -1);
    PC_ASSERT_INT(ops->key(&table.sink, pc_slice_of(key, 255), &err), 0);
    PC_ASSERT_INT(ops->key(&table.sink, pc_slice_of(key, 256), &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    for (int i = 1; i < PC_TABLE_MAX_DEPTH; i++) {
        PC_ASSERT_INT(ops->array_start(&table.sink, &err), 0);
    }
    PC_ASSERT_INT(ops->array_start(&table.sink, &err), -1);
    PC_ASSERT_INT(err.code, PC_ELIMIT);
    pc_buf_fini(&out);
}

static int
write_sample(void *arg)
{
    pc_buf out, back;
    pc_err err = {0};
    (void)arg;
    pc_buf_init(&out);
    pc_buf_init(&back);
    int rc = from_json(pc_slice_str(sample), &out, &err);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    if (rc == 0) {
        rc = to_json(pc_slice_of(out.data + 4, pc_buf_len(&out) - 4), &back, &err);
        PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    }
    pc_buf_fini(&out);
    pc_buf_fini(&back);
    return rc;
}

void
test_table_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(write_sample, NULL) >= 4);
}

/* What Celery sent: our reading equals the amqp package's, our writing its bytes. */
static void
golden(const ct_record *record)
{
    pc_buf raw, json, again;
    pc_err err;
    pc_buf_init(&raw);
    pc_buf_init(&json);
    pc_buf_init(&again);
    pc_slice table = ct_bytes(record, "headers", &raw);
    PC_ASSERT_INT(to_json(table, &json, &err), 0);
    PC_ASSERT_SLICE(pc_buf_slice(&json), ct_field(record, "headers_json"));
    if (pc_slice_is(ct_field(record, "headers_plain"), "yes")) {
        PC_ASSERT_INT(from_json(pc_buf_slice(&json), &again, &err), 0);
        PC_ASSERT_INT(pc_get_u32(again.data), table.len);
        PC_ASSERT_SLICE(pc_slice_of(again.data + 4, pc_buf_len(&again) - 4), table);
    }
    pc_buf_fini(&raw);
    pc_buf_fini(&json);
    pc_buf_fini(&again);
}

void
test_table_golden(void)
{
    PC_ASSERT(ct_golden("amqp.json", golden) > 30);
}
