/* SPDX-License-Identifier: BSD-3-Clause */
#include "amqp_stage.h"

#include <stdio.h>

#include "harness.h"

void
amqp_stage_init(amqp_stage *s, int messages)
{
    s->config = amqp_config();
    amqp_queue_name(s->queue, "pc-test");
    s->producer = amqp_producer(&s->config);
    amqp_declare(s->producer, s->queue);
    amqp_publish(s->producer, s->queue, messages);
    s->sink = amqp_sink_new(&s->config);
}

void
amqp_stage_fini(amqp_stage *s, int left)
{
    amqp_sink_end(s->sink);
    PC_ASSERT_INT(amqp_size(s->producer, s->queue), left);
    amqp_producer_end(s->producer, s->queue);
}

void
amqp_declare(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    pc_queue what = amqp_queue(queue);
    PC_ASSERT(producer->ops->declare(producer, &what, in_seconds(5), &err) == 0, "%s", err.msg);
}

void
amqp_publish(pc_producer *producer, const char *queue, int n)
{
    pc_err err = {0};
    for (int i = 0; i < n; i++) {
        char body[32];
        int len = snprintf(body, sizeof body, "%d", i);
        pc_message message = amqp_message(queue, body, (size_t)len);
        int rc = producer->ops->publish(producer, &message, false, (pc_wall){0}, false, in_seconds(5),
                                        &err);
        PC_ASSERT(rc == 0, "message %d: %s", i, err.msg);
    }
    PC_ASSERT(producer->ops->flush(producer, in_seconds(5), &err) == 0, "%s", err.msg);
}

int
amqp_size(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    uint64_t messages = 0;
    uint64_t consumers = 0;
    int rc = producer->ops->size(producer, queue, &messages, &consumers, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    return (int)messages;
}

void
amqp_remove(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    PC_ASSERT(producer->ops->remove(producer, queue, in_seconds(5), &err) == 0, "%s", err.msg);
}

void
amqp_settle(amqp_sink *sink, int i, pc_settle how)
{
    pc_err err = {0};
    PC_ASSERT(sink->source->ops->settle(sink->source, sink->tags[i], how, &err) == 0, "%s",
              err.msg);
}

void
amqp_add_queue(amqp_sink *sink, const pc_queue *queue)
{
    pc_err err = {0};
    PC_ASSERT(sink->source->ops->add_queue(sink->source, queue, &err) == 0, "%s", err.msg);
}
