/* SPDX-License-Identifier: BSD-3-Clause */
/* publish_many() to a real Redis. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "io/batch.h"
#include "redis_sink.h"

#define N 3000

static void
fill(pc_batch *batch, int n, const char *exchange, const char *key)
{
    pc_err err = {0};
    for (int i = 0; i < n; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d", i);
        pc_outgoing one = {.mandatory = false};
        pc_message_init(&one.message);
        one.message.exchange = pc_slice_str(exchange);
        one.message.routing_key = pc_slice_str(key);
        one.message.body = pc_slice_of(text, (size_t)len);
        PC_ASSERT(pc_batch_add(batch, &one, &err) == 0, "%s", err.msg);
    }
}

static void
expect_in_order(pc_producer *p, int n)
{
    pc_buf memory;
    pc_message message;
    pc_err err = {0};
    bool found = true;
    pc_buf_init(&memory);
    for (int i = 0; i < n; i++) {
        char want[16];
        snprintf(want, sizeof want, "%d", i);
        PC_ASSERT(p->ops->get(p, "q", &found, &message, &memory, redis_rig_in(5), &err) == 0, "%s", err.msg);
        PC_ASSERT(found && pc_slice_is(message.body, want), "message %d", i);
    }
    pc_buf_fini(&memory);
}

void
test_redis_batch_with_each_kind_of_confirm(void)
{
    for (int confirm = 0; confirm <= 2; confirm++) {
        pc_store_config rig = redis_rig_config(NULL);
        pc_broker_config config = redis_sink_config(&rig);
        config.confirm = confirm;
        config.window = 500;  // smaller than the batch
        pc_producer *p = redis_sink_producer(&config);
        pc_batch batch;
        pc_err err = {0};
        pc_batch_init(&batch);
        fill(&batch, N, "", "q");
        PC_ASSERT(pc_batch_publish(&batch, p, redis_rig_in(20), &err) == 0, "%s", err.msg);
        PC_ASSERT_INT(batch.sent, N);
        PC_ASSERT(confirm != 2 || p->ops->unconfirmed(p) == 0);
        PC_ASSERT(p->ops->flush(p, redis_rig_in(10), &err) == 0, "%s", err.msg);
        PC_ASSERT_INT(redis_sink_size(p, "q"), N);
        expect_in_order(p, 200);
        pc_batch_fini(&batch);
        p->ops->destroy(p);
        redis_rig_clean(&rig);
    }
}

void
test_redis_batch_to_an_exchange(void)
{
    redis_world w = redis_world_make(false);
    pc_producer *p = w.producer;
    pc_queue queue = {.name = "q", .exchange = "ex", .exchange_type = "topic", .routing_key = "a.#"};
    pc_batch batch;
    pc_err err = {0};
    PC_ASSERT(p->ops->declare(p, &queue, redis_rig_in(5), &err) == 0, "%s", err.msg);
    pc_batch_init(&batch);
    fill(&batch, 50, "ex", "a.b");
    fill(&batch, 50, "ex", "b.a");  // nobody's
    PC_ASSERT(pc_batch_publish(&batch, p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(redis_sink_size(p, "q"), 50);
    expect_in_order(p, 50);
    pc_batch_fini(&batch);
    redis_world_end(&w);
}

/* The server stands still, so that the window fills: the front is taken over, the rest is not. Then it
 * dies with the answers, and comes back: nothing is lost. */
void
test_redis_batch_cut_in_the_middle_loses_nothing(void)
{
    redis_server server = {0};
    static const char *const options[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    redis_server_start(&server, options, NULL);
    pc_store_config rig = redis_rig_config(&server);
    pc_broker_config config = redis_sink_config(&rig);
    config.window = 1000;
    pc_producer *p = redis_sink_producer(&config);
    pc_batch batch;
    pc_err err = {0};
    pc_batch_init(&batch);
    fill(&batch, N, "", "q");
    redis_server_signal(&server, SIGSTOP);
    PC_ASSERT_INT(pc_batch_publish(&batch, p, redis_rig_in(0.5), &err), -1);
    PC_ASSERT(err.code == PC_EFULL, "%s", err.msg);
    PC_ASSERT_INT(batch.sent, 1000);
    redis_server_kill(&server);
    redis_server_start(&server, options, NULL);
    PC_ASSERT(pc_batch_publish(&batch, p, redis_rig_in(20), &err) == 0, "%s", err.msg);
    PC_ASSERT(p->ops->flush(p, redis_rig_in(10), &err) == 0, "%s", err.msg);
    PC_ASSERT(redis_sink_size(p, "q") >= N);
    pc_batch_fini(&batch);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
    redis_server_kill(&server);
}

/* With confirms that are waited for, what was not sent when time is up is taken back. */
void
test_redis_batch_takes_back_what_was_not_sent(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config rig = redis_rig_config(&server);
    pc_broker_config config = redis_sink_config(&rig);
    config.confirm = 2;
    pc_producer *p = redis_sink_producer(&config);
    pc_batch batch;
    pc_err err = {0};
    pc_batch_init(&batch);
    fill(&batch, 100, "", "q");
    pc_reply_free(redis_rig_do(&rig, "CONFIG SET maxmemory 1"));
    PC_ASSERT_INT(pc_batch_publish(&batch, p, redis_rig_in(0.5), &err), -1);
    PC_ASSERT(err.code == PC_EFULL && strstr(err.msg, "OOM") != NULL, "%s", err.msg);
    PC_ASSERT_INT(batch.sent, 0);
    PC_ASSERT_INT(p->ops->unconfirmed(p), 0);
    pc_reply_free(redis_rig_do(&rig, "CONFIG SET maxmemory 0"));
    PC_ASSERT(pc_batch_publish(&batch, p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(redis_sink_size(p, "q"), 100);
    pc_batch_fini(&batch);
    p->ops->destroy(p);
    redis_rig_clean(&rig);
    redis_server_kill(&server);
}

/* Larger than what the kernel takes at once: all of it has left when publish() returns, although nobody
 * turns the loop afterwards. */
void
test_redis_large_message_leaves_at_once(void)
{
    redis_world w = redis_world_make(false);
    pc_producer *p = w.producer;
    pc_producer *other = redis_sink_producer(&w.config);
    size_t size = (size_t)40 << 20;
    char *large = calloc(1, size);
    pc_message message;
    pc_err err = {0};
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.body = pc_slice_of(large, size);
    PC_ASSERT(p->ops->publish(p, &message, false, (pc_wall){0}, false, redis_rig_in(20), &err) == 0, "%s",
              err.msg);
    pc_mono end = redis_rig_in(10);
    while (redis_sink_size(other, "q") == 0) {
        PC_ASSERT(pc_mono_now().ns < end.ns);
    }
    free(large);
    other->ops->destroy(other);
    redis_world_end(&w);
}
