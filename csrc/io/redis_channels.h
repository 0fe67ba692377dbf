/* SPDX-License-Identifier: BSD-3-Clause */
/* SUBSCRIBE and UNSUBSCRIBE of many channels in few commands. */
#ifndef PC_IO_REDIS_CHANNELS_H
#define PC_IO_REDIS_CHANNELS_H

#include "io/redis_conn.h"

#define PC_REDIS_CHANNELS 256  // in one command

/* On the stack; channels are lent until the flush. */
typedef struct pc_redis_channels {
    pc_redis *conn;
    size_t argc;
    pc_slice argv[PC_REDIS_CHANNELS + 1];
} pc_redis_channels;

void pc_redis_channels_begin(pc_redis_channels *channels, pc_redis *conn, const char *verb);
/* Sends a command when it is full. */
int pc_redis_channels_add(pc_redis_channels *channels, pc_slice channel, pc_err *err);
/* Sends what is left. */
int pc_redis_channels_flush(pc_redis_channels *channels, pc_err *err);

#endif
