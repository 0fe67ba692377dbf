/* SPDX-License-Identifier: BSD-3-Clause */
/* Where brokers and clients disagree on a tag, RabbitMQ's reading counts: it is what passes
 * through the broker. So 's' is a 16-bit integer (not a short string), 'u' an unsigned one,
 * 'b' is signed and 'B' is not, and 'l' and 'L' are both signed. */
#include "wire/table.h"

typedef struct level {
    const char *end;
    bool is_map;
} level;

typedef struct walker {
    const pc_visit *visit;
    void *ctx;
    const char *at;
    level levels[PC_TABLE_MAX_DEPTH];
    int depth;
    pc_err *err;
} walker;

static int
truncated(walker *w)
{
    return pc_fail(w->err, PC_EDATA, "field table ends in the middle of a field");
}

static int
stopped(walker *w)
{
    return w->err != NULL && w->err->code != PC_OK
               ? -1
               : pc_fail(w->err, PC_ESTATE, "the reader of the field table stopped");
}

/* The next n bytes of the innermost level, NULL (and the error) when there are fewer. */
static const char *
take(walker *w, size_t n)
{
    const char *at = w->at;
    if ((size_t)(w->levels[w->depth - 1].end - at) < n) {
        truncated(w);
        return NULL;
    }
    w->at += n;
    return at;
}

/* Bytes after a 32-bit length. */
static int
take_long(walker *w, pc_slice *out)
{
    const char *at = take(w, 4);
    if (at == NULL) {
        return -1;
    }
    out->len = pc_get_u32(at);
    out->ptr = take(w, out->len);
    return out->ptr == NULL ? -1 : 0;
}

static int
visit_integer(walker *w, char tag)
{
    static const char tags[] = "bBsUuIilL";
    static const uint8_t sizes[] = {1, 1, 2, 2, 2, 4, 4, 8, 8};
    const char *at = take(w, sizes[strchr(tags, tag) - tags]);
    int64_t value = 0;
    if (at == NULL) {
        return -1;
    }
    switch (tag) {
    case 'b':
        value = (int8_t)at[0];
        break;
    case 'B':
        value = (uint8_t)at[0];
        break;
    case 's':
    case 'U':
        value = (int16_t)pc_get_u16(at);
        break;
    case 'u':
        value = pc_get_u16(at);
        break;
    case 'I':
        value = (int32_t)pc_get_u32(at);
        break;
    case 'i':
        value = pc_get_u32(at);
        break;
    default:
        value = (int64_t)pc_get_u64(at);
        break;
    }
    return w->visit->integer != NULL && w->visit->integer(w->ctx, value) < 0 ? stopped(w) : 0;
}

static int
visit_real(walker *w, char tag)
{
    const char *at = take(w, tag == 'f' ? 4 : 8);
    double value;
    if (at == NULL) {
        return -1;
    }
    if (tag == 'f') {
        uint32_t bits = pc_get_u32(at);
        float narrow;
        memcpy(&narrow, &bits, sizeof narrow);
        value = narrow;
    } else {
        uint64_t bits = pc_get_u64(at);
        memcpy(&value, &bits, sizeof value);
    }
    return w->visit->real != NULL && w->visit->real(w->ctx, value) < 0 ? stopped(w) : 0;
}

static int
visit_text(walker *w, char tag)
{
    int (*call)(void *, pc_slice) = tag == 'S' ? w->visit->string : w->visit->bytes;
    pc_slice text;
    if (take_long(w, &text) < 0) {
        return -1;
    }
    return call != NULL && call(w->ctx, text) < 0 ? stopped(w) : 0;
}

static int
visit_boolean(walker *w)
{
    const char *at = take(w, 1);
    if (at == NULL) {
        return -1;
    }
    return w->visit->boolean != NULL && w->visit->boolean(w->ctx, *at != 0) < 0 ? stopped(w) : 0;
}

static int
visit_decimal(walker *w)
{
    const char *at = take(w, 5);
    if (at == NULL) {
        return -1;
    }
    return w->visit->decimal != NULL
                   && w->visit->decimal(w->ctx, (uint8_t)at[0], (int32_t)pc_get_u32(at + 1)) < 0
               ? stopped(w)
               : 0;
}

static int
visit_timestamp(walker *w)
{
    const char *at = take(w, 8);
    if (at == NULL) {
        return -1;
    }
    return w->visit->timestamp != NULL && w->visit->timestamp(w->ctx, (int64_t)pc_get_u64(at)) < 0
               ? stopped(w)
               : 0;
}

static int
enter(walker *w, pc_slice content, bool is_map)
{
    if (w->depth == PC_TABLE_MAX_DEPTH) {
        return pc_fail(w->err, PC_ELIMIT, "field table is nested deeper than %d levels",
                       PC_TABLE_MAX_DEPTH);
    }
    w->levels[w->depth++] = (level){content.ptr + content.len, is_map};
    w->at = content.ptr;
    int (*start)(void *) = is_map ? w->visit->map_start : w->visit->array_start;
    return start != NULL && start(w->ctx) < 0 ? stopped(w) : 0;
}

static int
leave(walker *w)
{
    bool is_map = w->levels[--w->depth].is_map;
    int (*end)(void *) = is_map ? w->visit->map_end : w->visit->array_end;
    return end != NULL && end(w->ctx) < 0 ? stopped(w) : 0;
}

static int
visit_nested(walker *w, char tag)
{
    pc_slice content;
    return take_long(w, &content) < 0 ? -1 : enter(w, content, tag == 'F');
}

static int
visit_key(walker *w)
{
    const char *at = take(w, 1);
    if (at == NULL) {
        return -1;
    }
    size_t len = (uint8_t)at[0];
    const char *name = take(w, len);
    if (name == NULL) {
        return -1;
    }
    return w->visit->key != NULL && w->visit->key(w->ctx, pc_slice_of(name, len)) < 0 ? stopped(w)
                                                                                      : 0;
}

static int
visit_value(walker *w)
{
    const char *at = take(w, 1);
    if (at == NULL) {
        return -1;
    }
    switch (*at) {
    case 'S':
    case 'x':
        return visit_text(w, *at);
    case 't':
        return visit_boolean(w);
    case 'b':
    case 'B':
    case 's':
    case 'U':
    case 'u':
    case 'I':
    case 'i':
    case 'l':
    case 'L':
        return visit_integer(w, *at);
    case 'f':
    case 'd':
        return visit_real(w, *at);
    case 'D':
        return visit_decimal(w);
    case 'T':
        return visit_timestamp(w);
    case 'V':
        return w->visit->null != NULL && w->visit->null(w->ctx) < 0 ? stopped(w) : 0;
    case 'A':
    case 'F':
        return visit_nested(w, *at);
    default:
        return pc_fail(w->err, PC_EDATA, "unknown field type 0x%02x in a field table",
                       (unsigned)(uint8_t)*at);
    }
}

static int
step(walker *w)
{
    const level *inner = &w->levels[w->depth - 1];
    if (w->at == inner->end) {
        return leave(w);
    }
    if (inner->is_map && visit_key(w) < 0) {
        return -1;
    }
    return visit_value(w);
}

int
pc_table_visit(pc_slice table, const pc_visit *visit, void *ctx, pc_err *err)
{
    walker w = {.visit = visit, .ctx = ctx, .err = err};
    if (err != NULL) {
        err->code = PC_OK;  // so that we see whether a callback filled it
    }
    if (table.ptr == NULL) {
        table = pc_slice_str("");
    }
    if (enter(&w, table, true) < 0) {
        return -1;
    }
    while (w.depth > 0) {
        if (step(&w) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ sink */

static pc_table_out *
of(pc_sink *sink)
{
    return (pc_table_out *)(void *)sink;
}

/* A value stands in a map or an array, not alone. */
static int
put_tag(pc_sink *sink, char tag, pc_err *err)
{
    if (of(sink)->depth == 0) {
        return pc_fail(err, PC_EDATA, "headers must be a mapping");
    }
    return pc_buf_put_u8(of(sink)->out, (uint8_t)tag, err);
}

static int
put_null(pc_sink *sink, pc_err *err)
{
    return put_tag(sink, 'V', err);
}

static int
put_boolean(pc_sink *sink, int value, pc_err *err)
{
    if (put_tag(sink, 't', err) < 0) {
        return -1;
    }
    return pc_buf_put_u8(of(sink)->out, value ? 1 : 0, err);
}

static int
put_integer(pc_sink *sink, int64_t value, pc_err *err)
{
    bool narrow = value >= -INT32_MAX && value <= INT32_MAX;  // the range of py-amqp
    if (put_tag(sink, narrow ? 'I' : 'L', err) < 0) {
        return -1;
    }
    return narrow ? pc_buf_put_u32(of(sink)->out, (uint32_t)value, err)
                  : pc_buf_put_u64(of(sink)->out, (uint64_t)value, err);
}

static int
put_real(pc_sink *sink, double value, pc_err *err)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (put_tag(sink, 'd', err) < 0) {
        return -1;
    }
    return pc_buf_put_u64(of(sink)->out, bits, err);
}

static int
put_string(pc_sink *sink, pc_slice utf8, pc_err *err)
{
    if (utf8.len > UINT32_MAX) {
        return pc_fail(err, PC_ELIMIT, "a header of %zu bytes is too long for AMQP", utf8.len);
    }
    if (put_tag(sink, 'S', err) < 0
        || pc_buf_put_u32(of(sink)->out, (uint32_t)utf8.len, err) < 0) {
        return -1;
    }
    return pc_buf_put_slice(of(sink)->out, utf8, err);
}

static int
put_key(pc_sink *sink, pc_slice name, pc_err *err)
{
    pc_table_out *table = of(sink);
    if (table->depth == 0 || !table->is_map[table->depth - 1]) {
        return pc_fail(err, PC_ESTATE, "a key outside of a mapping");
    }
    if (name.len > UINT8_MAX) {
        return pc_fail(err, PC_EDATA, "header name \"%.40s...\" is longer than 255 bytes",
                       name.ptr);
    }
    if (pc_buf_put_u8(table->out, (uint8_t)name.len, err) < 0) {
        return -1;
    }
    return pc_buf_put_slice(table->out, name, err);
}

static int
open_level(pc_sink *sink, bool is_map, pc_err *err)
{
    pc_table_out *table = of(sink);
    if (table->depth == PC_TABLE_MAX_DEPTH) {
        return pc_fail(err, PC_ELIMIT, "headers are nested deeper than %d levels",
                       PC_TABLE_MAX_DEPTH);
    }
    if ((table->depth > 0 || !is_map) && put_tag(sink, is_map ? 'F' : 'A', err) < 0) {
        return -1;
    }
    table->length_at[table->depth] = pc_buf_len(table->out);
    table->is_map[table->depth] = is_map;
    table->depth++;
    return pc_buf_put_u32(table->out, 0, err);
}

static int
close_level(pc_sink *sink, bool is_map, pc_err *err)
{
    pc_table_out *table = of(sink);
    if (table->depth == 0 || table->is_map[table->depth - 1] != is_map) {
        return pc_fail(err, PC_ESTATE, "the end of a level that is not open");
    }
    size_t at = table->length_at[table->depth - 1];
    size_t len = pc_buf_len(table->out) - at - 4;
    if (len > UINT32_MAX) {
        return pc_fail(err, PC_ELIMIT, "headers of %zu bytes are too long for AMQP", len);
    }
    pc_set_u32(pc_buf_ptr(table->out) + at, (uint32_t)len);
    table->depth--;
    return 0;
}

static int
start_map(pc_sink *sink, pc_err *err)
{
    return open_level(sink, true, err);
}

static int
end_map(pc_sink *sink, pc_err *err)
{
    return close_level(sink, true, err);
}

static int
start_array(pc_sink *sink, pc_err *err)
{
    return open_level(sink, false, err);
}

static int
end_array(pc_sink *sink, pc_err *err)
{
    return close_level(sink, false, err);
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
pc_table_out_init(pc_table_out *table, pc_buf *out)
{
    table->sink.ops = &ops;
    table->out = out;
    table->depth = 0;
}
