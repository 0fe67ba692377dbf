/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/envelope.h"

#include <inttypes.h>
#include <stdio.h>

#include "wire/base64.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"

#define SCRATCH_KEEP ((size_t)1 << 20)

/* The maps of an envelope. */
typedef enum place { TOP, PROPERTIES, DELIVERY_INFO, ELSEWHERE } place;

typedef enum kind {
    TEXT,     // pc_slice; an integer is taken as its text
    NUMBER,   // int
    SECONDS,  // int64_t
    FLAG,     // bool
    HEADERS,
    MAP  // enters another place
} kind;

/* The message, and what else an envelope says. */
typedef struct parts {
    pc_message message;
    pc_slice body;
    pc_slice body_encoding;
    pc_slice delivery_tag;
} parts;

#define IN_MESSAGE(member) (offsetof(parts, message) + offsetof(pc_message, member))

#define NAME(literal)                                                                             \
    {                                                                                             \
        literal, sizeof literal - 1                                                               \
    }

static const struct row {
    place place;
    pc_slice name;
    kind kind;
    size_t offset;  // in parts; for MAP the place to enter
} rows[] = {
    {TOP, NAME("body"), TEXT, offsetof(parts, body)},
    {TOP, NAME("content-encoding"), TEXT, IN_MESSAGE(content_encoding)},
    {TOP, NAME("content-type"), TEXT, IN_MESSAGE(content_type)},
    {TOP, NAME("headers"), HEADERS, 0},
    {TOP, NAME("properties"), MAP, PROPERTIES},
    {PROPERTIES, NAME("correlation_id"), TEXT, IN_MESSAGE(correlation_id)},
    {PROPERTIES, NAME("reply_to"), TEXT, IN_MESSAGE(reply_to)},
    {PROPERTIES, NAME("message_id"), TEXT, IN_MESSAGE(message_id)},
    {PROPERTIES, NAME("type"), TEXT, IN_MESSAGE(type)},
    {PROPERTIES, NAME("user_id"), TEXT, IN_MESSAGE(user_id)},
    {PROPERTIES, NAME("app_id"), TEXT, IN_MESSAGE(app_id)},
    {PROPERTIES, NAME("cluster_id"), TEXT, IN_MESSAGE(cluster_id)},
    {PROPERTIES, NAME("timestamp"), SECONDS, IN_MESSAGE(timestamp)},
    {PROPERTIES, NAME("delivery_mode"), NUMBER, IN_MESSAGE(delivery_mode)},
    {PROPERTIES, NAME("expiration"), TEXT, IN_MESSAGE(expiration)},
    {PROPERTIES, NAME("delivery_info"), MAP, DELIVERY_INFO},
    {PROPERTIES, NAME("priority"), NUMBER, IN_MESSAGE(priority)},
    {PROPERTIES, NAME("body_encoding"), TEXT, offsetof(parts, body_encoding)},
    {PROPERTIES, NAME("delivery_tag"), TEXT, offsetof(parts, delivery_tag)},
    {DELIVERY_INFO, NAME("exchange"), TEXT, IN_MESSAGE(exchange)},
    {DELIVERY_INFO, NAME("routing_key"), TEXT, IN_MESSAGE(routing_key)},
    {DELIVERY_INFO, NAME("redelivered"), FLAG, IN_MESSAGE(redelivered)},
};

#define ROWS (sizeof rows / sizeof rows[0])

/* --------------------------------------------------------------- writing */

typedef struct writer {
    pc_json_out json;
    pc_err *err;
    const parts *parts;
} writer;

/* A value that is written behind the sink's back. */
static void
skip_value(writer *w)
{
    w->json.after_key = false;
}

static int
write_body(writer *w)
{
    pc_buf *out = w->json.out;
    skip_value(w);
    if (pc_buf_put_u8(out, '"', w->err) < 0
        || pc_base64_put(out, w->parts->message.body, w->err) < 0) {
        return -1;
    }
    return pc_buf_put_u8(out, '"', w->err);
}

static int
write_headers(writer *w)
{
    const pc_message *message = &w->parts->message;
    pc_bridge bridge = {&w->json.sink, w->err};
    switch (message->headers_kind) {
    case PC_HEADERS_JSON:
        skip_value(w);
        return pc_buf_put_slice(w->json.out, message->headers, w->err);
    case PC_HEADERS_TABLE:
        return pc_message_visit_headers(message, &pc_bridge_visit, &bridge, w->err);
    default:
        skip_value(w);
        return pc_buf_put_str(w->json.out, "{}", w->err);
    }
}

/* Whether a property is left out. Content type and encoding are always there. */
static bool
is_absent(const struct row *row, const void *value)
{
    switch (row->kind) {
    case TEXT:
        return row->place != TOP && ((const pc_slice *)value)->ptr == NULL;
    case NUMBER:
        return *(const int *)value < (row->offset == IN_MESSAGE(delivery_mode) ? 1 : 0);
    case SECONDS:
        return *(const int64_t *)value < 0;
    case FLAG:
        return !*(const bool *)value;
    default:
        return false;
    }
}

static int write_map(writer *w, place where);

static int
write_value(writer *w, const struct row *row, const void *value)
{
    pc_sink *sink = &w->json.sink;
    switch (row->kind) {
    case TEXT:
        return row->offset == offsetof(parts, body)
                   ? write_body(w)
                   : pc_sink_text(sink, *(const pc_slice *)value, w->err);
    case NUMBER:
        return sink->ops->integer(sink, *(const int *)value, w->err);
    case SECONDS:
        return sink->ops->integer(sink, *(const int64_t *)value, w->err);
    case FLAG:
        return sink->ops->boolean(sink, true, w->err);
    case HEADERS:
        return write_headers(w);
    case MAP:
        return write_map(w, (place)row->offset);
    }
    return -1;
}

/* Recursion ends after three levels: the rows are a tree. */
static int
write_map(writer *w, place where)
{
    pc_sink *sink = &w->json.sink;
    if (sink->ops->map_start(sink, w->err) < 0) {
        return -1;
    }
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        const void *value = (const char *)w->parts + (row->kind == MAP ? 0 : row->offset);
        if (row->place != where || is_absent(row, value)) {
            continue;
        }
        if (sink->ops->key(sink, row->name, w->err) < 0 || write_value(w, row, value) < 0) {
            return -1;
        }
    }
    return sink->ops->map_end(sink, w->err);
}

int
pc_envelope_write(const pc_message *message, pc_slice delivery_tag, pc_buf *out, pc_err *err)
{
    parts all = {
        .message = *message,
        .body_encoding = pc_slice_str("base64"),
        .delivery_tag = delivery_tag,
    };
    if (message->exchange.ptr == NULL) {
        all.message.exchange = pc_slice_str("");
    }
    if (message->routing_key.ptr == NULL) {
        all.message.routing_key = pc_slice_str("");
    }
    writer w = {.err = err, .parts = &all};
    pc_json_out_init(&w.json, out);
    return write_map(&w, TOP);
}

/* --------------------------------------------------------------- reading */

typedef struct reader {
    parts *parts;
    pc_slice text;
    pc_buf *scratch;  // has room for all of `text`, so slices into it stay
    pc_err *err;
    const struct row *row;  // of the last key in a known map, NULL when unknown
    int depth;
    place places[4];       // of the maps at depth 1 to 3
    pc_slice headers_key;  // points into `text`
    bool has_properties;
} reader;

static place
here(const reader *r)
{
    return r->depth >= 1 && r->depth <= 3 ? r->places[r->depth] : ELSEWHERE;
}

/* The row of the value that comes now, when it is of this kind. */
static const struct row *
expected(const reader *r, kind want)
{
    bool known = r->row != NULL && here(r) == r->row->place;
    return known && r->row->kind == want ? r->row : NULL;
}

static void *
target(reader *r)
{
    return (char *)r->parts + r->row->offset;
}

static int
keep(reader *r, pc_slice text, pc_slice *out)
{
    if (text.ptr >= r->text.ptr && text.ptr < r->text.ptr + r->text.len) {
        *out = text;
        return 0;
    }
    char *to = pc_buf_reserve(r->scratch, text.len, r->err);
    if (to == NULL) {
        return -1;
    }
    memcpy(to, text.ptr, text.len);
    pc_buf_commit(r->scratch, text.len);
    *out = pc_slice_of(to, text.len);
    return 0;
}

static int
read_string(void *ctx, pc_slice text)
{
    reader *r = ctx;
    return expected(r, TEXT) == NULL ? 0 : keep(r, text, target(r));
}

static int
read_integer(void *ctx, int64_t value)
{
    reader *r = ctx;
    char digits[24];
    if (expected(r, NUMBER) != NULL && value >= 0 && value <= UINT8_MAX) {
        *(int *)target(r) = (int)value;
    } else if (expected(r, SECONDS) != NULL && value >= 0) {
        *(int64_t *)target(r) = value;
    } else if (expected(r, TEXT) != NULL && r->row->place != TOP) {
        int len = snprintf(digits, sizeof digits, "%" PRId64, value);
        return keep(r, pc_slice_of(digits, (size_t)len), target(r));
    }
    return 0;
}

static int
read_boolean(void *ctx, int value)
{
    reader *r = ctx;
    if (expected(r, FLAG) != NULL) {
        *(bool *)target(r) = value != 0;
    }
    return 0;
}

static int
read_map_start(void *ctx)
{
    reader *r = ctx;
    place next = r->depth == 0 ? TOP : ELSEWHERE;
    if (expected(r, MAP) != NULL) {
        next = (place)r->row->offset;
        r->has_properties = r->has_properties || next == PROPERTIES;
    } else if (expected(r, HEADERS) != NULL) {
        r->parts->message.headers_kind = PC_HEADERS_JSON;
    }
    r->depth++;
    if (r->depth <= 3) {
        r->places[r->depth] = next;
    }
    return 0;
}

static int
read_array_start(void *ctx)
{
    reader *r = ctx;
    r->depth++;
    if (r->depth <= 3) {
        r->places[r->depth] = ELSEWHERE;
    }
    return 0;
}

static int
read_end(void *ctx)
{
    reader *r = ctx;
    r->depth--;
    return 0;
}

/* Starts behind the last one found, since senders keep the order. */
static const struct row *
find(const struct row *last, place where, pc_slice name)
{
    size_t start = last == NULL ? 0 : (size_t)(last - rows) + 1;
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *row = &rows[start + i < ROWS ? start + i : start + i - ROWS];
        if (row->place == where && pc_slice_eq(row->name, name)) {
            return row;
        }
    }
    return NULL;
}

static int
read_key(void *ctx, pc_slice name)
{
    reader *r = ctx;
    place where = here(r);
    if (where == ELSEWHERE) {
        return 0;
    }
    r->row = find(r->row, where, name);
    if (expected(r, HEADERS) != NULL) {
        r->headers_key = name;
        r->parts->message.headers_kind = PC_HEADERS_NONE;
    }
    return 0;
}

static const pc_visit visit = {
    .boolean = read_boolean,
    .integer = read_integer,
    .string = read_string,
    .map_start = read_map_start,
    .key = read_key,
    .map_end = read_end,
    .array_start = read_array_start,
    .array_end = read_end,
};

/* Behind the quote that ends the string whose first quote is at `at`. A quote ends it unless an
 * odd number of backslashes stands before. */
static const char *
skip_string(const char *at, const char *end)
{
    size_t slashes;
    do {
        at = memchr(at + 1, '"', (size_t)(end - at - 1));
        for (slashes = 0; at[-1 - (ptrdiff_t)slashes] == '\\';) {
            slashes++;
        }
    } while (slashes % 2 == 1);
    return at + 1;
}

/* The text of the object that follows a key. The whole is known to be well-formed JSON, so
 * every bracket and string has its end and only strings need to be skipped. */
static pc_slice
object_after(pc_slice key, const char *end)
{
    const char *at = memchr(key.ptr + key.len, '{', (size_t)(end - key.ptr) - key.len);
    const char *start = at;
    int depth = 0;
    do {
        switch (*at) {
        case '"':
            at = skip_string(at, end);
            continue;
        case '{':
            depth++;
            break;
        case '}':
            depth--;
            break;
        default:
            break;
        }
        at++;
    } while (depth > 0);
    return pc_slice_of(start, (size_t)(at - start));
}

static int
refuse(pc_err *err, const char *why)
{
    return pc_fail(err, PC_EDATA, "not a message envelope: %s", why);
}

static int
find_headers(reader *r)
{
    pc_message *message = &r->parts->message;
    if (message->headers_kind != PC_HEADERS_JSON) {
        return 0;
    }
    if (r->headers_key.ptr < r->text.ptr || r->headers_key.ptr >= r->text.ptr + r->text.len) {
        return refuse(r->err, "the key of the headers is escaped");
    }
    message->headers = object_after(r->headers_key, r->text.ptr + r->text.len);
    return 0;
}

static int
decode_body(reader *r)
{
    pc_message *message = &r->parts->message;
    size_t before = pc_buf_len(r->scratch);
    message->body = r->parts->body;
    if (!pc_slice_is(r->parts->body_encoding, "base64")) {
        return 0;
    }
    if (pc_base64_take(r->scratch, r->parts->body, r->err) < 0) {
        return -1;
    }
    message->body = pc_slice_of(pc_buf_ptr(r->scratch) + before, pc_buf_len(r->scratch) - before);
    return 0;
}

/* Strings are copied only when they have escapes; the body may be both copied and decoded. */
static int
reserve(reader *r)
{
    bool escapes = memchr(r->text.ptr, '\\', r->text.len) != NULL;
    size_t size = r->text.len * (escapes ? 2 : 1) + 16;
    pc_buf_reset(r->scratch, SCRATCH_KEEP);
    return pc_buf_reserve(r->scratch, size, r->err) == NULL ? -1 : 0;
}

static int
visit_text(reader *r, pc_slice text)
{
    pc_err inner;
    r->text = text;
    if (pc_json_visit(text, &visit, r, &inner) == 0) {
        return 0;
    }
    return inner.code == PC_ENOMEM ? pc_fail_nomem(r->err) : refuse(r->err, "no plain JSON");
}

/* What only Python's JSON has, in the headers of a user, is none of our business. */
static int
parse(reader *r)
{
    parts fresh = *r->parts;
    reader again = *r;
    if (visit_text(r, r->text) == 0) {
        return 0;
    }
    if (r->err != NULL && r->err->code == PC_ENOMEM) {
        return -1;
    }
    pc_slice text = again.text;
    pc_buf_reset(r->scratch, SCRATCH_KEEP);
    if (pc_buf_reserve(r->scratch, text.len * 3 + 16, r->err) == NULL
        || pc_json_tame(text, r->scratch, r->err) < 0) {
        return -1;
    }
    *r = again;
    *r->parts = fresh;
    return visit_text(r, pc_buf_slice(r->scratch));
}

int
pc_envelope_read(pc_slice text, pc_message *message, pc_slice *delivery_tag, pc_buf *scratch,
                 pc_err *err)
{
    parts all = {.body = {0}};
    pc_message_init(&all.message);
    reader r = {.parts = &all, .text = text, .scratch = scratch, .err = err};
    if (text.len == 0) {
        return refuse(err, "empty");
    }
    if (reserve(&r) < 0 || parse(&r) < 0) {
        return -1;
    }
    if (all.body.ptr == NULL || !r.has_properties) {
        return refuse(err, all.body.ptr == NULL ? "no body" : "no properties");
    }
    if (find_headers(&r) < 0 || decode_body(&r) < 0) {
        return -1;
    }
    if (r.text.ptr != text.ptr && all.message.headers_kind == PC_HEADERS_JSON) {
        all.message.headers.ptr = text.ptr + (all.message.headers.ptr - r.text.ptr);  // as they came
    }
    *message = all.message;
    *delivery_tag = all.delivery_tag;
    return 0;
}
