/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are collected first and published together. They lie in blocks that never move, so
 * each is copied once. Not thread-safe. */
#ifndef PC_IO_BATCH_H
#define PC_IO_BATCH_H

#include "base/list.h"
#include "io/broker.h"

typedef struct pc_batch {
    pc_outgoing *items;
    size_t len;
    size_t cap;
    size_t sent;  // so many from the front are published
    // --
    pc_link blocks;  // the last one has `room` bytes left at `free`
    char *free;
    size_t room;
} pc_batch;

void pc_batch_init(pc_batch *batch);
void pc_batch_fini(pc_batch *batch);
/* Copies the message, with its bytes. */
int pc_batch_add(pc_batch *batch, const pc_outgoing *message, pc_err *err);
/* Forgets the messages from number `len` on, as far as they are not sent. */
void pc_batch_truncate(pc_batch *batch, size_t len);
/* Publishes what is not sent yet; after a failure it may be called again for the rest. */
int pc_batch_publish(pc_batch *batch, pc_producer *producer, pc_mono deadline, pc_err *err);

/* publish_many() of broker.h, also for drivers that have none. */
int pc_publish_many(pc_producer *producer, const pc_outgoing *messages, size_t n, pc_mono deadline,
                    size_t *done, pc_err *err);

#endif
