/* SPDX-License-Identifier: BSD-3-Clause */
/* Who gets the next replies of a Redis connection: a ring that grows. */
#ifndef PC_IO_REDIS_FIFO_H
#define PC_IO_REDIS_FIFO_H

#include "io/redis_reply.h"

/* `reply` is lent until the callback returns (see pc_redis_take_reply); NULL with `why` when
 * the connection was lost first: the command may or may not have been executed. */
typedef void pc_redis_callback(void *ctx, const pc_reply *reply, const pc_err *why);

typedef struct pc_redis_expect {
    pc_redis_callback *callback;  // NULL: the reply is dropped
    void *ctx;
} pc_redis_expect;

typedef struct pc_redis_fifo {
    pc_redis_expect *ring;
    size_t cap;  // 0 or a power of two
    size_t first;
    size_t count;
} pc_redis_fifo;

void pc_redis_fifo_fini(pc_redis_fifo *fifo);
/* Room for one more, so that put cannot fail. */
int pc_redis_fifo_reserve(pc_redis_fifo *fifo, pc_err *err);
void pc_redis_fifo_put(pc_redis_fifo *fifo, pc_redis_expect expect);
/* Only when count > 0. */
pc_redis_expect pc_redis_fifo_take(pc_redis_fifo *fifo);

#endif
