/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-memory broker of one process: named queues, exchanges and results, shared by sources,
 * producers and stores on any thread. pc_hub_new and pc_hub_free are in broker.h; the hub outlives
 * all that use it. */
#ifndef PC_IO_MEMORY_HUB_H
#define PC_IO_MEMORY_HUB_H

#include <pthread.h>

#include "base/list.h"
#include "io/broker.h"
#include "io/memory_docs.h"
#include "io/memory_route.h"

#define PC_HUB_PRIORITIES 10

typedef struct pc_hub_queue {
    uint64_t ready;                    // messages in `lanes`
    pc_link lanes[PC_HUB_PRIORITIES];  // by priority, each first in first out
    pc_link subs;                      // of pc_hub_sub
    uint64_t sub_count;
    bool auto_delete;
    bool deleted;  // lives on for its messages' and subs' sake
    // --
    unsigned refs;   // the hub's table, subs and messages that were taken
    pc_link chosen;  // in the list of targets while a message is routed
    size_t name_len;
    char name[];
} pc_hub_queue;

/* A message on its way; belongs to its queue, or to who took it. */
typedef struct pc_hub_message {
    pc_link link;  // in a lane, or for the taker's use
    pc_hub_queue *queue;
    pc_message message;  // points into `bytes`
    char bytes[];
} pc_hub_message;

/* A consumer of one queue, embedded in its owner's struct. */
typedef struct pc_hub_sub {
    pc_link link;  // in queue->subs
    pc_hub_queue *queue;
    /* Something may be there to take, or the queue was deleted. Called with the hub locked, from
     * any thread. */
    void (*notify)(void *ctx);
    void *ctx;
} pc_hub_sub;

struct pc_hub {
    pthread_mutex_t lock;
    bool sealed;
    pc_map queues;  // name -> pc_hub_queue
    pc_routes routes;
    pc_docs docs;
};

/* In a forked child, after all that use it were abandoned: as new. What is in it is the parent's, who may have been changing it
 * when it forked, and is left as it is. */
void pc_hub_abandon(pc_hub *hub);
/* From now on nothing can be published or declared: nobody in this process would take it out. */
void pc_hub_seal(pc_hub *hub);

/* All of these lock the hub themselves. */

/* Queue, exchange and binding as far as given; an empty name declares the exchange alone. With
 * `passive` or `no_declare` nothing is made: PC_ENOTFOUND when it is not there. */
int pc_hub_declare(pc_hub *hub, const pc_queue *queue, pc_err *err);
/* Copies the message to every queue it is routed to. Routed nowhere: dropped, or PC_ENOTFOUND with
 * `mandatory`. */
int pc_hub_publish(pc_hub *hub, const pc_message *message, bool mandatory, pc_err *err);
/* All under one lock; stops at the first failure, *done are published. */
int pc_hub_publish_many(pc_hub *hub, const pc_outgoing *messages, size_t n, size_t *done,
                        pc_err *err);
int pc_hub_subscribe(pc_hub *hub, pc_hub_sub *sub, const char *name, pc_err *err);
/* The last consumer takes an auto-delete queue with it. Does nothing when not subscribed. */
void pc_hub_unsubscribe(pc_hub *hub, pc_hub_sub *sub);
/* Hands over the next message, NULL when there is none. */
pc_hub_message *pc_hub_take(pc_hub *hub, const pc_hub_sub *sub);
/* The same from a queue by name; PC_ENOTFOUND. */
int pc_hub_take_from(pc_hub *hub, const char *name, pc_hub_message **out, pc_err *err);
/* The queue was deleted under its consumer. */
bool pc_hub_is_deleted(pc_hub *hub, const pc_hub_sub *sub);
/* Consumes a message that was taken: back to the front, marked as redelivered. */
void pc_hub_requeue(pc_hub *hub, pc_hub_message *message);
/* Consumes a message that was taken. */
void pc_hub_drop(pc_hub *hub, pc_hub_message *message);
int pc_hub_size(pc_hub *hub, const char *name, uint64_t *messages, uint64_t *consumers,
                pc_err *err);
int pc_hub_purge(pc_hub *hub, const char *name, uint64_t *messages, pc_err *err);
/* Its consumers are notified and find queue->deleted. */
int pc_hub_remove(pc_hub *hub, const char *name, pc_err *err);
/* Stores a result document; `expires` in seconds, 0: never. */
int pc_hub_put_doc(pc_hub *hub, pc_slice id, pc_slice text, bool success, double expires,
                   pc_err *err);

#endif
