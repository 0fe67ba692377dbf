/* SPDX-License-Identifier: BSD-3-Clause */
/* One AMQP 0-9-1 connection with one channel, as a state machine over a stream. It logs in, keeps
 * heartbeats, matches replies to what was asked (methods may be pipelined) and
 * puts messages together. What is to be sent is appended to conn->stream.out with the writers of
 * amqp_codec.h and amqp_frame.h, then pc_stream_flush. Owner: embeds it; everything happens on the
 * loop's thread. */
#ifndef PC_IO_AMQP_CONN_H
#define PC_IO_AMQP_CONN_H

#include "io/amqp_codec.h"
#include "io/amqp_content.h"
#include "io/amqp_login.h"
#include "io/broker.h"
#include "io/stream.h"

#define PC_AMQP_CHANNEL 1  // the channel we use

/* The owner's functions. They may call any pc_amqp_conn_ function but fini. What they are given is
 * lent. */
typedef struct pc_amqp_hooks {
    /* Logged in, channel open, and again after pc_amqp_conn_reopen. */
    void (*ready)(void *ctx);
    /* The server closed the channel because of the method `culprit` (pc_amqp_id); awaited replies
     * don't come. Next: pc_amqp_conn_reopen or _drop. */
    void (*refused)(void *ctx, uint32_t culprit, const pc_err *why);
    /* Connection lost or refused; never from inside a pc_amqp_conn_ function. */
    void (*down)(void *ctx, const pc_err *why);
    // the others may be NULL
    void (*message)(void *ctx, const pc_message *message, pc_slice consumer_tag);
    void (*confirm)(void *ctx, uint64_t tag, bool multiple, bool ack);
    void (*returned)(void *ctx, const pc_message *message, const pc_err *why);
    void (*cancelled)(void *ctx, pc_slice consumer_tag);
    /* conn->blocked has changed */
    void (*blocked)(void *ctx);
    void *ctx;
} pc_amqp_hooks;

/* A reply that was awaited; `message` only with get-ok. */
typedef void pc_amqp_reply(void *ctx, const pc_amqp_method *reply, const pc_message *message);

typedef struct pc_amqp_wanted {
    pc_amqp_id id;  // get-ok stands for get-empty, too
    pc_amqp_reply *done;
    void *ctx;
} pc_amqp_wanted;

typedef struct pc_amqp_conn {
    pc_stream stream;
    pc_broker_config *config;  // own copy
    pc_amqp_server server;     // valid since ready()
    bool blocked;              // the broker takes no messages now
    char blocked_why[80];
    char *name;           // "amqp://host:port/vhost", for error texts
    int user_timeout_ms;  // owner's choice, 0: the system's
    uint32_t frame_max;   // agreed on
    uint32_t culprit;     // inside down(): the method over which the broker closed the connection, 0: none
    // --
    int state;
    uint64_t epoch;  // changes with every open and close
    pc_loop *loop;
    pc_amqp_hooks hooks;
    const pc_log *log;
    pc_amqp_codec *codec;
    pc_amqp_content content;
    pc_timer timer;          // login deadline, then heartbeats
    int64_t heartbeat_ns;    // agreed on, 0: off
    pc_amqp_wanted *wanted;  // replies awaited, in the order of the questions
    size_t wanted_first;
    size_t wanted_end;
    size_t wanted_cap;
} pc_amqp_conn;

/* `heartbeat` in seconds is what to ask for; the lower of ours and the server's is used. */
int pc_amqp_conn_init(pc_amqp_conn *conn, pc_loop *loop, const pc_broker_config *config,
                      const pc_amqp_hooks *hooks, const pc_log *log, pc_err *err);
/* Closes at once without a callback. NULL and zeroed ones are fine. */
void pc_amqp_conn_fini(pc_amqp_conn *conn);

/* While it is closed: the next open goes there. */
int pc_amqp_conn_redirect(pc_amqp_conn *conn, const pc_broker_config *config, pc_err *err);
/* Starts; ready() or down() follows, except when it fails here. */
int pc_amqp_conn_open(pc_amqp_conn *conn, pc_err *err);
/* Opens the channel again after refused(); ready() follows. */
int pc_amqp_conn_reopen(pc_amqp_conn *conn, pc_err *err);
/* Methods and messages may be sent. */
bool pc_amqp_conn_is_ready(const pc_amqp_conn *conn);
bool pc_amqp_conn_is_closed(const pc_amqp_conn *conn);

/* A method was written whose reply is `id`. */
int pc_amqp_conn_want(pc_amqp_conn *conn, pc_amqp_id id, pc_amqp_reply *done, void *ctx,
                      pc_err *err);
/* Begins to close in order: channel, connection. Turn the loop until is_closed(); down() is not
 * called. */
void pc_amqp_conn_close(pc_amqp_conn *conn);
/* Closes at once without a callback. */
void pc_amqp_conn_drop(pc_amqp_conn *conn);
/* Says goodbye as far as that takes no waiting, then drops. */
void pc_amqp_conn_quit(pc_amqp_conn *conn);
/* In a forked child. */
void pc_amqp_conn_abandon(pc_amqp_conn *conn);

#endif
