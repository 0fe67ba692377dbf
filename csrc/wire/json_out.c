/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/json_out.h"

#include <math.h>

#include "wire/real.h"

#define STEP 2048  // characters escaped per reservation
#define WIDEST 6   // output bytes per input byte, at most: \uXXXX

static const char hex[] = "0123456789abcdef";

static inline bool
is_plain(unsigned c)
{
    return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
}

/* Non-zero when one of the eight bytes is not plain; may also be non-zero for plain
 * ones (a carry out of a byte below), which only costs a look at each of them. */
static inline uint64_t
suspects(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t tops = ones * 0x80;
    uint64_t quote = word ^ (ones * '"');
    uint64_t slash = word ^ (ones * '\\');
    uint64_t low = word - ones * 0x20;
    uint64_t high = (word & ~tops) + ones;  // 0x7f carries into the top bit
    return (low | high | word | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & tops;
}

static size_t
plain_run(const unsigned char *text, size_t len)
{
    size_t i = 0;
    while (i + 8 <= len) {
        uint64_t word;
        memcpy(&word, text + i, 8);
        if (suspects(word) != 0) {
            break;
        }
        i += 8;
    }
    while (i < len && is_plain(text[i])) {
        i++;
    }
    return i;
}

static char *
put_unit(char *to, unsigned unit)
{
    to[0] = '\\';
    to[1] = 'u';
    to[2] = hex[unit >> 12 & 15];
    to[3] = hex[unit >> 8 & 15];
    to[4] = hex[unit >> 4 & 15];
    to[5] = hex[unit & 15];
    return to + 6;
}

static char *
put_short(char *to, char letter)
{
    to[0] = '\\';
    to[1] = letter;
    return to + 2;
}

static char *
put_point(char *to, uint32_t point)
{
    switch (point) {
    case '"':
        return put_short(to, '"');
    case '\\':
        return put_short(to, '\\');
    case '\n':
        return put_short(to, 'n');
    case '\r':
        return put_short(to, 'r');
    case '\t':
        return put_short(to, 't');
    case '\b':
        return put_short(to, 'b');
    case '\f':
        return put_short(to, 'f');
    default:
        break;
    }
    if (is_plain(point)) {
        *to = (char)point;
        return to + 1;
    }
    if (point > 0xffff) {
        point -= 0x10000;
        to = put_unit(to, 0xd800 | (point >> 10 & 0x3ff));
        return put_unit(to, 0xdc00 | (point & 0x3ff));
    }
    return put_unit(to, point);
}

/* Reads one code point, surrogates allowed; returns its length, 0 when invalid. */
static size_t
read_utf8(const unsigned char *s, size_t len, uint32_t *point)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned c = s[0];
    size_t need = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (need == 0 || need > len) {
        return 0;
    }
    uint32_t value = need == 1 ? c : c & (0xffU >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (s[i] & 0x3fU);
    }
    *point = value;
    return value < smallest[need] || value > 0x10ffff ? 0 : need;
}

static int
put_escaped_utf8(pc_buf *out, const unsigned char *s, size_t len, pc_err *err)
{
    size_t i = 0;
    while (i < len) {
        size_t stop = len - i > STEP ? i + STEP : len;
        char *from = pc_buf_reserve(out, (stop - i + 4) * WIDEST, err);
        if (from == NULL) {
            return -1;
        }
        char *to = from;
        while (i < stop) {
            uint32_t point;
            size_t used = read_utf8(s + i, len - i, &point);
            if (used == 0) {
                return pc_fail(err, PC_EDATA, "text is not valid UTF-8 at byte %zu", i);
            }
            to = put_point(to, point);
            i += used;
        }
        pc_buf_commit(out, (size_t)(to - from));
    }
    return 0;
}

/* The quote and the plain beginning; *run tells how long that was. */
static int
put_opening(pc_buf *out, const unsigned char *s, size_t len, size_t *run, pc_err *err)
{
    *run = plain_run(s, len);
    char *to = pc_buf_reserve(out, *run + 2, err);
    if (to == NULL) {
        return -1;
    }
    to[0] = '"';
    if (*run > 0) {
        memcpy(to + 1, s, *run);
    }
    to[*run + 1] = '"';  // committed only when nothing follows
    pc_buf_commit(out, *run + (*run == len ? 2 : 1));
    return 0;
}

int
pc_json_put_string(pc_buf *out, pc_slice utf8, pc_err *err)
{
    const unsigned char *s = (const unsigned char *)utf8.ptr;
    size_t run;
    if (put_opening(out, s, utf8.len, &run, err) < 0) {
        return -1;
    }
    if (run == utf8.len) {
        return 0;
    }
    if (put_escaped_utf8(out, s + run, utf8.len - run, err) < 0) {
        return -1;
    }
    return pc_buf_put_u8(out, '"', err);
}

static inline uint32_t
point_at(const void *data, size_t i, int kind)
{
    return kind == 1   ? ((const uint8_t *)data)[i]
           : kind == 2 ? ((const uint16_t *)data)[i]
                       : ((const uint32_t *)data)[i];
}

static int
put_escaped_ucs(pc_buf *out, const void *data, size_t i, size_t len, int kind, pc_err *err)
{
    while (i < len) {
        size_t stop = len - i > STEP ? i + STEP : len;
        char *from = pc_buf_reserve(out, (stop - i) * WIDEST * 2, err);
        if (from == NULL) {
            return -1;
        }
        char *to = from;
        for (; i < stop; i++) {
            to = put_point(to, point_at(data, i, kind));
        }
        pc_buf_commit(out, (size_t)(to - from));
    }
    return 0;
}

int
pc_json_put_ucs(pc_buf *out, const void *data, size_t len, int kind, pc_err *err)
{
    size_t run = 0;
    if (kind != 1 && kind != 2 && kind != 4) {
        return pc_fail(err, PC_ESTATE, "no such character size: %d", kind);
    }
    if (kind == 1) {
        if (put_opening(out, data, len, &run, err) < 0 || run == len) {
            return run == len ? 0 : -1;
        }
    } else if (pc_buf_put_u8(out, '"', err) < 0) {
        return -1;
    }
    if (put_escaped_ucs(out, data, run, len, kind, err) < 0) {
        return -1;
    }
    return pc_buf_put_u8(out, '"', err);
}

int
pc_json_put_integer(pc_buf *out, int64_t value, pc_err *err)
{
    char text[24];
    char *at = text + sizeof text;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left != 0);
    if (value < 0) {
        *--at = '-';
    }
    return pc_buf_put(out, at, (size_t)(text + sizeof text - at), err);
}

int
pc_json_put_real(pc_buf *out, double value, pc_err *err)
{
    char text[PC_REAL_MAX];
    if (isnan(value)) {
        return pc_buf_put_str(out, "NaN", err);
    }
    if (isinf(value)) {
        return pc_buf_put_str(out, value < 0 ? "-Infinity" : "Infinity", err);
    }
    return pc_buf_put(out, text, pc_real_format(value, text), err);
}

/* ------------------------------------------------------------------ sink */

static pc_json_out *
of(pc_sink *sink)
{
    return (pc_json_out *)(void *)sink;
}

/* Whether a comma comes before the next value or key; it is taken for written. */
static bool
take_comma(pc_json_out *json)
{
    if (json->after_key || json->depth == 0) {
        json->after_key = false;
        return false;
    }
    bool *first = &json->first[json->depth - 1];
    bool comma = !*first;
    *first = false;
    return comma;
}

static int
separate(pc_json_out *json, pc_err *err)
{
    return take_comma(json) ? pc_buf_put(json->out, ", ", 2, err) : 0;
}

static int
put_word(pc_sink *sink, const char *word, pc_err *err)
{
    if (separate(of(sink), err) < 0) {
        return -1;
    }
    return pc_buf_put_str(of(sink)->out, word, err);
}

static int
put_null(pc_sink *sink, pc_err *err)
{
    return put_word(sink, "null", err);
}

static int
put_boolean(pc_sink *sink, int value, pc_err *err)
{
    return put_word(sink, value ? "true" : "false", err);
}

static int
put_integer(pc_sink *sink, int64_t value, pc_err *err)
{
    if (separate(of(sink), err) < 0) {
        return -1;
    }
    return pc_json_put_integer(of(sink)->out, value, err);
}

static int
put_real(pc_sink *sink, double value, pc_err *err)
{
    if (separate(of(sink), err) < 0) {
        return -1;
    }
    return pc_json_put_real(of(sink)->out, value, err);
}

static int
put_string(pc_sink *sink, pc_slice utf8, pc_err *err)
{
    if (separate(of(sink), err) < 0) {
        return -1;
    }
    return pc_json_put_string(of(sink)->out, utf8, err);
}

/* In one piece if it can be: each message has thirty of them. */
static int
put_key(pc_sink *sink, pc_slice name, pc_err *err)
{
    pc_json_out *json = of(sink);
    if (plain_run((const unsigned char *)name.ptr, name.len) < name.len) {
        int rc = put_string(sink, name, err);
        json->after_key = true;
        return rc < 0 ? -1 : pc_buf_put(json->out, ": ", 2, err);
    }
    char *start = pc_buf_reserve(json->out, name.len + sizeof ", \"\": ", err);
    char *to = start;
    if (to == NULL) {
        return -1;
    }
    if (take_comma(json)) {
        *to++ = ',';
        *to++ = ' ';
    }
    *to++ = '"';
    if (name.len > 0) {
        memcpy(to, name.ptr, name.len);
    }
    to += name.len;
    *to++ = '"';
    *to++ = ':';
    *to++ = ' ';
    pc_buf_commit(json->out, (size_t)(to - start));
    json->after_key = true;
    return 0;
}

static int
open_level(pc_sink *sink, char bracket, pc_err *err)
{
    pc_json_out *json = of(sink);
    if (json->depth == PC_SINK_MAX_DEPTH) {
        return pc_fail(err, PC_ELIMIT, "document is nested deeper than %d levels",
                       PC_SINK_MAX_DEPTH);
    }
    if (separate(json, err) < 0) {
        return -1;
    }
    json->first[json->depth++] = true;
    return pc_buf_put_u8(json->out, (uint8_t)bracket, err);
}

static int
close_level(pc_sink *sink, char bracket, pc_err *err)
{
    pc_json_out *json = of(sink);
    if (json->depth == 0 || json->after_key) {
        return pc_fail(err, PC_ESTATE, "'%c' does not close anything here", bracket);
    }
    json->depth--;
    return pc_buf_put_u8(json->out, (uint8_t)bracket, err);
}

static int
start_map(pc_sink *sink, pc_err *err)
{
    return open_level(sink, '{', err);
}

static int
end_map(pc_sink *sink, pc_err *err)
{
    return close_level(sink, '}', err);
}

static int
start_array(pc_sink *sink, pc_err *err)
{
    return open_level(sink, '[', err);
}

static int
end_array(pc_sink *sink, pc_err *err)
{
    return close_level(sink, ']', err);
}

static const pc_sink_ops ops = {
    .null = put_null,
    .boolean = put_boolean,
    .integer = put_integer,
    .real = put_real,
    .string = put_string,
    .map_start = start_map,
    .key = put_key,
    .map_end = end_map,
    .array_start = start_array,
    .array_end = end_array,
};

void
pc_json_out_init(pc_json_out *json, pc_buf *out)
{
    json->sink.ops = &ops;
    json->out = out;
    json->depth = 0;
    json->after_key = false;
}
