/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents received, by task id: the newest of each, and before it those that were not read yet.
 * Of ids that nobody watches the oldest are dropped beyond a limit. No locks, no I/O. */
#ifndef PC_IO_AMQP_INBOX_H
#define PC_IO_AMQP_INBOX_H

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"

typedef struct pc_amqp_inbox {
    pc_map ids;
    pc_link unwatched;  // oldest first
    size_t unwatched_len;
    size_t limit;  // most unwatched ids
    uint64_t arrived;  // documents, ever
} pc_amqp_inbox;

void pc_amqp_inbox_init(pc_amqp_inbox *inbox, size_t limit);
void pc_amqp_inbox_fini(pc_amqp_inbox *inbox);

int pc_amqp_inbox_put(pc_amqp_inbox *inbox, pc_slice id, pc_slice document, pc_err *err);
int pc_amqp_inbox_watch(pc_amqp_inbox *inbox, pc_slice id, pc_err *err);
/* The newest document stays, as of an id never watched. */
void pc_amqp_inbox_unwatch(pc_amqp_inbox *inbox, pc_slice id);
void pc_amqp_inbox_forget(pc_amqp_inbox *inbox, pc_slice id);
bool pc_amqp_inbox_has_unread(const pc_amqp_inbox *inbox, pc_slice id);
/* Appends the oldest unread document and marks it read. */
int pc_amqp_inbox_read(pc_amqp_inbox *inbox, pc_slice id, pc_buf *out, pc_err *err);
/* The newest document, read or not; absent when there is none. Lent. */
pc_slice pc_amqp_inbox_peek(const pc_amqp_inbox *inbox, pc_slice id);
/* The number of the newest document, read or not; 0 when there is none. A later one has a greater number. */
uint64_t pc_amqp_inbox_newest(const pc_amqp_inbox *inbox, pc_slice id);

#endif
