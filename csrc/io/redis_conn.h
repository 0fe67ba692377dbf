/* SPDX-License-Identifier: BSD-3-Clause */
/* One asynchronous Redis connection on a loop: a FIFO of expected replies over a pc_stream.
 *
 * A connection is either for commands (each reply goes to the callback of its command) or,
 * when the `message` hook is given, for subscriptions (every reply goes to that hook). It
 * belongs to the thread of its loop. It doesn't reconnect: down() tells the owner, who calls
 * pc_redis_connect again when it likes, but not from inside a reply's callback. Callbacks may
 * send commands and may close the connection; they must not free it. */
#ifndef PC_IO_REDIS_CONN_H
#define PC_IO_REDIS_CONN_H

#include "io/loop.h"
#include "io/redis_config.h"
#include "io/redis_fifo.h"

/* What one bulk string may hold (Redis' proto-max-bulk-len). */
#define PC_REDIS_VALUE_MAX ((size_t)512 << 20)

typedef struct pc_redis_hooks {
    /* Authenticated, database selected, not loading: commands flow. */
    void (*up)(void *ctx);
    /* Connection lost or refused, after the callbacks of all expected replies were called
     * without one. */
    void (*down)(void *ctx, const pc_err *why);
    /* Subscriptions only: whatever the server sends, confirmations and errors too. The reply
     * is lent. */
    void (*message)(void *ctx, const pc_reply *reply);
    void *ctx;
} pc_redis_hooks;

typedef struct pc_redis pc_redis;

/* Copies the configuration; doesn't connect. */
pc_redis *pc_redis_new(const pc_redis_config *config, pc_loop *loop, const pc_redis_hooks *hooks,
                       pc_err *err);
void pc_redis_free(pc_redis *conn);

/* The next connection goes elsewhere. Only while closed; when it fails nothing has changed. */
int pc_redis_redirect(pc_redis *conn, const pc_redis_config *config, pc_err *err);
/* Starts to connect: up() or down() follows from the loop. Already connecting or up: does
 * nothing. -1: failed at once, down() doesn't follow. */
int pc_redis_connect(pc_redis *conn, pc_err *err);
bool pc_redis_is_up(const pc_redis *conn);
bool pc_redis_is_closed(const pc_redis *conn);
/* "redis host:port/db", for messages. */
const char *pc_redis_where(const pc_redis *conn);

/* Sends a command at the end of the turn. callback NULL: the reply is dropped. PC_ESTATE when
 * not up; nothing is sent and no callback follows when it fails. */
int pc_redis_command(pc_redis *conn, size_t argc, const pc_slice *argv, pc_redis_callback *callback,
                     void *ctx, pc_err *err);
/* The same for a command that is written already (redis_resp.h). */
int pc_redis_written(pc_redis *conn, pc_slice command, pc_redis_callback *callback, void *ctx,
                     pc_err *err);
/* Subscription connections: sends (P)SUBSCRIBE, (P)UNSUBSCRIBE or PING. */
int pc_redis_subscribe(pc_redis *conn, size_t argc, const pc_slice *argv, pc_err *err);
/* Inside a callback: the reply being handed out becomes the caller's. */
pc_reply *pc_redis_take_reply(pc_redis *conn);
/* Writes now what was sent in this turn. A broken connection shows later, through down(). */
void pc_redis_flush_now(pc_redis *conn);
/* Nothing waits for the kernel to take it. */
bool pc_redis_is_written(const pc_redis *conn);
/* 0 when it is no error, else -1 with its code and text. */
int pc_redis_check(const pc_redis *conn, const pc_reply *reply, pc_err *err);

/* Closes at once; neither callbacks nor down() are called. */
void pc_redis_close(pc_redis *conn);
/* After fork in the child: as close, but sends nothing. */
void pc_redis_abandon(pc_redis *conn);

#endif
