/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection that comes back, with a window of unconfirmed messages that are sent again when it
 * does. It connects when it is woken, tries again with growing pauses as long as the loop turns,
 * opens a refused channel again. Used by the producer and by both sides of the rpc store. */
#ifndef PC_IO_AMQP_LINK_H
#define PC_IO_AMQP_LINK_H

#include "io/amqp_conn.h"
#include "io/amqp_window.h"

#define PC_AMQP_OUT_HIGH (1024u * 1024)  // bytes waiting for the socket; above, nothing is added

typedef struct pc_amqp_link_hooks {
    /* Ready to send; unconfirmed messages are under way again already. Also after a refused
     * channel. */
    void (*up)(void *ctx);
    void (*down)(void *ctx, const pc_err *why);
    /* The broker closed the channel over `culprit` (pc_amqp_id); up() follows. Awaited replies
     * don't come. */
    void (*refused)(void *ctx, uint32_t culprit, const pc_err *why);
    /* A message put is confirmed (why NULL) or will never be. */
    void (*settled)(void *ctx, void *cookie, const pc_err *why);
    // may be NULL
    /* Ready, and nothing was sent yet. -1: the connection is given up. */
    int (*prepare)(void *ctx, pc_err *err);
    void (*message)(void *ctx, const pc_message *message, pc_slice consumer_tag);
    void (*returned)(void *ctx, const pc_message *message, const pc_err *why);
    void (*cancelled)(void *ctx, pc_slice consumer_tag);
    void *ctx;
} pc_amqp_link_hooks;

typedef struct pc_amqp_link {
    pc_amqp_conn conn;
    pc_amqp_window window;
    bool confirms;
    bool resting;     // after a nack: nothing is sent until the timer
    pc_err why_down;  // code 0: never was
    unsigned downs;   // how often
    // --
    pc_loop *loop;
    pc_amqp_link_hooks hooks;
    pc_timer retry;    // connect again, or end the rest
    int64_t pause_ns;  // before the next attempt
} pc_amqp_link;

/* Without `confirms` what is put is written and forgotten. */
int pc_amqp_link_init(pc_amqp_link *link, pc_loop *loop, const pc_broker_config *config,
                      bool confirms, const pc_amqp_link_hooks *hooks, const pc_log *log,
                      pc_err *err);
/* NULL and zeroed ones are fine. settled() is not called for what is left. */
void pc_amqp_link_fini(pc_amqp_link *link);

/* Connects now if it is closed. Failure is reported by down(), from the loop. */
void pc_amqp_link_wake(pc_amqp_link *link);
/* Connected, and the broker takes messages. */
bool pc_amqp_link_takes(const pc_amqp_link *link);
/* Keeps the message (confirms on; in any state) or writes it (must take). */
int pc_amqp_link_put(pc_amqp_link *link, const pc_message *message, bool mandatory, void *cookie,
                     pc_err *err);
/* Writes what may be written to the output buffer and asks for it to leave. */
void pc_amqp_link_send(pc_amqp_link *link);

/* Begins to close in order and stays closed. */
void pc_amqp_link_close(pc_amqp_link *link);
/* Drops the connection, stays closed until woken. */
void pc_amqp_link_drop(pc_amqp_link *link);
/* In a forked child. */
void pc_amqp_link_abandon(pc_amqp_link *link);

#endif
