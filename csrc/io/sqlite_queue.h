/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues, exchanges and bindings in the database, and the way of a message into its queues. The
 * writing functions are called inside a transaction. */
#ifndef PC_IO_SQLITE_QUEUE_H
#define PC_IO_SQLITE_QUEUE_H

#include "io/broker.h"
#include "io/sqlite_db.h"

/* Queue, exchange and binding, when they are missing; an empty name declares the exchange alone. PC_EUNSUP: exchange type headers.
 * PC_ENOTFOUND: passive, and no such queue. */
int pc_sqlite_queue_declare(pc_sqlite *db, const pc_queue *queue, pc_err *err);
/* 0 in *id: no such queue. */
int pc_sqlite_queue_find(pc_sqlite *db, const char *name, int64_t *id, pc_err *err);

typedef struct pc_sqlite_route {
    unsigned copies;  // queues that got the message
    uint64_t mask;    // their bits for the bell
} pc_sqlite_route;

/* Inserts the message into each queue that its exchange and routing key lead to, and adds them to
 * `route`. The default exchange and exchanges that nobody has declared lead to the queue named like
 * the routing key, which is made if needed. `due`: microseconds, 0: now. `scratch` is memory to
 * work in. */
int pc_sqlite_queue_put(pc_sqlite *db, const pc_message *message, int64_t due, pc_buf *scratch,
                        pc_sqlite_route *route, pc_err *err);

/* Words between dots; `*` is one word, `#` any number. */
bool pc_sqlite_topic_match(pc_slice pattern, pc_slice key);

#endif
