/* SPDX-License-Identifier: BSD-3-Clause */
/* Results as messages in Redis: each is pushed to the list of the client's reply queue, as kombu's
 * transport does with what is sent to the default exchange. */
#ifndef PC_IO_REDIS_REPLIES_H
#define PC_IO_REDIS_REPLIES_H

#include "base/uuid.h"
#include "io/redis_names.h"
#include "io/store.h"

typedef struct pc_redis_replies {
    pc_redis_names names;
    pc_uuid_series tags;
    bool persistent;
    pc_buf list;      // where the result written last goes
    pc_buf envelope;  // and what it is
} pc_redis_replies;

/* On failure fini() is allowed, as on a zeroed struct. */
int pc_redis_replies_init(pc_redis_replies *replies, const pc_store_config *config, pc_err *err);
void pc_redis_replies_fini(pc_redis_replies *replies);
/* Into `list` and `envelope`, which stay until the next call. */
int pc_redis_replies_write(pc_redis_replies *replies, const pc_store_item *item, pc_err *err);

#endif
