/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes replies of the bytes that a Redis server sends. redis_reader.c is the only file that knows
 * hiredis, which does the reading. */
#ifndef PC_IO_REDIS_READER_H
#define PC_IO_REDIS_READER_H

#include "base/buf.h"
#include "io/redis_reply.h"

typedef struct pc_redis_reader pc_redis_reader;

pc_redis_reader *pc_redis_reader_new(pc_err *err);
void pc_redis_reader_free(pc_redis_reader *reader);
int pc_redis_reader_feed(pc_redis_reader *reader, pc_slice bytes, pc_err *err);
/* *reply is the caller's; NULL when none is complete. PC_EPROTO: the bytes are no replies; the reader is
 * of no use any more. */
int pc_redis_reader_next(pc_redis_reader *reader, pc_reply **reply, pc_err *err);

#endif
