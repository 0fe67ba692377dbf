/* SPDX-License-Identifier: BSD-3-Clause */
/* Consuming from a Redis where something is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "harness.h"
#include "redis_sink.h"

void
test_redis_source_moves_what_is_no_envelope_to_the_dead(void)
{
    redis_world w = redis_world_make(false);
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
    PC_ASSERT_INT(redis_world_int(&w, "LLEN", "unacked.pyceleryc.dead"), sizeof bad / sizeof bad[0]);
    pc_reply *reply = redis_rig_do(&w.rig, "LINDEX %sunacked.pyceleryc.dead -1", w.rig.key_prefix);
    PC_ASSERT_STR(reply->text.ptr, bad[0]);
    pc_reply_free(reply);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_world_int(&w, "HLEN", "unacked"), 0);
    redis_world_end(&w);
}

void
test_redis_source_survives_a_key_of_the_wrong_type(void)
{
    redis_world w = redis_world_make(false);
    pc_reply_free(redis_rig_do(&w.rig, "SET %sbad 1", w.rig.key_prefix));
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_add(sink, "bad");
    redis_sink_start(sink, "q", 5);
    redis_sink_publish(w.producer, "", "q", 0, 0, 3);
    redis_sink_until(sink, &sink->count, 3);
    PC_ASSERT(strstr(sink->log, "WRONGTYPE") != NULL, "%s", sink->log);
    PC_ASSERT_INT(sink->logged, 1);
    redis_sink_end(sink);
    redis_world_end(&w);
}

void
test_redis_source_says_when_its_books_are_of_the_wrong_type(void)
{
    redis_world w = redis_world_make(false);
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
    redis_world_end(&w);
}

void
test_redis_source_goes_on_after_script_flush(void)
{
    redis_world w = redis_world_make(true);
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
    PC_ASSERT_INT(redis_world_int(&w, "HLEN", "unacked"), 5);
    redis_sink_end(sink);
    PC_ASSERT_INT(redis_sink_size(w.producer, "q"), 5);
    redis_world_end(&w);
}

/* Acknowledged, then the connection breaks, or just after that: what was not answered is settled on the next one. */
void
test_redis_source_reconnects_and_keeps_its_settlements(void)
{
    redis_world w = redis_world_make(true);  // nobody else's client can be killed
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
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

void
test_redis_source_reports_a_read_only_server(void)
{
    redis_world w = redis_world_make(true);
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
    redis_world_end(&w);
}

/* The answer never comes, since we hang up over the refusal of something else. */
void
test_redis_source_looks_again_after_a_question_was_lost(void)
{
    redis_world w = redis_world_make(true);
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
    redis_world_end(&w);
}

void
test_redis_source_takes_and_acks_without_memory(void)
{
    redis_world w = redis_world_make(true);
    redis_sink_publish(w.producer, "", "q", 0, 0, 50);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 1"));
    redis_sink *sink = redis_sink_new(&w.config);
    redis_sink_start(sink, "q", 10);
    redis_sink_until(sink, &sink->count, 50);
    PC_ASSERT_INT(sink->downs, 0);
    redis_sink_end(sink);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 0"));
    PC_ASSERT_INT(redis_sink_size(w.producer, "q"), 0);
    redis_world_end(&w);
}

/* A user that may neither track nor subscribe nor list: polled, in time. */
void
test_redis_source_polls_without_permission_to_track(void)
{
    redis_world w = redis_world_make(true);
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
    redis_world_end(&w);
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
