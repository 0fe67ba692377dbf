/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection to a database file that serves as broker and result store. sqlite_db.c is the only
 * file that knows SQLite.
 *
 * One thread at a time may use a connection. It must not be used after fork: the child abandons it
 * and opens its own. Reading needs no lock; writing happens between begin and commit, which hold
 * the writer lock (sqlite_lock.h). Binding never fails on the spot: the next step of the statement
 * reports it. */
#ifndef PC_IO_SQLITE_DB_H
#define PC_IO_SQLITE_DB_H

#include "base/buf.h"
#include "base/clock.h"
#include "io/sqlite_sql.h"

typedef struct pc_sqlite pc_sqlite;

#define PC_SQLITE_OFF 0     // PRAGMA synchronous: a crash of the host may damage the file
#define PC_SQLITE_NORMAL 1  // it may lose the last transactions
#define PC_SQLITE_FULL 2    // it loses nothing

/* Opens, and creates file and tables when they are missing. PC_EIO (path, permission, disk),
 * PC_EDATA (not a database, or not one of ours), PC_ETIMEOUT (locked until the deadline). */
pc_sqlite *pc_sqlite_open(const char *path, int synchronous, pc_mono deadline, pc_err *err);
/* Rolls back what is open; empties the WAL when nobody else uses the file. NULL is fine. */
void pc_sqlite_close(pc_sqlite *db);
/* In a forked child: frees the connection without touching the file. `idle`: no thread of the
 * parent was using it. */
void pc_sqlite_abandon(pc_sqlite *db, bool idle);

/* Absolute, symbolic links resolved: side files are named after it. Lent. */
const char *pc_sqlite_path(const pc_sqlite *db);
/* The file was deleted or replaced: what is written now would be lost. */
bool pc_sqlite_moved(pc_sqlite *db);

/* Takes the writer lock and starts a transaction. PC_EIO also when the file has moved. */
int pc_sqlite_begin(pc_sqlite *db, pc_mono deadline, pc_err *err);
/* On failure everything is rolled back. */
int pc_sqlite_commit(pc_sqlite *db, pc_err *err);
/* Does nothing when no transaction is open. */
void pc_sqlite_rollback(pc_sqlite *db);
/* Changes whenever another connection commits. Returns -1 on failure. */
int64_t pc_sqlite_data_version(pc_sqlite *db, pc_err *err);

/* Parameters count from 1. Bytes must stay until the statement is done. Absent slices bind NULL. */
void pc_sqlite_bind_int(pc_sqlite *db, pc_sql which, int place, int64_t value);
void pc_sqlite_bind_text(pc_sqlite *db, pc_sql which, int place, pc_slice value);
void pc_sqlite_bind_blob(pc_sqlite *db, pc_sql which, int place, pc_slice value);
/* 1: a row is there, 0: done, -1. After 0 and -1 the statement is reset. */
int pc_sqlite_step(pc_sqlite *db, pc_sql which, pc_err *err);
/* Runs to the end; returns the number of rows changed, or -1. */
int pc_sqlite_run(pc_sqlite *db, pc_sql which, pc_err *err);
/* The first column of the first row, 0 in *value when there is none. */
int pc_sqlite_int(pc_sqlite *db, pc_sql which, int64_t *value, pc_err *err);
/* Columns count from 0; slices live until the next step or reset. */
int64_t pc_sqlite_column_int(pc_sqlite *db, pc_sql which, int place);
pc_slice pc_sqlite_column_slice(pc_sqlite *db, pc_sql which, int place);
/* Ends a statement before its last row. */
void pc_sqlite_reset(pc_sqlite *db, pc_sql which);

/* True when the SQLite library has the WAL-reset bug (before 3.51.3, 3.50.7, 3.44.6): the file is
 * safe among our processes, but not together with other programs that write to it. *version (may be
 * NULL) is the library's, lent. */
bool pc_sqlite_has_wal_bug(const char **version);

#endif
