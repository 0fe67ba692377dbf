/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/json_out.h"

#include <math.h>
#include <stdlib.h>

#include "golden.h"
#include "harness.h"

static void
expect_real(double value, const char *want)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_put_real(&out, value, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

void
test_json_out_reals(void)
{
    expect_real(-0.5, "-0.5");
    expect_real(1e16, "1e+16");
    expect_real((double)NAN, "NaN");
    expect_real((double)INFINITY, "Infinity");
    expect_real(-(double)INFINITY, "-Infinity");
}

static void
expect_string(const char *text, size_t len, const char *want)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_put_string(&out, pc_slice_of(text, len), NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

void
test_json_out_strings(void)
{
    expect_string("", 0, "\"\"");
    expect_string(NULL, 0, "\"\"");
    expect_string("abc", 3, "\"abc\"");
    expect_string("a\0b", 3, "\"a\\u0000b\"");
    expect_string("\"\\/\b\f\n\r\t\x01\x1f ~\x7f", 13,
                  "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f ~\\u007f\"");
    expect_string("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\\u00e9\\u20ac\\ud83d\\ude00\"");
    expect_string("\xed\xa0\x80", 3, "\"\\ud800\"");
    expect_string("\xed\xbf\xbfx", 4, "\"\\udfffx\"");
    expect_string("\xf4\x8f\xbf\xbf", 4, "\"\\udbff\\udfff\"");
}

void
test_json_out_bad_utf8(void)
{
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc3x",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe2\x82",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xfe",
                                      "abc\xc3",
                                      "\xf0\x9f\x98"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pc_buf out;
        pc_err err = {0};
        size_t len = strlen(bad[i]);
        char *exact = malloc(len);
        memcpy(exact, bad[i], len);
        pc_buf_init(&out);
        PC_ASSERT_INT(pc_json_put_string(&out, pc_slice_of(exact, len), &err), -1);
        PC_ASSERT_INT(err.code, PC_EDATA);
        pc_buf_fini(&out);
        free(exact);
    }
}

/* One odd character at each place of a text of each length. */
void
test_json_out_runs(void)
{
    static const char odd[] = {'"', '\\', 0x1f, 0x7f};
    for (size_t len = 1; len < 40; len++) {
        for (size_t at = 0; at < len * sizeof odd; at++) {
            char text[40], want[64] = "\"";
            memset(text, 'a', sizeof text);
            memset(want + 1, 'a', sizeof want - 1);
            static const char *const escaped[] = {"\\\"", "\\\\", "\\u001f", "\\u007f"};
            const char *escape = escaped[at / len];
            size_t place = at % len;
            text[place] = odd[at / len];
            memcpy(want + 1 + place, escape, strlen(escape));
            memcpy(want + len + strlen(escape), "\"", 2);
            expect_string(text, len, want);
        }
    }
}

void
test_json_out_long_string(void)
{
    enum { COUNT = 10000 };
    static char text[COUNT * 4], want[COUNT * 12 + 3];
    static uint32_t points[COUNT];
    pc_buf out;
    for (int i = 0; i < COUNT; i++) {
        memcpy(text + i * 4, "\xf0\x9f\x98\x80", 4);
        memcpy(want + 1 + i * 12, "\\ud83d\\ude00", 12);
        points[i] = 0x1f600;
    }
    want[0] = want[COUNT * 12 + 1] = '"';
    expect_string(text, sizeof text, want);
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_put_ucs(&out, points, COUNT, 4, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

static void
expect_ucs(const void *data, size_t len, int kind, const char *want)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_put_ucs(&out, data, len, kind, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    pc_buf_fini(&out);
}

void
test_json_out_ucs(void)
{
    expect_ucs("", 0, 1, "\"\"");
    expect_ucs("plain text", 10, 1, "\"plain text\"");
    expect_ucs("caf\xe9\n\"\xff", 7, 1, "\"caf\\u00e9\\n\\\"\\u00ff\"");
    expect_ucs((uint16_t[]){'a', 0x20ac, 0xd800, 0xdfff, 0xffff}, 5, 2,
               "\"a\\u20ac\\ud800\\udfff\\uffff\"");
    expect_ucs((uint32_t[]){'a', 0x1f600, 0xdc00, 0x10ffff}, 4, 4,
               "\"a\\ud83d\\ude00\\udc00\\udbff\\udfff\"");
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_put_ucs(&out, "abc", 1, 3, &err), -1);
    PC_ASSERT_INT(err.code, PC_ESTATE);
    pc_buf_fini(&out);
}

void
test_json_out_integers(void)
{
    static const struct {
        int64_t value;
        const char *want;
    } rows[] = {{0, "0"},
                {7, "7"},
                {-1, "-1"},
                {1234567890, "1234567890"},
                {INT64_MAX, "9223372036854775807"},
                {INT64_MIN, "-9223372036854775808"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pc_buf out;
        pc_buf_init(&out);
        PC_ASSERT_INT(pc_json_put_integer(&out, rows[i].value, NULL), 0);
        PC_ASSERT_TEXT(pc_buf_slice(&out), rows[i].want);
        pc_buf_fini(&out);
    }
}

static int
write_document(pc_buf *out, pc_err *err)
{
    pc_json_out json;
    pc_sink *sink = &json.sink;
    pc_json_out_init(&json, out);
    const pc_sink_ops *ops = sink->ops;
    int rc = ops->map_start(sink, err);
    rc = rc < 0 ? rc : ops->key(sink, pc_slice_str("a\n"), err);
    rc = rc < 0 ? rc : ops->array_start(sink, err);
    rc = rc < 0 ? rc : ops->null(sink, err);
    rc = rc < 0 ? rc : ops->boolean(sink, 1, err);
    rc = rc < 0 ? rc : ops->boolean(sink, 0, err);
    rc = rc < 0 ? rc : ops->integer(sink, -5, err);
    rc = rc < 0 ? rc : ops->real(sink, 0.5, err);
    rc = rc < 0 ? rc : ops->array_start(sink, err);
    rc = rc < 0 ? rc : ops->array_end(sink, err);
    rc = rc < 0 ? rc : ops->array_end(sink, err);
    rc = rc < 0 ? rc : ops->key(sink, pc_slice_str("b"), err);
    rc = rc < 0 ? rc : pc_sink_text(sink, (pc_slice){0}, err);
    rc = rc < 0 ? rc : ops->key(sink, pc_slice_str("c"), err);
    rc = rc < 0 ? rc : pc_sink_text(sink, pc_slice_str("text"), err);
    return rc < 0 ? rc : ops->map_end(sink, err);
}

void
test_json_out_document(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(write_document(&out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out),
                   "{\"a\\n\": [null, true, false, -5, 0.5, []], \"b\": null, \"c\": \"text\"}");
    pc_buf_fini(&out);
}

static int
write_to_fresh(void *arg)
{
    pc_buf out;
    pc_err err = {0};
    (void)arg;
    pc_buf_init(&out);
    int rc = write_document(&out, &err);
    rc = rc < 0 ? rc : pc_json_put_ucs(&out, (uint16_t[]){0x20ac, 0x20ac}, 2, 2, &err);
    pc_buf_fini(&out);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    return rc;
}

void
test_json_out_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(write_to_fresh, NULL) >= 2);
}

void
test_json_out_depth_and_misuse(void)
{
    pc_json_out json;
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    pc_json_out_init(&json, &out);
    PC_ASSERT_INT(json.sink.ops->map_end(&json.sink, &err), -1);
    PC_ASSERT_INT(err.code, PC_ESTATE);
    for (int i = 0; i < PC_SINK_MAX_DEPTH; i++) {
        PC_ASSERT_INT(json.sink.ops->array_start(&json.sink, &err), 0);
    }
    PC_ASSERT_INT(json.sink.ops->map_start(&json.sink, &err), -1);
    PC_ASSERT_INT(err.code, PC_ELIMIT);
    pc_buf_fini(&out);
}

void
bench_json_out_string_100(long n)
{
    static const char text[] =
        "a hundred plain characters, as they are found in most of the texts "
        "that travel through task queues.";
    pc_buf out;
    pc_buf_init(&out);
    for (long i = 0; i < n; i++) {
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT(pc_json_put_string(&out, pc_slice_str(text), NULL) == 0);
    }
    pc_buf_fini(&out);
}
