/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands that must reach a Redis server, for blocking threads: one connection on a pump. All functions
 * are called with the pump's lock held (they sleep with it released).
 *
 * A message stays in the window until the server has answered. Those whose answer was lost with a
 * connection are sent again on the next one: it may then be there twice, it is never lost. A server
 * out of memory (OOM) is back-pressure: its messages stay, and are offered again. */
#ifndef PC_IO_REDIS_SENDER_H
#define PC_IO_REDIS_SENDER_H

#include "base/list.h"
#include "base/log.h"
#include "io/broker.h"
#include "io/minder.h"
#include "io/pump.h"
#include "io/redis_args.h"

#define PC_REDIS_FIRST_BACKOFF (100 * PC_NS_PER_MS)

typedef struct pc_redis_sender {
    pc_pump *pump;
    pc_redis *conn;
    const pc_log *log;
    int confirm;      // as in pc_broker_config
    size_t window;    // most unanswered messages
    size_t open;      // unanswered
    size_t open_bytes;
    size_t bytes_put;  // so far
    uint64_t unrouted;  // mandatory messages that no queue took
    void (*down)(void *ctx);
    void *ctx;
    // --
    pc_link items;      // to be confirmed
    pc_link fired;      // the same without that
    pc_link calls;      // questions under way
    size_t unsent;      // of the items
    bool full;          // out of memory, said the last answer
    bool has_refusal;   // a message was refused since the last flush
    pc_err refusal;
    unsigned downs;
    pc_err why_down;
    int64_t backoff_ns;
    bool retrying;      // the timer is set
    pc_timer retry;
    unsigned unpolled;
    pc_mono polled;
    pc_minder minder;   // of messages that are not confirmed; without confirms never needed
} pc_redis_sender;

int pc_redis_sender_init(pc_redis_sender *sender, const pc_broker_config *config,
                         void (*down)(void *ctx), void *ctx, const pc_log *log, pc_err *err);
/* Zeroed ones are fine. */
void pc_redis_sender_fini(pc_redis_sender *sender);

/* Takes in what has come, now and then: cheap enough for every publish. */
int pc_redis_sender_refresh(pc_redis_sender *sender, pc_err *err);
/* PC_EIO, PC_EAUTH (at once), PC_ETIMEOUT. */
int pc_redis_sender_connect(pc_redis_sender *sender, pc_mono deadline, pc_err *err);
/* The words are one command that sends a message; as publish() in broker.h. `mandatory`: an answer of 0
 * is worth a warning. */
int pc_redis_sender_put(pc_redis_sender *sender, const pc_redis_args *args, bool mandatory,
                        pc_mono deadline, pc_err *err);

/* Many of them: command() makes number `i`, which is used until it makes the next. */
typedef struct pc_redis_many {
    size_t n;
    const pc_redis_args *(*command)(void *ctx, size_t i, bool *mandatory);
    void *ctx;
} pc_redis_many;

/* As publish_many() in broker.h. */
int pc_redis_sender_put_many(pc_redis_sender *sender, const pc_redis_many *many, size_t *done,
                             pc_mono deadline, pc_err *err);
int pc_redis_sender_flush(pc_redis_sender *sender, pc_mono deadline, pc_err *err);
/* A question; the answer is the caller's. Asked again until the deadline when the connection is lost or the server
 * can't now (memory, READONLY), if `again`. */
int pc_redis_sender_ask(pc_redis_sender *sender, pc_redis_args *args, bool again, pc_reply **reply,
                        pc_mono deadline, pc_err *err);
/* The server is of no use as it is: closes; the next connection is made after a pause. */
void pc_redis_sender_give_up(pc_redis_sender *sender, const pc_err *why);
/* For redis_sender.c, which closes the connection: no answer comes for the questions under way. */
void pc_redis_calls_lose(pc_link *calls, const pc_err *why);
void pc_redis_sender_close(pc_redis_sender *sender);

#endif
