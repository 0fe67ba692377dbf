/* SPDX-License-Identifier: BSD-3-Clause */
#include "redis_sink.h"

#include <stdio.h>

#include "base/mem.h"
#include "harness.h"

pc_broker_config
redis_sink_config(const pc_store_config *rig)
{
    return (pc_broker_config){
        .scheme = "redis",
        .host = rig->host,
        .port = rig->port,
        .db = rig->db,
        .key_prefix = rig->key_prefix,
        .connect_timeout = 4,
        .publish_timeout = 10,
        .confirm = 1,
    };
}

static void
on_message(void *ctx, const pc_message *message)
{
    redis_sink *sink = ctx;
    PC_ASSERT(sink->count < REDIS_SINK_MAX);
    sink->tags[sink->count] = message->tag;
    snprintf(sink->bodies[sink->count], sizeof sink->bodies[0], "%.*s", (int)message->body.len,
             message->body.ptr);
    sink->redelivered += message->redelivered;
    sink->count++;
    if (!sink->hold) {
        redis_sink_settle(sink, sink->count - 1, PC_ACK);
    }
}

static void
on_up(void *ctx)
{
    ((redis_sink *)ctx)->ups++;
}

static void
on_down(void *ctx, const pc_err *why)
{
    redis_sink *sink = ctx;
    sink->downs++;
    sink->why = *why;
}

static void
on_cancelled(void *ctx, const char *queue)
{
    (void)ctx;
    PC_ASSERT(false, "%s cancelled", queue);
}

static void
on_depth(void *ctx, const char *queue, uint64_t messages)
{
    redis_sink *sink = ctx;
    (void)queue;
    sink->depths++;
    sink->depth = messages;
}

static void
on_log(void *ctx, pc_level level, const char *text, size_t len)
{
    redis_sink *sink = ctx;
    sink->logged += level >= PC_WARNING;
    snprintf(sink->log, sizeof sink->log, "%.*s", (int)len, text);
}

redis_sink *
redis_sink_new(const pc_broker_config *config)
{
    pc_err err = {0};
    redis_sink *sink = pc_zalloc(sizeof *sink);
    PC_ASSERT(sink != NULL);
    pc_source_hooks hooks = {.message = on_message, .up = on_up, .down = on_down,
                             .cancelled = on_cancelled, .ctx = sink, .depth = on_depth};
    sink->door = (pc_log){PC_WARNING, on_log, sink};
    sink->loop = pc_loop_new(&err);
    PC_ASSERT(sink->loop != NULL, "%s", err.msg);
    sink->source = pc_source_find("redis")->create(config, sink->loop, &hooks, &sink->door, &err);
    PC_ASSERT(sink->source != NULL, "%s", err.msg);
    return sink;
}

void
redis_sink_connect(redis_sink *sink)
{
    pc_err err = {0};
    int want = sink->ups + 1;
    PC_ASSERT(sink->source->ops->connect(sink->source, &err) == 0, "%s", err.msg);
    redis_sink_until(sink, &sink->ups, want);
}

void
redis_sink_add(redis_sink *sink, const char *name)
{
    pc_err err = {0};
    pc_queue queue = {.name = name, .exchange = ""};
    PC_ASSERT(sink->source->ops->add_queue(sink->source, &queue, &err) == 0, "%s", err.msg);
}

void
redis_sink_start(redis_sink *sink, const char *queue, unsigned prefetch)
{
    PC_ASSERT(sink->source->ops->prefetch(sink->source, prefetch, NULL) == 0);
    redis_sink_add(sink, queue);
    redis_sink_connect(sink);
}

void
redis_sink_settle(redis_sink *sink, int i, pc_settle how)
{
    pc_err err = {0};
    PC_ASSERT(sink->source->ops->settle(sink->source, sink->tags[i], how, &err) == 0, "%s",
              err.msg);
}

void
redis_sink_crash(redis_sink *sink)
{
    sink->source->ops->abandon(sink->source);
    sink->source->ops->destroy(sink->source);
    pc_loop_free(sink->loop);
    pc_free(sink);
}

void
redis_sink_end(redis_sink *sink)
{
    pc_err err = {0};
    PC_ASSERT(sink->source->ops->close(sink->source, redis_rig_in(5), &err) == 0, "%s", err.msg);
    sink->source->ops->destroy(sink->source);
    pc_loop_free(sink->loop);
    pc_free(sink);
}

void
redis_sink_until(redis_sink *sink, const int *value, int want)
{
    pc_mono end = redis_rig_in(10);
    while (*value < want) {
        PC_ASSERT(pc_mono_now().ns < end.ns, "%d instead of %d; %s %s", *value, want,
                  sink->why.msg, sink->log);
        PC_ASSERT(pc_loop_step(sink->loop, end, NULL) >= 0);
    }
}

void
redis_sink_for(redis_sink *sink, double seconds)
{
    pc_mono end = redis_rig_in(seconds);
    while (pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(sink->loop, end, NULL) >= 0);
    }
}

pc_producer *
redis_sink_producer(const pc_broker_config *config)
{
    pc_err err = {0};
    pc_producer *p = pc_producer_find("redis")->create(config, NULL, &err);
    PC_ASSERT(p != NULL && p->ops->connect(p, redis_rig_in(5), &err) == 0, "%s", err.msg);
    return p;
}

void
redis_sink_publish(pc_producer *p, const char *exchange, const char *key, int priority, int first,
                   int n)
{
    pc_err err = {0};
    for (int i = first; i < first + n; i++) {
        char body[24];
        pc_message message;
        pc_message_init(&message);
        snprintf(body, sizeof body, "%d", i);
        message.body = pc_slice_str(body);
        message.content_type = pc_slice_str("text/plain");
        message.content_encoding = pc_slice_str("utf-8");
        message.headers_kind = PC_HEADERS_JSON;
        message.headers = pc_slice_str("{\"id\": 1, \"delivery_info\": \"}{\", \"list\": []}");
        message.exchange = pc_slice_str(exchange);
        message.routing_key = pc_slice_str(key);
        message.priority = priority;
        PC_ASSERT(p->ops->publish(p, &message, true, (pc_wall){0}, false, redis_rig_in(5), &err)
                      == 0, "%s", err.msg);
    }
    PC_ASSERT(p->ops->flush(p, redis_rig_in(5), &err) == 0, "%s", err.msg);
}

long
redis_sink_size(pc_producer *p, const char *queue)
{
    pc_err err = {0};
    uint64_t n = 0;
    uint64_t consumers = 0;
    PC_ASSERT(p->ops->size(p, queue, &n, &consumers, redis_rig_in(5), &err) == 0, "%s", err.msg);
    return (long)n;
}

redis_world
redis_world_make(bool private)
{
    redis_world w = {.server = {.port = 0}};
    if (private) {
        redis_server_start(&w.server, NULL, NULL);
    }
    w.rig = redis_rig_config(private ? &w.server : NULL);
    w.config = redis_sink_config(&w.rig);
    w.producer = redis_sink_producer(&w.config);
    return w;
}

void
redis_world_end(redis_world *w)
{
    w->producer->ops->destroy(w->producer);
    redis_rig_clean(&w->rig);
    if (w->server.pid != 0) {
        redis_server_kill(&w->server);
    }
}

long long
redis_world_int(const redis_world *w, const char *command, const char *key)
{
    return redis_rig_int(&w->rig, "%s %s%s", command, w->rig.key_prefix, key);
}

void
redis_world_expect_empty(const redis_world *w)
{
    pc_reply *reply = redis_rig_do(&w->rig, "KEYS %s*", w->rig.key_prefix);
    PC_ASSERT(reply->len == 0, "%zu keys are left, one is %s", reply->len,
              reply->len == 0 ? "" : reply->children[0]->text.ptr);
    pc_reply_free(reply);
}
