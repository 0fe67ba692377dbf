/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_db.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/sqlite_lock.h"

#define OLDEST_SQLITE 3035000  // has RETURNING
#define FOREIGN_WAIT_MS 50     // one wait for a program that doesn't know our lock
#define CHECKPOINT_PAGES \
    2000  // 8 MB of WAL: larger ones cost more CPU, smaller ones more waits for the disk
#define CHECKPOINT_AGAIN 1000  // after one that readers kept from finishing
#define TRUNCATE_PAGES 64000
#define CLOSE_WAIT_NS (50 * PC_NS_PER_MS)

struct pc_sqlite {
    sqlite3 *handle;
    pc_sqlite_lock lock;
    char *path;
    pid_t process;                           // that opened it
    sqlite3_stmt *statements[PC_SQL_COUNT];  // prepared at first use
    int bind_rc;                             // of the statement being bound
    int wal_pages;                           // after the last commit of this connection
    int checkpoint_at;
    bool full;  // a write of this transaction failed for want of room
};

#define PC_SQL_TEXT(name, text) text,
static const char *const texts[PC_SQL_COUNT] = {PC_SQL_LIST(PC_SQL_TEXT)};
#undef PC_SQL_TEXT

/* --- errors --- */

static bool
is_full(int sys)
{
    return sys == ENOSPC || sys == EDQUOT || sys == EFBIG;
}

static int
fail_io(const char *path, int sys, const char *text, pc_err *err)
{
    const char *why = is_full(sys) ? "the disk (or quota) is full: free some space" : text;
    (void)pc_fail(err, PC_EIO, "%.130s: %s%s%s", path, why, sys == 0 ? "" : " - ",
                  sys == 0 ? "" : strerror(sys));
    if (err != NULL) {
        err->sys_errno = sys;
    }
    return -1;
}

static int
errno_of(sqlite3 *handle, int which)
{
    sqlite3_file *file = NULL;
    int sys = 0;
    if (sqlite3_file_control(handle, "main", which, &file) == SQLITE_OK && file != NULL &&
        file->pMethods != NULL) {
        (void)file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &sys);
    }
    return sys;
}

/* SQLite's own answer is the errno of whatever it did last; the files know better what happened to
 * them. */
static int
find_errno(sqlite3 *handle, int rc)
{
    if ((rc & 0xff) != SQLITE_IOERR) {
        return (rc & 0xff) == SQLITE_FULL ? ENOSPC : sqlite3_system_errno(handle);
    }
    int sys = errno_of(handle, SQLITE_FCNTL_JOURNAL_POINTER);  // the WAL
    if (sys == 0) {
        sys = errno_of(handle, SQLITE_FCNTL_FILE_POINTER);
    }
    return sys != 0 ? sys : sqlite3_system_errno(handle);
}

/* Turns a result code of SQLite into one of ours, with the path and what to do. */
static int
fail_sqlite(sqlite3 *handle, const char *path, int rc, pc_err *err)
{
    int sys = handle == NULL ? 0 : find_errno(handle, rc);
    const char *text = handle == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(handle);
    switch (rc & 0xff) {
    case SQLITE_NOMEM: return pc_fail_nomem(err);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return pc_fail(err, PC_ETIMEOUT,
                       "%.130s is locked by another program; close it or its transaction", path);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return pc_fail(err, PC_EDATA,
                       "%.130s is not an intact SQLite database; choose another path, or move the"
                       " file away with its -wal and -shm files",
                       path);
    case SQLITE_FULL: return fail_io(path, sys, text, err);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return fail_io(
            path, sys,
            "not writable; the user needs write permission on the file and on its directory", err);
    case SQLITE_CANTOPEN:
        return fail_io(path, sys,
                       "cannot open; the directory must exist and be writable for the user", err);
    case SQLITE_TOOBIG: return pc_fail(err, PC_ELIMIT, "too large for a row of %.130s", path);
    default: return fail_io(path, sys, text, err);
    }
}

static int
fail_db(pc_sqlite *db, int rc, pc_err *err)
{
    db->full = db->full || is_full(find_errno(db->handle, rc));
    return fail_sqlite(db->handle, db->path, rc, err);
}

/* --- statements --- */

static sqlite3_stmt *
statement(pc_sqlite *db, pc_sql which)
{
    if (db->statements[which] == NULL) {
        int rc = sqlite3_prepare_v3(db->handle, texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &db->statements[which], NULL);
        if (rc != SQLITE_OK) {
            db->bind_rc = rc;
        }
    }
    return db->statements[which];
}

static void
note(pc_sqlite *db, int rc)
{
    if (rc != SQLITE_OK && db->bind_rc == SQLITE_OK) {
        db->bind_rc = rc;
    }
}

void
pc_sqlite_bind_int(pc_sqlite *db, pc_sql which, int place, int64_t value)
{
    sqlite3_stmt *stmt = statement(db, which);
    if (stmt != NULL) {
        note(db, sqlite3_bind_int64(stmt, place, value));
    }
}

void
pc_sqlite_bind_text(pc_sqlite *db, pc_sql which, int place, pc_slice value)
{
    sqlite3_stmt *stmt = statement(db, which);
    if (stmt != NULL) {
        note(db,
             sqlite3_bind_text64(stmt, place, value.ptr, value.len, SQLITE_STATIC, SQLITE_UTF8));
    }
}

void
pc_sqlite_bind_blob(pc_sqlite *db, pc_sql which, int place, pc_slice value)
{
    sqlite3_stmt *stmt = statement(db, which);
    if (stmt != NULL) {
        note(db, sqlite3_bind_blob64(stmt, place, value.ptr, value.len, SQLITE_STATIC));
    }
}

void
pc_sqlite_reset(pc_sqlite *db, pc_sql which)
{
    sqlite3_reset(db->statements[which]);
    db->bind_rc = SQLITE_OK;
}

static int
step(pc_sqlite *db, pc_sql which)
{
    sqlite3_stmt *stmt = statement(db, which);
    int rc = db->bind_rc == SQLITE_OK ? sqlite3_step(stmt) : db->bind_rc;
    db->bind_rc = SQLITE_OK;
    return rc;
}

int
pc_sqlite_step(pc_sqlite *db, pc_sql which, pc_err *err)
{
    int rc = step(db, which);
    if (rc == SQLITE_ROW) {
        return 1;
    }
    if (rc != SQLITE_DONE) {
        (void)fail_db(db, rc, err);
    }
    pc_sqlite_reset(db, which);
    return rc == SQLITE_DONE ? 0 : -1;
}

int
pc_sqlite_run(pc_sqlite *db, pc_sql which, pc_err *err)
{
    int rc;
    do {
        rc = pc_sqlite_step(db, which, err);
    } while (rc > 0);
    return rc < 0 ? -1 : sqlite3_changes(db->handle);
}

int
pc_sqlite_int(pc_sqlite *db, pc_sql which, int64_t *value, pc_err *err)
{
    *value = 0;
    int rc = pc_sqlite_step(db, which, err);
    if (rc > 0) {
        *value = pc_sqlite_column_int(db, which, 0);
        pc_sqlite_reset(db, which);
    }
    return rc < 0 ? -1 : 0;
}

int64_t
pc_sqlite_column_int(pc_sqlite *db, pc_sql which, int place)
{
    return sqlite3_column_int64(db->statements[which], place);
}

pc_slice
pc_sqlite_column_slice(pc_sqlite *db, pc_sql which, int place)
{
    sqlite3_stmt *stmt = db->statements[which];
    if (sqlite3_column_type(stmt, place) == SQLITE_NULL) {
        return (pc_slice){0};
    }
    const char *data = sqlite3_column_blob(stmt, place);
    // SQLite gives NULL for an empty value, which we tell from an absent one
    return pc_slice_of(data == NULL ? "" : data, (size_t)sqlite3_column_bytes(stmt, place));
}

/* --- transactions --- */

bool
pc_sqlite_moved(pc_sqlite *db)
{
    int moved = 0;
    return sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
           moved;
}

static int
start(pc_sqlite *db, pc_mono deadline, pc_err *err)
{
    int rc = step(db, PC_SQL_BEGIN);
    while ((rc & 0xff) == SQLITE_BUSY && pc_mono_now().ns < deadline.ns) {
        pc_sqlite_reset(db, PC_SQL_BEGIN);
        rc = step(db, PC_SQL_BEGIN);
    }
    if (rc != SQLITE_DONE) {
        (void)fail_db(db, rc, err);
    }
    pc_sqlite_reset(db, PC_SQL_BEGIN);
    return rc == SQLITE_DONE ? 0 : -1;
}

int
pc_sqlite_begin(pc_sqlite *db, pc_mono deadline, pc_err *err)
{
    if (db->process != getpid()) {
        return pc_fail(err, PC_ESTATE, "%.150s was opened before a fork: open it anew in the child",
                       db->path);
    }
    if (pc_sqlite_moved(db)) {
        return pc_fail(err, PC_EIO, "%.150s was removed or replaced while it was open", db->path);
    }
    if (pc_sqlite_lock_take(&db->lock, deadline, err) < 0) {
        return -1;
    }
    if (start(db, deadline, err) < 0) {
        pc_sqlite_lock_drop(&db->lock);
        return -1;
    }
    return 0;
}

void
pc_sqlite_rollback(pc_sqlite *db)
{
    if (!db->lock.held) {
        return;
    }
    for (int i = 0; i < PC_SQL_COUNT; i++) {
        pc_sqlite_reset(db, (pc_sql)i);
    }
    if (!sqlite3_get_autocommit(db->handle)) {  // some errors have rolled back already
        (void)pc_sqlite_run(db, PC_SQL_ROLLBACK, NULL);
    }
    if (db->full) {  // a WAL that starts anew may have room for the next try, and acks free pages
        db->full = false;
        (void)sqlite3_wal_checkpoint_v2(db->handle, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    }
    pc_sqlite_lock_drop(&db->lock);
}

/* Called by SQLite after each commit, in place of its own automatic checkpoints. */
static int
count_pages(void *ctx, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    ((pc_sqlite *)ctx)->wal_pages = pages;
    return SQLITE_OK;
}

/* The writer lock is held, which is what keeps the WAL-reset bug away. A failure costs nothing but
 * a longer WAL: the next one tries again. */
static void
checkpoint(pc_sqlite *db)
{
    if (db->wal_pages < db->checkpoint_at) {
        return;
    }
    int mode =
        db->wal_pages < TRUNCATE_PAGES ? SQLITE_CHECKPOINT_PASSIVE : SQLITE_CHECKPOINT_TRUNCATE;
    int pages = 0;
    int moved = 0;
    int rc = sqlite3_wal_checkpoint_v2(db->handle, "main", mode, &pages, &moved);
    bool whole = rc == SQLITE_OK && pages == moved;
    db->checkpoint_at = whole ? CHECKPOINT_PAGES : db->wal_pages + CHECKPOINT_AGAIN;
}

int
pc_sqlite_commit(pc_sqlite *db, pc_err *err)
{
    if (pc_sqlite_run(db, PC_SQL_COMMIT, err) < 0) {
        pc_sqlite_rollback(db);
        return -1;
    }
    if (db->wal_pages < CHECKPOINT_PAGES) {  // the WAL was started anew
        db->checkpoint_at = CHECKPOINT_PAGES;
    }
    checkpoint(db);
    pc_sqlite_lock_drop(&db->lock);
    return 0;
}

int64_t
pc_sqlite_data_version(pc_sqlite *db, pc_err *err)
{
    int64_t version;
    return pc_sqlite_int(db, PC_SQL_DATA_VERSION, &version, err) < 0 ? -1 : version;
}

const char *
pc_sqlite_path(const pc_sqlite *db)
{
    return db->path;
}

/* --- opening --- */

static int
open_handle(pc_sqlite *db, const char *path, pc_err *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (path == NULL || path[0] == '\0' || path[0] == ':') {
        return pc_fail(err, PC_EDATA,
                       "an SQLite broker or result store needs the path of a file, as in"
                       " sqlite:///queue.db; for a queue in memory use memory://");
    }
    if (sqlite3_libversion_number() < OLDEST_SQLITE) {
        return pc_fail(err, PC_EUNSUP, "SQLite %s is too old, 3.35 or newer is needed",
                       sqlite3_libversion());
    }
    int rc = sqlite3_open_v2(path, &db->handle, flags, "unix");
    if (rc != SQLITE_OK) {
        return fail_sqlite(db->handle, path, rc, err);
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, FOREIGN_WAIT_MS);
    // a checkpoint on close would be one without the writer lock
    (void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    const char *full = sqlite3_db_filename(db->handle, "main");
    db->path = pc_strdup(full, strlen(full));
    return db->path == NULL ? pc_fail_nomem(err) : 0;
}

static int
execute(pc_sqlite *db, const char *sql, pc_err *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail_db(db, rc, err);
}

/* The first value of the first row of a statement that is run once; as text it must be `want` when
 * that is given. */
static int
ask(pc_sqlite *db, const char *sql, const char *want, int *value, pc_err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
    }
    if (rc != SQLITE_ROW) {
        (void)fail_db(db, rc, err);
        goto fail;
    }
    const char *text = (const char *)sqlite3_column_text(stmt, 0);
    if (want != NULL && (text == NULL || strcmp(text, want) != 0)) {
        (void)pc_fail(
            err, PC_EIO,
            "%.130s: this file system cannot hold a database in WAL mode; use a local disk",
            db->path);
        goto fail;
    }
    *value = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    return 0;
fail:
    sqlite3_finalize(stmt);
    return -1;
}

static int
create_tables(pc_sqlite *db, pc_err *err)
{
    char sql[sizeof PC_SQL_SCHEMA + 160];
    snprintf(sql, sizeof sql,
             "BEGIN IMMEDIATE;%s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
             PC_SQL_SCHEMA, PC_SQL_APPLICATION, PC_SQL_VERSION);
    return execute(db, sql, err);
}

/* Makes the tables in a new file, refuses other programs' and newer versions'. */
static int
check_schema(pc_sqlite *db, pc_err *err)
{
    int application = 0;
    int version = 0;
    int tables = 0;
    if (ask(db, "PRAGMA application_id", NULL, &application, err) < 0 ||
        ask(db, "PRAGMA user_version", NULL, &version, err) < 0 ||
        ask(db, "SELECT count(*) FROM sqlite_master", NULL, &tables, err) < 0) {
        return -1;
    }
    if (application == 0 && tables == 0) {
        return create_tables(db, err);
    }
    if (application != PC_SQL_APPLICATION) {
        return pc_fail(err, PC_EDATA,
                       "%.150s is the database of another program; choose a path of its own",
                       db->path);
    }
    if (version != PC_SQL_VERSION) {
        return pc_fail(
            err, PC_EDATA,
            "%.130s has tables of version %d, this release knows version %d: use the release"
            " that wrote it, or another path",
            db->path, version, PC_SQL_VERSION);
    }
    return 0;
}

/* Debian's library is built with secure_delete on, which would overwrite every deleted message. */
static int
configure(pc_sqlite *db, int synchronous, pc_err *err)
{
    char sql[200];
    int ignored;
    snprintf(sql, sizeof sql,
             "PRAGMA synchronous=%d; PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=OFF; PRAGMA "
             "cache_size=-8000;"
             "PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864;",
             synchronous);
    if (ask(db, "PRAGMA journal_mode=WAL", "wal", &ignored, err) < 0 || execute(db, sql, err) < 0) {
        return -1;
    }
    sqlite3_wal_hook(db->handle, count_pages, db);
    return check_schema(db, err);
}

pc_sqlite *
pc_sqlite_open(const char *path, int synchronous, pc_mono deadline, pc_err *err)
{
    pc_sqlite *db = pc_zalloc(sizeof *db);
    if (db == NULL) {
        (void)pc_fail_nomem(err);
        return NULL;
    }
    db->process = getpid();
    db->checkpoint_at = CHECKPOINT_PAGES;
    pc_sqlite_lock_init(&db->lock);
    if (open_handle(db, path, err) < 0 || pc_sqlite_lock_open(&db->lock, db->path, err) < 0 ||
        pc_sqlite_lock_take(&db->lock, deadline, err) < 0 || configure(db, synchronous, err) < 0) {
        goto fail;
    }
    pc_sqlite_lock_drop(&db->lock);
    return db;
fail:
    pc_sqlite_close(db);
    return NULL;
}

static void
finalize(pc_sqlite *db)
{
    for (int i = 0; i < PC_SQL_COUNT; i++) {
        sqlite3_finalize(db->statements[i]);
        db->statements[i] = NULL;
    }
}

static void
tidy(pc_sqlite *db)
{
    if (db->path == NULL || db->lock.fd < 0 || db->wal_pages == 0 || pc_sqlite_moved(db)) {
        return;
    }
    if (pc_sqlite_lock_take(&db->lock, pc_mono_add(pc_mono_now(), CLOSE_WAIT_NS), NULL) == 0) {
        sqlite3_busy_timeout(db->handle, 0);
        (void)sqlite3_wal_checkpoint_v2(db->handle, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        pc_sqlite_lock_drop(&db->lock);
    }
}

static void
discard(pc_sqlite *db)
{
    pc_sqlite_lock_fini(&db->lock);
    pc_free(db->path);
    pc_free(db);
}

void
pc_sqlite_close(pc_sqlite *db)
{
    if (db == NULL || db->process != getpid()) {
        pc_sqlite_abandon(db, false);
        return;
    }
    if (db->handle != NULL) {
        if (!sqlite3_get_autocommit(db->handle)) {
            pc_sqlite_rollback(db);
        }
        pc_sqlite_lock_drop(&db->lock);
        finalize(db);
        tidy(db);
        sqlite3_close(db->handle);
    }
    discard(db);
}

/* SQLite keeps one record per file and process of the locks that the process has. A child inherits
 * the record but not the locks, and a connection of its own would rely on them. An idle connection
 * in WAL mode closes without a write (checkpoints on close are off), which removes the record; the
 * parent's locks are the parent's. One that was in use is forgotten: it can't be closed safely. */
void
pc_sqlite_abandon(pc_sqlite *db, bool idle)
{
    if (db == NULL) {
        return;
    }
    if (idle && db->handle != NULL && sqlite3_get_autocommit(db->handle)) {
        finalize(db);
        sqlite3_close(db->handle);
    }
    discard(db);
}

bool
pc_sqlite_has_wal_bug(const char **version)
{
    int number = sqlite3_libversion_number();
    if (version != NULL) {
        *version = sqlite3_libversion();
    }
    bool fixed = number >= 3051003 || (number >= 3050007 && number < 3051000) ||
                 (number >= 3044006 && number < 3045000);
    return !fixed;
}
