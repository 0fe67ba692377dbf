/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the AMQP source, shared by source_amqp.c, amqp_consumer.c and amqp_depth.c. Nobody else includes this. */
#ifndef PC_IO_AMQP_SOURCE_H
#define PC_IO_AMQP_SOURCE_H

#include "io/amqp_acks.h"
#include "io/amqp_conn.h"
#include "io/amqp_park.h"
#include "io/amqp_settled.h"
#include "io/broker.h"

typedef struct pc_amqp_consumer {
    pc_link link;
    pc_queue *queue;
    char tag[24];
    unsigned number;        // in the tag
    size_t tag_len;
    bool per_consumer_qos;  // a kind of queue that refuses global prefetch
    bool leaving;           // cancelled by us, cancel-ok awaited
    bool on_trial;          // added while others were consumed, and not accepted yet: a refusal costs it alone
} pc_amqp_consumer;

typedef struct pc_amqp_source {
    pc_source base;
    pc_loop *loop;
    pc_amqp_conn conn;
    pc_amqp_acks acks;
    pc_amqp_settled settled;
    pc_amqp_park park;
    pc_broker_config *next;  // for the next connect(), or NULL
    const pc_amqp_consumer *delivering;  // inside message()
    pc_link consumers;
    pc_amqp_consumer *trial;  // under way, or NULL
    bool trial_alone;         // nothing else that may be refused is
    unsigned serial;  // for consumer tags
    uint64_t epoch;   // of the tags, 16 bits
    unsigned prefetch;
    bool prefetch_changed;
    bool no_global_qos;  // the server refused it once
    bool paused;
    bool is_up;
    bool was_up;     // once
    bool reviving;   // inside cancelled()
    unsigned awaited;  // replies until up()
    unsigned looked;   // number of the consumer whose queue is looked at, 0: none
    pc_defer flush;
} pc_amqp_source;

/* A queue of a kind that a channel with global prefetch cannot consume. */
static inline bool
pc_amqp_wants_no_global_qos(const pc_err *why)
{
    return strstr(why->msg, "global qos") != NULL;
}

pc_amqp_consumer *pc_amqp_consumer_new(pc_amqp_source *src, const pc_queue *queue, pc_err *err);
void pc_amqp_consumer_free(pc_amqp_source *src, pc_amqp_consumer *consumer);
pc_amqp_consumer *pc_amqp_consumer_of_tag(const pc_amqp_source *src, pc_slice tag);
/* Not those that leave. */
pc_amqp_consumer *pc_amqp_consumer_named(const pc_amqp_source *src, const char *name);
/* The broker has not heard of it on this connection. */
bool pc_amqp_consumer_waits(const pc_amqp_source *src, const pc_amqp_consumer *consumer);
/* Declares and consumes; done() for each of the src->awaited replies. */
int pc_amqp_consumer_write(pc_amqp_source *src, const pc_amqp_consumer *consumer, pc_amqp_reply *done, pc_err *err);

/* While no other is under way. */
int pc_amqp_trial_begin(pc_amqp_source *src, pc_amqp_consumer *consumer, pc_amqp_reply *done, pc_err *err);
/* Begins that of the next one that waits, if it may be. */
void pc_amqp_trial_next(pc_amqp_source *src, pc_amqp_reply *done);
/* A consumer was accepted. */
void pc_amqp_trial_passed(pc_amqp_source *src, pc_slice tag);
/* Channel or connection are closed over `culprit`: the consumer on trial goes if that was its own. *why becomes what the
 * others are to be told. */
void pc_amqp_trial_blame(pc_amqp_source *src, uint32_t culprit, pc_err *why);

/* amqp_depth.c; look() of the source. */
void pc_amqp_source_look(pc_source *base);

#endif
