/* SPDX-License-Identifier: BSD-3-Clause */
/* How a message lies in a row of the table msg: headers as JSON text, body as it is, and everything
 * else packed into one blob. The blob is a stored format: fields may be added, none may change its
 * number. */
#ifndef PC_IO_SQLITE_ROW_H
#define PC_IO_SQLITE_ROW_H

#include "io/sqlite_db.h"
#include "wire/message.h"

/* A row whose bytes were copied to a buffer, at these places. */
typedef struct pc_sqlite_row {
    int64_t id;
    int64_t priority;
    int64_t tries;  // deliveries, this one included
    size_t at[3];   // props, headers, body: offset in the buffer
    size_t len[3];
    bool absent[3];
    // -- set by the reader
    bool no_ack;
} pc_sqlite_row;

/* Appends the properties, exchange and routing key. */
int pc_sqlite_props_pack(const pc_message *message, pc_buf *out, pc_err *err);
/* Appends the bytes of the current row of a statement that returns PC_SQL_ROW. */
int pc_sqlite_row_read(pc_sqlite *db, pc_sql which, pc_buf *bytes, pc_sqlite_row *row, pc_err *err);
/* Points `message` into `bytes`. The tag is not set. PC_EDATA when the row is damaged. */
int pc_sqlite_row_message(const pc_sqlite_row *row, const pc_buf *bytes, pc_message *message,
                          pc_err *err);

#endif
