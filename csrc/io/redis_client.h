/* SPDX-License-Identifier: BSD-3-Clause */
/* A blocking Redis client for any number of threads: one connection, commands of different
 * threads share it (their groups never interleave). It connects when first used, and again
 * when a connection was lost. */
#ifndef PC_IO_REDIS_CLIENT_H
#define PC_IO_REDIS_CLIENT_H

#include "base/clock.h"
#include "io/redis_config.h"
#include "io/redis_reply.h"

typedef struct pc_redis_cmd {
    size_t argc;
    const pc_slice *argv;
} pc_redis_cmd;

#define PC_REDIS_TRANSACTION 1u  // MULTI, commands, EXEC
#define PC_REDIS_ONCE 2u         // not sent again when the connection is lost

typedef struct pc_redis_client pc_redis_client;

/* Copies the configuration; doesn't connect. */
pc_redis_client *pc_redis_client_new(const pc_redis_config *config, pc_err *err);
/* Nobody may be inside run(). */
void pc_redis_client_free(pc_redis_client *client);
/* In a forked child: closes the descriptor, speaks no protocol. Only free() may follow. */
void pc_redis_client_abandon(pc_redis_client *client);

/* Sends n commands as one group and waits for all answers. On success *replies (may be NULL)
 * is an array of the n answers, in order, and the caller's (pc_reply_free). When the
 * connection is lost meanwhile the group is sent a second time, unless PC_REDIS_ONCE. -1:
 * PC_EIO no connection, lost, or the server cannot serve now (LOADING, READONLY); PC_ETIMEOUT
 * the deadline passed, the commands may still be executed; PC_ESTATE with *eintr (may be NULL)
 * set: a signal came; else the first error answer, as pc_redis_code says. Without
 * PC_REDIS_TRANSACTION the commands after a refused one are executed nevertheless. */
int pc_redis_client_run(pc_redis_client *client, const pc_redis_cmd *commands, size_t n,
                        unsigned flags, pc_reply **replies, pc_mono deadline, bool *eintr,
                        pc_err *err);
/* The same with GET of one key: *answer is the array with its value. */
int pc_redis_client_get(pc_redis_client *client, pc_slice key, pc_reply **answer, pc_mono deadline,
                        bool *eintr, pc_err *err);

#endif
