/* SPDX-License-Identifier: BSD-3-Clause */
/* Tells when something came into empty lists, without taking it out.
 *
 * DESIGN. BRPOP, as kombu waits, takes the message out before anybody has booked it: who is killed
 * between the two loses it. Here the server is asked to track the lists (CLIENT TRACKING, Redis 6):
 * a look at them (EXISTS after CLIENT CACHING YES) on the command connection makes it send one
 * invalidation for the next change, to this connection of our own, since RESP2 cannot push on
 * the other. So a message leaves its list only by the claiming script. A server without tracking,
 * or a user who may not use it, is polled instead. */
#ifndef PC_IO_REDIS_BELL_H
#define PC_IO_REDIS_BELL_H

#include "io/redis_conn.h"

typedef struct pc_redis_bell_hooks {
    /* Listening: the command connection may redirect to this client now. */
    void (*open)(void *ctx, int64_t client);
    void (*ring)(void *ctx);
    /* Not listening any more, or not at all. */
    void (*gone)(void *ctx, const pc_err *why);
    void *ctx;
} pc_redis_bell_hooks;

typedef struct pc_redis_bell {
    pc_redis *conn;
    // --
    pc_redis_bell_hooks hooks;
    int64_t client;  // 0: unknown
    bool open;
} pc_redis_bell;

int pc_redis_bell_init(pc_redis_bell *bell, const pc_redis_config *config, pc_loop *loop,
                       const pc_redis_bell_hooks *hooks, pc_err *err);
void pc_redis_bell_fini(pc_redis_bell *bell);
int pc_redis_bell_connect(pc_redis_bell *bell, pc_err *err);
void pc_redis_bell_close(pc_redis_bell *bell);
void pc_redis_bell_abandon(pc_redis_bell *bell);

#endif
