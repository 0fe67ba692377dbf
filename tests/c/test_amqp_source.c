/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a real RabbitMQ. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "amqp_fixture.h"
#include "base/mem.h"
#include "harness.h"
#include "wire/table.h"

static void
publish_n(pc_producer *producer, const char *queue, int n)
{
    pc_err err = {0};
    pc_wall never = {0};
    for (int i = 0; i < n; i++) {
        char body[32];
        int len = snprintf(body, sizeof body, "%d", i);
        pc_message message = amqp_message(queue, body, (size_t)len);
        int rc = producer->ops->publish(producer, &message, false, never, false, in_seconds(5), &err);
        PC_ASSERT(rc == 0, "message %d: %s", i, err.msg);
    }
    PC_ASSERT(producer->ops->flush(producer, in_seconds(5), &err) == 0, "%s", err.msg);
}

static uint64_t
size_of(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    uint64_t messages = 0;
    uint64_t consumers = 0;
    int rc = producer->ops->size(producer, queue, &messages, &consumers, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    return messages;
}

static void
declare(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    pc_queue what = amqp_queue(queue);
    PC_ASSERT(producer->ops->declare(producer, &what, in_seconds(5), &err) == 0, "%s", err.msg);
}

static void
expect_order(amqp_sink *sink, const pc_message *message)
{
    char want[32];
    snprintf(want, sizeof want, "%d", sink->count - 1);
    PC_ASSERT(pc_slice_is(message->body, want), "%.*s instead of %s", (int)message->body.len,
              message->body.ptr, want);
}

void
test_amqp_20000_messages_arrive_in_order_and_are_settled(void)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 20000);
    PC_ASSERT_INT(producer->ops->unconfirmed(producer), 0);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->see = expect_order;
    amqp_sink_start(sink, queue, 500);
    amqp_turn_until(sink->loop, &sink->count, 20000);
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT_INT(sink->count, 20000);
    PC_ASSERT_INT(sink->downs, 0);
    PC_ASSERT_INT(sink->source->version_major > 0, 1);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 0);
    amqp_producer_end(producer, queue);
}
