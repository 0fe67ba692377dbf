/* SPDX-License-Identifier: BSD-3-Clause */
/* What workers on Redis that died, or stood still, held; and what the living keep. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "comma.h"
#include "harness.h"
#include "io/redis_source.h"
#include "redis_sink.h"

void
test_redis_source_of_a_dead_worker_is_recovered(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
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
    redis_world w = redis_world_make(true);
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
    PC_ASSERT_INT(redis_world_int(&w, "LLEN", "q"), 30000);
    PC_ASSERT_INT(redis_world_int(&w, "DEL", "q"), 1);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* Its loop stands still and then goes on: others have its messages by now, it has to begin anew. */
void
test_redis_source_that_stood_still_is_recovered(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* As above, but found out by others only: the clock of this machine says nothing. */
void
test_redis_source_learns_that_its_lease_was_ended(void)
{
    redis_world w = redis_world_make(false);
    w.config.lease = 0.3;
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink *sink = redis_sink_new(&w.config);
    sink->hold = true;
    redis_sink_start(sink, "q", 3);
    redis_sink_until(sink, &sink->count, 3);
    redis_sink_for(sink, 0.2);
    PC_ASSERT_INT(redis_world_int(&w, "DEL", "unacked.pyceleryc"), 1);
    redis_sink_until(sink, &sink->downs, 1);
    PC_ASSERT(strstr(sink->why.msg, "given back") != NULL, "%s", sink->why.msg);
    redis_sink_connect(sink);
    redis_sink_until(sink, &sink->count, 6);
    PC_ASSERT_INT(sink->redelivered, 3);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_world_int(&w, "DEL", "q"), 1);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* The server's clock is set ahead, by an hour: all leases seem to have ended long ago. */
void
test_redis_source_keeps_its_messages_when_the_clock_is_set(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* Its loop stands still (a task of the solo pool), but its thread says that it lives. */
void
test_redis_source_that_is_busy_keeps_its_messages(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
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
    redis_world w = redis_world_make(false);
    w.config.lease = 1.2;
    w.config.stalls = true;
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink *busy = redis_sink_new(&w.config);
    busy->hold = true;
    redis_sink_start(busy, "q", 3);
    redis_sink_until(busy, &busy->count, 3);
    redis_sink_for(busy, 0.05);
    PC_ASSERT_INT(redis_world_int(&w, "DEL", "unacked.pyceleryc"), 1);
    usleep(1200000);  // the thread has looked, the loop does not wonder yet
    PC_ASSERT(pc_loop_prepare(busy->loop, pc_mono_now()) >= 0);
    PC_ASSERT_INT(busy->downs, 1);
    PC_ASSERT(strstr(busy->why.msg, "given back") != NULL, "%s", busy->why.msg);
    redis_sink_connect(busy);
    redis_sink_until(busy, &busy->count, 6);
    redis_sink_for(busy, 1.5);
    PC_ASSERT_INT(busy->downs, 1);  // the new lease is not taken for the old one
    redis_sink_end(busy);
    PC_ASSERT_INT(redis_world_int(&w, "DEL", "q"), 1);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

/* Without its thread's word (here the server does not answer it) a loop that stood still begins anew. */
void
test_redis_source_that_was_silent_begins_anew(void)
{
    redis_world w = redis_world_make(true);
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
    redis_world_end(&w);
}

void
test_redis_source_stays_young_and_takes_what_celery_left(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
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
    redis_world w = redis_world_make(false);
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}
