/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

#define SUFFIX "-lock"
#define NAP_MAX_NS (5 * PC_NS_PER_MS)  // a wake-up is lost only when the holder dies

/* The contents of the lock file. A waiter that was killed leaves `waiting` too high: needless
 * wake-ups, no harm. */
struct pc_turnstile {
    _Atomic uint32_t turn;  // number of unlocks
    _Atomic uint32_t waiting;
    char reserved[56];
};

void
pc_sqlite_lock_init(pc_sqlite_lock *lock)
{
    *lock = (pc_sqlite_lock){.fd = -1};
}

static void
shut(pc_sqlite_lock *lock)
{
    if (lock->turnstile != NULL) {
        munmap(lock->turnstile, sizeof *lock->turnstile);
        lock->turnstile = NULL;
    }
    if (lock->fd >= 0) {
        close(lock->fd);
        lock->fd = -1;
    }
}

/* Writing the zeros, rather than growing the file, makes sure that the page has a block: a full
 * disk is an error here and not a SIGBUS later. */
static int
fill(int fd)
{
    static const char zeros[sizeof(struct pc_turnstile)];
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -1;
    }
    if (st.st_size >= (off_t)sizeof zeros) {
        return 0;
    }
    return pwrite(fd, zeros, sizeof zeros, 0) == (ssize_t)sizeof zeros ? 0 : -1;
}

static int
reopen(pc_sqlite_lock *lock, pc_err *err)
{
    shut(lock);
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock->fd < 0 || fill(lock->fd) < 0) {
        goto fail;
    }
    void *map =
        mmap(NULL, sizeof *lock->turnstile, PROT_READ | PROT_WRITE, MAP_SHARED, lock->fd, 0);
    if (map == MAP_FAILED) {
        goto fail;
    }
    lock->turnstile = map;
    return 0;
fail:
    (void)pc_fail_errno(err, PC_EIO,
                        "cannot open the lock file %.150s; the user needs write permission"
                        " on it and on its directory",
                        lock->path);
    shut(lock);
    return -1;
}

int
pc_sqlite_lock_open(pc_sqlite_lock *lock, const char *path, pc_err *err)
{
    size_t size = strlen(path) + sizeof SUFFIX;
    lock->path = pc_alloc(size);
    if (lock->path == NULL) {
        return pc_fail_nomem(err);
    }
    snprintf(lock->path, size, "%s%s", path, SUFFIX);
    return reopen(lock, err);
}

/* 1 locked, 0 somebody else has it, -1. */
static int
try_lock(pc_sqlite_lock *lock, pc_err *err)
{
    while (flock(lock->fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            return 0;
        }
        if (errno != EINTR) {
            return pc_fail_errno(err, PC_EIO, "cannot lock %.150s", lock->path);
        }
    }
    return 1;
}

/* Somebody deleted the file: those who come later lock another one. */
static bool
is_deleted(const pc_sqlite_lock *lock)
{
    struct stat st;
    return fstat(lock->fd, &st) == 0 && st.st_nlink == 0;
}

static void
nap(pc_sqlite_lock *lock, uint32_t turn, int64_t ns)
{
    struct timespec span = {.tv_nsec = (long)(ns < NAP_MAX_NS ? ns : NAP_MAX_NS)};
    atomic_fetch_add(&lock->turnstile->waiting, 1);
    syscall(SYS_futex, &lock->turnstile->turn, FUTEX_WAIT, turn, &span, NULL, 0);
    atomic_fetch_sub(&lock->turnstile->waiting, 1);
}

int
pc_sqlite_lock_take(pc_sqlite_lock *lock, pc_mono deadline, pc_err *err)
{
    if (lock->fd < 0 && reopen(lock, err) < 0) {  // it failed the last time, too
        return -1;
    }
    for (;;) {
        // read before the try: an unlock in between changes it, and the nap ends at once
        uint32_t turn = atomic_load(&lock->turnstile->turn);
        int got = try_lock(lock, err);
        if (got < 0) {
            return -1;
        }
        if (got == 1) {
            if (!is_deleted(lock)) {
                lock->held = true;
                return 0;
            }
            if (reopen(lock, err) < 0) {
                return -1;
            }
            continue;
        }
        int64_t left = deadline.ns - pc_mono_now().ns;
        if (left <= 0) {
            return pc_fail(err, PC_ETIMEOUT,
                           "%.150s is locked by another process; if this lasts, look for"
                           " a stopped or hanging one that has it open",
                           lock->path);
        }
        nap(lock, turn, left);
    }
}

void
pc_sqlite_lock_drop(pc_sqlite_lock *lock)
{
    if (!lock->held) {
        return;
    }
    lock->held = false;
    flock(lock->fd, LOCK_UN);
    atomic_fetch_add(&lock->turnstile->turn, 1);
    if (atomic_load(&lock->turnstile->waiting) > 0) {
        syscall(SYS_futex, &lock->turnstile->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

void
pc_sqlite_lock_fini(pc_sqlite_lock *lock)
{
    if (lock == NULL) {
        return;
    }
    shut(lock);
    pc_free(lock->path);
    pc_sqlite_lock_init(lock);
}
