/* SPDX-License-Identifier: BSD-3-Clause */
/* The queues of an AMQP source: added, dropped, deleted, refused. */
#include <stdio.h>

#include "amqp_stage.h"
#include "harness.h"

void
test_amqp_queue_deleted_under_the_consumer(void)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, queue, 0);
    pc_producer *producer = amqp_producer(&config);
    amqp_remove(producer, queue);
    amqp_turn_until(sink->loop, &sink->cancels, 1);
    PC_ASSERT_STR(sink->cancelled, queue);
    pc_queue again = amqp_queue(queue);
    amqp_add_queue(sink, &again);
    amqp_turn_for(sink->loop, 0.05);
    amqp_publish(producer, queue, 1);
    amqp_turn_until(sink->loop, &sink->count, 1);
    PC_ASSERT_INT(sink->downs, 0);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}

void
test_amqp_queues_are_added_and_dropped_while_up(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char names[2][64];
    amqp_queue_name(names[0], "pc-test");
    amqp_queue_name(names[1], "pc-test");
    pc_producer *producer = amqp_producer(&config);
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, names[0], 0);
    pc_queue second = amqp_queue(names[1]);
    second.exchange = "amq.topic";
    second.exchange_type = "topic";
    second.routing_key = names[1];
    amqp_add_queue(sink, &second);
    amqp_turn_for(sink->loop, 0.1);
    amqp_publish(producer, names[1], 3);
    amqp_turn_until(sink->loop, &sink->count, 3);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, names[1], &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    amqp_publish(producer, names[1], 2);
    amqp_publish(producer, names[0], 1);
    amqp_turn_until(sink->loop, &sink->count, 4);
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT_INT(sink->count, 4);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "nobody knows it", &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    PC_ASSERT_INT(amqp_size(producer, names[1]), 2);
    amqp_sink_end(sink);
    amqp_remove(producer, names[0]);
    amqp_producer_end(producer, names[1]);
}

void
test_amqp_a_declaration_that_differs_brings_the_source_down(void)
{
    pc_err err = {0};
    amqp_stage s;
    amqp_stage_init(&s, 0);
    pc_queue what = amqp_queue(s.queue);
    what.durable = true;
    amqp_add_queue(s.sink, &what);
    PC_ASSERT_INT(s.sink->source->ops->connect(s.sink->source, &err), 0);
    amqp_turn_until(s.sink->loop, &s.sink->downs, 1);
    PC_ASSERT_INT(s.sink->ups, 0);
    PC_ASSERT(strstr(s.sink->why.msg, "406") != NULL, "%s", s.sink->why.msg);
    PC_ASSERT(s.sink->source->refused);
    amqp_stage_fini(&s, 0);
}

/* Queues answer basic.consume in their own time: the replies don't keep the order of the questions.
 */
void
test_amqp_many_queues_are_consumed_at_once(void)
{
    enum { N = 30 };
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char names[N][64];
    amqp_sink *sink = amqp_sink_new(&config);
    pc_producer *producer = amqp_producer(&config);
    for (int i = 0; i < N; i++) {
        amqp_queue_name(names[i], "pc-test");
        pc_queue what = amqp_queue(names[i]);
        what.auto_delete = true;
        what.exchange = "amq.direct";
        what.routing_key = names[i];
        amqp_add_queue(sink, &what);
    }
    amqp_sink_start(sink, NULL, 10);
    for (int i = 0; i < N; i++) {
        amqp_publish(producer, names[i], 1);
    }
    amqp_turn_until(sink->loop, &sink->count, N);
    PC_ASSERT_INT(sink->source->ops->pause(sink->source, &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_sink_end(sink);
    amqp_producer_end(producer, NULL);
}

static const char quorum[] = "\14x-queue-typeS\0\0\0\6quorum";

/* Global prefetch is refused for quorum queues: known from the arguments, or learnt. */
void
test_amqp_quorum_queues_get_prefetch_per_consumer(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    pc_queue what = amqp_queue(queue);
    what.durable = true;
    what.queue_arguments = pc_slice_of(quorum, sizeof quorum - 1);
    PC_ASSERT(producer->ops->declare(producer, &what, in_seconds(10), &err) == 0, "%s", err.msg);
    amqp_publish(producer, queue, 20);
    for (int blind = 0; blind <= 1; blind++) {
        amqp_sink *sink = amqp_sink_new(&config);
        sink->hold = true;
        what.no_declare = blind;
        what.queue_arguments.len = blind ? 0 : sizeof quorum - 1;
        amqp_add_queue(sink, &what);
        if (blind) {
            PC_ASSERT_INT(sink->source->ops->prefetch(sink->source, 4, &err), 0);
            PC_ASSERT_INT(sink->source->ops->connect(sink->source, &err), 0);
            amqp_turn_until(sink->loop, &sink->downs, 1);
        }
        amqp_sink_start(sink, NULL, 4);
        amqp_turn_until(sink->loop, &sink->count, 4);
        amqp_turn_for(sink->loop, 0.1);
        PC_ASSERT(sink->count == 4 && !sink->source->global_qos, "%d", sink->count);
        amqp_sink_end(sink);
    }
    amqp_producer_end(producer, queue);
}

void
test_amqp_no_ack_consumers_need_no_settling(void)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    char other[64];
    amqp_queue_name(queue, "pc-test");
    amqp_queue_name(other, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    amqp_declare(producer, queue);
    amqp_declare(producer, other);
    amqp_publish(producer, queue, 100);
    amqp_publish(producer, other, 100);
    amqp_sink *sink = amqp_sink_new(&config);
    pc_queue what = amqp_queue(queue);
    what.no_ack = true;
    amqp_add_queue(sink, &what);
    amqp_sink_start(sink, other, 10);
    amqp_turn_until(sink->loop, &sink->count, 200);
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_sink_end(sink);
    PC_ASSERT_INT(amqp_size(producer, queue), 0);
    PC_ASSERT_INT(amqp_size(producer, other), 0);
    amqp_remove(producer, other);
    amqp_producer_end(producer, queue);
}

/* ---- refused later on ---- */

/* The broker closes the channel, or with an exchange of no known kind the connection. */
static void
expect_refusal(amqp_stage *s, const pc_queue *bad, const char *why)
{
    int refusals = s->sink->refusals;
    int downs = s->sink->downs;
    int count = s->sink->count;
    amqp_add_queue(s->sink, bad);
    amqp_turn_until(s->sink->loop, &s->sink->downs, downs + 1);
    PC_ASSERT_INT(s->sink->refusals, refusals + 1);
    PC_ASSERT(strstr(s->sink->refused, bad->name) == s->sink->refused && strstr(s->sink->refused, why) != NULL, "%s",
              s->sink->refused);
    PC_ASSERT(strstr(s->sink->why.msg, bad->name) != NULL, "%s", s->sink->why.msg);
    amqp_sink_start(s->sink, NULL, 0);
    amqp_publish(s->producer, s->queue, 1);
    amqp_turn_until(s->sink->loop, &s->sink->count, count + 1);
    amqp_turn_for(s->sink->loop, 0.1);
    PC_ASSERT_INT(s->sink->downs, downs + 1);
    PC_ASSERT_INT(s->sink->source->ops->drop_queue(s->sink->source, bad->name, NULL), -1);
}

void
test_amqp_a_queue_that_is_refused_later_on_costs_the_others_nothing_more(void)
{
    amqp_stage s;
    char other[64];
    amqp_stage_init(&s, 0);
    amqp_queue_name(other, "pc-test");
    amqp_declare(s.producer, other);
    amqp_sink_start(s.sink, s.queue, 0);
    pc_queue bad = amqp_queue(other);
    bad.durable = true;
    expect_refusal(&s, &bad, "406");
    bad = amqp_queue("pc-test-is-not-there");
    bad.no_declare = true;
    expect_refusal(&s, &bad, "404");
    bad.no_declare = false;
    bad.exchange = "pc-test-is-not-there";
    bad.exchange_type = "odd";
    expect_refusal(&s, &bad, "503");
    amqp_remove(s.producer, other);
    amqp_stage_fini(&s, 0);
}

/* Many at once, some of them good; also while the connection is away. */
void
test_amqp_queues_that_are_added_later_on_are_tried_one_by_one(void)
{
    enum { N = 8 };
    amqp_stage s;
    char names[N][64];
    amqp_stage_init(&s, 0);
    amqp_sink_start(s.sink, s.queue, 0);
    for (int i = 0; i < N; i++) {
        amqp_queue_name(names[i], "pc-test");
        amqp_declare(s.producer, names[i]);
        pc_queue what = amqp_queue(names[i]);
        what.durable = i % 4 == 1;  // and so refused
        amqp_add_queue(s.sink, &what);
    }
    PC_ASSERT_INT(s.sink->source->ops->drop_queue(s.sink->source, names[7], NULL), 0);
    for (int i = 1; i <= 2; i++) {
        amqp_turn_until(s.sink->loop, &s.sink->downs, i);
        PC_ASSERT_INT(s.sink->refusals, i);
        amqp_sink_start(s.sink, NULL, 0);
    }
    for (int i = 0; i < N; i++) {
        amqp_publish(s.producer, names[i], 1);
    }
    amqp_turn_until(s.sink->loop, &s.sink->count, 5);
    amqp_turn_for(s.sink->loop, 0.1);
    PC_ASSERT_INT(s.sink->count, 5);
    PC_ASSERT_INT(s.sink->downs, 2);
    for (int i = 0; i < N; i++) {
        PC_ASSERT_INT(amqp_size(s.producer, names[i]), i % 4 == 1 || i == 7);
        amqp_remove(s.producer, names[i]);
    }
    amqp_stage_fini(&s, 0);
}

/* Learnt from the refusal, which is none of the queue: it is tried again without. */
void
test_amqp_a_quorum_queue_that_is_added_later_on_is_consumed(void)
{
    amqp_stage s;
    pc_err err = {0};
    char name[64];
    amqp_stage_init(&s, 0);
    amqp_queue_name(name, "pc-test");
    pc_queue what = amqp_queue(name);
    what.durable = true;
    what.queue_arguments = pc_slice_of(quorum, sizeof quorum - 1);
    PC_ASSERT(s.producer->ops->declare(s.producer, &what, in_seconds(10), &err) == 0, "%s", err.msg);
    amqp_sink_start(s.sink, s.queue, 4);
    if (s.sink->source->global_qos) {
        amqp_add_queue(s.sink, &what);
        amqp_turn_until(s.sink->loop, &s.sink->downs, 1);
        PC_ASSERT_INT(s.sink->refusals, 0);
        amqp_sink_start(s.sink, NULL, 4);
        amqp_publish(s.producer, name, 1);
        amqp_turn_until(s.sink->loop, &s.sink->count, 1);
    }
    amqp_remove(s.producer, name);
    amqp_stage_fini(&s, 0);
}

/* Somebody was faster to declare it, in another way. */
static void
add_again_in_vain(void *ctx, const char *queue)
{
    amqp_sink *sink = ctx;
    pc_queue again = amqp_queue(queue);
    amqp_declare(sink->see_ctx, queue);
    again.durable = true;
    sink->cancels++;
    amqp_add_queue(sink, &again);
}

/* What the owner adds again, after the broker cancelled it, is kept: that it is refused may be a moment's. */
void
test_amqp_a_queue_that_was_cancelled_is_not_given_up(void)
{
    amqp_stage s;
    amqp_stage_init(&s, 0);
    s.sink->source->hooks.cancelled = add_again_in_vain;
    s.sink->see_ctx = s.producer;
    amqp_sink_start(s.sink, s.queue, 0);
    amqp_remove(s.producer, s.queue);
    amqp_turn_until(s.sink->loop, &s.sink->downs, 1);
    PC_ASSERT(strstr(s.sink->why.msg, "406") != NULL, "%s", s.sink->why.msg);
    PC_ASSERT_INT(s.sink->refusals, 0);
    amqp_remove(s.producer, s.queue);
    amqp_sink_start(s.sink, NULL, 0);
    amqp_publish(s.producer, s.queue, 1);
    amqp_turn_until(s.sink->loop, &s.sink->count, 1);
    amqp_stage_fini(&s, 0);
}
