/* SPDX-License-Identifier: BSD-3-Clause */
/* The lease of a worker: messages that it claimed are its own as long as its process lives, and not
 * a moment longer.
 *
 * DESIGN. Every worker locks a file of its own, `<path>.d/worker-<name>`, and has a row that names
 * the file. Who finds a row whose file is missing or not locked gives the messages back. It must be
 * a POSIX record lock: those belong to the process, so that the death of a prefork parent frees it
 * at once, even while children that inherited the descriptor live on (flock and OFD locks would
 * last as long as any of them). Their trap: closing *any* descriptor of the file in the owner's
 * process drops the lock. So nobody opens a lease file of his own process; there, the existence of
 * the file is the sign of life (it is unlinked when its worker ends). Who created a file locks it
 * before the row is written, and names are random, so a worker that was seen dead stays dead. */
#ifndef PC_IO_SQLITE_WORKER_H
#define PC_IO_SQLITE_WORKER_H

#include <sys/types.h>

#include "base/uuid.h"
#include "io/sqlite_db.h"

#define PC_PROCESS_MAX 160

typedef struct pc_sqlite_worker {
    int64_t id;                    // its row, 0: not registered
    char name[PC_UUID_LEN + 1];    // "": not open
    char process[PC_PROCESS_MAX];  // boot, pid namespace, pid and start time
    pid_t pid;
    int folder;  // descriptor of <path>.d, -1
    int lease;   // descriptor of the locked file, -1
} pc_sqlite_worker;

void pc_sqlite_worker_init(pc_sqlite_worker *worker);
/* Takes a name and locks its file in `folder`. */
int pc_sqlite_worker_open(pc_sqlite_worker *worker, const char *folder, pc_err *err);
/* In a transaction: finds or writes its row. *known tells which. */
int pc_sqlite_worker_register(pc_sqlite_worker *worker, pc_sqlite *db, bool *known, pc_err *err);
/* In a transaction: gives back what worker `id` holds, ends its consumers and their auto-delete
 * queues, removes the row. Returns the number of messages given back, or -1. */
int pc_sqlite_worker_retire(pc_sqlite *db, int64_t id, pc_err *err);
/* The id of a worker that is dead, 0 if all live. `name` receives its name. No transaction needed.
 */
int pc_sqlite_worker_find_dead(const pc_sqlite_worker *worker, pc_sqlite *db, int64_t *id,
                               char name[PC_UUID_LEN + 1], pc_err *err);
/* In a transaction: retires all the dead. *workers counts them, *messages what they held. */
int pc_sqlite_worker_recover(const pc_sqlite_worker *worker, pc_sqlite *db, unsigned *workers,
                             unsigned *messages, pc_err *err);
/* Somebody deleted its file: to the others it is dead. */
bool pc_sqlite_worker_is_lost(const pc_sqlite_worker *worker);
/* Unlinks (unless this is a forked child) and closes. */
void pc_sqlite_worker_fini(pc_sqlite_worker *worker);
/* In a forked child: closes; the parent's lock stays. */
void pc_sqlite_worker_abandon(pc_sqlite_worker *worker);

#endif
