/* SPDX-License-Identifier: BSD-3-Clause */
/* Wakes processes that wait for something to appear in a database file, without polling.
 *
 * DESIGN. `<path>-bell` is a small file that everybody maps. Who may sleep has a slot in it,
 * reserved by a lock on one byte of the file (the kernel frees it on death), and a datagram socket
 * `<path>.d/bell<slot>`. A sleeper says what it waits for (a 64-bit mask, hash bits of queue names
 * or result ids), marks its slot, and then looks at the database once more; a writer commits first
 * and looks at the slots then. So one of the two sees the other, and a writer makes a system call
 * only when somebody sleeps. Whoever clears the mark sends the datagram: one per sleep. A datagram
 * can get lost with a process that dies at the wrong moment: sleepers also look once in
 * PC_BELL_CHECK_NS. Any number of bells per process; one thread at a time per bell. */
#ifndef PC_IO_SQLITE_BELL_H
#define PC_IO_SQLITE_BELL_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/clock.h"

#define PC_BELL_CHECK_NS PC_NS_PER_SEC
#define PC_BELL_ALL UINT64_MAX

typedef enum pc_bell_kind { PC_BELL_QUEUE = 1, PC_BELL_RESULT = 2 } pc_bell_kind;

typedef struct pc_bell {
    char *path;    // <path>-bell
    char *folder;  // <path>.d
    int file;      // -1: not open
    int folder_fd;
    int sender;     // socket to ring from
    int socket;     // to be woken by, -1 without a slot
    int slot;       // -1: none
    pid_t process;  // that took the slot
    struct pc_bell_map *map;
} pc_bell;

void pc_bell_init(pc_bell *bell);
/* Opens or creates the files beside the database. PC_EIO. */
int pc_bell_open(pc_bell *bell, const char *database, pc_err *err);
/* Takes a slot; bell->socket can be watched then. PC_ELIMIT when all are taken. */
int pc_bell_sit(pc_bell *bell, pc_bell_kind kind, pc_err *err);
/* Marks the slot; look at the database after this and before sleeping. Without a slot it does
 * nothing. */
void pc_bell_sleep(pc_bell *bell, uint64_t mask);
void pc_bell_awake(pc_bell *bell);
/* Empties the socket. */
void pc_bell_drain(pc_bell *bell);
/* Wakes at most `most` sleepers of this kind whose mask has a bit in common. Call it after the
 * commit. */
void pc_bell_ring(pc_bell *bell, pc_bell_kind kind, uint64_t mask, unsigned most);
/* The bit of a name. */
uint64_t pc_bell_bit(pc_slice name);
/* Gives the slot back (unless this is a forked child), closes, frees. */
void pc_bell_fini(pc_bell *bell);
/* In a forked child: the slot stays the parent's. */
void pc_bell_abandon(pc_bell *bell);

#endif
