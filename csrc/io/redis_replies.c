/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_replies.h"

#include "io/result_message.h"
#include "wire/envelope.h"

#define KEEP ((size_t)64 * 1024)

int
pc_redis_replies_init(pc_redis_replies *replies, const pc_store_config *config, pc_err *err)
{
    *replies = (pc_redis_replies){.persistent = config->persistent};
    pc_buf_init(&replies->list);
    pc_buf_init(&replies->envelope);
    if (config->broker == NULL) {
        return pc_fail(err, PC_EDATA, "results as messages in Redis need the broker's configuration");
    }
    return pc_redis_names_init(&replies->names, config->broker, err);
}

void
pc_redis_replies_fini(pc_redis_replies *replies)
{
    pc_redis_names_fini(&replies->names);
    pc_buf_fini(&replies->list);
    pc_buf_fini(&replies->envelope);
}

int
pc_redis_replies_write(pc_redis_replies *replies, const pc_store_item *item, pc_err *err)
{
    pc_message message;
    char tag[PC_UUID_LEN + 1];
    pc_result_message(item, replies->persistent, &message);
    pc_buf_reset(&replies->list, KEEP);
    pc_buf_reset(&replies->envelope, KEEP);
    int step = pc_redis_names_step(&replies->names, message.priority);
    if (pc_redis_put_list(&replies->names, message.routing_key, step, &replies->list, err) < 0
        || pc_uuid_next(&replies->tags, tag, err) < 0) {
        return -1;
    }
    return pc_envelope_write(&message, pc_slice_of(tag, PC_UUID_LEN), &replies->envelope, err);
}
