/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *
encode3(char *to, const unsigned char *from)
{
    unsigned bits = (unsigned)from[0] << 16 | (unsigned)from[1] << 8 | from[2];
    to[0] = alphabet[bits >> 18];
    to[1] = alphabet[bits >> 12 & 63];
    to[2] = alphabet[bits >> 6 & 63];
    to[3] = alphabet[bits & 63];
    return to + 4;
}

int
pc_base64_put(pc_buf *out, pc_slice data, pc_err *err)
{
    const unsigned char *from = (const unsigned char *)data.ptr;
    if (data.len > SIZE_MAX / 4 * 3 - 3) {
        return pc_fail_nomem(err);
    }
    size_t size = (data.len + 2) / 3 * 4;
    char *to = pc_buf_reserve(out, size, err);
    if (to == NULL) {
        return -1;
    }
    size_t i = 0;
    for (; i + 3 <= data.len; i += 3) {
        to = encode3(to, from + i);
    }
    if (i < data.len) {
        unsigned char last[3] = {from[i], 0, 0};
        bool two = i + 1 < data.len;
        last[1] = two ? from[i + 1] : 0;
        to = encode3(to, last);
        to[-1] = '=';
        to[-2] = two ? to[-2] : '=';
    }
    pc_buf_commit(out, size);
    return 0;
}

#define BAD 0x80U

/* 0..63, or a value with the bit BAD */
static unsigned
value_of(unsigned char c)
{
    static const unsigned char values[256] = {
        // one more than the value, so that what is not named is 0
        ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,
        ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14,
        ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21,
        ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28,
        ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35,
        ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42,
        ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49,
        ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
        ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63,
        ['/'] = 64,
    };
    return (values[c] - 1U) & 0xff;
}

typedef struct decoder {
    unsigned bits;
    int count;    // characters of the group at hand
    int padding;  // '=' seen
    char *to;
} decoder;

/* One character; -1 when it cannot stand here. */
static int
feed(decoder *d, unsigned char c)
{
    if (c == '\n' || c == '\r') {
        return 0;
    }
    unsigned value = value_of(c);
    if (c == '=' && d->count >= 2) {
        d->padding++;
        value = 0;
    } else if ((value & BAD) != 0 || d->padding > 0) {
        return -1;
    }
    d->bits = d->bits << 6 | value;
    if (++d->count < 4) {
        return 0;
    }
    d->to[0] = (char)(d->bits >> 16);
    d->to[1] = (char)(d->bits >> 8);
    d->to[2] = (char)d->bits;
    d->to += 3 - d->padding;
    d->bits = 0;
    d->count = 0;
    return 0;
}

/* Whole groups without padding and newlines; returns the characters used. */
static size_t
decode_groups(decoder *d, pc_slice text)
{
    const unsigned char *from = (const unsigned char *)text.ptr;
    size_t i = 0;
    for (; i + 4 <= text.len; i += 4) {
        unsigned a = value_of(from[i]);
        unsigned b = value_of(from[i + 1]);
        unsigned c = value_of(from[i + 2]);
        unsigned e = value_of(from[i + 3]);
        if (((a | b | c | e) & BAD) != 0) {
            break;
        }
        unsigned bits = a << 18 | b << 12 | c << 6 | e;
        d->to[0] = (char)(bits >> 16);
        d->to[1] = (char)(bits >> 8);
        d->to[2] = (char)bits;
        d->to += 3;
    }
    return i;
}

int
pc_base64_take(pc_buf *out, pc_slice text, pc_err *err)
{
    char *from = pc_buf_reserve(out, text.len / 4 * 3 + 3, err);
    decoder d = {.to = from};
    if (from == NULL) {
        return -1;
    }
    for (size_t i = decode_groups(&d, text); i < text.len; i++) {
        if (feed(&d, (unsigned char)text.ptr[i]) < 0) {
            return pc_fail(err, PC_EDATA, "no base64: character %zu", i);
        }
    }
    if (d.count != 0) {
        return pc_fail(err, PC_EDATA, "no base64: the end is missing");
    }
    pc_buf_commit(out, (size_t)(d.to - from));
    return 0;
}
