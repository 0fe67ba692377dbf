/* SPDX-License-Identifier: BSD-3-Clause */
/* Settlements of a Redis source: kept in order until the server has answered, so that those under
 * way when a connection is lost are written again on the next one (that is harmless: a tag is
 * settled once) and no acknowledged task runs again. */
#ifndef PC_IO_REDIS_SETTLE_H
#define PC_IO_REDIS_SETTLE_H

#include "io/redis_names.h"
#include "io/redis_script.h"

typedef enum pc_redis_fate {
    PC_REDIS_ACK,
    PC_REDIS_BACK,   // to the end of its line, as kombu's reject(requeue)
    PC_REDIS_FRONT,  // next in line, as what a closing channel gives back
    PC_REDIS_DEAD    // no envelope
} pc_redis_fate;

typedef struct pc_redis_settlement {
    uint64_t number;
    pc_redis_fate fate;
    bool last;  // of those sent with one command
} pc_redis_settlement;

typedef struct pc_redis_settler {
    const pc_redis_names *names;
    const pc_redis_scripts *scripts;
    const char *id;
    pc_redis_settlement *items;
    size_t len;
    // --
    size_t cap;
    size_t sent;
    size_t awaited;  // answers
    bool broken;     // since a refused command: what is answered now is sent again
    pc_redis *conn;
    pc_redis_args args;
    void (*answered)(void *ctx, const pc_err *why);
    void *ctx;
} pc_redis_settler;

/* answered(): the server took some (NULL), or refused: with PC_EDATA they are given up, else they
 * stay, and write() sends them again. */
void pc_redis_settler_init(pc_redis_settler *settler, pc_redis *conn, const pc_redis_names *names,
                           const pc_redis_scripts *scripts, const char *id,
                           void (*answered)(void *ctx, const pc_err *why), void *ctx);
void pc_redis_settler_fini(pc_redis_settler *settler);
int pc_redis_settler_put(pc_redis_settler *settler, uint64_t number, pc_redis_fate fate,
                         pc_err *err);
/* Sends what was not sent. */
int pc_redis_settler_write(pc_redis_settler *settler, pc_err *err);
/* The connection is lost. */
void pc_redis_settler_rewind(pc_redis_settler *settler);

#endif
