/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_link.h"

#include "io/amqp_frame.h"

#define PAUSE_MIN (50 * PC_NS_PER_MS)
#define PAUSE_MAX (2 * PC_NS_PER_SEC)
#define REST (100 * PC_NS_PER_MS)  // a full queue does not empty faster by asking

/* The timer is always set, if only for "never": moving cannot fail. */
static void
set_retry(pc_amqp_link *link, int64_t ns)
{
    (void)pc_loop_set_timer(link->loop, &link->retry, pc_mono_add(pc_mono_now(), ns), NULL);
}

static void
clear_retry(pc_amqp_link *link)
{
    (void)pc_loop_set_timer(link->loop, &link->retry, PC_MONO_NEVER, NULL);
}

static void
on_down(void *ctx, const pc_err *why)
{
    pc_amqp_link *link = ctx;
    link->why_down = *why;
    link->downs++;
    link->resting = false;
    (void)pc_amqp_window_restart(&link->window, NULL);
    set_retry(link, link->pause_ns);
    link->pause_ns = link->pause_ns * 2 > PAUSE_MAX ? PAUSE_MAX : link->pause_ns * 2;
    link->hooks.down(link->hooks.ctx, why);
}

static void
break_down(pc_amqp_link *link, const pc_err *why)
{
    pc_amqp_conn_drop(&link->conn);
    on_down(link, why);
}

static void
connect_now(pc_amqp_link *link)
{
    pc_err err = {0};
    clear_retry(link);
    if (pc_amqp_conn_open(&link->conn, &err) < 0) {
        on_down(link, &err);
    }
}

static void
on_retry(void *ctx, pc_mono now)
{
    pc_amqp_link *link = ctx;
    (void)now;
    clear_retry(link);  // the place it had until now is still free
    link->resting = false;
    if (pc_amqp_conn_is_closed(&link->conn)) {
        connect_now(link);
    } else {
        pc_amqp_link_send(link);
    }
}

void
pc_amqp_link_wake(pc_amqp_link *link)
{
    if (pc_amqp_conn_is_closed(&link->conn)) {
        link->pause_ns = PAUSE_MIN;
        set_retry(link, 0);
    }
}

static void
on_ready(void *ctx)
{
    pc_amqp_link *link = ctx;
    pc_err err = {0};
    link->pause_ns = PAUSE_MIN;
    if (link->confirms &&
        (pc_amqp_write_select(&link->conn.stream.out, PC_AMQP_CHANNEL, &err) < 0 ||
         pc_amqp_conn_want(&link->conn, PC_AMQP_SELECT_OK, NULL, NULL, &err) < 0)) {
        break_down(link, &err);
        return;
    }
    if (link->hooks.prepare != NULL && link->hooks.prepare(link->hooks.ctx, &err) < 0) {
        break_down(link, &err);
        return;
    }
    pc_amqp_link_send(link);
    pc_stream_flush(&link->conn.stream);
    link->hooks.up(link->hooks.ctx);
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    pc_amqp_link *link = ctx;
    pc_err err = {0};
    (void)pc_amqp_window_restart(&link->window, culprit == PC_AMQP_PUBLISH ? why : NULL);
    link->hooks.refused(link->hooks.ctx, culprit, why);
    if (pc_amqp_conn_reopen(&link->conn, &err) < 0) {
        break_down(link, &err);
    }
}

static void
on_confirm(void *ctx, uint64_t tag, bool multiple, bool ack)
{
    pc_amqp_link *link = ctx;
    pc_err err = {0};
    if (ack) {
        pc_amqp_window_ack(&link->window, tag, multiple);
    } else if (pc_amqp_window_nack(&link->window, tag, multiple, &err) < 0) {
        break_down(link, &err);
        return;
    } else {
        link->resting = true;
        set_retry(link, REST);
    }
    if (pc_amqp_window_has_unsent(&link->window)) {
        pc_amqp_link_send(link);
    }
}

static void
on_blocked(void *ctx)
{
    pc_amqp_link_send(ctx);
}

static void
on_message(void *ctx, const pc_message *message, pc_slice consumer_tag)
{
    pc_amqp_link *link = ctx;
    if (link->hooks.message != NULL) {
        link->hooks.message(link->hooks.ctx, message, consumer_tag);
    }
}

static void
on_returned(void *ctx, const pc_message *message, const pc_err *why)
{
    pc_amqp_link *link = ctx;
    if (link->hooks.returned != NULL) {
        link->hooks.returned(link->hooks.ctx, message, why);
    }
}

static void
on_cancelled(void *ctx, pc_slice consumer_tag)
{
    pc_amqp_link *link = ctx;
    if (link->hooks.cancelled != NULL) {
        link->hooks.cancelled(link->hooks.ctx, consumer_tag);
    }
}

int
pc_amqp_link_init(pc_amqp_link *link, pc_loop *loop, const pc_broker_config *config, bool confirms,
                  const pc_amqp_link_hooks *hooks, const pc_log *log, pc_err *err)
{
    *link =
        (pc_amqp_link){.loop = loop, .hooks = *hooks, .confirms = confirms, .pause_ns = PAUSE_MIN};
    pc_timer_init(&link->retry, on_retry, link);
    pc_amqp_window_init(&link->window, hooks->settled, hooks->ctx);
    pc_amqp_hooks mine = {
        .ready = on_ready,
        .refused = on_refused,
        .down = on_down,
        .message = on_message,
        .confirm = on_confirm,
        .returned = on_returned,
        .cancelled = on_cancelled,
        .blocked = on_blocked,
        .ctx = link,
    };
    if (pc_amqp_conn_init(&link->conn, loop, config, &mine, log, err) < 0) {
        link->loop = NULL;
        return -1;
    }
    if (pc_loop_set_timer(loop, &link->retry, PC_MONO_NEVER, err) < 0) {
        pc_amqp_link_fini(link);
        return -1;
    }
    return 0;
}

void
pc_amqp_link_fini(pc_amqp_link *link)
{
    if (link == NULL || link->loop == NULL) {
        return;
    }
    pc_loop_clear_timer(link->loop, &link->retry);
    pc_amqp_conn_fini(&link->conn);
    pc_amqp_window_fini(&link->window);
    *link = (pc_amqp_link){0};
}

bool
pc_amqp_link_takes(const pc_amqp_link *link)
{
    return pc_amqp_conn_is_ready(&link->conn) && !link->conn.blocked;
}

int
pc_amqp_link_put(pc_amqp_link *link, const pc_message *message, bool mandatory, void *cookie,
                 pc_err *err)
{
    uint32_t frame_max = link->conn.frame_max == 0 ? PC_AMQP_FRAME_MAX : link->conn.frame_max;
    if (link->confirms) {
        return pc_amqp_window_put(&link->window, message, mandatory, frame_max, cookie, err);
    }
    return pc_amqp_write_message(&link->conn.stream.out, PC_AMQP_CHANNEL, message, mandatory,
                                 frame_max, err);
}

void
pc_amqp_link_send(pc_amqp_link *link)
{
    pc_err err = {0};
    if (link->resting || !pc_amqp_link_takes(link)) {
        return;
    }
    if (pc_amqp_window_send(&link->window, &link->conn.stream.out, PC_AMQP_OUT_HIGH,
                            link->conn.frame_max, &err) < 0) {
        set_retry(link, REST);  // no memory now
        return;
    }
    pc_stream_flush(&link->conn.stream);
}

void
pc_amqp_link_close(pc_amqp_link *link)
{
    clear_retry(link);
    pc_amqp_conn_close(&link->conn);
}

void
pc_amqp_link_drop(pc_amqp_link *link)
{
    clear_retry(link);
    pc_amqp_conn_drop(&link->conn);
    (void)pc_amqp_window_restart(&link->window, NULL);
}

void
pc_amqp_link_abandon(pc_amqp_link *link)
{
    pc_loop_clear_timer(link->loop, &link->retry);
    pc_amqp_conn_abandon(&link->conn);
}
