/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads tests/wire/golden/<file>: a list of flat objects whose values are all strings. The tree is
 * found through the environment variable CT_ROOT, else it is where the tests were started. */
#ifndef PC_TESTS_GOLDEN_H
#define PC_TESTS_GOLDEN_H

#include "base/buf.h"
#include "wire/message.h"

#define CT_FIELDS_MAX 64

typedef struct {
    pc_slice names[CT_FIELDS_MAX];
    pc_slice values[CT_FIELDS_MAX];
    int count;
} ct_record;

/* Calls `each` for every object; returns how many there were. */
int ct_golden(const char *file, void (*each)(const ct_record *record));
/* The absent slice when there is no such field. */
pc_slice ct_field(const ct_record *record, const char *name);
/* The bytes behind a field in base64, appended to `out`. */
pc_slice ct_bytes(const ct_record *record, const char *name, pc_buf *out);
/* The headers as JSON text, appended to `out`. */
int ct_headers_text(const pc_message *message, pc_buf *out, pc_err *err);

/* PC_ASSERT_SLICE(got, want): two slices with the same bytes, or both absent. */
#define PC_ASSERT_SLICE(got, want) ct_check_slice(__FILE__, __LINE__, #got, (got), (want))
/* PC_ASSERT_TEXT(got, want): a slice and a C string. */
#define PC_ASSERT_TEXT(got, want) PC_ASSERT_SLICE(got, pc_slice_str(want))

void ct_check_slice(const char *file, int line, const char *text, pc_slice got, pc_slice want);

#endif
