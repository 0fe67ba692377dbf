/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a real Redis. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "comma.h"
#include "harness.h"
#include "io/redis_source.h"
#include "redis_sink.h"

typedef struct world {
    redis_server server;
    pc_store_config rig;
    pc_broker_config config;
    pc_producer *producer;
} world;

static world
make_world(bool private)
{
    world w = {.server = {.port = 0}};
    if (private) {
        redis_server_start(&w.server, NULL, NULL);
    }
    w.rig = redis_rig_config(private ? &w.server : NULL);
    w.config = redis_sink_config(&w.rig);
    w.producer = redis_sink_producer(&w.config);
    return w;
}

static void
end_world(world *w)
{
    w->producer->ops->destroy(w->producer);
    redis_rig_clean(&w->rig);
    if (w->server.pid != 0) {
        redis_server_kill(&w->server);
    }
}

static long long
number(const world *w, const char *command, const char *key)
{
    return redis_rig_int(&w->rig, "%s %s%s", command, w->rig.key_prefix, key);
}

static void
expect_nothing_left(const world *w)
{
    PC_ASSERT_INT(number(w, "HLEN", "unacked"), 0);
    PC_ASSERT_INT(number(w, "ZCARD", "unacked_index"), 0);
    pc_reply *reply = redis_rig_do(&w->rig, "KEYS %s*", w->rig.key_prefix);
    PC_ASSERT(reply->len == 0, "%zu keys are left, one is %s", reply->len,
              reply->len == 0 ? "" : reply->children[0]->text.ptr);
    pc_reply_free(reply);
}

void
test_redis_source_takes_all_in_order(void)
{
    world w = make_world(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 3000);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 100);
    redis_sink_until(sink, &sink->count, 3000);
    for (int i = 0; i < 3000; i++) {
        PC_ASSERT_INT(atoi(sink->bodies[i]), i);
    }
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* Empty lists: each message is there long before the next look of the clock. */
void
test_redis_source_is_woken(void)
{
    world w = make_world(false);
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
    expect_nothing_left(&w);
    end_world(&w);
}

void
test_redis_source_is_idle_when_nothing_comes(void)
{
    world w = make_world(true);
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
    end_world(&w);
}

void
test_redis_source_respects_prefetch_and_requeues(void)
{
    world w = make_world(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 10);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 3);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 3);
    PC_ASSERT_INT(number(&w, "HLEN", "unacked"), 3);
    redis_sink_settle(sink, 0, PC_REQUEUE);  // to the end of the line
    redis_sink_settle(sink, 1, PC_ACK);
    redis_sink_settle(sink, 2, PC_REJECT);
    redis_sink_until(sink, &sink->count, 6);
    PC_ASSERT_STR(sink->bodies[3], "3");
    PC_ASSERT_INT(number(&w, "LLEN", "q"), 5);
    for (int i = 3; i < 11; i++) {
        redis_sink_until(sink, &sink->count, i + 1);
        redis_sink_settle(sink, i, PC_ACK);
    }
    PC_ASSERT_STR(sink->bodies[10], "0");
    PC_ASSERT_INT(sink->redelivered, 1);
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* What kombu reads when it restores: the envelope byte for byte, where it goes, and a time like its own. */
/* A server that takes its time: room is claimed behind what is under way, a quarter of the prefetch at
 * least, and never more than there is. */
void
test_redis_source_claims_do_not_wait_for_each_other(void)
{
    world w = make_world(true);
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
    expect_nothing_left(&w);
    end_world(&w);
}

void
test_redis_source_books_as_kombu_does(void)
{
    world w = make_world(false);
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
    expect_nothing_left(&w);
    end_world(&w);
}

/* More than a claim may carry at once. */
void
test_redis_source_takes_large_messages(void)
{
    world w = make_world(false);
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
    expect_nothing_left(&w);
    end_world(&w);
}

void
test_redis_source_asks_priorities_first_and_queues_in_turn(void)
{
    world w = make_world(false);
    redis_sink_publish(w.producer, "", "a", 9, 90, 2);
    redis_sink_publish(w.producer, "", "a", 4, 30, 1);
    redis_sink_publish(w.producer, "", "a", 0, 0, 3);
    redis_sink_publish(w.producer, "", "b", 0, 100, 3);
    PC_ASSERT_INT(number(&w, "LLEN", "a\x06\x16" "9"), 2);
    PC_ASSERT_INT(number(&w, "LLEN", "a\x06\x16" "3"), 1);
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
    expect_nothing_left(&w);
    end_world(&w);
}

void
test_redis_source_gives_back_in_order_when_it_closes(void)
{
    world w = make_world(false);
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
    PC_ASSERT_INT(number(&w, "EXISTS", "unacked.pyceleryc"), 0);
    sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 0);
    redis_sink_until(sink, &sink->count, 7);
    static const char *const want[] = {"0", "4", "2", "3", "5", "6", "7"};
    for (int i = 0; i < 7; i++) {
        PC_ASSERT_STR(sink->bodies[i], want[i]);
    }
    PC_ASSERT_INT(sink->redelivered, 4);
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* Added and dropped while up; what comes from a queue without acks is not booked. */
void
test_redis_source_changes_its_queues(void)
{
    world w = make_world(false);
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
    PC_ASSERT_INT(number(&w, "HLEN", "unacked"), 0);
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
    end_world(&w);
}

/* Two queues of one fanout exchange: a copy for each, and the one that stays goes on listening. */
void
test_redis_source_gives_each_queue_of_a_fanout_exchange_its_copy(void)
{
    world w = make_world(false);
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
    end_world(&w);
}

/* Remote control does not ask how far the connection is. */
void
test_redis_source_changes_its_queues_while_it_connects(void)
{
    world w = make_world(false);
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
    end_world(&w);
}

/* ---- the dead ---- */

void
test_redis_source_of_a_dead_worker_is_recovered(void)
{
    world w = make_world(false);
    w.config.lease = 0.6;
    redis_sink_publish(w.producer, "", "q", 0, 0, 20);
    redis_sink *dead = redis_sink_new(&w.config);
    dead->hold = true;
    redis_sink_start(dead, "q", 20);
    redis_sink_until(dead, &dead->count, 20);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 0);
    redis_sink_crash(dead);
    pc_mono start = pc_mono_now();
    redis_sink_until(sink, &sink->count, 20);
    PC_ASSERT(pc_mono_now().ns - start.ns < 6 * PC_NS_PER_SEC);
    PC_ASSERT_INT(sink->redelivered, 20);
    PC_ASSERT_STR(sink->bodies[0], "0");
    PC_ASSERT_STR(sink->bodies[19], "19");
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* A worker that held many ETAs is gone. Giving them back must not occupy the server, in all or at a time. */
void
test_redis_source_gives_back_very_many(void)
{
    static const char fill[] =
        "local text = '[{\"body\": \"MQ==\", \"headers\": {}, \"properties\": {\"body_encoding\": \"base64\"}}, \"\", \"q\"]'\n"
        "for i = 1, 30000 do\n"
        "  local tag = 'abcdefabcdef:' .. i\n"
        "  redis.call('HSET', KEYS[1] .. 'unacked', tag, text)\n"
        "  redis.call('ZADD', KEYS[1] .. 'unacked_index', 1, tag)\n"
        "  redis.call('HSET', KEYS[1] .. 'unacked.pyceleryc.abcdefabcdef', tag, KEYS[1] .. 'q')\n"
        "end\n"
        "return redis.call('ZADD', KEYS[1] .. 'unacked.pyceleryc', 1, 'abcdefabcdef')";
    world w = make_world(true);
    pc_err err = {0};
    pc_slice words[] = {pc_slice_str("EVAL"), pc_slice_str(fill), pc_slice_str("1"), pc_slice_str(w.rig.key_prefix)};
    pc_redis_cmd command = {4, words};
    pc_redis_config redis = {.host = w.rig.host, .port = w.rig.port, .db = w.rig.db};
    pc_redis_client *client = pc_redis_client_new(&redis, NULL);
    PC_ASSERT(pc_redis_client_run(client, &command, 1, 0, NULL, redis_rig_in(10), NULL, &err) == 0, "%s", err.msg);
    pc_redis_client_free(client);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 1);
    pc_mono start = pc_mono_now();
    redis_sink_until(sink, &sink->logged, 1);
    PC_ASSERT(strstr(sink->log, "30000 messages of a worker that is gone") != NULL, "%s", sink->log);
    PC_ASSERT(pc_mono_now().ns - start.ns < 8 * PC_NS_PER_SEC);
    redis_sink_end(sink);
    PC_ASSERT_INT(number(&w, "LLEN", "q"), 30000);
    PC_ASSERT_INT(number(&w, "DEL", "q"), 1);
    expect_nothing_left(&w);
    end_world(&w);
}

/* Its loop stands still and then goes on: others have its messages by now, it has to begin anew. */
void
test_redis_source_that_stood_still_is_recovered(void)
{
    world w = make_world(false);
    w.config.lease = 0.3;
    redis_sink_publish(w.producer, "", "q", 0, 0, 5);
    redis_sink *stopped = redis_sink_new(&w.config);
    stopped->hold = true;
    redis_sink_start(stopped, "q", 3);
    redis_sink_until(stopped, &stopped->count, 3);
    redis_sink_for(stopped, 0.05);  // has a lease
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 10);
    redis_sink_until(sink, &sink->count, 5);
    PC_ASSERT(strstr(sink->log, "3 messages of a worker that hangs or was stopped") != NULL, "%s",
              sink->log);
    PC_ASSERT_INT(sink->redelivered, 3);
    redis_sink_end(sink);
    for (int i = 0; i < 3; i++) {
        redis_sink_settle(stopped, i, PC_ACK);
    }
    redis_sink_until(stopped, &stopped->downs, 1);
    PC_ASSERT(strstr(stopped->why.msg, "stood still") != NULL, "%s", stopped->why.msg);
    redis_sink_connect(stopped);
    redis_sink_until(stopped, &stopped->ups, 2);
    PC_ASSERT_INT(stopped->count, 3);
    redis_sink_end(stopped);
    expect_nothing_left(&w);
    end_world(&w);
}

/* As above, but found out by others only: the clock of this machine says nothing. */
void
test_redis_source_learns_that_its_lease_was_ended(void)
{
    world w = make_world(false);
    w.config.lease = 0.3;
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 3);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_for(sink, 0.2);
    PC_ASSERT_INT(number(&w, "DEL", "unacked.pyceleryc"), 1);
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT(strstr(sink->why.msg, "given back") != NULL, "%s", sink->why.msg);
    redis_sink_connect(sink);
    redis_sink_until(sink, &sink->count, 6);
    PC_ASSERT_INT(sink->redelivered, 3);
    redis_sink_end(sink);
    PC_ASSERT_INT(number(&w, "DEL", "q"), 1);
    expect_nothing_left(&w);
    end_world(&w);
}

/* The server's clock is set ahead, by an hour: all leases seem to have ended long ago. */
void
test_redis_source_keeps_its_messages_when_the_clock_is_set(void)
{
    world w = make_world(false);
    w.config.lease = 1;
    redis_sink_publish(w.producer, "", "q", 0, 0, 2);
    redis_sink *sink = redis_sink_new(&w.config);
    const pc_redis_source *src = (const pc_redis_source *)(void *)sink->source;
    sink->hold = true;
    redis_sink_start(sink, "q", 2);
    redis_sink_until(sink, &sink->count, 2);
    redis_sink *other = redis_sink_new(&w.config);
    redis_sink_start(other, "q", 2);
    redis_sink_for(sink, 0.1);  // both have a lease
    redis_sink_for(other, 0.1);
    pc_reply_free(redis_rig_do(&w.rig, "ZINCRBY %sunacked.pyceleryc -3600 %s", w.rig.key_prefix, src->keeper.id));
    for (int i = 0; i < 3; i++) {
        redis_sink_for(other, 0.4);  // it is the first to look
        redis_sink_for(sink, 0.4);
    }
    PC_ASSERT(sink->downs == 0 && other->count == 0, "%d: %s, %s", other->count, sink->why.msg, other->log);
    redis_sink_settle(sink, 0, PC_ACK);
    redis_sink_settle(sink, 1, PC_ACK);
    redis_sink_end(sink);
    redis_sink_end(other);
    expect_nothing_left(&w);
    end_world(&w);
}

/* Its loop stands still (a task of the solo pool), but its thread says that it lives. */
void
test_redis_source_that_is_busy_keeps_its_messages(void)
{
    world w = make_world(false);
    w.config.lease = 0.6;
    w.config.stalls = true;
    redis_sink_publish(w.producer, "", "q", 0, 0, 5);
    redis_sink *busy = redis_sink_new(&w.config);
    busy->hold = true;
    redis_sink_start(busy, "q", 5);
    redis_sink_until(busy, &busy->count, 5);
    redis_sink_for(busy, 0.05);  // has a lease
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 0);
    redis_sink_for(sink, 2.5);
    PC_ASSERT_INT(sink->count, 0);
    redis_sink_for(busy, 0.1);
    PC_ASSERT(busy->downs == 0, "%s", busy->why.msg);
    for (int i = 0; i < 5; i++) {
        redis_sink_settle(busy, i, PC_ACK);
    }
    redis_sink_end(busy);
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* LC_NUMERIC is the application's: seconds reach the scripts with a point all the same. */
void
test_redis_source_ignores_locale(void)
{
    comma_locale();
    test_redis_source_of_a_dead_worker_is_recovered();
    test_redis_source_that_is_busy_keeps_its_messages();
}

/* The thread finds out while the loop stands still: the loop knows before it does anything else. */
void
test_redis_source_learns_from_its_thread_that_its_lease_was_ended(void)
{
    world w = make_world(false);
    w.config.lease = 1.2;
    w.config.stalls = true;
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink *busy = redis_sink_new(&w.config);
    busy->hold = true;
    redis_sink_start(busy, "q", 3);
    redis_sink_until(busy, &busy->count, 3);
    redis_sink_for(busy, 0.05);
    PC_ASSERT_INT(number(&w, "DEL", "unacked.pyceleryc"), 1);
    usleep(1200000);  // the thread has looked, the loop does not wonder yet
    PC_ASSERT(pc_loop_prepare(busy->loop, pc_mono_now()) >= 0);
    PC_ASSERT_INT(busy->downs, 1);
    PC_ASSERT(strstr(busy->why.msg, "given back") != NULL, "%s", busy->why.msg);
    redis_sink_connect(busy);
    redis_sink_until(busy, &busy->count, 6);
    redis_sink_for(busy, 1.5);
    PC_ASSERT_INT(busy->downs, 1);  // the new lease is not taken for the old one
    redis_sink_end(busy);
    PC_ASSERT_INT(number(&w, "DEL", "q"), 1);
    expect_nothing_left(&w);
    end_world(&w);
}

/* Without its thread's word (here the server does not answer it) a loop that stood still begins anew. */
void
test_redis_source_that_was_silent_begins_anew(void)
{
    world w = make_world(true);
    w.config.lease = 0.3;
    w.config.stalls = true;
    redis_sink *busy = redis_sink_new(&w.config);
    redis_sink_start(busy, "q", 3);
    redis_sink_until(busy, &busy->ups, 1);
    redis_sink_for(busy, 0.05);
    redis_server_signal(&w.server, SIGSTOP);
    usleep(700000);
    redis_server_signal(&w.server, SIGCONT);
    PC_ASSERT(pc_loop_prepare(busy->loop, pc_mono_now()) >= 0);
    PC_ASSERT_INT(busy->downs, 1);
    PC_ASSERT(strstr(busy->why.msg, "stood still") != NULL, "%s", busy->why.msg);
    redis_sink_end(busy);
    end_world(&w);
}

void
test_redis_source_stays_young_and_takes_what_celery_left(void)
{
    world w = make_world(false);
    w.config.visibility_timeout = 0.8;
    redis_sink_publish(w.producer, "", "q", 6, 0, 2);
    redis_sink *holder = redis_sink_new(&w.config);
    holder->hold = true;
    redis_sink_start(holder, "q", 1);
    redis_sink_until(holder, &holder->count, 1);
    // what a Celery worker leaves behind: taken, booked, and no word any more
    const char *p = w.rig.key_prefix;
    pc_reply *text = redis_rig_do(&w.rig, "RPOP %sq\x06\x16" "6", p);
    pc_slice words[4];
    char value[2000];
    char key[200];
    snprintf(key, sizeof key, "%sunacked", p);
    snprintf(value, sizeof value, "[%s, \"\", \"q\"]", text->text.ptr);
    pc_redis_config redis = {.host = w.rig.host, .port = w.rig.port, .db = w.rig.db};
    words[0] = pc_slice_str("HSET");
    words[1] = pc_slice_str(key);
    words[2] = pc_slice_str("some-uuid");
    words[3] = pc_slice_str(value);
    pc_redis_cmd command = {4, words};
    pc_redis_client *client = pc_redis_client_new(&redis, NULL);
    PC_ASSERT(pc_redis_client_run(client, &command, 1, 0, NULL, redis_rig_in(5), NULL, NULL) == 0);
    pc_redis_client_free(client);
    PC_ASSERT_INT(redis_rig_int(&w.rig, "ZADD %sunacked_index 1 some-uuid", p), 1);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 0);
    pc_mono end = redis_rig_in(2.5);
    while (pc_mono_now().ns < end.ns) {
        redis_sink_for(sink, 0.05);
        redis_sink_for(holder, 0.05);
    }
    PC_ASSERT_INT(sink->count, 1);
    PC_ASSERT_INT(sink->redelivered, 1);
    PC_ASSERT_STR(sink->bodies[0], "1");
    redis_sink_settle(sink, 0, PC_ACK);
    redis_sink_settle(holder, 0, PC_ACK);
    pc_reply_free(text);
    redis_sink_end(holder);
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

static void
look_now(redis_sink *sink)
{
    pc_redis_source *src = (pc_redis_source *)(void *)sink->source;
    PC_ASSERT_INT(pc_loop_set_timer(sink->loop, &src->keeper.look, pc_mono_now(), NULL), 0);
    redis_sink_for(sink, 0.2);
}

/* The clock was set ahead by more than the visibility_timeout: what a worker with a lease holds is not abandoned. Where
 * nobody can see that a worker died, age is all there is. */
void
test_redis_source_what_is_held_is_not_abandoned(void)
{
    world w = make_world(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 2);
    redis_sink *sink = redis_sink_new(&w.config);
    pc_redis_source *src = (pc_redis_source *)(void *)sink->source;
    const char *p = w.rig.key_prefix;
    const char *id = src->keeper.id;
    sink->hold = true;
    redis_sink_start(sink, "q", 5);
    redis_sink_until(sink, &sink->count, 2);
    redis_sink_for(sink, 0.1);
    for (int blind = 0; blind <= 1; blind++) {
        src->keeper.blind = blind;
        PC_ASSERT_INT(redis_rig_int(&w.rig, "ZADD %sunacked_index 1 %s:1 1 %s:2", p, id, id), 0);
        look_now(sink);
        PC_ASSERT_INT(sink->count, blind ? 4 : 2);
        PC_ASSERT_INT(redis_rig_int(&w.rig, "ZCOUNT %sunacked_index 0 1", p), 0);
    }
    for (int i = 0; i < 4; i++) {
        redis_sink_settle(sink, i, PC_ACK);
    }
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

/* ---- trouble ---- */

void
test_redis_source_moves_what_is_no_envelope_to_the_dead(void)
{
    world w = make_world(false);
    static const char *const bad[] = {"{\"body\":", "nonsense", "[1]", "{}", "\"\\", "{\"body\":\"\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        PC_ASSERT(redis_rig_int(&w.rig, "LPUSH %sq %s", w.rig.key_prefix, bad[i]) > 0);
    }
    redis_sink_publish(w.producer, "", "q", 0, 7, 1);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 2);
    redis_sink_until(sink, &sink->count, 1);
    PC_ASSERT_STR(sink->bodies[0], "7");
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->logged, sizeof bad / sizeof bad[0]);
    PC_ASSERT_INT(number(&w, "LLEN", "unacked.pyceleryc.dead"), sizeof bad / sizeof bad[0]);
    pc_reply *reply = redis_rig_do(&w.rig, "LINDEX %sunacked.pyceleryc.dead -1", w.rig.key_prefix);
    PC_ASSERT_STR(reply->text.ptr, bad[0]);
    pc_reply_free(reply);
    redis_sink_end(sink);
    PC_ASSERT_INT(number(&w, "HLEN", "unacked"), 0);
    end_world(&w);
}

void
test_redis_source_survives_a_key_of_the_wrong_type(void)
{
    world w = make_world(false);
    pc_reply_free(redis_rig_do(&w.rig, "SET %sbad 1", w.rig.key_prefix));
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_add(sink, "bad");
    redis_sink_start(sink, "q", 5);
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink_until(sink, &sink->count, 3);
    PC_ASSERT(strstr(sink->log, "WRONGTYPE") != NULL, "%s", sink->log);
    PC_ASSERT_INT(sink->logged, 1);
    redis_sink_end(sink);
    end_world(&w);
}

void
test_redis_source_says_when_its_books_are_of_the_wrong_type(void)
{
    world w = make_world(false);
    redis_sink_publish(w.producer, "", "q", 0, 0, 1);
    pc_reply_free(redis_rig_do(&w.rig, "SET %sunacked 1", w.rig.key_prefix));
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 5);
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT(strstr(sink->why.msg, "WRONGTYPE") != NULL, "%s", sink->why.msg);
    PC_ASSERT_INT(redis_sink_size(w.producer, "q"), 1);
    sink->source->ops->destroy(sink->source);
    pc_loop_free(sink->loop);
    pc_free(sink);
    end_world(&w);
}

void
test_redis_source_goes_on_after_script_flush(void)
{
    world w = make_world(true);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 0);
    redis_sink_publish(w.producer, "", "q", 0, 0, 5);
    redis_sink_until(sink, &sink->count, 5);
    pc_reply_free(redis_rig_do(&w.rig, "SCRIPT FLUSH"));
    for (int i = 0; i < 5; i++) {
        redis_sink_settle(sink, i, PC_ACK);
    }
    redis_sink_publish(w.producer, "", "q", 0, 5, 5);
    redis_sink_until(sink, &sink->count, 10);
    PC_ASSERT_INT(sink->downs, 0);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(number(&w, "HLEN", "unacked"), 5);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_sink_size(w.producer, "q"), 5);
    end_world(&w);
}

/* Acknowledged, then the connection breaks, or just after that: what was not answered is settled on the next one. */
void
test_redis_source_reconnects_and_keeps_its_settlements(void)
{
    world w = make_world(true);  // nobody else's client can be killed
    redis_sink_publish(w.producer, "", "q", 0, 0, 6);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 0);
    redis_sink_until(sink, &sink->count, 6);
    char line[100];
    pc_reply *clients = redis_rig_do(&w.rig, "CLIENT LIST");
    const char *mine = strstr(clients->text.ptr, " name=pyceleryc-");
    PC_ASSERT(mine != NULL);
    while (mine > clients->text.ptr && mine[-1] != '\n') {
        mine--;
    }
    snprintf(line, sizeof line, "CLIENT KILL ID %ld", atol(mine + 3));
    pc_reply_free(clients);
    redis_sink_settle(sink, 0, PC_ACK);
    redis_sink_settle(sink, 1, PC_ACK);
    pc_reply_free(redis_rig_do(&w.rig, "%s", line));
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT_INT(sink->why.code, PC_EIO);
    redis_sink_settle(sink, 2, PC_ACK);
    redis_sink_settle(sink, 3, PC_REQUEUE);  // void
    redis_sink_connect(sink);
    redis_sink_settle(sink, 4, PC_ACK);  // too late: it has gone back
    redis_sink_until(sink, &sink->count, 9);
    redis_sink_for(sink, 0.1);
    PC_ASSERT_INT(sink->count, 9);
    PC_ASSERT_STR(sink->bodies[6], "3");
    PC_ASSERT_STR(sink->bodies[7], "4");
    for (int i = 6; i < 9; i++) {
        redis_sink_settle(sink, i, PC_ACK);
    }
    redis_sink_end(sink);
    expect_nothing_left(&w);
    end_world(&w);
}

void
test_redis_source_reports_a_read_only_server(void)
{
    world w = make_world(true);
    redis_sink_publish(w.producer, "", "q", 0, 0, 1);
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 5);
    redis_sink_until(sink, &sink->count, 1);
    pc_reply_free(redis_rig_do(&w.rig, "REPLICAOF 127.0.0.1 1"));
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT(sink->why.code == PC_EIO, "%s", sink->why.msg);
    pc_reply_free(redis_rig_do(&w.rig, "REPLICAOF NO ONE"));
    redis_sink_connect(sink);
    redis_sink_publish(w.producer, "", "q", 0, 1, 1);
    redis_sink_until(sink, &sink->count, 2);
    redis_sink_end(sink);
    end_world(&w);
}

/* The answer never comes, since we hang up over the refusal of something else. */
void
test_redis_source_looks_again_after_a_question_was_lost(void)
{
    world w = make_world(true);
    redis_sink_publish(w.producer, "", "q", 0, 0, 1);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 1);
    redis_sink_until(sink, &sink->count, 1);
    pc_reply_free(redis_rig_do(&w.rig, "REPLICAOF 127.0.0.1 1"));
    redis_sink_settle(sink, 0, PC_ACK);
    int wait_ms = pc_loop_prepare(sink->loop, redis_rig_in(1));  // the ack leaves
    sink->source->ops->look(sink->source);
    PC_ASSERT_INT(pc_loop_wait(sink->loop, wait_ms, NULL), 0);
    (void)pc_loop_dispatch(sink->loop);
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT_INT(sink->depths, 0);
    pc_reply_free(redis_rig_do(&w.rig, "REPLICAOF NO ONE"));
    redis_sink_connect(sink);
    redis_sink_publish(w.producer, "", "q", 0, 1, 3);
    redis_sink_until(sink, &sink->count, 2);
    sink->source->ops->look(sink->source);
    redis_sink_until(sink, &sink->depths, 1);
    PC_ASSERT_INT(sink->depth, 2);
    redis_sink_end(sink);
    end_world(&w);
}

void
test_redis_source_takes_and_acks_without_memory(void)
{
    world w = make_world(true);
    redis_sink_publish(w.producer, "", "q", 0, 0, 50);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 1"));
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 10);
    redis_sink_until(sink, &sink->count, 50);
    PC_ASSERT_INT(sink->downs, 0);
    redis_sink_end(sink);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 0"));
    PC_ASSERT_INT(redis_sink_size(w.producer, "q"), 0);
    end_world(&w);
}

/* A user that may neither track nor subscribe nor list: polled, in time. */
void
test_redis_source_polls_without_permission_to_track(void)
{
    world w = make_world(true);
    pc_reply_free(redis_rig_do(&w.rig, "ACL SETUSER small on >pw ~* +@all -client|tracking resetchannels"));
    w.config.user = "small";
    w.config.password = "pw";
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 5);
    redis_sink_for(sink, 0.2);
    redis_sink_publish(w.producer, "", "q", 0, 0, 1);
    pc_mono start = pc_mono_now();
    redis_sink_until(sink, &sink->count, 1);
    PC_ASSERT(pc_mono_now().ns - start.ns < 4 * PC_NS_PER_SEC);
    redis_sink_end(sink);
    end_world(&w);
}

void
test_redis_source_over_a_unix_socket(void)
{
    char path[200];
    redis_server server = {.port = 0};
    PC_ASSERT(getcwd(path, sizeof path - 20) != NULL);
    strcat(path, "/redis.sock");
    const char *options[] = {"--unixsocket", path, NULL};
    redis_server_start(&server, options, NULL);
    pc_store_config rig = redis_rig_config(&server);
    pc_broker_config config = redis_sink_config(&rig);
    config.host = NULL;
    config.port = 0;
    config.unix_path = path;
    config.unacked_key = "u";
    config.unacked_index_key = "i";
    config.sep = ":";
    config.priority_steps = "0,5";
    pc_producer *p = redis_sink_producer(&config);
    redis_sink_publish(p, "", "q", 7, 0, 3);
    PC_ASSERT_INT(redis_rig_int(&rig, "LLEN %sq:5", rig.key_prefix), 3);
    redis_sink *sink = redis_sink_new(&config);
    sink->hold = true;
    redis_sink_start(sink, "q", 5);
    redis_sink_until(sink, &sink->count, 3);
    PC_ASSERT_INT(redis_rig_int(&rig, "HLEN %su", rig.key_prefix), 3);
    PC_ASSERT_INT(redis_rig_int(&rig, "ZCARD %si", rig.key_prefix), 3);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_sink_size(p, "q"), 3);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
    redis_server_kill(&server);
}

static int
create_and_destroy(void *ctx)
{
    const world *w = ctx;
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
    world w = make_world(false);
    PC_ASSERT(PC_OOM(create_and_destroy, &w) > 5);
    end_world(&w);
}
