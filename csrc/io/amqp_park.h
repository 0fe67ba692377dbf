/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that are not due for long wait in the broker, not in the worker: RabbitMQ closes the
 * channel of a consumer that keeps a delivery for longer than its consumer_timeout, and every held
 * message takes memory on both sides.
 *
 * A delay queue has one TTL, a power of two of seconds, and dead-letters into the queue that the
 * message came from. The message takes the longest delay that is not too long, comes back, and
 * goes again, until little enough is left; a queue deletes itself when it has not been used for
 * long. Publishing has a connection of its own, opened when the first such message comes: the
 * worker's may be blocked for publishers by the broker's alarms.
 *
 * The original is settled when the broker has confirmed the copy. If the connection is lost between
 * the two, both remain: then, and only then, the task runs twice. */
#ifndef PC_IO_AMQP_PARK_H
#define PC_IO_AMQP_PARK_H

#include "io/amqp_link.h"

typedef struct pc_amqp_park {
    pc_amqp_link link;
    bool begun;         // the link exists
    bool forbidden;     // the broker refuses delay queues
    pc_mono not_before; // the connection failed: no attempts until then
    pc_timer again;     // set when something was refused for now
    pc_link queues;     // declared on this connection, or to be when it is there
    const pc_broker_config *config;  // borrowed
    pc_loop *loop;
    const pc_log *log;
    /* The copy is in the broker: PC_ACK; or is not: PC_REQUEUE. */
    void (*settle)(void *ctx, uint64_t tag, pc_settle how);
    /* So much of what was refused for now would be taken; returns how much of it comes. */
    size_t (*possible)(void *ctx, size_t most);
    void *ctx;
} pc_amqp_park;

void pc_amqp_park_init(pc_amqp_park *park, pc_loop *loop, const pc_broker_config *config,
                       void (*settle)(void *ctx, uint64_t tag, pc_settle how),
                       size_t (*possible)(void *ctx, size_t most), void *ctx, const pc_log *log);
void pc_amqp_park_fini(pc_amqp_park *park);

/* Takes the message over, settle() follows; or -1: hold it. PC_ENOTFOUND: such a message can't be
 * parked; PC_EIO: not now, and possible() follows. */
int pc_amqp_park_put(pc_amqp_park *park, const pc_message *message, const pc_queue *from,
                     int64_t delay_ns, pc_err *err);
/* The tags are void: lets everything go. */
void pc_amqp_park_void(pc_amqp_park *park, const pc_err *why);
/* The broker is there again: no pause after what was lost before. */
void pc_amqp_park_resume(pc_amqp_park *park);
/* Copies are under way. */
bool pc_amqp_park_busy(const pc_amqp_park *park);
/* In a forked child. */
void pc_amqp_park_abandon(pc_amqp_park *park);

#endif
