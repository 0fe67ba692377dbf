/* SPDX-License-Identifier: BSD-3-Clause */
#include "golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "harness.h"
#include "wire/base64.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/json_out.h"

static char root[4096];

/* Each test runs in a directory of its own, so the tree must be known before. */
__attribute__((constructor)) static void
remember_root(void)
{
    const char *given = getenv("CT_ROOT");
    if (given == NULL || realpath(given, root) == NULL) {
        if (getcwd(root, sizeof root) == NULL) {
            root[0] = '\0';
        }
    }
}

typedef struct {
    ct_record record;
    void (*each)(const ct_record *record);
    int count;
} loader;

static pc_slice
own(pc_slice text)
{
    char *copy = pc_strdup(text.ptr, text.len);
    PC_ASSERT(copy != NULL);
    return pc_slice_of(copy, text.len);
}

static int
load_key(void *ctx, pc_slice name)
{
    ct_record *record = &((loader *)ctx)->record;
    PC_ASSERT(record->count < CT_FIELDS_MAX);
    record->names[record->count] = own(name);
    return 0;
}

static int
load_string(void *ctx, pc_slice text)
{
    ct_record *record = &((loader *)ctx)->record;
    record->values[record->count++] = own(text);
    return 0;
}

static int
load_end(void *ctx)
{
    loader *l = ctx;
    l->each(&l->record);
    l->count++;
    while (l->record.count > 0) {
        int i = --l->record.count;
        pc_free((char *)(uintptr_t)l->record.names[i].ptr);
        pc_free((char *)(uintptr_t)l->record.values[i].ptr);
    }
    return 0;
}

static void
read_file(const char *file, pc_buf *out)
{
    char path[sizeof root + 256];
    snprintf(path, sizeof path, "%s/tests/wire/golden/%s", root, file);
    FILE *in = fopen(path, "rb");
    PC_ASSERT(in != NULL, "cannot open %s; set CT_ROOT", path);
    size_t got;
    do {
        char *to = pc_buf_reserve(out, 65536, NULL);
        PC_ASSERT(to != NULL);
        got = fread(to, 1, 65536, in);
        pc_buf_commit(out, got);
    } while (got > 0);
    fclose(in);
}

int
ct_golden(const char *file, void (*each)(const ct_record *record))
{
    static const pc_visit visit = {.key = load_key, .string = load_string, .map_end = load_end};
    loader l = {.each = each};
    pc_buf text;
    pc_err err;
    pc_buf_init(&text);
    read_file(file, &text);
    PC_ASSERT_INT(pc_json_visit(pc_buf_slice(&text), &visit, &l, &err), 0);
    pc_buf_fini(&text);
    return l.count;
}

pc_slice
ct_field(const ct_record *record, const char *name)
{
    for (int i = 0; i < record->count; i++) {
        if (pc_slice_is(record->names[i], name)) {
            return record->values[i];
        }
    }
    return (pc_slice){0};
}

pc_slice
ct_bytes(const ct_record *record, const char *name, pc_buf *out)
{
    size_t before = pc_buf_len(out);
    PC_ASSERT_INT(pc_base64_take(out, ct_field(record, name), NULL), 0);
    return pc_slice_of(pc_buf_ptr(out) + before, pc_buf_len(out) - before);
}

int
ct_headers_text(const pc_message *message, pc_buf *out, pc_err *err)
{
    pc_json_out json;
    pc_bridge bridge = {&json.sink, err};
    pc_json_out_init(&json, out);
    return pc_message_visit_headers(message, &pc_bridge_visit, &bridge, err);
}

void
ct_check_slice(const char *file, int line, const char *text, pc_slice got, pc_slice want)
{
    int same = pc_slice_eq(got, want) && (got.ptr == NULL) == (want.ptr == NULL);
    ct_check(file, line, text, same, " is \"%.*s\" (%zu), not \"%.*s\" (%zu)",
             got.len > 2000 ? 2000 : (int)got.len, got.ptr == NULL ? "(absent)" : got.ptr, got.len,
             want.len > 2000 ? 2000 : (int)want.len, want.ptr == NULL ? "(absent)" : want.ptr,
             want.len);
}
