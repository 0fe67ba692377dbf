/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a real Redis. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "io/redis_source.h"
#include "redis_sink.h"

void
test_redis_source_takes_all_in_order(void)
{
    redis_world w = redis_world_make(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 3000);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 100);
    redis_sink_until(sink, &sink->count, 3000);
    for (int i = 0; i < 3000; i++) {
        PC_ASSERT_INT(atoi(sink->bodies[i]), i);
    }
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* Empty lists: each message is there long before the next look of the clock. */
void
test_redis_source_is_woken(void)
{
    redis_world w = redis_world_make(false);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 10);
    redis_sink_for(sink, 0.2);
    pc_mono start = pc_mono_now();
    for (int i = 0; i < 50; i++) {
        redis_sink_publish(w.producer, "", "q", i % 10, i, 1);
        redis_sink_until(sink, &sink->count, i + 1);
    }
    // polls instead of wake-ups would take five seconds
    PC_ASSERT(pc_mono_now().ns - start.ns < 2500 * PC_NS_PER_MS, "%lld ms", (long long)(pc_mono_now().ns - start.ns) / PC_NS_PER_MS);
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

void
test_redis_source_is_idle_when_nothing_comes(void)
{
    redis_world w = redis_world_make(true);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 10);
    redis_sink_for(sink, 0.5);
    pc_reply *before = redis_rig_do(&w.rig, "INFO stats");
    redis_sink_for(sink, 3);
    pc_reply *after = redis_rig_do(&w.rig, "INFO stats");
    static const char name[] = "total_commands_processed:";
    long a = atol(strstr(before->text.ptr, name) + sizeof name - 1);
    long b = atol(strstr(after->text.ptr, name) + sizeof name - 1);
    PC_ASSERT(b - a < 80, "%ld commands in three idle seconds", b - a);
    pc_reply_free(before);
    pc_reply_free(after);
    redis_sink_end(sink);
    redis_world_end(&w);
}

void
test_redis_source_respects_prefetch_and_requeues(void)
{
    redis_world w = redis_world_make(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 10);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 3);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 3);
    PC_ASSERT_INT(redis_world_int(&w, "HLEN", "unacked"), 3);
    redis_sink_settle(sink, 0, PC_REQUEUE);  // to the end of the line
    redis_sink_settle(sink, 1, PC_ACK);
    redis_sink_settle(sink, 2, PC_REJECT);
    redis_sink_until(sink, &sink->count, 6);
    PC_ASSERT_STR(sink->bodies[3], "3");
    PC_ASSERT_INT(redis_world_int(&w, "LLEN", "q"), 5);
    for (int i = 3; i < 11; i++) {
        redis_sink_until(sink, &sink->count, i + 1);
        redis_sink_settle(sink, i, PC_ACK);
    }
    PC_ASSERT_STR(sink->bodies[10], "0");
    PC_ASSERT_INT(sink->redelivered, 1);
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* A server that takes its time: room is claimed behind what is under way, a quarter of the prefetch at
 * least, and never more than there is. */
void
test_redis_source_claims_do_not_wait_for_each_other(void)
{
    redis_world w = redis_world_make(true);
    redis_sink_publish(w.producer, "", "q", 0, 0, 40);
    redis_sink *sink = redis_sink_new(&w.config);
    const pc_redis_source *src = (const pc_redis_source *)(const void *)sink->source;
    sink->hold = true;
    redis_sink_start(sink, "q", 8);
    redis_sink_until(sink, &sink->count, 8);
    redis_sink_for(sink, 0.1);
    redis_server_signal(&w.server, SIGSTOP);
    static const unsigned claims[] = {1, 1, 2, 2, 3, 3, 4, 4};
    for (int i = 0; i < 8; i++) {
        redis_sink_settle(sink, i, PC_ACK);
        redis_sink_for(sink, 0.01);
        PC_ASSERT_INT(src->nclaims, claims[i]);
        PC_ASSERT(src->held + src->wanted <= 8);
    }
    redis_server_signal(&w.server, SIGCONT);
    redis_sink_until(sink, &sink->count, 15);
    for (int i = 8; i < 40; i++) {
        redis_sink_until(sink, &sink->count, i + 1);
        redis_sink_settle(sink, i, PC_ACK);
    }
    for (int i = 0; i < 40; i++) {
        PC_ASSERT_INT(atoi(sink->bodies[i]), i);
    }
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* What kombu reads when it restores: the envelope byte for byte, where it goes, and a time like its own. */
void
test_redis_source_books_as_kombu_does(void)
{
    redis_world w = redis_world_make(false);
    redis_sink_publish(w.producer, "", "q", 3, 0, 1);
    pc_reply *text = redis_rig_do(&w.rig, "LINDEX %sq\x06\x16" "3 0", w.rig.key_prefix);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 1);
    redis_sink_until(sink, &sink->count, 1);
    char want[2000];
    snprintf(want, sizeof want, "[%s, \"\", \"q\"]", text->text.ptr);
    pc_reply *all = redis_rig_do(&w.rig, "HGETALL %sunacked", w.rig.key_prefix);
    PC_ASSERT_INT(all->len, 2);
    PC_ASSERT_STR(all->children[1]->text.ptr, want);
    pc_reply *score = redis_rig_do(&w.rig, "ZSCORE %sunacked_index %s", w.rig.key_prefix,
                                   all->children[0]->text.ptr);
    double age = (double)pc_wall_now().us / 1e6 - atof(score->text.ptr);
    PC_ASSERT(age > -1 && age < 5, "%s is %g s old", score->text.ptr, age);
    pc_reply_free(score);
    pc_reply_free(all);
    redis_sink_settle(sink, 0, PC_REQUEUE);
    redis_sink_until(sink, &sink->count, 2);
    all = redis_rig_do(&w.rig, "HVALS %sunacked", w.rig.key_prefix);
    static const char headers[] = "\"headers\": {\"redelivered\": true, \"id\": 1, ";
    static const char info[] = "\"delivery_info\": {\"redelivered\": true, \"exchange\": \"\", ";
    PC_ASSERT(strstr(all->children[0]->text.ptr, headers) != NULL, "%s", all->children[0]->text.ptr);
    PC_ASSERT(strstr(all->children[0]->text.ptr, info) != NULL, "%s", all->children[0]->text.ptr);
    PC_ASSERT_INT(sink->redelivered, 1);
    pc_reply_free(all);
    pc_reply_free(text);
    redis_sink_settle(sink, 1, PC_ACK);
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* More than a claim may carry at once. */
void
test_redis_source_takes_large_messages(void)
{
    redis_world w = redis_world_make(false);
    size_t len = 3 << 20;
    char *body = pc_alloc(len);
    PC_ASSERT(body != NULL);
    memset(body, 'x', len);
    for (int i = 0; i < 5; i++) {
        pc_err err = {0};
        pc_message message;
        pc_message_init(&message);
        message.body = pc_slice_of(body, len);
        message.routing_key = pc_slice_str("q");
        PC_ASSERT(w.producer->ops->publish(w.producer, &message, false, (pc_wall){0}, false,
                                           redis_rig_in(5), &err) == 0, "%s", err.msg);
    }
    pc_free(body);
    PC_ASSERT(w.producer->ops->flush(w.producer, redis_rig_in(10), NULL) == 0);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 0);
    redis_sink_until(sink, &sink->count, 5);
    PC_ASSERT_INT(sink->downs, 0);
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

void
test_redis_source_asks_priorities_first_and_queues_in_turn(void)
{
    redis_world w = redis_world_make(false);
    redis_sink_publish(w.producer, "", "a", 9, 90, 2);
    redis_sink_publish(w.producer, "", "a", 4, 30, 1);
    redis_sink_publish(w.producer, "", "a", 0, 0, 3);
    redis_sink_publish(w.producer, "", "b", 0, 100, 3);
    PC_ASSERT_INT(redis_world_int(&w, "LLEN", "a\x06\x16" "9"), 2);
    PC_ASSERT_INT(redis_world_int(&w, "LLEN", "a\x06\x16" "3"), 1);
    PC_ASSERT_INT(redis_sink_size(w.producer, "a"), 6);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_add(sink, "a");
    redis_sink_start(sink, "b", 0);
    redis_sink_until(sink, &sink->count, 9);
    static const char *const want[] = {"0", "100", "1", "101", "2", "102", "30", "90", "91"};
    for (int i = 0; i < 9; i++) {
        PC_ASSERT_STR(sink->bodies[i], want[i]);
    }
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

void
test_redis_source_gives_back_in_order_when_it_closes(void)
{
    redis_world w = redis_world_make(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 8);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 5);
    redis_sink_until(sink, &sink->count, 5);
    redis_sink_settle(sink, 1, PC_ACK);
    PC_ASSERT(sink->source->ops->pause(sink->source, NULL) == 0);
    redis_sink_settle(sink, 2, PC_REQUEUE);  // as the machine does when it stops
    redis_sink_settle(sink, 3, PC_REQUEUE);
    redis_sink_for(sink, 0.05);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_world_int(&w, "EXISTS", "unacked.pyceleryc"), 0);
    sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 0);
    redis_sink_until(sink, &sink->count, 7);
    static const char *const want[] = {"0", "4", "2", "3", "5", "6", "7"};
    for (int i = 0; i < 7; i++) {
        PC_ASSERT_STR(sink->bodies[i], want[i]);
    }
    PC_ASSERT_INT(sink->redelivered, 4);
    redis_sink_end(sink);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* Added and dropped while up; what comes from a queue without acks is not booked. */
void
test_redis_source_changes_its_queues(void)
{
    redis_world w = redis_world_make(false);
    pc_err err = {0};
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "a", 5);
    pc_queue b = {.name = "b", .exchange = "x", .exchange_type = "topic", .routing_key = "k.#",
                  .no_ack = true};
    redis_sink_for(sink, 0.1);
    PC_ASSERT(sink->source->ops->add_queue(sink->source, &b, &err) == 0, "%s", err.msg);
    redis_sink_for(sink, 0.1);
    redis_sink_publish(w.producer, "x", "k.y", 0, 0, 8);
    redis_sink_until(sink, &sink->count, 8);
    PC_ASSERT_INT(redis_world_int(&w, "HLEN", "unacked"), 0);
    PC_ASSERT(sink->source->ops->drop_queue(sink->source, "b", &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "b", &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    redis_sink_publish(w.producer, "x", "k.y", 0, 0, 2);
    redis_sink_publish(w.producer, "", "a", 0, 50, 2);
    redis_sink_until(sink, &sink->count, 10);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 10);
    PC_ASSERT_STR(sink->bodies[8], "50");
    PC_ASSERT_INT(redis_sink_size(w.producer, "b"), 2);
    redis_sink_end(sink);
    redis_world_end(&w);
}

/* Two queues of one fanout exchange: a copy for each, and the one that stays goes on listening. */
void
test_redis_source_gives_each_queue_of_a_fanout_exchange_its_copy(void)
{
    redis_world w = redis_world_make(false);
    pc_queue queues[] = {{.name = "f1", .exchange = w.rig.key_prefix, .exchange_type = "fanout"},
                         {.name = "f2", .exchange = w.rig.key_prefix, .exchange_type = "fanout"}};
    redis_sink *sink = redis_sink_new(&w.config);
    PC_ASSERT_INT(w.producer->ops->declare(w.producer, &queues[0], redis_rig_in(5), NULL), 0);
    for (int i = 0; i < 2; i++) {
        PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &queues[i], NULL), 0);
    }
    redis_sink_start(sink, "q", 10);
    redis_sink_publish(w.producer, w.rig.key_prefix, "", 0, 1, 1);
    redis_sink_until(sink, &sink->count, 2);
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "f1", NULL), 0);
    redis_sink_for(sink, 0.1);
    redis_sink_publish(w.producer, w.rig.key_prefix, "", 0, 2, 1);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 3);
    PC_ASSERT_STR(sink->bodies[1], "1");
    PC_ASSERT_STR(sink->bodies[2], "2");
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "f2", NULL), 0);
    redis_sink_for(sink, 0.1);
    redis_sink_publish(w.producer, w.rig.key_prefix, "", 0, 3, 1);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 3);
    redis_sink_end(sink);
    redis_world_end(&w);
}

/* Remote control does not ask how far the connection is. */
void
test_redis_source_changes_its_queues_while_it_connects(void)
{
    redis_world w = redis_world_make(false);
    pc_queue late = {.name = "late", .exchange = "x", .exchange_type = "direct", .routing_key = "k"};
    pc_queue wide = {.name = "wide", .exchange = "f", .exchange_type = "fanout"};
    redis_sink *sink = redis_sink_new(&w.config);
    const pc_redis_source *src = (const pc_redis_source *)(void *)sink->source;
    PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &wide, NULL), 0);
    PC_ASSERT_INT(sink->source->ops->connect(sink->source, NULL), 0);
    while (!src->keeper.running) {
        PC_ASSERT(pc_loop_step(sink->loop, redis_rig_in(5), NULL) >= 0);
    }
    PC_ASSERT(!src->is_up);
    PC_ASSERT_INT(sink->source->ops->add_queue(sink->source, &late, NULL), 0);
    while (pc_redis_is_closed(src->fanout.conn)) {
        PC_ASSERT(pc_loop_step(sink->loop, redis_rig_in(5), NULL) >= 0);
    }
    PC_ASSERT(!src->is_up && !pc_redis_is_up(src->fanout.conn));
    PC_ASSERT_INT(sink->source->ops->drop_queue(sink->source, "wide", NULL), 0);
    redis_sink_until(sink, &sink->ups, 1);
    redis_sink_publish(w.producer, "x", "k", 0, 0, 3);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_end(sink);
    redis_world_end(&w);
}

static int
create_and_destroy(void *ctx)
{
    const redis_world *w = ctx;
    static const pc_source_hooks hooks;
    pc_err err = {0};
    pc_loop *loop = pc_loop_new(&err);
    pc_source *source =
        loop == NULL ? NULL : pc_source_find("redis")->create(&w->config, loop, &hooks, NULL, &err);
    pc_queue queue = {.name = "q", .exchange = "x", .exchange_type = "topic", .routing_key = "a.*"};
    int rc = source == NULL ? -1 : source->ops->add_queue(source, &queue, &err);
    if (source != NULL) {
        source->ops->destroy(source);
    }
    pc_loop_free(loop);
    return rc;
}

void
test_redis_source_creation_survives_lack_of_memory(void)
{
    redis_world w = redis_world_make(false);
    PC_ASSERT(PC_OOM(create_and_destroy, &w) > 5);
    redis_world_end(&w);
}
