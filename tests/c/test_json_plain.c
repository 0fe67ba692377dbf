/* SPDX-License-Identifier: BSD-3-Clause */
/* The quick way through JSON and yajl's are one: a line feed at the end takes the same text through yajl. */
#include "wire/json_plain.h"

#include <stdlib.h>

#include "harness.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"

/* PC_EDATA: it is JSON, but the writer has no place for such a number. */
static pc_code
echo(pc_slice text, pc_buf *out)
{
    pc_err err = {0};
    pc_json_out json;
    pc_bridge bridge = {&json.sink, &err};
    pc_buf_reset(out, SIZE_MAX);
    pc_json_out_init(&json, out);
    int rc = pc_json_visit(text, &pc_bridge_visit, &bridge, &err);
    return rc == 0 ? PC_OK : err.code;
}

/* Both say the same. True: it is JSON. */
static bool
agree(const char *text, size_t len)
{
    pc_buf quick, slow;
    char *exact = malloc(len);  // reading beyond the end is noticed
    char *longer = malloc(len + 1);
    memcpy(exact, text, len);
    memcpy(longer, text, len);
    longer[len] = '\n';
    pc_buf_init(&quick);
    pc_buf_init(&slow);
    pc_code code = echo(pc_slice_of(exact, len), &quick);
    PC_ASSERT(echo(pc_slice_of(longer, len + 1), &slow) == code, "%d: %.*s", (int)code, (int)len, text);
    PC_ASSERT(code != PC_OK || pc_slice_eq(pc_buf_slice(&quick), pc_buf_slice(&slow)), "%.*s", (int)len, text);
    pc_buf_fini(&quick);
    pc_buf_fini(&slow);
    free(exact);
    free(longer);
    return code != PC_EFALLBACK;
}

static const char *const good[] = {
    "null", "true", "false", "0", "-0", "-0.0", "12", " 12 ", "9223372036854775807", "-9223372036854775808",
    "9223372036854775808", "123456789012345678901234567890", "1.5", "1e3", "1E+3", "25e-1", "0.5", "0e0",
    "\"\"", "\"a\"", "\"\x7f\"", "\"\xc3\xa9\"", "\"\xff\"", "\"{[,:]}\"", "[]", "[ ]", "{}", "{ }", "[[]]",
    "[1,2]", "[ 1 , 2 ]", "[{}, [], {\"a\": []}]", "{\"a\":1}", "{ \"a\" : 1 , \"b\" : 2 }", "{\"a\":1,\"a\":2,\"\":null}",
    "{\"a\": {\"b\": {\"c\": [1, [2, [3, {\"d\": null}]], true]}}, \"e\": [false, -2.5e3]}",
    "[[1, 2], {\"x\": 1}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]",
    "{\"lang\": \"py\", \"task\": \"t.add\", \"id\": \"4f\", \"eta\": null, \"timelimit\": [null, null], \"retries\": 0}",
};

static const char *const bad[] = {
    " ", "nul", "truee", "fals", "falsee", "nulll", "tru", "n", "t", "f", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "-01",
    "00", "1.", ".5", "1e", "1e+", "1.e5", "1 2", "--1", "0x1", "\"", "\"a", "'a'", "[", "{", "]", "}", ",", ":", "[1", "[1,",
    "[1,]", "[,]", "[1 2]", "[1]]", "[1}", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{\"a\":1,}", "{\"a\":1]", "{,}", "{\"a\":1",
    "{\"a", "{\"a\"", "{\"a\":", "[]x", "{} []", "[1]/**/", "\xef\xbb\xbf{}", "[\"a\" \"b\"]", "{\"a\":1 \"b\":2}", "[true false]",
};

void
test_json_plain_agrees_with_yajl(void)
{
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        PC_ASSERT(pc_json_is_plain(pc_slice_str(good[i])));
        PC_ASSERT(agree(good[i], strlen(good[i])), "%s", good[i]);
        for (size_t len = 1; len < strlen(good[i]); len++) {
            agree(good[i], len);
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        PC_ASSERT(!agree(bad[i], strlen(bad[i])), "%s", bad[i]);
    }
}

/* Characters changed, taken out, put in. */
void
test_json_plain_agrees_about_what_is_damaged(void)
{
    static const char letters[] = "{}[]\",: 0129-+.eEnulltruefalse\xc3x";
    size_t fine = 0;
    srand(7);
    for (int i = 0; i < 200000; i++) {
        char text[160];
        const char *from = good[(size_t)rand() % (sizeof good / sizeof good[0])];
        size_t len = strlen(from);
        memcpy(text, from, len);
        for (int change = 1 + rand() % 3; change > 0; change--) {
            size_t at = (size_t)rand() % (len + 1);
            char letter = letters[(size_t)rand() % (sizeof letters - 1)];
            switch (rand() % 3) {
            case 0:
                text[at < len ? at : 0] = letter;
                break;
            case 1:
                len -= len > 1;
                memmove(text + (at < len ? at : 0), text + (at < len ? at : 0) + 1, len - (at < len ? at : 0));
                break;
            default:
                memmove(text + at + 1, text + at, len - at);
                text[at] = letter;
                len++;
                break;
            }
        }
        fine += agree(text, len);
    }
    PC_ASSERT(fine > 20000 && fine < 180000, "%zu", fine);
}

void
test_json_plain_knows_its_own(void)
{
    char text[40];
    for (size_t len = 1; len < sizeof text; len++) {
        for (size_t at = 0; at < len; at++) {
            memset(text, 'a', sizeof text);
            PC_ASSERT(pc_json_is_plain(pc_slice_of(text, len)));
            for (int c = 0; c < 256; c++) {
                text[at] = (char)c;
                PC_ASSERT_INT(pc_json_is_plain(pc_slice_of(text, len)), c >= ' ' && c != '\\');
            }
        }
    }
}

void
test_json_plain_depth(void)
{
    enum { MOST = PC_JSON_MAX_DEPTH };
    static const pc_visit nothing = {0};
    char text[4 * MOST + 20];
    for (int depth = MOST - 1; depth <= MOST + 1; depth++) {
        size_t len = 0;
        for (int i = 0; i < depth; i++) {  // both kinds, in no regular order
            pc_slice open = pc_slice_str(i * i % 7 < 3 ? "[" : "{\"\":");
            memcpy(text + len, open.ptr, open.len);
            len += open.len;
        }
        text[len++] = '0';
        for (int i = depth; i-- > 0;) {
            text[len++] = i * i % 7 < 3 ? ']' : '}';
        }
        pc_code code = pc_json_plain_walk(pc_slice_of(text, len), &nothing, NULL);
        PC_ASSERT_INT(code, depth <= MOST ? PC_OK : PC_EFALLBACK);
        text[len - 1] = text[len - 1] == ']' ? '}' : ']';
        PC_ASSERT_INT(pc_json_plain_walk(pc_slice_of(text, len), &nothing, NULL), PC_EFALLBACK);
    }
}

static int
stop(void *ctx)
{
    return --*(int *)ctx == 0 ? -1 : 0;
}

static int
stop_number(void *ctx, pc_slice text)
{
    (void)text;
    return stop(ctx);
}

static int
stop_integer(void *ctx, int64_t value)
{
    (void)value;
    return stop(ctx);
}

static int
stop_boolean(void *ctx, int value)
{
    (void)value;
    return stop(ctx);
}

void
test_json_plain_stops_at_each_value(void)
{
    static const pc_visit visit = {.null = stop,
                                   .boolean = stop_boolean,
                                   .integer = stop_integer,
                                   .number = stop_number,
                                   .string = stop_number,
                                   .map_start = stop,
                                   .key = stop_number,
                                   .map_end = stop,
                                   .array_start = stop,
                                   .array_end = stop};
    const pc_slice text = pc_slice_str("{\"a\": [1, 1.5, \"x\", true, null, {}]}");
    for (int i = 1; i <= 12; i++) {
        int left = i;
        PC_ASSERT_INT(pc_json_plain_walk(text, &visit, &left), PC_ESTATE);
        PC_ASSERT_INT(left, 0);
    }
    int left = 13;
    PC_ASSERT_INT(pc_json_plain_walk(text, &visit, &left), PC_OK);
    PC_ASSERT_INT(left, 1);
}
