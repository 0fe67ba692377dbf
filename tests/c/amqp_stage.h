/* SPDX-License-Identifier: BSD-3-Clause */
/* A queue of its own on a real AMQP broker, somebody who publishes to it and somebody who will consume from it. */
#ifndef PC_TESTS_AMQP_STAGE_H
#define PC_TESTS_AMQP_STAGE_H

#include "amqp_fixture.h"

typedef struct amqp_stage {
    pc_broker_config config;
    char queue[64];
    pc_producer *producer;
    amqp_sink *sink;  // not connected
} amqp_stage;

/* With so many messages in the queue: "0", "1" … */
void amqp_stage_init(amqp_stage *stage, int messages);
/* Ends the consumer; so many messages must be left, and are removed with the queue. */
void amqp_stage_fini(amqp_stage *stage, int left);

void amqp_declare(pc_producer *producer, const char *queue);
void amqp_publish(pc_producer *producer, const char *queue, int n);
/* Messages that are ready. */
int amqp_size(pc_producer *producer, const char *queue);
void amqp_remove(pc_producer *producer, const char *queue);

/* The i-th message that the consumer holds. */
void amqp_settle(amqp_sink *sink, int i, pc_settle how);
void amqp_add_queue(amqp_sink *sink, const pc_queue *queue);

#endif
