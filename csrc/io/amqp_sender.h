/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing for blocking threads: a link on a pump, and the waits for room, connection and
 * confirms. All functions are called with the pump's lock held (they sleep with it released). */
#ifndef PC_IO_AMQP_SENDER_H
#define PC_IO_AMQP_SENDER_H

#include "base/list.h"
#include "io/amqp_link.h"
#include "io/minder.h"
#include "io/pump.h"

typedef struct pc_amqp_sender_hooks {
    void (*up)(void *ctx);
    void (*down)(void *ctx, const pc_err *why);
    /* as in amqp_link.h */
    void (*refused)(void *ctx, uint32_t culprit, const pc_err *why);
    // may be NULL
    void (*message)(void *ctx, const pc_message *message, pc_slice consumer_tag);
    void (*cancelled)(void *ctx, pc_slice consumer_tag);
    void *ctx;
} pc_amqp_sender_hooks;

typedef struct pc_amqp_sender {
    pc_pump *pump;
    pc_amqp_link link;
    const pc_log *log;
    int confirm;        // as in pc_broker_config
    size_t window;      // most unconfirmed messages
    uint64_t returned;  // mandatory messages that came back
    bool has_refusal;   // a message was refused since the last flush
    pc_err refusal;
    // --
    pc_amqp_sender_hooks hooks;
    pc_link waiters;    // threads that wait for one confirm
    uint64_t serial;    // of the last message
    unsigned unpolled;  // publishes since the last poll
    pc_mono polled;
    pc_minder minder;   // of messages that are not confirmed; without confirms never needed
} pc_amqp_sender;

int pc_amqp_sender_init(pc_amqp_sender *sender, const pc_broker_config *config,
                        const pc_amqp_sender_hooks *hooks, const pc_log *log, pc_err *err);
/* NULL and zeroed ones are fine. */
void pc_amqp_sender_fini(pc_amqp_sender *sender);

/* Takes in what has come: confirms, and the news that the connection is gone. */
int pc_amqp_sender_poll(pc_amqp_sender *sender, pc_err *err);
/* The same, now and then: cheap enough for every publish. */
int pc_amqp_sender_refresh(pc_amqp_sender *sender, pc_err *err);
/* Waits for the connection. PC_EIO, PC_EAUTH (at once), PC_ETIMEOUT. */
int pc_amqp_sender_connect(pc_amqp_sender *sender, pc_mono deadline, pc_err *err);
/* As publish() in broker.h. */
int pc_amqp_sender_publish(pc_amqp_sender *sender, const pc_message *message, bool mandatory,
                           pc_mono deadline, pc_err *err);
/* As publish_many() in broker.h. */
int pc_amqp_sender_publish_many(pc_amqp_sender *sender, const pc_outgoing *messages, size_t n,
                                pc_mono deadline, size_t *done, pc_err *err);
/* Waits until all is confirmed; reports a refused message. */
int pc_amqp_sender_flush(pc_amqp_sender *sender, pc_mono deadline, pc_err *err);
/* Waits until nothing that was sent is unconfirmed: what waits for a connection may stay. */
int pc_amqp_sender_calm(pc_amqp_sender *sender, pc_mono deadline, pc_err *err);
/* Flushes, says goodbye, drops. */
int pc_amqp_sender_close(pc_amqp_sender *sender, pc_mono deadline, pc_err *err);

#endif
