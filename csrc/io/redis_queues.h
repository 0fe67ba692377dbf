/* SPDX-License-Identifier: BSD-3-Clause */
/* The queues a Redis source consumes, in the order in which they are asked (queue_order_strategy). */
#ifndef PC_IO_REDIS_QUEUES_H
#define PC_IO_REDIS_QUEUES_H

#include "base/list.h"
#include "io/redis_args.h"
#include "io/redis_names.h"

typedef enum pc_redis_order { PC_ORDER_ROUND_ROBIN, PC_ORDER_PRIORITY, PC_ORDER_SORTED } pc_redis_order;

typedef struct pc_redis_consumer {
    pc_link link;
    pc_queue *queue;
    pc_buf tail;  // `, "", "<queue>"]`: what completes a text in `unacked`; empty when not booked
} pc_redis_consumer;

typedef struct pc_redis_queues {
    pc_link list;
    size_t len;
    pc_redis_order order;
    // --
    pc_redis_consumer **asked;  // by the claim under way, NULL when dropped since
    size_t nasked;
    size_t cap;
} pc_redis_queues;

/* `order` NULL: round_robin. */
int pc_redis_queues_init(pc_redis_queues *queues, const char *order, pc_err *err);
void pc_redis_queues_fini(pc_redis_queues *queues);

pc_redis_consumer *pc_redis_queues_find(const pc_redis_queues *queues, const char *name);
pc_redis_consumer *pc_redis_queues_add(pc_redis_queues *queues, const pc_queue *queue, pc_err *err);
void pc_redis_queues_drop(pc_redis_queues *queues, pc_redis_consumer *consumer);

/* Remembers the order that a claim is sent with. */
int pc_redis_queues_ask(pc_redis_queues *queues, pc_err *err);
/* A message came from this place (1: first) of that order: with round_robin that queue goes to the
 * end. NULL: it was dropped since. */
pc_redis_consumer *pc_redis_queues_served(pc_redis_queues *queues, int64_t place);

/* Adds the lists of all, priority by priority. */
void pc_redis_queues_put_lists(const pc_redis_queues *queues, const pc_redis_names *names,
                               pc_redis_args *args);
void pc_redis_queues_put_tails(const pc_redis_queues *queues, pc_redis_args *args);

#endif
