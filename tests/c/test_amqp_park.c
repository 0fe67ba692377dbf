/* SPDX-License-Identifier: BSD-3-Clause */
/* Delay queues by themselves: what of them lives how long. And the way there and back. */
#include "io/amqp_source.h"

#include <stdio.h>

#include "amqp_stage.h"
#include "base/mem.h"
#include "harness.h"

typedef struct garage {
    pc_amqp_park park;
    pc_loop *loop;
    int acked;
    int requeued;
    int possible;
    size_t refused;  // so many come when it is possible again
    size_t declaring;  // declarations under way when the last one was settled
} garage;

static void
on_settle(void *ctx, uint64_t tag, pc_settle how)
{
    garage *g = ctx;
    const pc_amqp_conn *conn = &g->park.link.conn;
    PC_ASSERT(tag == 7 || tag == 8);
    g->acked += how == PC_ACK;
    g->requeued += how == PC_REQUEUE;
    g->declaring = conn->wanted_end - conn->wanted_first;
}

static size_t
on_possible(void *ctx, size_t most)
{
    garage *g = ctx;
    size_t n = g->refused < most ? g->refused : most;
    g->refused -= n;
    g->possible++;
    return n;
}

static void
park_one(garage *g, const char *queue, uint64_t tag)
{
    pc_err err = {0};
    pc_queue from = amqp_queue(queue);
    pc_message message = amqp_message(queue, "far", 3);
    message.tag = tag;
    PC_ASSERT(pc_amqp_park_put(&g->park, &message, &from, PC_NS_PER_SEC, &err) == 0, "%s", err.msg);
}

/* The queue expires, and takes what is in it along, some time after it was declared last. A broker with an alarm
 * keeps a message waiting for long between the two: then it is declared again before the original goes. */
void
test_amqp_park_renews_the_queue_of_a_message_that_was_held_up(void)
{
    pc_broker_config direct = amqp_config();
    pc_broker_config config = direct;
    pc_err err = {0};
    char queue[64];
    char delayed[96];
    garage g = {.loop = pc_loop_new(NULL)};
    amqp_queue_name(queue, "pc-test");
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", queue);
    pc_producer *producer = amqp_producer(&direct);
    amqp_relay *relay = amqp_relay_start(&direct, &config.port);
    config.host = "127.0.0.1";
    pc_amqp_park_init(&g.park, g.loop, &config, on_settle, on_possible, &g, NULL);
    park_one(&g, queue, 7);
    amqp_turn_until(g.loop, &g.acked, 1);
    PC_ASSERT_INT(g.declaring, 0);
    amqp_relay_freeze(relay, true, false);
    park_one(&g, queue, 8);
    amqp_turn_for(g.loop, 0.6);
    PC_ASSERT_INT(g.acked, 1);
    amqp_relay_freeze(relay, false, false);
    amqp_turn_until(g.loop, &g.acked, 2);
    PC_ASSERT_INT(g.declaring, 1);
    amqp_turn_for(g.loop, 0.1);
    PC_ASSERT(!pc_amqp_park_busy(&g.park) && g.requeued == 0);
    pc_amqp_park_fini(&g.park);
    amqp_relay_stop(relay);
    PC_ASSERT(producer->ops->remove(producer, delayed, in_seconds(5), &err) == 0, "%s", err.msg);
    amqp_producer_end(producer, queue);
    pc_loop_free(g.loop);
}

static int
try_to_park(const pc_queue *from, pc_slice headers, pc_err *err)
{
    pc_broker_config config = amqp_config();
    garage g = {.loop = pc_loop_new(NULL)};
    pc_message message = amqp_message(from->name, "far", 3);
    message.tag = 7;
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = headers;
    pc_amqp_park_init(&g.park, g.loop, &config, on_settle, on_possible, &g, NULL);
    int rc = pc_amqp_park_put(&g.park, &message, from, PC_NS_PER_SEC, err);
    pc_amqp_park_fini(&g.park);
    pc_loop_free(g.loop);
    return rc;
}

/* Sent again it would go to the other queues again; what comes back to a full queue that refuses would be lost. */
void
test_amqp_park_leaves_what_would_be_doubled_or_lost(void)
{
    static const char plain[] = "\4sizeI\0\0\0\1";
    static const char copies[] = "\2CCA\0\0\0\12S\0\0\0\5other";
    static const char blind[] = "\3BCCA\0\0\0\12S\0\0\0\5other";
    static const char died[] = "\23x-first-death-queueS\0\0\0\5other";
    static const char refuses[] = "\14x-max-lengthI\0\0\0\1\12x-overflowS\0\0\0\16reject-publish";
    pc_err err = {0};
    pc_queue queue = amqp_queue("pc-test-never-made");
    PC_ASSERT(try_to_park(&queue, pc_slice_of(plain, sizeof plain - 1), &err) == 0, "%s", err.msg);
    PC_ASSERT(try_to_park(&queue, pc_slice_of(died, sizeof died - 1), &err) < 0 && err.code == PC_ENOTFOUND);
    PC_ASSERT(try_to_park(&queue, pc_slice_of(copies, sizeof copies - 1), &err) < 0 && err.code == PC_ENOTFOUND);
    PC_ASSERT(try_to_park(&queue, pc_slice_of(blind, sizeof blind - 1), &err) < 0 && err.code == PC_ENOTFOUND);
    queue.queue_arguments = pc_slice_of(refuses, sizeof refuses - 1);
    PC_ASSERT(try_to_park(&queue, pc_slice_of(plain, sizeof plain - 1), &err) < 0 && err.code == PC_ENOTFOUND);
}

/* Whichever allocation fails: the message is refused, or it is settled one way or the other. */
void
test_amqp_park_survives_the_lack_of_memory(void)
{
    pc_broker_config config = amqp_config();
    pc_queue from = amqp_queue("pc-test-no-memory");
    pc_message message = amqp_message(from.name, "far", 3);
    bool whole = false;
    message.tag = 7;
    for (int n = 0; !whole; n++) {
        pc_err err = {0};
        garage g = {.loop = pc_loop_new(NULL)};
        pc_amqp_park_init(&g.park, g.loop, &config, on_settle, on_possible, &g, NULL);
        pc_mem_fail_after(n);
        bool taken = pc_amqp_park_put(&g.park, &message, &from, PC_NS_PER_SEC, &err) == 0;
        pc_mono end = in_seconds(3);
        while (taken && g.acked + g.requeued == 0 && pc_mono_now().ns < end.ns) {
            (void)pc_loop_step(g.loop, end, NULL);
        }
        PC_ASSERT(!taken || g.acked + g.requeued == 1, "allocation %d", n);
        whole = g.acked == 1 && n > 100;
        pc_mem_fail_after(-1);
        pc_amqp_park_fini(&g.park);
        pc_loop_free(g.loop);
    }
}

static void
park_and_tell(amqp_sink *sink, const pc_message *message)
{
    pc_err err = {0};
    int *parked = sink->see_ctx;
    sink->hold = sink->source->ops->park(sink->source, message, PC_NS_PER_SEC, &err) == 0;
    *parked += sink->hold;
}

/* After the broker was away both connections come back, and what arrives first is parked as well: held, it would
 * outlast the broker's consumer_timeout. */
void
test_amqp_park_goes_on_after_a_reconnect(void)
{
    pc_broker_config direct = amqp_config();
    pc_broker_config config = direct;
    pc_err err = {0};
    char queue[64];
    char delayed[96];
    int parked = 0;
    amqp_queue_name(queue, "pc-test");
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", queue);
    pc_queue what = amqp_queue(queue);
    pc_message message = amqp_message(queue, "far", 3);
    pc_producer *producer = amqp_producer(&direct);
    PC_ASSERT_INT(producer->ops->declare(producer, &what, in_seconds(5), &err), 0);
    amqp_relay *relay = amqp_relay_start(&direct, &config.port);
    config.host = "127.0.0.1";
    amqp_sink *sink = amqp_sink_new(&config);
    sink->see = park_and_tell;
    sink->see_ctx = &parked;
    amqp_sink_start(sink, queue, 10);
    for (int i = 1; i <= 2; i++) {
        PC_ASSERT_INT(producer->ops->publish(producer, &message, false, (pc_wall){0}, false, in_seconds(5), &err), 0);
        amqp_turn_until(sink->loop, &sink->count, i);
        PC_ASSERT_INT(parked, i);
        amqp_turn_for(sink->loop, 0.2);  // confirmed
        if (i == 1) {
            pc_amqp_source *src = (pc_amqp_source *)(void *)sink->source;
            src->park.not_before = in_seconds(30);  // as if its connection were the first to be lost
            amqp_relay_cut(relay);
            amqp_turn_until(sink->loop, &sink->downs, 1);
            amqp_turn_for(sink->loop, 0.1);
            PC_ASSERT_INT(sink->source->ops->connect(sink->source, &err), 0);
            amqp_turn_until(sink->loop, &sink->ups, 2);
        }
    }
    amqp_sink_end(sink);
    amqp_relay_stop(relay);
    PC_ASSERT(producer->ops->remove(producer, delayed, in_seconds(5), &err) == 0, "%s", err.msg);
    amqp_producer_end(producer, queue);
}

/* Refused after the connection was lost: told when it is there again, and as often as more was refused than fits. */
void
test_amqp_park_tells_when_it_is_possible_again(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    garage g = {.loop = pc_loop_new(NULL)};
    pc_queue from = amqp_queue("pc-test-not-now");
    pc_message message = amqp_message(from.name, "far", 3);
    message.tag = 7;
    pc_amqp_park_init(&g.park, g.loop, &config, on_settle, on_possible, &g, NULL);
    g.park.not_before = in_seconds(0.3);
    for (int i = 0; i < 2; i++) {
        PC_ASSERT(pc_amqp_park_put(&g.park, &message, &from, PC_NS_PER_SEC, &err) < 0 && err.code == PC_EIO);
    }
    amqp_turn_for(g.loop, 0.2);
    PC_ASSERT_INT(g.possible, 0);
    amqp_turn_until(g.loop, &g.possible, 1);
    PC_ASSERT(pc_amqp_park_put(&g.park, &message, &from, PC_NS_PER_SEC, &err) == 0, "%s", err.msg);
    amqp_turn_until(g.loop, &g.acked, 1);
    amqp_turn_for(g.loop, 1.2);
    PC_ASSERT_INT(g.possible, 1);
    g.refused = 1500;
    g.park.not_before = in_seconds(0.1);
    PC_ASSERT_INT(pc_amqp_park_put(&g.park, &message, &from, PC_NS_PER_SEC, &err), -1);
    amqp_turn_until(g.loop, &g.possible, 3);
    amqp_turn_for(g.loop, 1.2);
    PC_ASSERT(g.possible == 3 && g.refused == 0);
    pc_amqp_park_fini(&g.park);
    pc_loop_free(g.loop);
}

/* Asked again, it would be refused again, and go to and fro for ever. */
void
test_amqp_park_does_not_ask_again_for_what_never_fits(void)
{
    static char headers[200000] = "\4bulkS\0\3\15\66";  // 200,000 less these ten
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    garage g = {.loop = pc_loop_new(NULL)};
    pc_queue from = amqp_queue("pc-test-never-fits");
    pc_message message = amqp_message(from.name, "far", 3);
    message.tag = 7;
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = pc_slice_of(headers, sizeof headers);
    pc_amqp_park_init(&g.park, g.loop, &config, on_settle, on_possible, &g, NULL);
    PC_ASSERT_INT(pc_amqp_park_put(&g.park, &message, &from, PC_NS_PER_SEC, &err), -1);
    PC_ASSERT(err.code == PC_ENOTFOUND, "%d %s", err.code, err.msg);
    amqp_turn_for(g.loop, 1.3);
    PC_ASSERT_INT(g.possible, 0);
    pc_amqp_park_fini(&g.park);
    pc_loop_free(g.loop);
}

/* ---- there and back ---- */

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
    pc_err err = {0};
    pc_wall never = {0};
    amqp_stage s;
    char delayed[96];
    amqp_stage_init(&s, 0);
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", s.queue);
    pc_message message = amqp_message(s.queue, "parked", 6);
    message.correlation_id = pc_slice_str("far");
    message.priority = 3;
    PC_ASSERT_INT(s.producer->ops->publish(s.producer, &message, false, never, false, in_seconds(5), &err), 0);
    s.sink->see = park_the_first;
    amqp_sink_start(s.sink, s.queue, 10);
    amqp_turn_until(s.sink->loop, &s.sink->count, 1);
    pc_mono parked = pc_mono_now();
    amqp_turn_until(s.sink->loop, &s.sink->count, 2);
    PC_ASSERT(pc_mono_now().ns - parked.ns >= 900 * PC_NS_PER_MS);
    amqp_turn_for(s.sink->loop, 0.05);
    PC_ASSERT_INT(s.sink->downs, 0);
    amqp_sink_end(s.sink);
    PC_ASSERT_INT(amqp_size(s.producer, s.queue), 0);  // the original was settled
    PC_ASSERT_INT(amqp_size(s.producer, delayed), 0);
    amqp_remove(s.producer, delayed);
    amqp_producer_end(s.producer, s.queue);
}

/* Copies that are not confirmed when the source closes are waited for. */
void
test_amqp_parking_is_finished_at_the_end(void)
{
    amqp_stage s;
    char delayed[96];
    amqp_stage_init(&s, 1);
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", s.queue);
    s.sink->see = park_the_first;
    amqp_sink_start(s.sink, s.queue, 10);
    amqp_turn_until(s.sink->loop, &s.sink->count, 1);
    amqp_sink_end(s.sink);  // at once
    PC_ASSERT_INT(amqp_size(s.producer, s.queue) + amqp_size(s.producer, delayed), 1);
    amqp_remove(s.producer, delayed);
    amqp_producer_end(s.producer, s.queue);
}
