/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_world.h"

#include <stdio.h>

#include "harness.h"

pc_mono
in_ms(int ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static void
on_message(void *ctx, const pc_message *message)
{
    reader *r = ctx;
    if (r->total != NULL) {
        atomic_fetch_add(r->total, 1);
    } else {
        PC_ASSERT(r->got < MOST && message->body.len < sizeof r->bodies[0]);
        memcpy(r->bodies[r->got], message->body.ptr, message->body.len);
        r->bodies[r->got][message->body.len] = '\0';
        r->tags[r->got] = message->tag;
        r->again[r->got] = message->redelivered;
    }
    r->got++;
    if (r->settle) {
        PC_ASSERT_INT(r->source->ops->settle(r->source, message->tag, r->how, NULL), 0);
        // still lent
        PC_ASSERT(message->body.len > 0 && message->body.ptr[0] != '\0');
    }
}

static void
on_up(void *ctx)
{
    ((reader *)ctx)->up++;
}

static void
on_down(void *ctx, const pc_err *why)
{
    (void)ctx;
    PC_ASSERT(false, "down: %s", why->msg);
}

static void
on_cancelled(void *ctx, const char *queue)
{
    reader *r = ctx;
    snprintf(r->cancelled, sizeof r->cancelled, "%s", queue);
}

void
world_setup(world *w)
{
    *w = (world){.hub = pc_hub_new(NULL)};
    PC_ASSERT(w->hub);
    w->config = (pc_broker_config){.scheme = "memory", .hub = w->hub};
    w->producer = pc_producer_memory.create(&w->config, NULL, NULL);
    PC_ASSERT(w->producer);
    PC_ASSERT_INT(w->producer->ops->headers_kind, PC_HEADERS_JSON);
    PC_ASSERT_INT(w->producer->ops->connect(w->producer, soon, NULL), 0);
}

void
world_teardown(world *w)
{
    w->producer->ops->destroy(w->producer);
    pc_hub_free(w->hub);
}

pc_source_hooks
reader_hooks(reader *r)
{
    return (pc_source_hooks){on_message, on_up, on_down, on_cancelled, r, NULL, NULL, NULL};
}

void
reader_start(reader *r, const world *w, const char *const *queues)
{
    *r = (reader){.loop = pc_loop_new(NULL)};
    pc_source_hooks hooks = reader_hooks(r);
    r->source = pc_source_memory.create(&w->config, r->loop, &hooks, NULL, NULL);
    PC_ASSERT(r->source);
    for (; *queues != NULL; queues++) {
        pc_queue queue = {.name = *queues};
        PC_ASSERT_INT(r->source->ops->add_queue(r->source, &queue, NULL), 0);
    }
    PC_ASSERT_INT(r->source->ops->connect(r->source, NULL), 0);
    PC_ASSERT_INT(r->up, 0);
}

void
reader_stop(reader *r)
{
    r->source->ops->destroy(r->source);
    pc_loop_free(r->loop);
}

void
reader_turn(reader *r)
{
    for (int i = 0; i < 3; i++) {
        PC_ASSERT(pc_loop_step(r->loop, soon, NULL) >= 0);
    }
}

int
world_publish(const world *w, const char *exchange, const char *key, const char *body, int priority,
              bool mandatory)
{
    pc_message message;
    pc_message_init(&message);
    message.exchange = pc_slice_str(exchange);
    message.routing_key = pc_slice_str(key);
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"id\": \"1\"}");
    message.body = pc_slice_str(body);
    message.priority = priority;
    return w->producer->ops->publish(w->producer, &message, mandatory, (pc_wall){0}, false, soon,
                                     NULL);
}

void
world_send_each(const world *w, const char *queue, const char *letters)
{
    for (; *letters != '\0'; letters++) {
        char body[2] = {*letters, '\0'};
        PC_ASSERT_INT(world_publish(w, "", queue, body, -1, true), 0);
    }
}

const char *
reader_got(const reader *r)
{
    static char all[MOST * 16];
    all[0] = '\0';
    for (int i = 0; i < r->got; i++) {
        strcat(all, r->bodies[i]);
    }
    return all;
}

void
reader_settle(const reader *r, int index, pc_settle how)
{
    PC_ASSERT_INT(r->source->ops->settle(r->source, r->tags[index], how, NULL), 0);
}

uint64_t
world_ready(const world *w, const char *queue)
{
    uint64_t messages = 0, consumers = 0;
    PC_ASSERT_INT(w->producer->ops->size(w->producer, queue, &messages, &consumers, soon, NULL), 0);
    return messages;
}

void
world_declare(const world *w, const char *name, const char *exchange, const char *type,
              const char *key)
{
    pc_queue queue = {
        .name = name, .exchange = exchange, .exchange_type = type, .routing_key = key};
    PC_ASSERT_INT(w->producer->ops->declare(w->producer, &queue, soon, NULL), 0);
}
