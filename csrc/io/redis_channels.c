/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_channels.h"

void
pc_redis_channels_begin(pc_redis_channels *channels, pc_redis *conn, const char *verb)
{
    channels->conn = conn;
    channels->argv[0] = pc_slice_str(verb);
    channels->argc = 1;
}

int
pc_redis_channels_flush(pc_redis_channels *channels, pc_err *err)
{
    int rc = 0;
    if (channels->argc > 1) {
        rc = pc_redis_subscribe(channels->conn, channels->argc, channels->argv, err);
    }
    channels->argc = 1;
    return rc;
}

int
pc_redis_channels_add(pc_redis_channels *channels, pc_slice channel, pc_err *err)
{
    channels->argv[channels->argc++] = channel;
    bool full = channels->argc == PC_REDIS_CHANNELS + 1;
    return full ? pc_redis_channels_flush(channels, err) : 0;
}
