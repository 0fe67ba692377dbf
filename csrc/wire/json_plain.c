/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/json_plain.h"

#define ONES UINT64_C(0x0101010101010101)
#define HIGH (ONES * 0x80)

/* Which bytes are zero: their high bits are set (and perhaps those of bytes above one that is). */
static uint64_t
zeros(uint64_t bytes)
{
    return (bytes - ONES) & ~bytes & HIGH;
}

bool
pc_json_is_plain(pc_slice text)
{
    const uint64_t slashes = ONES * '\\';
    uint64_t found = 0;
    size_t at = 0;
    for (; at + sizeof(uint64_t) <= text.len; at += sizeof(uint64_t)) {
        uint64_t eight;
        memcpy(&eight, text.ptr + at, sizeof eight);
        // no bit of 0xe0: below a blank
        found |= zeros(eight ^ slashes) | zeros(eight & ONES * 0xe0);
    }
    for (; at < text.len; at++) {
        found |= text.ptr[at] == '\\' || (unsigned char)text.ptr[at] < ' ';
    }
    return found == 0;
}

/* False when it is no integer or does not fit. */
static bool
parse_int64(pc_slice text, int64_t *out)
{
    bool negative = text.ptr[0] == '-';
    uint64_t value = 0;
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    for (size_t i = negative ? 1 : 0; i < text.len; i++) {
        unsigned digit = (unsigned)text.ptr[i] - '0';
        if (digit > 9 || value > (limit - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

int
pc_json_number(const pc_visit *visit, void *ctx, pc_slice text)
{
    int64_t value;
    if (parse_int64(text, &value)) {
        return visit->integer == NULL ? 0 : visit->integer(ctx, value);
    }
    return visit->number == NULL ? 0 : visit->number(ctx, text);
}

// ---- walking ----

typedef struct walker {
    const char *at;
    const char *end;
    const pc_visit *visit;
    void *ctx;
    int depth;
    uint64_t maps[PC_JSON_MAX_DEPTH / 64 + 1];  // a bit for each level: a map, no array
} walker;

/* The next character that is no blank; 0 at the end. */
static char
peek(walker *w)
{
    while (w->at < w->end && *w->at == ' ') {
        w->at++;
    }
    return w->at < w->end ? *w->at : '\0';
}

static bool
in_map(const walker *w)
{
    return (w->maps[w->depth / 64] >> (w->depth % 64) & 1) != 0;
}

static pc_code
told(int rc)
{
    return rc == 0 ? PC_OK : PC_ESTATE;
}

static const char *
skip_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return at;
}

/* Where the digits that must be there end, or NULL. */
static const char *
some_digits(const char *at, const char *end)
{
    const char *behind = skip_digits(at, end);
    return behind == at ? NULL : behind;
}

static const char *
number_end(const char *at, const char *end)
{
    at += at < end && *at == '-';
    at = at < end && *at == '0' ? at + 1 : some_digits(at, end);
    if (at != NULL && at < end && *at == '.') {
        at = some_digits(at + 1, end);
    }
    if (at != NULL && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        at = some_digits(at, end);
    }
    return at;
}

static pc_code
walk_number(walker *w)
{
    const char *start = w->at;
    const char *behind = number_end(start, w->end);
    if (behind == NULL) {
        return PC_EFALLBACK;
    }
    w->at = behind;
    return told(pc_json_number(w->visit, w->ctx, pc_slice_of(start, (size_t)(behind - start))));
}

static pc_code
walk_string(walker *w, int (*take)(void *ctx, pc_slice text))
{
    const char *start = w->at + 1;
    const char *quote = memchr(start, '"', (size_t)(w->end - start));
    if (quote == NULL) {
        return PC_EFALLBACK;
    }
    w->at = quote + 1;
    return take == NULL ? PC_OK : told(take(w->ctx, pc_slice_of(start, (size_t)(quote - start))));
}

static bool
skip_word(walker *w, const char *word, size_t len)
{
    bool there = (size_t)(w->end - w->at) >= len && memcmp(w->at, word, len) == 0;
    w->at += there ? len : 0;
    return there;
}

static pc_code
walk_word(walker *w)
{
    const pc_visit *visit = w->visit;
    if (skip_word(w, "null", 4)) {
        return visit->null == NULL ? PC_OK : told(visit->null(w->ctx));
    }
    bool value = *w->at == 't';
    if (!skip_word(w, value ? "true" : "false", value ? 4 : 5)) {
        return PC_EFALLBACK;
    }
    return visit->boolean == NULL ? PC_OK : told(visit->boolean(w->ctx, value));
}

static pc_code
enter(walker *w, bool map)
{
    int (*start)(void *ctx) = map ? w->visit->map_start : w->visit->array_start;
    if (++w->depth > PC_JSON_MAX_DEPTH) {
        return PC_EFALLBACK;
    }
    uint64_t bit = UINT64_C(1) << (w->depth % 64);
    uint64_t *maps = &w->maps[w->depth / 64];
    *maps = map ? *maps | bit : *maps & ~bit;
    w->at++;
    return start == NULL ? PC_OK : told(start(w->ctx));
}

static pc_code
leave(walker *w)
{
    int (*end)(void *ctx) = in_map(w) ? w->visit->map_end : w->visit->array_end;
    w->depth--;
    w->at++;
    return end == NULL ? PC_OK : told(end(w->ctx));
}

static pc_code
walk_key(walker *w)
{
    if (peek(w) != '"') {
        return PC_EFALLBACK;
    }
    pc_code code = walk_string(w, w->visit->key);
    if (code != PC_OK || peek(w) != ':') {
        return code != PC_OK ? code : PC_EFALLBACK;
    }
    w->at++;
    return PC_OK;
}

/* All that ends behind a value, and the comma and key before the next one. */
static pc_code
walk_on(walker *w)
{
    pc_code code = PC_OK;
    while (code == PC_OK && w->depth > 0) {
        char next = peek(w);
        if (next == ',') {
            w->at++;
            return in_map(w) ? walk_key(w) : PC_OK;
        }
        if (next != (in_map(w) ? '}' : ']')) {
            return PC_EFALLBACK;
        }
        code = leave(w);
    }
    return code;
}

/* Into a map or an array; out again if it is empty, else to its first value. */
static pc_code
walk_into(walker *w, bool map)
{
    pc_code code = enter(w, map);
    if (code != PC_OK) {
        return code;
    }
    if (peek(w) == (map ? '}' : ']')) {
        code = leave(w);
        return code == PC_OK ? walk_on(w) : code;
    }
    return map ? walk_key(w) : PC_OK;
}

static pc_code
walk_value(walker *w)
{
    pc_code code = PC_OK;
    char next = peek(w);
    switch (next) {
    case '{':
    case '[':
        return walk_into(w, next == '{');
    case '"':
        code = walk_string(w, w->visit->string);
        break;
    case 't':
    case 'f':
    case 'n':
        code = walk_word(w);
        break;
    default:
        code = walk_number(w);
        break;
    }
    return code == PC_OK ? walk_on(w) : code;
}

pc_code
pc_json_plain_walk(pc_slice text, const pc_visit *visit, void *ctx)
{
    walker w;
    w.at = text.ptr;
    w.end = text.ptr + text.len;
    w.visit = visit;
    w.ctx = ctx;
    w.depth = 0;
    pc_code code;
    do {
        code = walk_value(&w);
    } while (code == PC_OK && w.depth > 0);
    return code == PC_OK && peek(&w) != '\0' ? PC_EFALLBACK : code;
}
