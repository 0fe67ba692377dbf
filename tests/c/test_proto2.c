/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/proto2.h"

#include <math.h>
#include <stdio.h>

#include "golden.h"
#include "harness.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"
#include "wire/table.h"

typedef struct {
    pc_head head;
    pc_buf scratch;
    pc_err err;
} reading;

static int
read_headers(reading *r, pc_headers_kind kind, pc_slice headers)
{
    pc_message m;
    pc_message_init(&m);
    m.headers_kind = kind;
    m.headers = headers;
    r->err.code = PC_OK;
    return pc_head_read(&m, &r->head, &r->scratch, &r->err);
}

static int
read_json(reading *r, const char *text)
{
    return read_headers(r, PC_HEADERS_JSON, pc_slice_str(text));
}

static int
write_json(const pc_task_fields *fields, pc_slice compression, pc_buf *out, pc_err *err)
{
    pc_json_out json;
    pc_json_out_init(&json, out);
    const pc_sink_ops *ops = json.sink.ops;
    if (ops->map_start(&json.sink, err) < 0
        || pc_proto2_write(fields, compression, &json.sink, err) < 0) {
        return -1;
    }
    return ops->map_end(&json.sink, err);
}

static int
write_table(const pc_task_fields *fields, pc_buf *out, pc_err *err)
{
    pc_table_out table;
    pc_table_out_init(&table, out);
    const pc_sink_ops *ops = table.sink.ops;
    if (ops->map_start(&table.sink, err) < 0
        || pc_proto2_write(fields, (pc_slice){0}, &table.sink, err) < 0) {
        return -1;
    }
    return ops->map_end(&table.sink, err);
}

void
test_proto2_write_defaults(void)
{
    pc_task_fields fields;
    pc_buf out;
    pc_task_fields_init(&fields);
    fields.task = pc_slice_str("a.b");
    pc_buf_init(&out);
    PC_ASSERT_INT(write_json(&fields, (pc_slice){0}, &out, NULL), 0);
    PC_ASSERT_TEXT(
        pc_buf_slice(&out),
        "{\"lang\": \"py\", \"task\": \"a.b\", \"id\": null, \"shadow\": null, \"eta\": null, "
        "\"expires\": null, \"group\": null, \"group_index\": null, \"retries\": 0, "
        "\"timelimit\": [null, null], \"root_id\": null, \"parent_id\": null, \"argsrepr\": null, "
        "\"kwargsrepr\": null, \"origin\": null, \"ignore_result\": false, "
        "\"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {}}");
    pc_buf_fini(&out);
}

void
test_proto2_write_all(void)
{
    pc_task_fields fields;
    pc_buf out;
    pc_task_fields_init(&fields);
    fields.id = pc_slice_str("t-1");
    fields.has_group_index = true;
    fields.group_index = 3;
    fields.retries = 2;
    fields.time_limit = 30.0;
    fields.soft_time_limit = 2.5;
    fields.ignore_result = true;
    fields.replaced_task_nesting = 1;
    pc_buf_init(&out);
    PC_ASSERT_INT(write_json(&fields, pc_slice_str("application/x-gzip"), &out, NULL), 0);
    PC_ASSERT_TEXT(
        pc_buf_slice(&out),
        "{\"lang\": \"py\", \"task\": null, \"id\": \"t-1\", \"shadow\": null, \"eta\": null, "
        "\"expires\": null, \"group\": null, \"group_index\": 3, \"retries\": 2, "
        "\"timelimit\": [30, 2.5], \"root_id\": null, \"parent_id\": null, \"argsrepr\": null, "
        "\"kwargsrepr\": null, \"origin\": null, \"ignore_result\": true, "
        "\"replaced_task_nesting\": 1, \"stamped_headers\": null, \"stamps\": {}, "
        "\"compression\": \"application/x-gzip\"}");
    pc_buf_fini(&out);
}

void
test_proto2_read_full(void)
{
    reading r;
    pc_buf_init(&r.scratch);
    PC_ASSERT_INT(
        read_json(
            &r,
            "{\"stamps\": {\"a\": [1]}, \"task\": \"n\\u00e9\", \"id\": \"i\\n\", \"shadow\": "
            "\"s\", "
            "\"eta\": \"2026-11-20T07:49:01.5+01:00\", \"expires\": \"1970-01-01T00:00:01\", "
            "\"group\": \"g\", \"retries\": 4, \"timelimit\": [1.5, 2], \"root_id\": \"r\", "
            "\"parent_id\": \"p\", \"argsrepr\": \"a\", \"kwargsrepr\": \"k\", \"origin\": \"o\", "
            "\"ignore_result\": true, \"compression\": \"c\", \"own\": {\"id\": \"no\", "
            "\"timelimit\": [9, 9]}, \"list\": [\"task\", {\"task\": \"no\"}]}"),
        0);
    pc_head *h = &r.head;
    PC_ASSERT_TEXT(h->task, "n\xc3\xa9");
    PC_ASSERT_TEXT(h->id, "i\n");
    PC_ASSERT_TEXT(h->shadow, "s");
    PC_ASSERT_TEXT(h->group, "g");
    PC_ASSERT_TEXT(h->root_id, "r");
    PC_ASSERT_TEXT(h->parent_id, "p");
    PC_ASSERT_TEXT(h->argsrepr, "a");
    PC_ASSERT_TEXT(h->kwargsrepr, "k");
    PC_ASSERT_TEXT(h->origin, "o");
    PC_ASSERT_TEXT(h->compression, "c");
    PC_ASSERT(h->has_eta && h->has_expires && h->has_stamps);
    PC_ASSERT_INT(h->eta.us, INT64_C(1795157341500000));
    PC_ASSERT_INT(h->expires.us, 1000000);
    PC_ASSERT(h->time_limit == 1.5 && h->soft_time_limit == 2.0);
    PC_ASSERT_INT(h->retries, 4);
    PC_ASSERT_INT(h->ignore_result, 1);
    pc_buf_fini(&r.scratch);
}

void
test_proto2_read_minimal(void)
{
    static const char *const texts[] = {
        "{\"task\": \"t\", \"id\": \"i\"}",
        "{\"task\": \"t\", \"id\": \"i\", \"eta\": null, \"expires\": \"\", \"timelimit\": null, "
        "\"group\": null, \"retries\": null, \"ignore_result\": null, \"stamps\": {}, "
        "\"compression\": null}",
        "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [null, null], \"stamps\": null}",
        "{\"task\": \"t\", \"id\": \"x\", \"id\": \"i\", \"eta\": \"bad\", \"eta\": null, "
        "\"timelimit\": [1, 2], "
        "\"timelimit\": null, \"ignore_result\": true, \"ignore_result\": null}",
        "{\"lang\": 5, \"task\": \"t\", \"id\": \"i\", \"argsrepr\": [], \"shadow\": {}, "
        "\"origin\": 1, "
        "\"kwargsrepr\": true, \"group_index\": \"x\", \"stamped_headers\": 7, \"stamps\": []}",
    };
    reading r;
    pc_buf_init(&r.scratch);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        PC_ASSERT(read_json(&r, texts[i]) == 0, "%s: %s", texts[i], r.err.msg);
        PC_ASSERT_TEXT(r.head.task, "t");
        PC_ASSERT_TEXT(r.head.id, "i");
        PC_ASSERT_TEXT(r.head.group, NULL);
        PC_ASSERT_TEXT(r.head.shadow, NULL);
        PC_ASSERT_TEXT(r.head.compression, NULL);
        PC_ASSERT(!r.head.has_eta && !r.head.has_expires && !r.head.has_stamps);
        PC_ASSERT(isnan(r.head.time_limit) && isnan(r.head.soft_time_limit));
        PC_ASSERT_INT(r.head.retries, 0);
        PC_ASSERT_INT(r.head.ignore_result, -1);
    }
    pc_buf_fini(&r.scratch);
}

void
test_proto2_read_errors(void)
{
    static const struct {
        const char *text;
        pc_code code;
        const char *says;
    } rows[] = {
        {"{}", PC_ENOTFOUND, "task"},
        {"[]", PC_ENOTFOUND, "task"},
        {"{\"id\": 5, \"eta\": 5}", PC_ENOTFOUND, "task"},
        {"{\"own\": {\"task\": \"t\"}, \"id\": \"i\"}", PC_ENOTFOUND, "task"},
        {"{\"task\": \"t\"}", PC_EDATA, "\"id\""},
        {"{\"task\": \"t\", \"id\": null}", PC_EDATA, "\"id\""},
        {"{\"task\": null, \"id\": \"i\"}", PC_EDATA, "\"task\""},
        {"{\"task\": 5, \"id\": \"i\"}", PC_EDATA, "\"task\""},
        {"{\"task\": \"t\", \"id\": [\"i\"]}", PC_EDATA, "\"id\""},
        {"{\"task\": \"t\", \"id\": {\"i\": 1}}", PC_EDATA, "\"id\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"eta\": 5}", PC_EDATA, "\"eta\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"eta\": \"tomorrow\"}", PC_EDATA, "\"eta\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"expires\": \"2026-13-01\"}", PC_EDATA, "\"expires\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"expires\": 1.5}", PC_EDATA, "\"expires\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": 5}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": []}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [1]}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [1, 2, 3]}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [1, \"2\"]}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [true, 2]}", PC_EDATA, "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [[1, 2], 2]}", PC_EDATA,
         "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"timelimit\": {\"a\": 1, \"b\": 2}}", PC_EDATA,
         "\"timelimit\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"retries\": \"1\"}", PC_EDATA, "\"retries\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"retries\": 1.5}", PC_EDATA, "\"retries\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"ignore_result\": \"no\"}", PC_EDATA,
         "\"ignore_result\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"compression\": 5}", PC_EDATA, "\"compression\""},
        {"{\"task\": \"t\", \"id\": \"i\", \"x\": NaNs}", PC_EFALLBACK, ""},
        {"", PC_EFALLBACK, ""},
    };
    reading r;
    pc_buf_init(&r.scratch);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        PC_ASSERT(read_json(&r, rows[i].text) < 0, "%s", rows[i].text);
        PC_ASSERT(r.err.code == rows[i].code, "%s: %s", rows[i].text, r.err.msg);
        PC_ASSERT(strstr(r.err.msg, rows[i].says) != NULL, "%s: %s", rows[i].text, r.err.msg);
    }
    PC_ASSERT_INT(read_headers(&r, PC_HEADERS_NONE, (pc_slice){0}), -1);
    PC_ASSERT_INT(r.err.code, PC_ENOTFOUND);
    pc_buf_fini(&r.scratch);
}

void
test_proto2_read_table_types(void)
{
    static const char table[] = "\4taskS\0\0\0\1t\2idS\0\0\0\1i\3etaT\0\0\0\0\0\0\0\5"
                                "\11timelimitA\0\0\0\17d\x40\x04\0\0\0\0\0\0D\1\0\0\0\5"
                                "\7retriesB\xff\15ignore_resultt\0\1xx\0\0\0\1y";
    reading r;
    pc_buf_init(&r.scratch);
    PC_ASSERT(read_headers(&r, PC_HEADERS_TABLE, pc_slice_of(table, sizeof table - 1)) == 0, "%s",
              r.err.msg);
    PC_ASSERT(r.head.has_eta && r.head.eta.us == 5000000);
    PC_ASSERT(r.head.time_limit == 2.5 && r.head.soft_time_limit == 0.5);
    PC_ASSERT_INT(r.head.retries, 255);
    PC_ASSERT_INT(r.head.ignore_result, 0);
    PC_ASSERT(r.head.task.ptr > table && r.head.task.ptr < table + sizeof table);
    pc_buf_fini(&r.scratch);
}

static int
write_and_read(void *arg)
{
    reading r = {.err = {0}};
    pc_task_fields fields;
    pc_buf json, table;
    (void)arg;
    pc_task_fields_init(&fields);
    fields.task = pc_slice_str("t\xc3\xa9");
    fields.id = pc_slice_str("i\n");
    pc_buf_init(&json);
    pc_buf_init(&table);
    pc_buf_init(&r.scratch);
    int rc = write_json(&fields, (pc_slice){0}, &json, &r.err);
    rc = rc < 0 ? rc : write_table(&fields, &table, &r.err);
    rc = rc < 0 ? rc : read_headers(&r, PC_HEADERS_JSON, pc_buf_slice(&json));
    PC_ASSERT(rc == 0 || r.err.code == PC_ENOMEM, "%s", r.err.msg);
    if (rc == 0) {
        PC_ASSERT_TEXT(r.head.task, "t\xc3\xa9");
        PC_ASSERT_TEXT(r.head.id, "i\n");
    }
    pc_buf_fini(&json);
    pc_buf_fini(&table);
    pc_buf_fini(&r.scratch);
    return rc;
}

void
test_proto2_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(write_and_read, NULL) >= 3);
}

/* ---- what Celery sent */

static pc_task_fields
fields_of(const pc_head *head, pc_slice eta, pc_slice expires)
{
    pc_task_fields fields;
    pc_task_fields_init(&fields);
    fields.task = head->task;
    fields.id = head->id;
    fields.shadow = head->shadow;
    fields.eta = eta;
    fields.expires = expires;
    fields.group = head->group;
    fields.retries = head->retries;
    fields.time_limit = head->time_limit;
    fields.soft_time_limit = head->soft_time_limit;
    fields.root_id = head->root_id;
    fields.parent_id = head->parent_id;
    fields.argsrepr = head->argsrepr;
    fields.kwargsrepr = head->kwargsrepr;
    fields.origin = head->origin;
    fields.ignore_result = head->ignore_result > 0;
    return fields;
}

/* What pc_head leaves out. */
typedef struct {
    int depth;
    pc_slice key;
    pc_slice eta, expires;
    int64_t group_index;
    bool has_group_index;
    bool own;  // headers that are not of the protocol, or stamps
} rest;

static int
rest_key(void *ctx, pc_slice name)
{
    static const char known[] =
        " lang task id shadow eta expires group group_index retries timelimit "
        "root_id parent_id argsrepr kwargsrepr origin ignore_result "
        "replaced_task_nesting stamped_headers stamps compression ";
    rest *r = ctx;
    char padded[300];
    snprintf(padded, sizeof padded, " %.*s ", (int)name.len, name.ptr);
    r->own = r->own || r->depth > 1 || strstr(known, padded) == NULL;
    r->key = name;
    return 0;
}

static int
rest_string(void *ctx, pc_slice text)
{
    rest *r = ctx;
    if (pc_slice_is(r->key, "eta")) {
        r->eta = text;
    } else if (pc_slice_is(r->key, "expires")) {
        r->expires = text;
    }
    return 0;
}

static int
rest_integer(void *ctx, int64_t value)
{
    rest *r = ctx;
    if (pc_slice_is(r->key, "group_index")) {
        r->has_group_index = true;
        r->group_index = value;
    }
    return 0;
}

static int
rest_map(void *ctx)
{
    ((rest *)ctx)->depth++;
    return 0;
}

static const pc_visit rest_visit = {
    .key = rest_key,
    .string = rest_string,
    .integer = rest_integer,
    .map_start = rest_map,
};

/* Reads the headers in both formats, writes them again and compares. */
static void
golden(const ct_record *record)
{
    reading r, j;
    rest more = {0};
    pc_buf raw, out;
    pc_buf_init(&r.scratch);
    pc_buf_init(&j.scratch);
    pc_buf_init(&raw);
    pc_buf_init(&out);
    pc_slice table = ct_bytes(record, "headers", &raw);
    pc_slice json = ct_field(record, "headers_json");
    PC_ASSERT(read_headers(&r, PC_HEADERS_TABLE, table) == 0, "%s", r.err.msg);
    PC_ASSERT(read_headers(&j, PC_HEADERS_JSON, json) == 0, "%s", j.err.msg);
    PC_ASSERT_SLICE(r.head.id, ct_field(record, "correlation_id"));
    PC_ASSERT_SLICE(j.head.task, r.head.task);
    PC_ASSERT_SLICE(j.head.argsrepr, r.head.argsrepr);
    PC_ASSERT_SLICE(j.head.kwargsrepr, r.head.kwargsrepr);
    PC_ASSERT_SLICE(j.head.compression, r.head.compression);
    PC_ASSERT_INT(j.head.eta.us, r.head.eta.us);
    PC_ASSERT_INT(j.head.expires.us, r.head.expires.us);
    PC_ASSERT_INT(j.head.has_stamps, pc_slice_is(ct_field(record, "case"), "stamps"));
    PC_ASSERT_INT(pc_table_visit(table, &rest_visit, &more, NULL), 0);
    if (!more.own && r.head.compression.ptr == NULL) {
        pc_task_fields fields = fields_of(&r.head, more.eta, more.expires);
        fields.has_group_index = more.has_group_index;
        fields.group_index = more.group_index;
        PC_ASSERT_INT(write_table(&fields, &out, NULL), 0);
        PC_ASSERT_SLICE(pc_slice_of(out.data + 4, pc_buf_len(&out) - 4), table);
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT_INT(write_json(&fields, (pc_slice){0}, &out, NULL), 0);
        PC_ASSERT_SLICE(pc_buf_slice(&out), json);
    }
    pc_buf_fini(&r.scratch);
    pc_buf_fini(&j.scratch);
    pc_buf_fini(&raw);
    pc_buf_fini(&out);
}

void
test_proto2_golden(void)
{
    PC_ASSERT(ct_golden("amqp.json", golden) > 30);
}

/* What only Python's JSON has stands in a header that is none of ours. */
void
test_proto2_read_what_is_for_python(void)
{
    reading r;
    pc_buf_init(&r.scratch);
    PC_ASSERT_INT(read_json(&r, "{\"x\": [NaN, \"\\ud800\"], \"task\": \"a\\u002eb\", \"id\": \"i\", \"root_id\": \"r\\u006f\"}"), 0);
    PC_ASSERT_TEXT(r.head.task, "a.b");
    PC_ASSERT_TEXT(r.head.id, "i");
    PC_ASSERT_TEXT(r.head.root_id, "ro");
    pc_buf_fini(&r.scratch);
}

void
bench_proto2_head_read(long n)
{
    reading r;
    pc_buf_init(&r.scratch);
    for (long i = 0; i < n; i++) {
        PC_ASSERT(
            read_json(
                &r, "{\"lang\": \"py\", \"task\": \"a.b\", \"id\": "
                    "\"e940151f-bd88-4538-bed2-a48f3e640c6f\", \"shadow\": null, \"eta\": null, "
                    "\"expires\": null, \"group\": null, \"group_index\": null, \"retries\": 0, "
                    "\"timelimit\": [null, null], \"root_id\": "
                    "\"e940151f-bd88-4538-bed2-a48f3e640c6f\", \"parent_id\": null, \"argsrepr\": "
                    "\"(2, 2)\", "
                    "\"kwargsrepr\": \"{}\", \"origin\": \"gen1@host\", \"ignore_result\": false, "
                    "\"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {}}")
            == 0);
    }
    pc_buf_fini(&r.scratch);
}
