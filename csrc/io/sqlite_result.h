/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of results. What has expired is invisible at once and deleted later, some rows at a
 * time. */
#ifndef PC_IO_SQLITE_RESULT_H
#define PC_IO_SQLITE_RESULT_H

#include "io/sqlite_db.h"
#include "wire/result.h"

typedef struct pc_sqlite_result {
    pc_slice id;
    pc_state state;  // PC_STATE_COUNT: custom
    pc_slice document;
    int64_t expires;  // microseconds since 1970, 0: never
} pc_sqlite_result;

/* In a transaction. A SUCCESS that hasn't expired is replaced by another SUCCESS only. PC_ELIMIT:
 * too large for a row. */
int pc_sqlite_result_put(pc_sqlite *db, const pc_sqlite_result *result, int64_t now_us,
                         pc_err *err);
/* Appends the document to `out` when it was written after *changed (0: whenever), and moves
 * *changed. */
int pc_sqlite_result_get(pc_sqlite *db, pc_slice id, int64_t *changed, pc_buf *out, bool *found,
                         pc_err *err);
/* In a transaction: deletes some expired rows, at most once a second; *last is the caller's note of
 * when. */
int pc_sqlite_result_clean(pc_sqlite *db, pc_mono *last, int64_t now_us, pc_err *err);
/* Seconds of the configuration as microseconds; 0, negative and absurd ones: never. */
int64_t pc_sqlite_result_span(double seconds);

#endif
