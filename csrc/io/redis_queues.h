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
    uint32_t id;  // not used again
    pc_queue *queue;
    pc_buf tail;  // `, "", "<queue>"]`: what completes a text in `unacked`; empty when not booked
    pc_buf channel;  // pattern of the channels of a fanout exchange; else empty
} pc_redis_consumer;

typedef struct pc_redis_queues {
    pc_link list;
    size_t len;
    pc_redis_order order;
    uint32_t last_id;
} pc_redis_queues;

/* The order that a claim was sent with: ids of consumers, of which some may be gone by now. */
typedef struct pc_redis_asked {
    uint32_t *ids;
    size_t len;
    size_t cap;
} pc_redis_asked;

/* `order` NULL: round_robin. */
int pc_redis_queues_init(pc_redis_queues *queues, const char *order, pc_err *err);
void pc_redis_queues_fini(pc_redis_queues *queues);

pc_redis_consumer *pc_redis_queues_find(const pc_redis_queues *queues, const char *name);
pc_redis_consumer *pc_redis_queues_add(pc_redis_queues *queues, const pc_redis_names *names,
                                       const pc_queue *queue, pc_err *err);
void pc_redis_queues_drop(pc_redis_queues *queues, pc_redis_consumer *consumer);

int pc_redis_asked_set(pc_redis_asked *asked, const pc_redis_queues *queues, pc_err *err);
void pc_redis_asked_fini(pc_redis_asked *asked);
/* A message came from this place (1: first) of that order: with round_robin that queue goes to the
 * end. NULL: it was dropped since. */
pc_redis_consumer *pc_redis_queues_served(pc_redis_queues *queues, const pc_redis_asked *asked,
                                          int64_t place);

/* Adds the lists of all, priority by priority. */
void pc_redis_queues_put_lists(const pc_redis_queues *queues, const pc_redis_names *names,
                               pc_redis_args *args);
void pc_redis_queues_put_tails(const pc_redis_queues *queues, pc_redis_args *args);

#endif
