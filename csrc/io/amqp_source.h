/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the AMQP source, shared by source_amqp.c and amqp_depth.c. Nobody else includes this. */
#ifndef PC_IO_AMQP_SOURCE_H
#define PC_IO_AMQP_SOURCE_H

#include "io/amqp_acks.h"
#include "io/amqp_conn.h"
#include "io/amqp_park.h"
#include "io/broker.h"

typedef struct pc_amqp_consumer {
    pc_link link;
    pc_queue *queue;
    char tag[24];
    unsigned number;        // in the tag
    size_t tag_len;
    bool per_consumer_qos;  // a kind of queue that refuses global prefetch
    bool leaving;           // cancelled by us, cancel-ok awaited
} pc_amqp_consumer;

typedef struct pc_amqp_source {
    pc_source base;
    pc_loop *loop;
    pc_amqp_conn conn;
    pc_amqp_acks acks;
    pc_amqp_park park;
    pc_broker_config *next;  // for the next connect(), or NULL
    const pc_amqp_consumer *delivering;  // inside message()
    pc_link consumers;
    unsigned serial;  // for consumer tags
    uint64_t epoch;   // of the tags, 16 bits
    unsigned prefetch;
    bool prefetch_changed;
    bool no_global_qos;  // the server refused it once
    bool paused;
    bool is_up;
    unsigned awaited;  // replies until up()
    unsigned looked;   // number of the consumer whose queue is looked at, 0: none
    pc_defer flush;
} pc_amqp_source;

/* amqp_depth.c; look() of the source. */
void pc_amqp_source_look(pc_source *base);

#endif
