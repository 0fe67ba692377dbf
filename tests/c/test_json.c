/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/json.h"

#include <stdlib.h>

#include "base/mem.h"
#include "golden.h"
#include "harness.h"
#include "wire/bridge.h"
#include "wire/json_out.h"

/* Parses and writes again: Python's json.dumps(json.loads(text)) for what both know. */
static int
echo(pc_slice text, pc_buf *out, pc_err *err)
{
    pc_json_out json;
    pc_bridge bridge = {&json.sink, err};
    pc_buf_reset(out, SIZE_MAX);
    pc_json_out_init(&json, out);
    return pc_json_visit(text, &pc_bridge_visit, &bridge, err);
}

/* In a block of exactly this size, so that reading beyond the end is noticed. */
static int
echo_exact(const char *text, size_t len, pc_buf *out, pc_err *err)
{
    char *exact = malloc(len == 0 ? 1 : len);
    memcpy(exact, text, len);
    int rc = echo(pc_slice_of(exact, len), out, err);
    free(exact);
    return rc;
}

void
test_json_values(void)
{
    static const char *const pairs[][2] = {
        {"null", "null"},
        {" true ", "true"},
        {"false\n", "false"},
        {"0", "0"},
        {"-0", "0"},
        {"-0.0", "-0.0"},
        {"12 ", "12"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"1.5", "1.5"},
        {"1e3", "1000.0"},
        {"1E+3", "1000.0"},
        {"25e-1", "2.5"},
        {"1e999", "Infinity"},
        {"-1e99999999999999999999", "-Infinity"},
        {"1e-99999999999999999999", "0.0"},
        {"0.000001", "1e-06"},
        {"\"\"", "\"\""},
        {"\"a\\n\\u00e9\\/\"", "\"a\\n\\u00e9/\""},
        {"\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""},
        {"\"\\uD83D\\uDE00\"", "\"\\ud83d\\ude00\""},
        {"\"\\\\ud800\"", "\"\\\\ud800\""},
        {"\"\\\\\\\\\"", "\"\\\\\\\\\""},
        {"\"\\u0000\"", "\"\\u0000\""},
        {"\"\x7f\"", "\"\\u007f\""},
        {"\"\xc3\xa9\xf0\x9f\x98\x80\"", "\"\\u00e9\\ud83d\\ude00\""},
        {"[]", "[]"},
        {"{}", "{}"},
        {"[1,[2,{\"a\":[]}],{}]", "[1, [2, {\"a\": []}], {}]"},
        {"{\"a\":1,\"a\":2,\"\":null}", "{\"a\": 1, \"a\": 2, \"\": null}"},
    };
    pc_buf out;
    pc_err err;
    pc_buf_init(&out);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        PC_ASSERT(echo_exact(pairs[i][0], strlen(pairs[i][0]), &out, &err) == 0, "%s: %s",
                  pairs[i][0], err.msg);
        PC_ASSERT_TEXT(pc_buf_slice(&out), pairs[i][1]);
    }
    pc_buf_fini(&out);
}

void
test_json_leaves_to_python(void)
{
    static const char *const odd[] = {
        "",
        " ",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "nul",
        "truee",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "{\"a\" 1}",
        "{1:2}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "[",
        "{",
        "]",
        "\"",
        "\"a",
        "\"\n\"",
        "\"\t\"",
        "'a'",
        "1 2",
        "{} []",
        "[1]x",
        "\v1",
        "[1,\f2]",
        "/* */1",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800x\\udc00\"",
        "\"\\\\\\ud800\"",
        "\xef\xbb\xbf{}",
        "{\"a\"}",
        "[,]",
        "\"\\",
        "\"\\ud83d\\",
        "\"\\ud83d\\ude0",
    };
    pc_buf out;
    pc_buf_init(&out);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        pc_err err;
        PC_ASSERT(echo_exact(odd[i], strlen(odd[i]), &out, &err) < 0, "%s", odd[i]);
        PC_ASSERT(err.code == PC_EFALLBACK, "%s: %s", odd[i], err.msg);
    }
    pc_err err;
    PC_ASSERT(echo_exact("[1]\0", 4, &out, &err) < 0 && err.code == PC_EFALLBACK);
    pc_buf_fini(&out);
}

static int
count_number(void *ctx, pc_slice text)
{
    (void)text;
    ++*(int *)ctx;
    return 0;
}

void
test_json_big_integers_as_text(void)
{
    static const pc_visit visit = {.number = count_number};
    int count = 0;
    pc_slice text = pc_slice_str("[9223372036854775808, -9223372036854775809, 1.0, 5, "
                                 "123456789012345678901234567890, 18446744073709551616]");
    PC_ASSERT_INT(pc_json_visit(text, &visit, &count, NULL), 0);
    PC_ASSERT_INT(count, 5);
}

typedef struct {
    pc_slice text;
    int inside;
    int outside;
} lent;

static int
look(void *ctx, pc_slice text)
{
    lent *l = ctx;
    bool in = text.ptr >= l->text.ptr && text.ptr + text.len <= l->text.ptr + l->text.len;
    *(in ? &l->inside : &l->outside) += 1;
    return 0;
}

void
test_json_lends_the_input(void)
{
    static const pc_visit visit = {.key = look, .string = look};
    lent l = {.text = pc_slice_str("{\"key\": \"plain \xc3\xa9\", \"\": \"\", \"b\": \"x\\ny\"}")};
    PC_ASSERT_INT(pc_json_visit(l.text, &visit, &l, NULL), 0);
    PC_ASSERT_INT(l.inside, 5);
    PC_ASSERT_INT(l.outside, 1);
}

void
test_json_depth(void)
{
    enum { DEEP = 2000 };
    char text[DEEP * 2 + 1];
    static const pc_visit nothing = {0};
    pc_err err;
    for (int depth = 1; depth <= DEEP; depth += depth == PC_JSON_MAX_DEPTH - 1 ? 1 : 7) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        int rc = pc_json_visit(pc_slice_of(text, (size_t)depth * 2), &nothing, NULL, &err);
        PC_ASSERT_INT(rc, depth <= PC_JSON_MAX_DEPTH ? 0 : -1);
        PC_ASSERT(rc == 0 || err.code == PC_EFALLBACK);
    }
    memset(text, '[', sizeof text);
    PC_ASSERT(pc_json_visit(pc_slice_of(text, 1000), &nothing, NULL, &err) < 0);
    PC_ASSERT_INT(err.code, PC_EFALLBACK);
}

static const char sample[] =
    "{\"a\": [1, -2.5e3, \"x\\u00e9\\ud83d\\ude00\", true, false, null], \"b\\n\": {\"\": {}}}";

void
test_json_truncated(void)
{
    pc_buf out;
    pc_err err;
    pc_buf_init(&out);
    for (size_t len = 0; len < sizeof sample - 1; len++) {
        PC_ASSERT(echo_exact(sample, len, &out, &err) < 0, "%zu", len);
        PC_ASSERT_INT(err.code, PC_EFALLBACK);
    }
    PC_ASSERT_INT(echo_exact(sample, sizeof sample - 1, &out, &err), 0);
    pc_buf_fini(&out);
}

static int
refuse_null(void *ctx)
{
    return ctx == NULL ? -1 : pc_fail(ctx, PC_EDATA, "no null here");
}

void
test_json_callback_stops(void)
{
    static const pc_visit visit = {.null = refuse_null};
    pc_err err = {.code = PC_EIO};  // left over from something else
    PC_ASSERT_INT(pc_json_visit(pc_slice_str("[1, null, 2]"), &visit, NULL, &err), -1);
    PC_ASSERT_INT(err.code, PC_ESTATE);
    PC_ASSERT_INT(pc_json_visit(pc_slice_str("[1, null, 2]"), &visit, &err, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_STR(err.msg, "no null here");
    PC_ASSERT_INT(pc_json_visit(pc_slice_str("[1, null, 2]"), &visit, NULL, NULL), -1);
}

/* Escaped text, longer than the arena, in a nest that needs its stack to grow. */
static int
walk_large(void *arg)
{
    static const pc_visit nothing = {0};
    pc_err err = {0};
    int rc = pc_json_visit(*(pc_slice *)arg, &nothing, NULL, &err);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM, "%s", err.msg);
    return rc;
}

void
test_json_out_of_memory(void)
{
    enum { NEST = 800, LONG = 100000 };
    pc_buf text;
    pc_buf_init(&text);
    for (int i = 0; i < NEST; i++) {
        PC_ASSERT_INT(pc_buf_put_str(&text, "[", NULL), 0);
    }
    for (int part = 0; part < 3; part++) {
        PC_ASSERT_INT(pc_buf_put_str(&text, part ? ",\"\\n" : "\"\\n", NULL), 0);
        for (int i = 0; i < (LONG >> (4 * (2 - part))); i++) {
            PC_ASSERT_INT(pc_buf_put_str(&text, "xyz\\\\", NULL), 0);
        }
        PC_ASSERT_INT(pc_buf_put_str(&text, "\"", NULL), 0);
    }
    for (int i = 0; i < NEST; i++) {
        PC_ASSERT_INT(pc_buf_put_str(&text, "]", NULL), 0);
    }
    pc_slice whole = pc_buf_slice(&text);
    PC_ASSERT(PC_OOM(walk_large, &whole) >= 3);
    pc_buf_fini(&text);
}

void
test_json_small_needs_no_heap(void)
{
    static const pc_visit nothing = {0};
    pc_mem_fail_after(1);
    int rc = pc_json_visit(pc_slice_str(sample), &nothing, NULL, NULL);
    pc_mem_fail_after(-1);
    PC_ASSERT_INT(rc, 0);
}

static void
tame(const char *text, const char *want)
{
    static const pc_visit nothing = {0};
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_json_tame(pc_slice_str(text), &out, NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), want);
    PC_ASSERT_INT(pc_json_visit(pc_buf_slice(&out), &nothing, NULL, NULL), 0);
    pc_buf_fini(&out);
}

void
test_json_tame(void)
{
    tame("[NaN, -Infinity, Infinity]", "[0.0, -1e999999, 1e999999]");
    tame("{\"NaN\": \"Infinity \\\" NaN\", \"\\\\\": NaN}", "{\"NaN\": \"Infinity \\\" NaN\", \"\\\\\": 0.0}");
    tame("[\"\\ud800\", \"\\ud83d\\ude00\", \"\\udc00\\udc00\", \"\\\\ud800\"]",
         "[\"\\ufffd\", \"\\ud83d\\ude00\", \"\\ufffd\\ufffd\", \"\\\\ud800\"]");
    tame("{}", "{}");
}

void
test_json_tame_what_is_cut_off(void)
{
    static const char *const texts[] = {"", "N", "Na", "\"\\", "\"\\u", "\"\\ud80", "I", "Infinit", "[\"\\ud800\\u"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pc_buf out;
        pc_buf_init(&out);
        PC_ASSERT_INT(pc_json_tame(pc_slice_str(texts[i]), &out, NULL), 0);
        PC_ASSERT_INT(pc_buf_len(&out), strlen(texts[i]));
        pc_buf_fini(&out);
    }
}

void
bench_json_visit_body(long n)
{
    static const pc_visit nothing = {0};
    pc_slice text = pc_slice_str("[[2, 2], {}, {\"callbacks\": null, \"errbacks\": null, "
                                 "\"chain\": null, \"chord\": null}]");
    for (long i = 0; i < n; i++) {
        PC_ASSERT(pc_json_visit(text, &nothing, NULL, NULL) == 0);
    }
}
