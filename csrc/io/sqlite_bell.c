/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_bell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"

#define SLOTS 255
#define MAGIC 0x6c6c6562u  // "bell"; another layout takes another value

typedef struct slot {
    _Atomic uint32_t asleep;
    _Atomic uint32_t kind;
    _Atomic uint64_t mask;
    char reserved[48];  // one cache line each
} slot;

struct pc_bell_map {
    _Atomic uint32_t magic;
    _Atomic uint32_t used;  // slots in use are below this; never shrinks
    char reserved[56];
    slot slots[SLOTS];
};

void
pc_bell_init(pc_bell *bell)
{
    *bell = (pc_bell){.file = -1, .folder_fd = -1, .sender = -1, .socket = -1, .slot = -1};
}

static char *
join(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *text = pc_alloc(size);
    if (text != NULL) {
        snprintf(text, size, "%s%s", path, suffix);
    }
    return text;
}

/* The blocks are reserved, so that a full disk is an error here and not a SIGBUS at the first
 * write. */
static int
map_file(pc_bell *bell, pc_err *err)
{
    bell->file = open(bell->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (bell->file < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot open %.150s", bell->path);
    }
    int rc = posix_fallocate(bell->file, 0, sizeof(struct pc_bell_map));
    if (rc != 0) {
        errno = rc;
        return pc_fail_errno(err, PC_EIO, "cannot make room for %.150s", bell->path);
    }
    void *map =
        mmap(NULL, sizeof(struct pc_bell_map), PROT_READ | PROT_WRITE, MAP_SHARED, bell->file, 0);
    if (map == MAP_FAILED) {
        return pc_fail_errno(err, PC_EIO, "cannot map %.150s", bell->path);
    }
    bell->map = map;
    uint32_t magic = 0;
    if (!atomic_compare_exchange_strong(&bell->map->magic, &magic, MAGIC) && magic != MAGIC) {
        return pc_fail(err, PC_EDATA,
                       "%.150s is of another release; stop all programs that use it and remove it",
                       bell->path);
    }
    return 0;
}

static int
open_folder(pc_bell *bell, pc_err *err)
{
    if (mkdir(bell->folder, 0755) < 0 && errno != EEXIST) {
        return pc_fail_errno(err, PC_EIO, "cannot make the directory %.150s", bell->folder);
    }
    bell->folder_fd = open(bell->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (bell->folder_fd < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot open the directory %.150s", bell->folder);
    }
    return 0;
}

int
pc_bell_open(pc_bell *bell, const char *database, pc_err *err)
{
    bell->path = join(database, "-bell");
    bell->folder = join(database, ".d");
    if (bell->path == NULL || bell->folder == NULL) {
        (void)pc_fail_nomem(err);
        goto fail;
    }
    if (open_folder(bell, err) < 0 || map_file(bell, err) < 0) {
        goto fail;
    }
    bell->sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bell->sender < 0) {
        (void)pc_fail_errno(err, PC_EIO, "cannot make a socket for %.150s", bell->folder);
        goto fail;
    }
    return 0;
fail:
    pc_bell_fini(bell);
    return -1;
}

/* A socket's path has 107 characters at most; a longer one goes by way of the open directory. */
static socklen_t
address_of(const pc_bell *bell, int place, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    size_t size = sizeof address->sun_path;
    int n = snprintf(address->sun_path, size, "%s/bell%d", bell->folder, place);
    if (n < 0 || (size_t)n >= size) {
        n = snprintf(address->sun_path, size, "/proc/self/fd/%d/bell%d", bell->folder_fd, place);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n + 1);
}

/* OFD locks belong to this open file, so that two bells of one process exclude each other. */
static bool
reserve(pc_bell *bell, int place)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
    return fcntl(bell->file, F_OFD_SETLK, &lock) == 0;
}

static void
raise_used(pc_bell *bell, uint32_t count)
{
    uint32_t used = atomic_load(&bell->map->used);
    while (used < count && !atomic_compare_exchange_weak(&bell->map->used, &used, count)) {
    }
}

static int
listen_at(pc_bell *bell, int place, pc_err *err)
{
    struct sockaddr_un address;
    socklen_t len = address_of(bell, place, &address);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot make a socket for %.150s", bell->folder);
    }
    unlink(address.sun_path);  // a dead predecessor's
    if (bind(fd, (struct sockaddr *)&address, len) < 0) {
        (void)pc_fail_errno(err, PC_EIO, "cannot make the socket %.150s/bell%d", bell->folder,
                            place);
        close(fd);
        return -1;
    }
    bell->socket = fd;
    return 0;
}

int
pc_bell_sit(pc_bell *bell, pc_bell_kind kind, pc_err *err)
{
    int place = 0;
    while (place < SLOTS && !reserve(bell, place)) {
        place++;
    }
    if (place == SLOTS) {
        return pc_fail(err, PC_ELIMIT, "%.150s: all %d places are taken", bell->path, SLOTS);
    }
    if (listen_at(bell, place, err) < 0) {
        return -1;
    }
    bell->slot = place;
    bell->process = getpid();
    atomic_store(&bell->map->slots[place].asleep, 0);
    atomic_store(&bell->map->slots[place].kind, (uint32_t)kind);
    raise_used(bell, (uint32_t)place + 1);
    return 0;
}

void
pc_bell_sleep(pc_bell *bell, uint64_t mask)
{
    if (bell->slot < 0) {
        return;
    }
    slot *own = &bell->map->slots[bell->slot];
    atomic_store(&own->mask, mask);
    atomic_store(&own->asleep, 1);
    atomic_thread_fence(memory_order_seq_cst);
}

void
pc_bell_awake(pc_bell *bell)
{
    if (bell->slot >= 0) {
        atomic_store(&bell->map->slots[bell->slot].asleep, 0);
    }
}

void
pc_bell_drain(pc_bell *bell)
{
    char byte;
    while (bell->socket >= 0 && recv(bell->socket, &byte, 1, 0) >= 0) {
    }
}

/* True when somebody was there to hear it. A full socket is one who has been woken already. */
static bool
send_to(pc_bell *bell, int place)
{
    struct sockaddr_un address;
    socklen_t len = address_of(bell, place, &address);
    return sendto(bell->sender, "", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, len) == 1 ||
           errno == EAGAIN;
}

void
pc_bell_ring(pc_bell *bell, pc_bell_kind kind, uint64_t mask, unsigned most)
{
    if (bell->map == NULL) {
        return;
    }
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t used = atomic_load(&bell->map->used);
    for (uint32_t i = 0; i < used && i < SLOTS && most > 0; i++) {
        slot *other = &bell->map->slots[i];
        if (atomic_load(&other->asleep) == 0 || atomic_load(&other->kind) != (uint32_t)kind ||
            (atomic_load(&other->mask) & mask) == 0 || atomic_exchange(&other->asleep, 0) == 0) {
            continue;
        }
        if (send_to(bell, (int)i)) {
            most--;
        }
    }
}

/* FNV-1a: the same in every process, no secret needed for a hint. */
uint64_t
pc_bell_bit(pc_slice name)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < name.len; i++) {
        hash = (hash ^ (unsigned char)name.ptr[i]) * UINT64_C(1099511628211);
    }
    return UINT64_C(1) << ((hash ^ (hash >> 32)) & 63);
}

static void
shut(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void
pc_bell_abandon(pc_bell *bell)
{
    if (bell->map != NULL) {
        munmap(bell->map, sizeof *bell->map);
    }
    shut(&bell->file);
    shut(&bell->folder_fd);
    shut(&bell->sender);
    shut(&bell->socket);
    pc_free(bell->path);
    pc_free(bell->folder);
    pc_bell_init(bell);
}

void
pc_bell_fini(pc_bell *bell)
{
    if (bell == NULL) {
        return;
    }
    if (bell->slot >= 0 && bell->process == getpid()) {
        struct sockaddr_un address;
        pc_bell_awake(bell);
        (void)address_of(bell, bell->slot, &address);
        unlink(address.sun_path);  // before the lock goes with its file
    }
    pc_bell_abandon(bell);
}
