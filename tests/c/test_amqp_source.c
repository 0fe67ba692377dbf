/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a real RabbitMQ. */
#include <stdio.h>

#include "amqp_fixture.h"
#include "base/mem.h"
#include "harness.h"

static void
publish_n(pc_producer *producer, const char *queue, int n)
{
    pc_err err = {0};
    pc_wall never = {0};
    for (int i = 0; i < n; i++) {
        char body[32];
        int len = snprintf(body, sizeof body, "%d", i);
        pc_message message = amqp_message(queue, body, (size_t)len);
        int rc =
            producer->ops->publish(producer, &message, false, never, false, in_seconds(5), &err);
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

/* ---- settling ---- */

static void
settle_at(amqp_sink *sink, int i, pc_settle how)
{
    pc_err err = {0};
    PC_ASSERT(sink->source->ops->settle(sink->source, sink->tags[i], how, &err) == 0, "%s",
              err.msg);
}

/* Even ones first, then odd ones backwards: prefixes, gaps, single acks. */
void
test_amqp_acks_in_any_order(void)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 3000);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->hold = true;
    amqp_sink_start(sink, queue, 0);
    amqp_turn_until(sink->loop, &sink->count, 3000);
    for (int i = 0; i < 3000; i += 2) {
        settle_at(sink, i, i % 10 == 0 ? PC_REJECT : PC_ACK);
    }
    amqp_turn_for(sink->loop, 0.05);
    for (int i = 2999; i > 0; i -= 2) {
        settle_at(sink, i, PC_ACK);
        settle_at(sink, i, PC_REJECT);  // twice: ignored
    }
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 0);
    amqp_producer_end(producer, queue);
}

void
test_amqp_requeue_delivers_again_and_reject_drops(void)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 2);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->hold = true;
    amqp_sink_start(sink, queue, 0);
    amqp_turn_until(sink->loop, &sink->count, 2);
    settle_at(sink, 0, PC_REQUEUE);
    settle_at(sink, 1, PC_REJECT);
    amqp_turn_until(sink->loop, &sink->count, 3);
    PC_ASSERT_INT(sink->redelivered, 1);
    settle_at(sink, 2, PC_ACK);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 0);
    amqp_producer_end(producer, queue);
}

void
test_amqp_unsettled_messages_come_again_after_a_cut_and_old_tags_are_ignored(void)
{
    pc_broker_config config = amqp_config();
    pc_broker_config through = config;
    amqp_relay *relay = amqp_relay_start(&config, &through.port);
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 10);
    amqp_sink *sink = amqp_sink_new(&through);
    sink->hold = true;
    amqp_sink_start(sink, queue, 0);
    amqp_turn_until(sink->loop, &sink->count, 10);
    amqp_relay_cut(relay);
    amqp_turn_until(sink->loop, &sink->downs, 1);
    PC_ASSERT_INT(sink->why.code, PC_EIO);
    amqp_sink_start(sink, NULL, 0);
    amqp_turn_until(sink->loop, &sink->count, 20);
    PC_ASSERT_INT(sink->redelivered, 10);
    for (int i = 0; i < 15; i++) {
        settle_at(sink, i, PC_ACK);  // 10 of a connection that is gone
    }
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT(sink->downs == 1, "%s", sink->why.msg);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 5);
    amqp_producer_end(producer, queue);
    amqp_relay_stop(relay);
}

void
test_amqp_prefetch_limits_and_grows(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 50);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->hold = true;
    amqp_sink_start(sink, queue, 5);
    amqp_turn_for(sink->loop, 0.2);
    PC_ASSERT_INT(sink->count, 5);
    if (sink->source->global_qos) {
        PC_ASSERT_INT(sink->source->ops->prefetch(sink->source, 12, &err), 0);
        amqp_turn_for(sink->loop, 0.2);
        PC_ASSERT_INT(sink->count, 12);
    }
    settle_at(sink, 0, PC_ACK);
    amqp_turn_for(sink->loop, 0.2);
    PC_ASSERT_INT(sink->count, sink->source->global_qos ? 13 : 6);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 49);
    amqp_producer_end(producer, queue);
}

void
test_amqp_pause_stops_deliveries_and_settling_goes_on(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 30);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->hold = true;
    amqp_sink_start(sink, queue, 10);
    amqp_turn_until(sink->loop, &sink->count, 10);
    PC_ASSERT_INT(sink->source->ops->pause(sink->source, &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    for (int i = 0; i < 10; i++) {
        settle_at(sink, i, PC_ACK);
    }
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT_INT(sink->count, 10);
    PC_ASSERT_INT(sink->downs, 0);
    PC_ASSERT_INT(size_of(producer, queue), 20);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}

/* ---- queues ---- */

void
test_amqp_queue_deleted_under_the_consumer(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, queue, 0);
    pc_producer *producer = amqp_producer(&config);
    PC_ASSERT_INT(producer->ops->remove(producer, queue, in_seconds(5), &err), 0);
    amqp_turn_until(sink->loop, &sink->cancels, 1);
    PC_ASSERT_STR(sink->cancelled, queue);
    pc_queue again = amqp_queue(queue);
    PC_ASSERT(sink->source->ops->add_queue(sink->source, &again, &err) == 0, "%s", err.msg);
    amqp_turn_for(sink->loop, 0.05);
    publish_n(producer, queue, 1);
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
    PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &second, &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    publish_n(producer, names[1], 3);
    amqp_turn_until(sink->loop, &sink->count, 3);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, names[1], &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    publish_n(producer, names[1], 2);
    publish_n(producer, names[0], 1);
    amqp_turn_until(sink->loop, &sink->count, 4);
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT_INT(sink->count, 4);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "nobody knows it", &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    PC_ASSERT_INT(size_of(producer, names[1]), 2);
    amqp_sink_end(sink);
    PC_ASSERT_INT(producer->ops->remove(producer, names[0], in_seconds(5), &err), 0);
    amqp_producer_end(producer, names[1]);
}

void
test_amqp_a_declaration_that_differs_brings_the_source_down(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    amqp_sink *sink = amqp_sink_new(&config);
    pc_queue what = amqp_queue(queue);
    what.durable = true;
    PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &what, &err), 0);
    PC_ASSERT_INT(sink->source->ops->connect(sink->source, &err), 0);
    amqp_turn_until(sink->loop, &sink->downs, 1);
    PC_ASSERT_INT(sink->ups, 0);
    PC_ASSERT(strstr(sink->why.msg, "406") != NULL, "%s", sink->why.msg);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
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
        PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &what, &err), 0);
    }
    amqp_sink_start(sink, NULL, 10);
    for (int i = 0; i < N; i++) {
        publish_n(producer, names[i], 1);
    }
    amqp_turn_until(sink->loop, &sink->count, N);
    PC_ASSERT_INT(sink->source->ops->pause(sink->source, &err), 0);
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_sink_end(sink);
    amqp_producer_end(producer, NULL);
}

/* ---- bodies ---- */

static void
send_body(pc_producer *producer, const char *queue, size_t len, uint32_t *sum)
{
    pc_err err = {0};
    char *body = pc_alloc(len + 1);
    PC_ASSERT(body != NULL);
    for (size_t i = 0; i < len; i++) {
        body[i] = (char)(i * 31 + i / 251);
    }
    *sum = amqp_sum(body, len);
    pc_message message = amqp_message(queue, body, len);
    int rc = producer->ops->publish(producer, &message, false, (pc_wall){0}, false, in_seconds(10),
                                    &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    PC_ASSERT(producer->ops->flush(producer, in_seconds(10), &err) == 0, "%s", err.msg);
    pc_free(body);
}

void
test_amqp_bodies_of_all_sizes(void)
{
    static const size_t sizes[] = {101,
                                   131072 - 9,
                                   131072 - 8,
                                   131072 - 7,
                                   2 * (131072 - 8),
                                   3 * (131072 - 8) + 1,
                                   5 * 1000 * 1000,
                                   0};
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, queue, 0);
    for (int i = 0; i < 8; i++) {
        uint32_t sum = 0;
        send_body(producer, queue, sizes[i], &sum);
        amqp_turn_until(sink->loop, &sink->count, i + 1);
        PC_ASSERT_INT(sink->body_len, sizes[i]);
        PC_ASSERT(sizes[i] == 0 || sink->body_sum == sum, "body of %zu bytes differs", sizes[i]);
    }
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}

static void
compare_properties(amqp_sink *sink, const pc_message *m)
{
    const pc_message *want = sink->see_ctx;
    PC_ASSERT(pc_slice_eq(m->content_type, want->content_type));
    PC_ASSERT(pc_slice_eq(m->content_encoding, want->content_encoding));
    PC_ASSERT(pc_slice_eq(m->correlation_id, want->correlation_id));
    PC_ASSERT(pc_slice_eq(m->reply_to, want->reply_to) && m->reply_to.ptr != NULL);
    PC_ASSERT(pc_slice_eq(m->expiration, want->expiration));
    PC_ASSERT(pc_slice_eq(m->message_id, want->message_id));
    PC_ASSERT(pc_slice_eq(m->type, want->type));
    PC_ASSERT(pc_slice_eq(m->app_id, want->app_id));
    PC_ASSERT(m->user_id.ptr == NULL);
    PC_ASSERT_INT(m->timestamp, want->timestamp);
    PC_ASSERT_INT(m->delivery_mode, want->delivery_mode);
    PC_ASSERT_INT(m->priority, want->priority);
    PC_ASSERT_INT(m->headers_kind, PC_HEADERS_TABLE);
    PC_ASSERT(pc_slice_eq(m->headers, want->headers));
    PC_ASSERT(pc_slice_eq(m->routing_key, want->routing_key));
    PC_ASSERT(pc_slice_eq(m->exchange, want->exchange));
}

void
test_amqp_properties_and_headers_arrive_as_sent(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    amqp_sink *sink = amqp_sink_new(&config);
    amqp_sink_start(sink, queue, 0);
    pc_message message = amqp_message(queue, "[]", 2);
    message.correlation_id = pc_slice_str("an id");
    message.reply_to = pc_slice_str("");
    message.expiration = pc_slice_str("60000");
    message.message_id = pc_slice_str("m");
    message.type = pc_slice_str("t");
    message.app_id = pc_slice_str("a");
    message.timestamp = 1700000000;
    message.priority = 7;
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = pc_slice_of("\4taskS\0\0\0\3add\7retriesI\0\0\0\1", 26);
    sink->see = compare_properties;
    sink->see_ctx = &message;
    PC_ASSERT_INT(
        producer->ops->publish(producer, &message, false, (pc_wall){0}, false, in_seconds(5), &err),
        0);
    amqp_turn_until(sink->loop, &sink->count, 1);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}

/* ---- kinds of queues and consumers ---- */

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
    publish_n(producer, queue, 20);
    for (int blind = 0; blind <= 1; blind++) {
        amqp_sink *sink = amqp_sink_new(&config);
        sink->hold = true;
        what.no_declare = blind;
        what.queue_arguments.len = blind ? 0 : sizeof quorum - 1;
        PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &what, &err), 0);
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
    pc_err err = {0};
    char queue[64];
    char other[64];
    amqp_queue_name(queue, "pc-test");
    amqp_queue_name(other, "pc-test");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    declare(producer, other);
    publish_n(producer, queue, 100);
    publish_n(producer, other, 100);
    amqp_sink *sink = amqp_sink_new(&config);
    pc_queue what = amqp_queue(queue);
    what.no_ack = true;
    PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &what, &err), 0);
    amqp_sink_start(sink, other, 10);
    amqp_turn_until(sink->loop, &sink->count, 200);
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT(sink->downs == 0, "%s", sink->why.msg);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 0);
    PC_ASSERT_INT(size_of(producer, other), 0);
    PC_ASSERT_INT(producer->ops->remove(producer, other, in_seconds(5), &err), 0);
    amqp_producer_end(producer, queue);
}

/* ---- memory ---- */

static int
make_source(void *arg)
{
    pc_loop *loop = arg;
    pc_broker_config config = {.host = "h", .user = "u", .tls = &(pc_tls_config){.ca_file = "c"}};
    pc_queue queue = amqp_queue("q");
    pc_source_hooks hooks = {0};
    pc_source *source = pc_source_amqp.create(&config, loop, &hooks, NULL, NULL);
    if (source == NULL) {
        return -1;
    }
    queue.queue_arguments = pc_slice_of(quorum, sizeof quorum - 1);
    int rc = source->ops->add_queue(source, &queue, NULL);
    source->ops->destroy(source);
    return rc;
}

void
test_amqp_source_survives_the_lack_of_memory(void)
{
    pc_loop *loop = pc_loop_new(NULL);
    PC_ASSERT(PC_OOM(make_source, loop) > 3);
    pc_loop_free(loop);
}

/* ---- figures ---- */

void
bench_amqp_consume(long n)
{
    pc_broker_config config = amqp_config();
    char queue[64];
    amqp_queue_name(queue, "pc-bench");
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, (int)n);
    amqp_sink *sink = amqp_sink_new(&config);
    ct_reset_timer();
    amqp_sink_start(sink, queue, 1000);
    amqp_turn_until(sink->loop, &sink->count, (int)n);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}

/* ---- parking ---- */

static void
park_the_first(amqp_sink *sink, const pc_message *message)
{
    pc_err err = {0};
    if (!message->redelivered && sink->count == 1) {
        int rc = sink->source->ops->park(sink->source, message, 1900 * PC_NS_PER_MS, &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
        sink->hold = true;
    } else {
        PC_ASSERT(pc_slice_is(message->correlation_id, "far"), "%.*s",
                  (int)message->correlation_id.len, message->correlation_id.ptr);
        PC_ASSERT_INT(message->priority, 3);
        PC_ASSERT(sink->source->ops->park(sink->source, message, 900 * PC_NS_PER_MS, &err) < 0);
        sink->hold = false;
    }
}

/* Comes back after the longest delay that is not too long; nothing stays behind. */
void
test_amqp_parked_message_comes_back(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    pc_wall never = {0};
    char queue[64];
    char delayed[96];
    amqp_queue_name(queue, "pc-test");
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", queue);
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    pc_message message = amqp_message(queue, "parked", 6);
    message.correlation_id = pc_slice_str("far");
    message.priority = 3;
    PC_ASSERT_INT(producer->ops->publish(producer, &message, false, never, false, in_seconds(5), &err), 0);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->see = park_the_first;
    amqp_sink_start(sink, queue, 10);
    amqp_turn_until(sink->loop, &sink->count, 1);
    pc_mono parked = pc_mono_now();
    amqp_turn_until(sink->loop, &sink->count, 2);
    PC_ASSERT(pc_mono_now().ns - parked.ns >= 900 * PC_NS_PER_MS);
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT_INT(sink->downs, 0);
    amqp_sink_end(sink);
    PC_ASSERT_INT(size_of(producer, queue), 0);  // the original was settled
    PC_ASSERT_INT(size_of(producer, delayed), 0);
    PC_ASSERT_INT(producer->ops->remove(producer, delayed, in_seconds(5), &err), 0);
    amqp_producer_end(producer, queue);
}

/* Copies that are not confirmed when the source closes are waited for. */
void
test_amqp_parking_is_finished_at_the_end(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    char queue[64];
    char delayed[96];
    amqp_queue_name(queue, "pc-test");
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", queue);
    pc_producer *producer = amqp_producer(&config);
    declare(producer, queue);
    publish_n(producer, queue, 1);
    amqp_sink *sink = amqp_sink_new(&config);
    sink->see = park_the_first;
    amqp_sink_start(sink, queue, 10);
    amqp_turn_until(sink->loop, &sink->count, 1);
    amqp_sink_end(sink);  // at once
    PC_ASSERT_INT(size_of(producer, queue) + size_of(producer, delayed), 1);
    PC_ASSERT_INT(producer->ops->remove(producer, delayed, in_seconds(5), &err), 0);
    amqp_producer_end(producer, queue);
}
