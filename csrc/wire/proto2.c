/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/proto2.h"

#include <math.h>

#include "wire/json.h"
#include "wire/real.h"

#define SCRATCH_KEEP ((size_t)256 << 10)

/* What a header is, for the writer and for the reader. */
typedef enum kind {
    LANGUAGE,     // constant, not read
    TEXT,         // read: another type is an error
    LOOSE_TEXT,   // only shown to people: another type is ignored
    MOMENT,       // text with date and time
    INTEGER,      // read: another type is an error
    GROUP_INDEX,  // integer or null, not read
    NESTING,      // integer, not read
    LIMITS,       // [hard, soft]
    BOOLEAN,      // read: absent is told from false
    STAMP_NAMES,  // null, not read
    STAMPS,       // empty map; read: is there anything in it
    COMPRESSION   // only when the body is compressed
} kind;

typedef struct moment {
    pc_slice text;
    bool given;  // `at` was a timestamp of the field table
    pc_wall at;
} moment;

typedef struct reader {
    pc_head *head;
    const pc_message *message;
    pc_buf *scratch;
    pc_err *err;
    int depth;
    const struct header *row;  // of the last key at depth 1, NULL when unknown
    const struct header *bad;  // the first header of a wrong type
    moment eta;
    moment expires;
    double limits[2];
    int limit_count;
    bool has_task;
} reader;

static const struct header {
    pc_slice name;
    kind kind;
    size_t field;   // in pc_task_fields
    size_t target;  // in pc_head, for kinds that are read into it
} headers[] = {
#define NAME(literal)                                                                             \
    {                                                                                             \
        literal, sizeof literal - 1                                                               \
    }
#define BOTH(member) offsetof(pc_task_fields, member), offsetof(pc_head, member)
#define WRITTEN(member) offsetof(pc_task_fields, member), 0
    {NAME("lang"), LANGUAGE, 0, 0},
    {NAME("task"), TEXT, BOTH(task)},
    {NAME("id"), TEXT, BOTH(id)},
    {NAME("shadow"), LOOSE_TEXT, BOTH(shadow)},
    {NAME("eta"), MOMENT, BOTH(eta)},
    {NAME("expires"), MOMENT, BOTH(expires)},
    {NAME("group"), TEXT, BOTH(group)},
    {NAME("group_index"), GROUP_INDEX, 0, 0},
    {NAME("retries"), INTEGER, BOTH(retries)},
    {NAME("timelimit"), LIMITS, 0, 0},
    {NAME("root_id"), TEXT, BOTH(root_id)},
    {NAME("parent_id"), TEXT, BOTH(parent_id)},
    {NAME("argsrepr"), LOOSE_TEXT, BOTH(argsrepr)},
    {NAME("kwargsrepr"), LOOSE_TEXT, BOTH(kwargsrepr)},
    {NAME("origin"), LOOSE_TEXT, BOTH(origin)},
    {NAME("ignore_result"), BOOLEAN, BOTH(ignore_result)},
    {NAME("replaced_task_nesting"), NESTING, WRITTEN(replaced_task_nesting)},
    {NAME("stamped_headers"), STAMP_NAMES, 0, 0},
    {NAME("stamps"), STAMPS, 0, 0},
    {NAME("compression"), COMPRESSION, 0, offsetof(pc_head, compression)},
#undef NAME
#undef BOTH
#undef WRITTEN
};

#define HEADERS (sizeof headers / sizeof headers[0])

/* --------------------------------------------------------------- writing */

void
pc_task_fields_init(pc_task_fields *fields)
{
    *fields = (pc_task_fields){.time_limit = NAN, .soft_time_limit = NAN};
}

static int
put_limit(pc_sink *sink, double seconds, pc_err *err)
{
    if (isnan(seconds)) {
        return sink->ops->null(sink, err);
    }
    if (fabs(seconds) < 1e15 && seconds == (double)(int64_t)seconds) {
        return sink->ops->integer(sink, (int64_t)seconds, err);
    }
    return sink->ops->real(sink, seconds, err);
}

static int
put_limits(pc_sink *sink, const pc_task_fields *fields, pc_err *err)
{
    if (sink->ops->array_start(sink, err) < 0 || put_limit(sink, fields->time_limit, err) < 0
        || put_limit(sink, fields->soft_time_limit, err) < 0) {
        return -1;
    }
    return sink->ops->array_end(sink, err);
}

static int
put_empty_map(pc_sink *sink, pc_err *err)
{
    return sink->ops->map_start(sink, err) < 0 ? -1 : sink->ops->map_end(sink, err);
}

static int
put_value(const struct header *row, const pc_task_fields *fields, pc_slice compression,
          pc_sink *sink, pc_err *err)
{
    const void *field = (const char *)fields + row->field;
    switch (row->kind) {
    case LANGUAGE:
        return sink->ops->string(sink, pc_slice_str("py"), err);
    case TEXT:
    case LOOSE_TEXT:
    case MOMENT:
        return pc_sink_text(sink, *(const pc_slice *)field, err);
    case INTEGER:
    case NESTING:
        return sink->ops->integer(sink, *(const int64_t *)field, err);
    case GROUP_INDEX:
        return fields->has_group_index ? sink->ops->integer(sink, fields->group_index, err)
                                       : sink->ops->null(sink, err);
    case LIMITS:
        return put_limits(sink, fields, err);
    case BOOLEAN:
        return sink->ops->boolean(sink, *(const bool *)field, err);
    case STAMP_NAMES:
        return sink->ops->null(sink, err);
    case STAMPS:
        return put_empty_map(sink, err);
    case COMPRESSION:
        return sink->ops->string(sink, compression, err);
    }
    return pc_fail(err, PC_ESTATE, "header %s cannot be written", row->name.ptr);
}

int
pc_proto2_write(const pc_task_fields *fields, pc_slice compression, pc_sink *sink, pc_err *err)
{
    for (size_t i = 0; i < HEADERS; i++) {
        const struct header *row = &headers[i];
        if (row->kind == COMPRESSION && compression.ptr == NULL) {
            continue;
        }
        if (sink->ops->key(sink, row->name, err) < 0
            || put_value(row, fields, compression, sink, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* --------------------------------------------------------------- reading */

/* Starts behind the last header found, since senders keep the order. */
static const struct header *
find(const struct header *last, pc_slice name)
{
    size_t start = last == NULL ? 0 : (size_t)(last - headers) + 1;
    for (size_t i = 0; i < HEADERS; i++) {
        const struct header *row = &headers[start + i < HEADERS ? start + i : start + i - HEADERS];
        if (pc_slice_eq(name, row->name)) {
            return row;
        }
    }
    return NULL;
}

/* The header whose value is being read, NULL when nobody wants it. */
static const struct header *
wanted(const reader *r)
{
    return r->depth == 1 ? r->row : NULL;
}

static void *
target(reader *r)
{
    return (char *)r->head + r->row->target;
}

static moment *
moment_of(reader *r)
{
    return r->row->target == offsetof(pc_head, eta) ? &r->eta : &r->expires;
}

/* Notes a value of a wrong type for a header that matters. */
static int
refuse(reader *r)
{
    static const bool matters[] = {
        [TEXT] = true,   [MOMENT] = true,  [INTEGER] = true,
        [LIMITS] = true, [BOOLEAN] = true, [COMPRESSION] = true,
    };
    const struct header *row = r->row;
    bool strict = row != NULL && row->kind < sizeof matters && matters[row->kind];
    if (strict && r->bad == NULL && (r->depth == 1 || row->kind == LIMITS)) {
        r->bad = row;
    }
    return 0;
}

/* A slice that lives as long as the message and the scratch. The scratch has room
 * for all text of the headers from the first use, so earlier slices stay valid. */
static int
keep(reader *r, pc_slice text, pc_slice *out)
{
    pc_slice whole = r->message->headers;
    if (text.ptr >= whole.ptr && text.ptr < whole.ptr + whole.len) {
        *out = text;
        return 0;
    }
    char *to = pc_buf_len(r->scratch) == 0 ? pc_buf_reserve(r->scratch, whole.len, r->err)
                                           : r->scratch->data + r->scratch->end;
    if (to == NULL) {
        return -1;
    }
    if (text.len > 0) {
        memcpy(to, text.ptr, text.len);
    }
    pc_buf_commit(r->scratch, text.len);
    *out = pc_slice_of(to, text.len);
    return 0;
}

static int
add_limit(reader *r, double seconds)
{
    if (r->depth == 2 && r->row != NULL && r->row->kind == LIMITS) {
        if (r->limit_count < 2) {
            r->limits[r->limit_count] = seconds;
        }
        r->limit_count++;
        return 0;
    }
    return refuse(r);
}

static int
read_null(void *ctx)
{
    reader *r = ctx;
    const struct header *row = wanted(r);
    if (row == NULL) {
        return add_limit(r, NAN);
    }
    switch (row->kind) {
    case TEXT:
    case LOOSE_TEXT:
    case COMPRESSION:
        *(pc_slice *)target(r) = (pc_slice){0};
        break;
    case MOMENT:
        *moment_of(r) = (moment){0};
        break;
    case INTEGER:
        *(int64_t *)target(r) = 0;
        break;
    case BOOLEAN:
        r->head->ignore_result = -1;
        break;
    case LIMITS:
        r->head->time_limit = NAN;
        r->head->soft_time_limit = NAN;
        break;
    default:
        break;
    }
    return 0;
}

static int
read_boolean(void *ctx, int value)
{
    reader *r = ctx;
    if (wanted(r) != NULL && r->row->kind == BOOLEAN) {
        r->head->ignore_result = value != 0;
        return 0;
    }
    return refuse(r);
}

static int
read_integer(void *ctx, int64_t value)
{
    reader *r = ctx;
    const struct header *row = wanted(r);
    if (row != NULL && row->kind == INTEGER) {
        *(int64_t *)target(r) = value;
        return 0;
    }
    if (row != NULL && row->kind == BOOLEAN) {
        r->head->ignore_result = value != 0;
        return 0;
    }
    return add_limit(r, (double)value);
}

static int
read_real(void *ctx, double value)
{
    return add_limit(ctx, value);
}

static int
read_number(void *ctx, pc_slice text)
{
    return add_limit(ctx, pc_real_parse(text));
}

static int
read_string(void *ctx, pc_slice text)
{
    reader *r = ctx;
    const struct header *row = wanted(r);
    if (row == NULL) {
        return refuse(r);
    }
    switch (row->kind) {
    case TEXT:
    case LOOSE_TEXT:
    case COMPRESSION:
        return keep(r, text, target(r));
    case MOMENT:
        moment_of(r)->given = false;
        return keep(r, text, &moment_of(r)->text);
    default:
        return refuse(r);
    }
}

static int
read_bytes(void *ctx, pc_slice data)
{
    (void)data;
    return refuse(ctx);
}

/* A client that passes a datetime as it is: AMQP has a type for that. */
static int
read_timestamp(void *ctx, int64_t seconds)
{
    reader *r = ctx;
    if (wanted(r) == NULL || r->row->kind != MOMENT || seconds < 0
        || seconds > INT64_MAX / PC_US_PER_SEC) {
        return refuse(r);
    }
    *moment_of(r) = (moment){.given = true, .at = {seconds * PC_US_PER_SEC}};
    return 0;
}

static int
read_decimal(void *ctx, uint8_t scale, int32_t value)
{
    double seconds = value;
    for (int i = 0; i < scale; i++) {
        seconds /= 10;
    }
    return add_limit(ctx, seconds);
}

static int
read_map_start(void *ctx)
{
    reader *r = ctx;
    if (r->depth == 1 || r->depth == 2) {
        refuse(r);
    }
    r->depth++;
    return 0;
}

static int
read_key(void *ctx, pc_slice name)
{
    reader *r = ctx;
    if (r->depth == 1) {
        const struct header *row = find(r->row, name);
        r->row = row;
        r->has_task =
            r->has_task
            || (row != NULL && row->target == offsetof(pc_head, task) && row->kind == TEXT);
    } else if (r->depth == 2 && r->row != NULL && r->row->kind == STAMPS) {
        r->head->has_stamps = true;
    }
    return 0;
}

static int
read_array_start(void *ctx)
{
    reader *r = ctx;
    if (wanted(r) != NULL && r->row->kind == LIMITS) {
        r->limit_count = 0;
    } else if (r->depth == 1 || r->depth == 2) {
        refuse(r);
    }
    r->depth++;
    return 0;
}

static int
read_array_end(void *ctx)
{
    reader *r = ctx;
    r->depth--;
    if (wanted(r) == NULL || r->row->kind != LIMITS) {
        return 0;
    }
    if (r->limit_count != 2) {
        return refuse(r);
    }
    r->head->time_limit = r->limits[0];
    r->head->soft_time_limit = r->limits[1];
    return 0;
}

static int
read_map_end(void *ctx)
{
    reader *r = ctx;
    r->depth--;
    return 0;
}

static const pc_visit visit = {
    .null = read_null,
    .boolean = read_boolean,
    .integer = read_integer,
    .number = read_number,
    .real = read_real,
    .string = read_string,
    .bytes = read_bytes,
    .timestamp = read_timestamp,
    .decimal = read_decimal,
    .map_start = read_map_start,
    .key = read_key,
    .map_end = read_map_end,
    .array_start = read_array_start,
    .array_end = read_array_end,
};

/* An empty text means "none", as it does to Celery. */
static int
read_moment(const moment *from, const char *name, bool *has, pc_wall *out, pc_err *err)
{
    *has = from->given || from->text.len > 0;
    *out = from->at;
    if (from->given || !*has || pc_wall_parse(from->text, out, NULL, NULL) == 0) {
        return 0;
    }
    int shown = from->text.len > 60 ? 60 : (int)from->text.len;
    return pc_fail(err, PC_EDATA, "header \"%s\" is no ISO-8601 date and time: \"%.*s\"", name,
                   shown, from->text.ptr);
}

static int
finish(reader *r)
{
    pc_head *head = r->head;
    if (!r->has_task) {
        return pc_fail(r->err, PC_ENOTFOUND, "no \"task\" header: not protocol 2");
    }
    if (r->bad != NULL) {
        return pc_fail(r->err, PC_EDATA, "header \"%s\" has a wrong type", r->bad->name.ptr);
    }
    if (head->task.ptr == NULL || head->id.ptr == NULL) {
        return pc_fail(r->err, PC_EDATA, "header \"%s\" is missing or null",
                       head->task.ptr == NULL ? "task" : "id");
    }
    head->eta_text = r->eta.text;
    head->expires_text = r->expires.text;
    if (read_moment(&r->eta, "eta", &head->has_eta, &head->eta, r->err) < 0) {
        return -1;
    }
    return read_moment(&r->expires, "expires", &head->has_expires, &head->expires, r->err);
}

static int
read_head(const pc_message *message, pc_head *head, pc_buf *scratch, pc_err *err)
{
    *head = (pc_head){.time_limit = NAN, .soft_time_limit = NAN, .ignore_result = -1};
    reader r = {.head = head, .message = message, .scratch = scratch, .err = err};
    return pc_message_visit_headers(message, &visit, &r, err) < 0 ? -1 : finish(&r);
}

/* Headers with something in them that only Python's JSON knows: a user's, so not one of those read here. */
static int
read_tamed(const pc_message *message, pc_head *head, pc_buf *scratch, pc_err *err)
{
    pc_message tamed = *message;
    size_t len = message->headers.len;
    pc_buf_reset(scratch, SCRATCH_KEEP);
    // with room for what a reader copies, so that slices into it stay
    if (pc_buf_reserve(scratch, 2 * len + 16, err) == NULL || pc_json_tame(message->headers, scratch, err) < 0) {
        return -1;
    }
    tamed.headers = pc_buf_slice(scratch);
    return read_head(&tamed, head, scratch, err);
}

int
pc_head_read(const pc_message *message, pc_head *head, pc_buf *scratch, pc_err *err)
{
    pc_err why = {0};
    pc_buf_reset(scratch, SCRATCH_KEEP);
    if (read_head(message, head, scratch, &why) == 0) {
        return 0;
    }
    if (why.code == PC_EFALLBACK && message->headers_kind == PC_HEADERS_JSON) {
        return read_tamed(message, head, scratch, err);
    }
    if (err != NULL) {
        *err = why;
    }
    return -1;
}
