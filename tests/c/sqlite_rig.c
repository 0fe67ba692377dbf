/* SPDX-License-Identifier: BSD-3-Clause */
#include "sqlite_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "io/sqlite_db.h"

const pc_producer_ops *const sq_out = &pc_producer_sqlite;
const pc_source_ops *const sq_in = &pc_source_sqlite;

pc_mono
sq_after_ms(int64_t ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

pc_broker_config
sq_config_for(const char *path)
{
    return (pc_broker_config){.scheme = "sqlite", .vhost = path, .synchronous = PC_SQLITE_NORMAL};
}

pc_producer *
sq_make_producer(void)
{
    pc_err err = {0};
    pc_broker_config config = sq_config_for(SQ_DB);
    pc_producer *producer = sq_out->create(&config, NULL, &err);
    PC_ASSERT(producer != NULL, "%s", err.msg);
    PC_ASSERT(sq_out->connect(producer, sq_after_ms(5000), &err) == 0, "%s", err.msg);
    return producer;
}

int
sq_send_with(pc_producer *producer, const char *queue, const char *body, int priority,
             int64_t due_ms, pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.content_type = pc_slice_str("application/json");
    message.correlation_id = pc_slice_str(body);
    message.routing_key = pc_slice_str(queue);
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"task\": \"add\"}");
    message.body = pc_slice_str(body);
    message.priority = priority;
    message.delivery_mode = 2;
    pc_wall due = {pc_wall_now().us + due_ms * 1000};
    return sq_out->publish(producer, &message, false, due, due_ms != 0, sq_after_ms(10000), err);
}

void
sq_send_text(pc_producer *producer, const char *queue, const char *body)
{
    pc_err err = {0};
    PC_ASSERT(sq_send_with(producer, queue, body, -1, 0, &err) == 0, "%s", err.msg);
}

static void
on_message(void *ctx, const pc_message *message)
{
    sq_rig *self = ctx;
    char text[32] = "";
    size_t len = message->body.len < sizeof text - 1 ? message->body.len : sizeof text - 1;
    memcpy(text, message->body.ptr, len);
    int at = self->got % SQ_LOG_MAX;
    self->numbers[at] = atoi(text);
    self->tags[at] = message->tag;
    self->redelivered[at] = message->redelivered;
    self->got++;
    self->last = *message;
    snprintf(self->text, sizeof self->text, "%.*s", (int)message->correlation_id.len,
             message->correlation_id.ptr);
    if (self->ack) {
        PC_ASSERT_INT(sq_in->settle(self->source, message->tag, PC_ACK, NULL), 0);
    }
}

static void
on_up(void *ctx)
{
    ((sq_rig *)ctx)->up++;
}

static void
on_down(void *ctx, const pc_err *why)
{
    ((sq_rig *)ctx)->down++;
    ((sq_rig *)ctx)->why = *why;
}

static void
on_cancelled(void *ctx, const char *queue)
{
    (void)queue;
    ((sq_rig *)ctx)->cancelled++;
}

pc_source_hooks
sq_hooks(sq_rig *self)
{
    return (pc_source_hooks){on_message, on_up, on_down, on_cancelled, self, NULL, NULL, NULL};
}

sq_rig *
sq_make_rig(const char *path)
{
    pc_err err = {0};
    sq_rig *self = calloc(1, sizeof *self);
    pc_broker_config config = sq_config_for(path);
    pc_source_hooks hooks = sq_hooks(self);
    self->loop = pc_loop_new(&err);
    PC_ASSERT(self->loop != NULL, "%s", err.msg);
    self->source = sq_in->create(&config, self->loop, &hooks, NULL, &err);
    PC_ASSERT(self->source != NULL, "%s", err.msg);
    return self;
}

/* Turns the loop until *counter reaches `want` or the time is over. Deliveries are made while the
 * turn is prepared: it must not sleep then. */
bool
sq_turn_until(sq_rig *self, const int *counter, int want, int64_t ms)
{
    pc_mono until = sq_after_ms(ms);
    while (*counter < want && pc_mono_now().ns < until.ns) {
        int wait_ms = pc_loop_prepare(self->loop, until);
        PC_ASSERT_INT(pc_loop_wait(self->loop, *counter >= want ? 0 : wait_ms, NULL), 0);
        (void)pc_loop_dispatch(self->loop);
    }
    return *counter >= want;
}

void
sq_turn_for(sq_rig *self, int64_t ms)
{
    int never = 0;
    (void)sq_turn_until(self, &never, 1, ms);
}

void
sq_add_queue(sq_rig *self, const char *name)
{
    pc_err err = {0};
    pc_queue queue = {.name = name};
    PC_ASSERT(sq_in->add_queue(self->source, &queue, &err) == 0, "%s", err.msg);
}

sq_rig *
sq_start(unsigned prefetch, bool ack)
{
    sq_rig *self = sq_make_rig(SQ_DB);
    self->ack = ack;
    sq_add_queue(self, "q");
    PC_ASSERT_INT(sq_in->prefetch(self->source, prefetch, NULL), 0);
    PC_ASSERT_INT(sq_in->connect(self->source, NULL), 0);
    PC_ASSERT_INT(self->up, 0);
    PC_ASSERT(sq_turn_until(self, &self->up, 1, 5000));
    return self;
}

sq_rig *
sq_start_rig(unsigned prefetch)
{
    return sq_start(prefetch, false);
}

void
sq_end_rig(sq_rig *self)
{
    pc_err err = {0};
    PC_ASSERT(sq_in->close(self->source, sq_after_ms(2000), &err) == 0, "%s", err.msg);
    sq_in->destroy(self->source);
    pc_loop_free(self->loop);
    free(self);
}

void
sq_end_producer(pc_producer *producer)
{
    PC_ASSERT_INT(sq_out->close(producer, sq_after_ms(1000), NULL), 0);
    sq_out->destroy(producer);
}

uint64_t
sq_ready_in(pc_producer *producer, const char *queue)
{
    uint64_t messages = 0;
    uint64_t consumers = 0;
    pc_err err = {0};
    PC_ASSERT(sq_out->size(producer, queue, &messages, &consumers, sq_after_ms(1000), &err) == 0,
              "%s", err.msg);
    return messages;
}

void
sq_send_numbers(pc_producer *producer, int from, int to)
{
    for (int i = from; i < to; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        sq_send_text(producer, "q", text);
    }
}
