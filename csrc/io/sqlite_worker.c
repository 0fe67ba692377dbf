/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME_MAX (PC_UUID_LEN + 16)
#define START_TIME_FIELD 22  // of /proc/<pid>/stat
#define COMM_FIELD 2

void
pc_sqlite_worker_init(pc_sqlite_worker *worker)
{
    *worker = (pc_sqlite_worker){.folder = -1, .lease = -1};
}

/* --- who am I --- */

/* The first line of a file of /proc; empty when it can't be read. */
static void
read_line(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);
    if (fd >= 0) {
        close(fd);
    }
    out[n < 0 ? 0 : n] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

/* The command in field 2 may hold spaces and parentheses: count from its last one. */
static const char *
start_time(char *stat)
{
    char *at = strrchr(stat, ')');
    for (int i = COMM_FIELD; at != NULL && i < START_TIME_FIELD; i++) {
        at = strchr(at + 1, ' ');
    }
    if (at == NULL) {
        return "";
    }
    at++;
    at[strcspn(at, " ")] = '\0';
    return at;
}

/* Pids come again, after a while and after every boot, and containers share a directory but not
 * their pids. */
static void
identify(char out[PC_PROCESS_MAX])
{
    char boot[64];
    char space[48] = "";
    char stat[1024];
    read_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    space[n < 0 ? 0 : n] = '\0';
    read_line("/proc/self/stat", stat, sizeof stat);
    snprintf(out, PC_PROCESS_MAX, "%s %s %ld %.20s", boot, space, (long)getpid(), start_time(stat));
}

/* --- own lease --- */

static void
file_name(const char *name, char out[FILE_NAME_MAX])
{
    snprintf(out, FILE_NAME_MAX, "worker-%.*s", PC_UUID_LEN, name);
}

static int
lock_file(pc_sqlite_worker *worker, const char *folder, pc_err *err)
{
    char file[FILE_NAME_MAX];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    file_name(worker->name, file);
    worker->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (worker->folder < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot open the directory %.150s", folder);
    }
    worker->lease = openat(worker->folder, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (worker->lease < 0 || fcntl(worker->lease, F_SETLK, &lock) < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot make and lock %.130s/%s", folder, file);
    }
    return 0;
}

int
pc_sqlite_worker_open(pc_sqlite_worker *worker, const char *folder, pc_err *err)
{
    identify(worker->process);
    worker->pid = getpid();
    if (pc_uuid4(worker->name, err) < 0 || lock_file(worker, folder, err) < 0) {
        pc_sqlite_worker_fini(worker);
        return -1;
    }
    return 0;
}

int
pc_sqlite_worker_register(pc_sqlite_worker *worker, pc_sqlite *db, bool *known, pc_err *err)
{
    pc_slice name = pc_slice_str(worker->name);
    pc_sqlite_bind_text(db, PC_SQL_WORKER_FIND, 1, name);
    if (pc_sqlite_int(db, PC_SQL_WORKER_FIND, &worker->id, err) < 0) {
        return -1;
    }
    *known = worker->id != 0;
    if (*known) {
        return 0;
    }
    pc_sqlite_bind_text(db, PC_SQL_WORKER_ADD, 1, name);
    pc_sqlite_bind_text(db, PC_SQL_WORKER_ADD, 2, pc_slice_str(worker->process));
    if (pc_sqlite_run(db, PC_SQL_WORKER_ADD, err) < 0) {
        return -1;
    }
    pc_sqlite_bind_text(db, PC_SQL_WORKER_FIND, 1, name);
    return pc_sqlite_int(db, PC_SQL_WORKER_FIND, &worker->id, err);
}

static int
run_for(pc_sqlite *db, pc_sql which, int64_t id, pc_err *err)
{
    pc_sqlite_bind_int(db, which, 1, id);
    return pc_sqlite_run(db, which, err);
}

int
pc_sqlite_worker_retire(pc_sqlite *db, int64_t id, pc_err *err)
{
    int released = run_for(db, PC_SQL_MSG_RELEASE, id, err);
    if (released < 0 || run_for(db, PC_SQL_QUEUE_REAP, id, err) < 0 ||
        run_for(db, PC_SQL_CONSUMER_REMOVE_ALL, id, err) < 0 ||
        run_for(db, PC_SQL_WORKER_REMOVE, id, err) < 0) {
        return -1;
    }
    return released;
}

/* --- others' leases --- */

static bool
is_dead(const pc_sqlite_worker *self, const char *name, pc_slice process)
{
    char file[FILE_NAME_MAX];
    file_name(name, file);
    if (pc_slice_is(process, self->process)) {  // opening it would cost its owner the lock
        return faccessat(self->folder, file, F_OK, 0) < 0 && errno == ENOENT;
    }
    int fd = openat(self->folder, file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT;
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool dead = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
    close(fd);
    return dead;
}

int
pc_sqlite_worker_find_dead(const pc_sqlite_worker *worker, pc_sqlite *db, int64_t *id,
                           char name[PC_UUID_LEN + 1], pc_err *err)
{
    *id = 0;
    pc_sqlite_bind_int(db, PC_SQL_WORKER_LIST, 1, worker->id);
    int rc;
    while ((rc = pc_sqlite_step(db, PC_SQL_WORKER_LIST, err)) > 0) {
        pc_slice text = pc_sqlite_column_slice(db, PC_SQL_WORKER_LIST, 1);
        snprintf(name, PC_UUID_LEN + 1, "%.*s", (int)text.len, text.ptr);
        if (is_dead(worker, name, pc_sqlite_column_slice(db, PC_SQL_WORKER_LIST, 2))) {
            *id = pc_sqlite_column_int(db, PC_SQL_WORKER_LIST, 0);
            pc_sqlite_reset(db, PC_SQL_WORKER_LIST);
            return 0;
        }
    }
    return rc;
}

int
pc_sqlite_worker_recover(const pc_sqlite_worker *worker, pc_sqlite *db, unsigned *workers,
                         unsigned *messages, pc_err *err)
{
    *workers = 0;
    *messages = 0;
    for (;;) {
        int64_t id;
        char name[PC_UUID_LEN + 1];
        char file[FILE_NAME_MAX];
        if (pc_sqlite_worker_find_dead(worker, db, &id, name, err) < 0) {
            return -1;
        }
        if (id == 0) {
            return 0;
        }
        int released = pc_sqlite_worker_retire(db, id, err);
        if (released < 0) {
            return -1;
        }
        // before the commit: should that fail, a missing file means dead just as well
        file_name(name, file);
        (void)unlinkat(worker->folder, file, 0);
        *workers += 1;
        *messages += (unsigned)released;
    }
}

bool
pc_sqlite_worker_is_lost(const pc_sqlite_worker *worker)
{
    struct stat st;
    return worker->lease >= 0 && fstat(worker->lease, &st) == 0 && st.st_nlink == 0;
}

/* --- the end --- */

void
pc_sqlite_worker_abandon(pc_sqlite_worker *worker)
{
    if (worker->lease >= 0) {
        close(worker->lease);
    }
    if (worker->folder >= 0) {
        close(worker->folder);
    }
    pc_sqlite_worker_init(worker);
}

void
pc_sqlite_worker_fini(pc_sqlite_worker *worker)
{
    if (worker->lease >= 0 && worker->pid == getpid()) {
        char file[FILE_NAME_MAX];
        file_name(worker->name, file);
        (void)unlinkat(worker->folder, file, 0);
    }
    pc_sqlite_worker_abandon(worker);
}
