/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing to a real Redis. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "redis_sink.h"

static void
declare(pc_producer *p, const char *name, const char *exchange, const char *type, const char *key)
{
    pc_err err = {0};
    pc_queue queue = {.name = name, .exchange = exchange, .exchange_type = type, .routing_key = key};
    PC_ASSERT(p->ops->declare(p, &queue, redis_rig_in(5), &err) == 0, "%s", err.msg);
    PC_ASSERT(p->ops->declare(p, &queue, redis_rig_in(5), &err) == 0, "%s", err.msg);
}

static void
expect_member(const pc_store_config *rig, const char *exchange, const char *member)
{
    PC_ASSERT(redis_rig_int(rig, "SISMEMBER %s_kombu.binding.%s %s", rig->key_prefix, exchange,
                            member) == 1, "%s", member);
}

void
test_redis_producer_binds_and_routes(void)
{
    redis_world w = redis_world_make(false);
    pc_producer *p = w.producer;
    declare(p, "d", "direct", "direct", "key");
    declare(p, "t1", "topics", "topic", "a.*");
    declare(p, "t2", "topics", "topic", "#");
    expect_member(&w.rig, "direct", "key\x06\x16\x06\x16" "d");
    expect_member(&w.rig, "topics", "a.*\x06\x16^a\\..*?[^\\.]$\x06\x16t1");
    expect_member(&w.rig, "topics", "#\x06\x16^.*?$\x06\x16t2");
    redis_sink_publish(p, "direct", "key", 0, 0, 3);
    redis_sink_publish(p, "direct", "other", 0, 0, 3);  // nobody's
    redis_sink_publish(p, "topics", "a.b", 5, 0, 2);
    redis_sink_publish(p, "topics", "b.a", 0, 0, 1);
    PC_ASSERT_INT(redis_sink_size(p, "d"), 3);
    PC_ASSERT_INT(redis_sink_size(p, "t1"), 2);
    PC_ASSERT_INT(redis_sink_size(p, "t2"), 3);
    PC_ASSERT_INT(redis_rig_int(&w.rig, "LLEN %st1\x06\x16" "3", w.rig.key_prefix), 2);
    pc_err err = {0};
    uint64_t n = 0;
    PC_ASSERT(p->ops->purge(p, "t2", &n, redis_rig_in(5), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(n, 3);
    static const char *const all[] = {"d", "t1", "t2"};
    for (int i = 0; i < 3; i++) {
        PC_ASSERT(p->ops->remove(p, all[i], redis_rig_in(5), &err) == 0, "%s", err.msg);
    }
    PC_ASSERT(p->ops->close(p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    redis_world_expect_empty(&w);
    redis_world_end(&w);
}

void
test_redis_producer_gets_by_priority(void)
{
    redis_world w = redis_world_make(false);
    pc_producer *p = w.producer;
    redis_sink_publish(p, "", "q", 9, 1, 1);
    redis_sink_publish(p, "", "q", 0, 2, 1);
    pc_buf memory;
    pc_buf_init(&memory);
    static const char *const want[] = {"2", "1"};
    for (int i = 0; i < 3; i++) {
        pc_message message;
        bool found = false;
        pc_err err = {0};
        PC_ASSERT(p->ops->get(p, "q", &found, &message, &memory, redis_rig_in(5), &err) == 0, "%s",
                  err.msg);
        PC_ASSERT_INT(found, i < 2);
        PC_ASSERT(!found || pc_slice_is(message.body, want[i]));
    }
    pc_buf_fini(&memory);
    redis_world_end(&w);
}

/* ---- trouble ---- */

static int
publish_one(pc_producer *p, double seconds, pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.body = pc_slice_str("x");
    message.routing_key = pc_slice_str("q");
    return p->ops->publish(p, &message, false, (pc_wall){0}, false, redis_rig_in(seconds), err);
}

/* The server dies with messages under way and starts again: all that was accepted arrives. */
void
test_redis_producer_survives_a_restart(void)
{
    redis_server server = {0};
    static const char *const options[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    redis_server_start(&server, options, NULL);
    pc_store_config rig = redis_rig_config(&server);
    pc_broker_config config = redis_sink_config(&rig);
    pc_producer *p = redis_sink_producer(&config);
    pc_err err = {0};
    int accepted = 0;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 200; j++) {
            accepted += publish_one(p, 5, &err) == 0;
        }
        redis_server_kill(&server);
        redis_server_start(&server, options, NULL);
    }
    PC_ASSERT(p->ops->flush(p, redis_rig_in(10), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(p->ops->unconfirmed(p), 0);
    PC_ASSERT_INT(accepted, 600);
    PC_ASSERT(redis_sink_size(p, "q") >= 600);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
    redis_server_kill(&server);
}

void
test_redis_producer_waits_while_the_server_has_no_memory(void)
{
    redis_world w = redis_world_make(true);
    pc_producer *p = w.producer;
    pc_err err = {0};
    PC_ASSERT(publish_one(p, 5, &err) == 0, "%s", err.msg);
    PC_ASSERT(p->ops->flush(p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 1"));
    PC_ASSERT(publish_one(p, 5, &err) == 0, "%s", err.msg);  // on its way, refused, kept
    PC_ASSERT(p->ops->flush(p, redis_rig_in(0.5), &err) < 0);
    PC_ASSERT(err.code == PC_EFULL, "%s", err.msg);
    PC_ASSERT(publish_one(p, 0.3, &err) < 0);
    PC_ASSERT(err.code == PC_EFULL && strstr(err.msg, "OOM") != NULL, "%s", err.msg);
    PC_ASSERT_INT(p->ops->unconfirmed(p), 1);
    pc_reply_free(redis_rig_do(&w.rig, "CONFIG SET maxmemory 0"));
    PC_ASSERT(p->ops->flush(p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(redis_sink_size(p, "q"), 2);
    redis_world_end(&w);
}

void
test_redis_producer_has_deadlines(void)
{
    pc_store_config rig = redis_rig_config(NULL);
    pc_broker_config config = redis_sink_config(&rig);
    config.port = redis_rig_free_port();
    pc_err err = {0};
    pc_producer *p = pc_producer_find("redis")->create(&config, NULL, &err);
    PC_ASSERT(p->ops->connect(p, redis_rig_in(0.3), &err) < 0);
    PC_ASSERT(err.code == PC_EIO, "%s", err.msg);
    PC_ASSERT(publish_one(p, 0.3, &err) < 0);
    PC_ASSERT(err.code == PC_EIO, "%s", err.msg);
    PC_ASSERT_INT(p->ops->unconfirmed(p), 0);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
}

void
test_redis_producer_reports_a_list_that_is_none(void)
{
    pc_store_config rig = redis_rig_config(NULL);
    pc_broker_config config = redis_sink_config(&rig);
    pc_reply_free(redis_rig_do(&rig, "SET %sq 1", rig.key_prefix));
    pc_err err = {0};
    for (int confirm = 0; confirm <= 2; confirm++) {
        config.confirm = confirm;
        pc_producer *p = redis_sink_producer(&config);
        PC_ASSERT_INT(publish_one(p, 5, &err), confirm == 2 ? -1 : 0);
        PC_ASSERT_INT(p->ops->flush(p, redis_rig_in(5), &err), confirm == 1 ? -1 : 0);
        PC_ASSERT(confirm == 0 || strstr(err.msg, "WRONGTYPE") != NULL, "%s", err.msg);
        p->ops->destroy(p);
    }
    redis_rig_clean(&rig);
}

static int
create_and_publish(void *ctx)
{
    pc_err err = {0};
    pc_message message;
    pc_message_init(&message);
    message.body = pc_slice_str("x");
    message.routing_key = pc_slice_str("q");
    pc_producer *p = pc_producer_find("redis")->create(ctx, NULL, &err);
    if (p == NULL) {
        return -1;
    }
    int rc = p->ops->connect(p, redis_rig_in(1), &err);
    rc = rc < 0 ? rc : p->ops->publish(p, &message, false, (pc_wall){0}, false, redis_rig_in(1), &err);
    rc = rc < 0 ? rc : p->ops->flush(p, redis_rig_in(1), &err);
    p->ops->destroy(p);
    return rc;
}

void
test_redis_producer_survives_lack_of_memory(void)
{
    pc_store_config rig = redis_rig_config(NULL);
    pc_broker_config config = redis_sink_config(&rig);
    PC_ASSERT(PC_OOM(create_and_publish, &config) > 10);
    redis_rig_clean(&rig);
}

/* ---- threads ---- */

static void *
publish_some(void *ctx)
{
    pc_err err = {0};
    for (int i = 0; i < 500; i++) {
        PC_ASSERT(publish_one(ctx, 10, &err) == 0, "%s", err.msg);
        PC_ASSERT(i % 100 != 0 || redis_sink_size(ctx, "q") > 0);
    }
    return NULL;
}

void
test_redis_producer_serves_threads(void)
{
    pc_store_config rig = redis_rig_config(NULL);
    pc_broker_config config = redis_sink_config(&rig);
    config.window = 50;
    pc_producer *p = redis_sink_producer(&config);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        PC_ASSERT(pthread_create(&threads[i], NULL, publish_some, p) == 0);
    }
    for (int i = 0; i < 4; i++) {
        PC_ASSERT(pthread_join(threads[i], NULL) == 0);
    }
    PC_ASSERT(p->ops->flush(p, redis_rig_in(5), NULL) == 0);
    PC_ASSERT_INT(redis_sink_size(p, "q"), 2000);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
}

void
bench_redis_publish(void)
{
    redis_world w = redis_world_make(false);
    pc_producer *p = w.producer;
    ct_reset_timer();
    for (int i = 0; i < 20000; i++) {
        PC_ASSERT(publish_one(p, 5, NULL) == 0);
    }
    PC_ASSERT(p->ops->flush(p, redis_rig_in(5), NULL) == 0);
    redis_world_end(&w);
}
