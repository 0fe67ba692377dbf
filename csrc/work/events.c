/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/events.h"

#include "wire/json_out.h"
#include "wire/table.h"

#define MOMENT_NS (5 * PC_NS_PER_MS)
#define RETRY_NS (100 * PC_NS_PER_MS)

static void
flush_due(void *ctx, pc_mono now)
{
    (void)now;
    pc_events_flush(ctx);
}

void
pc_events_init(pc_events *events, pc_loop *loop, const pc_log *log)
{
    *events = (pc_events){.loop = loop, .log = log};
    pc_timer_init(&events->flush, flush_due, events);
    pc_buf_init(&events->exchange);
    pc_buf_init(&events->hostname);
    pc_buf_init(&events->prefix);
    pc_buf_init(&events->headers);
    pc_buf_init(&events->batch);
    pc_buf_init(&events->single);
}

void
pc_events_fini(pc_events *events)
{
    if (events->loop != NULL) {
        pc_loop_clear_timer(events->loop, &events->flush);
    }
    pc_buf_fini(&events->exchange);
    pc_buf_fini(&events->hostname);
    pc_buf_fini(&events->prefix);
    pc_buf_fini(&events->headers);
    pc_buf_fini(&events->batch);
    pc_buf_fini(&events->single);
}

int
pc_events_identity(pc_events *events, pc_slice hostname, int utcoffset, int pid, pc_slice exchange,
                   _Atomic uint64_t *clock, pc_err *err)
{
    events->clock = clock;
    pc_buf_reset(&events->exchange, SIZE_MAX);
    pc_buf_reset(&events->hostname, SIZE_MAX);
    pc_buf_reset(&events->prefix, SIZE_MAX);
    return pc_buf_put_slice(&events->exchange, exchange, err) < 0
                   || pc_buf_put_slice(&events->hostname, hostname, err) < 0
                   || pc_event_put_prefix(hostname, utcoffset, pid, &events->prefix, err) < 0
               ? -1
               : 0;
}

/* {"hostname": …} as the driver wants it. */
static int
write_headers(pc_events *events, pc_headers_kind kind, pc_err *err)
{
    pc_json_out json;
    pc_table_out table;
    pc_sink *sink = &json.sink;

    pc_buf_reset(&events->headers, SIZE_MAX);
    if (kind == PC_HEADERS_TABLE) {
        pc_table_out_init(&table, &events->headers);
        sink = &table.sink;
    } else {
        pc_json_out_init(&json, &events->headers);
    }
    if (sink->ops->map_start(sink, err) < 0 || sink->ops->key(sink, pc_slice_str("hostname"), err) < 0
        || sink->ops->string(sink, pc_buf_slice(&events->hostname), err) < 0 || sink->ops->map_end(sink, err) < 0) {
        return -1;
    }
    if (kind == PC_HEADERS_TABLE) {
        pc_buf_consume(&events->headers, 4);  // messages have their tables without the length
    }
    return 0;
}

int
pc_events_open(pc_events *events, pc_producer *producer, const pc_events_hooks *hooks, pc_err *err)
{
    events->hooks = *hooks;
    events->producer = producer;
    if (producer != NULL && write_headers(events, producer->ops->headers_kind, err) < 0) {
        events->producer = NULL;
        return -1;
    }
    events->is_open = true;
    pc_events_flush(events);
    return 0;
}

void
pc_events_close(pc_events *events)
{
    events->producer = NULL;
    events->is_open = false;
    pc_loop_clear_timer(events->loop, &events->flush);
}

static int
publish(pc_events *events, pc_slice routing_key, pc_slice body)
{
    pc_message message;
    pc_err err = {0};

    if (!events->is_open) {
        return -1;
    }
    if (events->producer == NULL) {
        return events->hooks.send(events->hooks.ctx, routing_key, body) ? 0 : -1;
    }
    pc_message_init(&message);
    message.content_type = pc_slice_str("application/json");
    message.content_encoding = pc_slice_str("utf-8");
    message.delivery_mode = 1;
    message.priority = 0;
    message.headers_kind = events->producer->ops->headers_kind;
    message.headers = pc_buf_slice(&events->headers);
    message.body = body;
    message.exchange = pc_buf_slice(&events->exchange);
    message.routing_key = routing_key;
    if (events->producer->ops->publish(events->producer, &message, false, (pc_wall){0}, false, pc_mono_now(), &err) < 0) {
        pc_log_write(events->log, PC_DEBUG, "events wait: %s", err.msg);
        return -1;
    }
    return 0;
}

static uint64_t
tick(pc_events *events)
{
    return atomic_fetch_add_explicit(events->clock != NULL ? events->clock : &events->own_clock, 1,
                                     memory_order_relaxed) + 1;
}

static void
flush_in(pc_events *events, int64_t ns)
{
    // without memory for a timer the next event flushes
    (void)pc_loop_set_timer(events->loop, &events->flush, pc_mono_add(pc_mono_now(), ns), NULL);
}

bool
pc_events_begin(pc_events *events, pc_event *event)
{
    if (events->count >= PC_EVENTS_KEPT
        || pc_buf_put(&events->batch, events->count == 0 ? "[" : ", ", events->count == 0 ? 1 : 2, NULL) < 0) {
        events->lost++;
        return false;
    }
    pc_event_begin(event, &events->batch, pc_buf_slice(&events->prefix), tick(events));
    return true;
}

void
pc_events_end(pc_events *events, pc_event *event, pc_slice type, pc_wall when)
{
    if (pc_event_end(event, type, when) < 0) {
        pc_buf *batch = &events->batch;
        batch->end -= events->count == 0 ? 1 : 2;  // the separator, too
        events->lost++;
        return;
    }
    events->count++;
    if (events->count == 1) {
        flush_in(events, MOMENT_NS);
    } else if (events->count % PC_EVENTS_BATCH == 0) {
        pc_events_flush(events);
    }
}

void
pc_events_flush(pc_events *events)
{
    pc_loop_clear_timer(events->loop, &events->flush);
    if (events->count == 0) {
        return;
    }
    if (pc_buf_put(&events->batch, "]", 1, NULL) == 0) {
        if (publish(events, pc_slice_str("task.multi"), pc_buf_slice(&events->batch)) == 0) {
            events->count = 0;
            pc_buf_reset(&events->batch, 1 << 18);
            return;
        }
        events->batch.end--;
    }
    if (events->is_open) {
        flush_in(events, RETRY_NS);
    }
}

int
pc_events_send(pc_events *events, pc_slice type, pc_slice routing_key, pc_slice members, pc_wall when)
{
    pc_event event;

    pc_events_flush(events);
    pc_buf_reset(&events->single, SIZE_MAX);
    pc_event_begin(&event, &events->single, pc_buf_slice(&events->prefix), tick(events));
    pc_event_members(&event, members);
    if (pc_event_end(&event, type, when) < 0 || publish(events, routing_key, pc_buf_slice(&events->single)) < 0) {
        events->lost++;
        return -1;
    }
    return 0;
}
