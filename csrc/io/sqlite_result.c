/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_result.h"

#define CLEAN_NS PC_NS_PER_SEC
#define SPAN_MAX 1e11  // seconds: some 3,000 years

int
pc_sqlite_result_put(pc_sqlite *db, const pc_sqlite_result *result, int64_t now_us, pc_err *err)
{
    const char *state = result->state == PC_STATE_COUNT ? "CUSTOM" : pc_state_name(result->state);
    pc_slice document = result->document.ptr == NULL ? pc_slice_of("", 0) : result->document;
    pc_sqlite_bind_text(db, PC_SQL_RESULT_PUT, 1, result->id);
    pc_sqlite_bind_text(db, PC_SQL_RESULT_PUT, 2, pc_slice_str(state));
    pc_sqlite_bind_blob(db, PC_SQL_RESULT_PUT, 3, document);
    pc_sqlite_bind_int(db, PC_SQL_RESULT_PUT, 4, now_us);
    pc_sqlite_bind_int(db, PC_SQL_RESULT_PUT, 5, result->expires);
    return pc_sqlite_run(db, PC_SQL_RESULT_PUT, err) < 0 ? -1 : 0;
}

int
pc_sqlite_result_get(pc_sqlite *db, pc_slice id, int64_t *changed, pc_buf *out, bool *found,
                     pc_err *err)
{
    *found = false;
    pc_sqlite_bind_text(db, PC_SQL_RESULT_GET, 1, id);
    pc_sqlite_bind_int(db, PC_SQL_RESULT_GET, 2, pc_wall_now().us);
    int rc = pc_sqlite_step(db, PC_SQL_RESULT_GET, err);
    if (rc <= 0) {
        return rc;
    }
    int64_t when = pc_sqlite_column_int(db, PC_SQL_RESULT_GET, 1);
    rc = 0;
    if (when > *changed) {
        rc = pc_buf_put_slice(out, pc_sqlite_column_slice(db, PC_SQL_RESULT_GET, 0), err);
        *found = rc == 0;
        *changed = rc == 0 ? when : *changed;
    }
    pc_sqlite_reset(db, PC_SQL_RESULT_GET);
    return rc;
}

int
pc_sqlite_result_clean(pc_sqlite *db, pc_mono *last, int64_t now_us, pc_err *err)
{
    pc_mono now = pc_mono_now();
    if (now.ns - last->ns < CLEAN_NS) {
        return 0;
    }
    *last = now;
    pc_sqlite_bind_int(db, PC_SQL_RESULT_EXPIRE, 1, now_us);
    return pc_sqlite_run(db, PC_SQL_RESULT_EXPIRE, err) < 0 ? -1 : 0;
}

int64_t
pc_sqlite_result_span(double seconds)
{
    return seconds > 0 && seconds < SPAN_MAX ? (int64_t)(seconds * (double)PC_US_PER_SEC) : 0;
}
