/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a real RabbitMQ. */
#include <stdio.h>

#include "amqp_stage.h"
#include "base/mem.h"
#include "harness.h"

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
    amqp_stage s;
    amqp_stage_init(&s, 20000);
    PC_ASSERT_INT(s.producer->ops->unconfirmed(s.producer), 0);
    s.sink->see = expect_order;
    amqp_sink_start(s.sink, s.queue, 500);
    amqp_turn_until(s.sink->loop, &s.sink->count, 20000);
    amqp_turn_for(s.sink->loop, 0.05);
    PC_ASSERT_INT(s.sink->count, 20000);
    PC_ASSERT_INT(s.sink->downs, 0);
    PC_ASSERT_INT(s.sink->source->version_major > 0, 1);
    amqp_stage_fini(&s, 0);
}

/* ---- settling ---- */

/* Even ones first, then odd ones backwards: prefixes, gaps, single acks. */
void
test_amqp_acks_in_any_order(void)
{
    amqp_stage s;
    amqp_stage_init(&s, 3000);
    s.sink->hold = true;
    amqp_sink_start(s.sink, s.queue, 0);
    amqp_turn_until(s.sink->loop, &s.sink->count, 3000);
    for (int i = 0; i < 3000; i += 2) {
        amqp_settle(s.sink, i, i % 10 == 0 ? PC_REJECT : PC_ACK);
    }
    amqp_turn_for(s.sink->loop, 0.05);
    for (int i = 2999; i > 0; i -= 2) {
        amqp_settle(s.sink, i, PC_ACK);
        amqp_settle(s.sink, i, PC_REJECT);  // twice: ignored
    }
    amqp_turn_for(s.sink->loop, 0.05);
    PC_ASSERT(s.sink->downs == 0, "%s", s.sink->why.msg);
    amqp_stage_fini(&s, 0);
}

void
test_amqp_requeue_delivers_again_and_reject_drops(void)
{
    amqp_stage s;
    amqp_stage_init(&s, 2);
    s.sink->hold = true;
    amqp_sink_start(s.sink, s.queue, 0);
    amqp_turn_until(s.sink->loop, &s.sink->count, 2);
    amqp_settle(s.sink, 0, PC_REQUEUE);
    amqp_settle(s.sink, 1, PC_REJECT);
    amqp_turn_until(s.sink->loop, &s.sink->count, 3);
    PC_ASSERT_INT(s.sink->redelivered, 1);
    amqp_settle(s.sink, 2, PC_ACK);
    amqp_stage_fini(&s, 0);
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
    amqp_declare(producer, queue);
    amqp_publish(producer, queue, 10);
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
        amqp_settle(sink, i, PC_ACK);  // 10 of a connection that is gone
    }
    amqp_turn_for(sink->loop, 0.05);
    PC_ASSERT(sink->downs == 1, "%s", sink->why.msg);
    amqp_sink_end(sink);
    PC_ASSERT_INT(amqp_size(producer, queue), 5);
    amqp_producer_end(producer, queue);
    amqp_relay_stop(relay);
}

void
test_amqp_prefetch_limits_and_grows(void)
{
    pc_err err = {0};
    amqp_stage s;
    amqp_stage_init(&s, 50);
    s.sink->hold = true;
    amqp_sink_start(s.sink, s.queue, 5);
    amqp_turn_for(s.sink->loop, 0.2);
    PC_ASSERT_INT(s.sink->count, 5);
    if (s.sink->source->global_qos) {
        PC_ASSERT_INT(s.sink->source->ops->prefetch(s.sink->source, 12, &err), 0);
        amqp_turn_for(s.sink->loop, 0.2);
        PC_ASSERT_INT(s.sink->count, 12);
    }
    amqp_settle(s.sink, 0, PC_ACK);
    amqp_turn_for(s.sink->loop, 0.2);
    PC_ASSERT_INT(s.sink->count, s.sink->source->global_qos ? 13 : 6);
    amqp_stage_fini(&s, 49);
}

void
test_amqp_pause_stops_deliveries_and_settling_goes_on(void)
{
    pc_err err = {0};
    amqp_stage s;
    amqp_stage_init(&s, 30);
    s.sink->hold = true;
    amqp_sink_start(s.sink, s.queue, 10);
    amqp_turn_until(s.sink->loop, &s.sink->count, 10);
    PC_ASSERT_INT(s.sink->source->ops->pause(s.sink->source, &err), 0);
    amqp_turn_for(s.sink->loop, 0.1);
    for (int i = 0; i < 10; i++) {
        amqp_settle(s.sink, i, PC_ACK);
    }
    amqp_turn_for(s.sink->loop, 0.1);
    PC_ASSERT_INT(s.sink->count, 10);
    PC_ASSERT_INT(s.sink->downs, 0);
    PC_ASSERT_INT(amqp_size(s.producer, s.queue), 20);
    amqp_stage_fini(&s, 20);
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
    amqp_stage s;
    amqp_stage_init(&s, 0);
    amqp_sink_start(s.sink, s.queue, 0);
    for (int i = 0; i < 8; i++) {
        uint32_t sum = 0;
        send_body(s.producer, s.queue, sizes[i], &sum);
        amqp_turn_until(s.sink->loop, &s.sink->count, i + 1);
        PC_ASSERT_INT(s.sink->body_len, sizes[i]);
        PC_ASSERT(sizes[i] == 0 || s.sink->body_sum == sum, "body of %zu bytes differs", sizes[i]);
    }
    amqp_stage_fini(&s, 0);
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
    pc_err err = {0};
    amqp_stage s;
    amqp_stage_init(&s, 0);
    amqp_sink_start(s.sink, s.queue, 0);
    pc_message message = amqp_message(s.queue, "[]", 2);
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
    s.sink->see = compare_properties;
    s.sink->see_ctx = &message;
    PC_ASSERT_INT(
        s.producer->ops->publish(s.producer, &message, false, (pc_wall){0}, false, in_seconds(5), &err),
        0);
    amqp_turn_until(s.sink->loop, &s.sink->count, 1);
    amqp_stage_fini(&s, 0);
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
    queue.queue_arguments = pc_slice_of("\1kS\0\0\0\1v", 8);
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
    amqp_declare(producer, queue);
    amqp_publish(producer, queue, (int)n);
    amqp_sink *sink = amqp_sink_new(&config);
    ct_reset_timer();
    amqp_sink_start(sink, queue, 1000);
    amqp_turn_until(sink->loop, &sink->count, (int)n);
    amqp_sink_end(sink);
    amqp_producer_end(producer, queue);
}
