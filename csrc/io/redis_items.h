/* SPDX-License-Identifier: BSD-3-Clause */
/* The messages that a pc_redis_sender keeps until the server has answered; no connection in here. */
#ifndef PC_IO_REDIS_ITEMS_H
#define PC_IO_REDIS_ITEMS_H

#include "io/redis_sender.h"

/* A thread that waits for its messages; on its stack. */
typedef struct pc_redis_waiter {
    size_t open;  // not answered yet
    bool failed;
    pc_err err;   // the first
} pc_redis_waiter;

typedef struct pc_redis_item {
    pc_link link;
    pc_redis_sender *sender;
    pc_redis_waiter *waiter;  // on the stack of the thread that waits; NULL: nobody
    bool sent;
    bool kept;       // in `items`; false with confirm 0: in `fired`
    bool mandatory;
    uint64_t serial;  // bytes_put behind it
    size_t size;
    char command[];  // as it is sent
} pc_redis_item;

/* In no list yet. PC_ELIMIT: larger than Redis takes. */
pc_redis_item *pc_redis_item_new(pc_redis_sender *sender, const pc_redis_args *args, pc_err *err);
void pc_redis_item_drop(pc_redis_item *item);
/* To be sent (again). */
void pc_redis_item_unsend(pc_redis_item *item);
/* Never will be taken; drops it. */
void pc_redis_item_refuse(pc_redis_item *item, const pc_err *why);
/* Was taken; drops it. */
void pc_redis_item_confirm(pc_redis_item *item, const pc_reply *reply);

/* Takes back what was not sent, and lets nobody wait for the rest any more. Returns how many were taken
 * back. */
size_t pc_redis_items_take_back(pc_redis_sender *sender, const pc_redis_waiter *waiter);
/* The same for the one message with this serial. */
void pc_redis_items_drop_unsent(pc_redis_sender *sender, uint64_t serial);

#endif
