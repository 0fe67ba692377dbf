/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_methods.h"

#include <math.h>

#define TEXT_MAX 150u  // of a text of the server that goes into an error
#define REPLY_REFUSED 403
#define REPLY_NOT_ALLOWED 530

int
pc_amqp_clip(pc_slice text)
{
    return (int)(text.len < TEXT_MAX ? text.len : TEXT_MAX);
}

/* ---- methods of the connection ---- */

const char *
pc_amqp_user_of(const pc_amqp_conn *conn)
{
    return conn->config->user == NULL ? "guest" : conn->config->user;
}

static void
describe_close(const pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    if (conn->state == PC_AMQP_IN_LOGIN && m->code == REPLY_REFUSED) {
        pc_fail(err, PC_EAUTH, "%s: access refused for user '%s': check user name and password",
                conn->name, pc_amqp_user_of(conn));
    } else if (conn->state == PC_AMQP_IN_OPENING &&
               (m->code == REPLY_NOT_ALLOWED || m->code == REPLY_REFUSED)) {
        pc_fail(err, PC_EAUTH, "%s: virtual host '%s' cannot be used by user '%s': %.*s",
                conn->name, conn->config->vhost == NULL ? "/" : conn->config->vhost,
                pc_amqp_user_of(conn), pc_amqp_clip(m->text), m->text.ptr);
    } else {
        pc_fail(err, PC_EIO, "%s: closed by the broker: %u %.*s", conn->name, m->code,
                pc_amqp_clip(m->text), m->text.ptr);
    }
}

static int
on_close(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    pc_err why;
    (void)err;
    describe_close(conn, m, &why);
    conn->culprit = m->culprit;
    // Politeness only: the connection ends either way.
    if (pc_amqp_write_close_ok(&conn->stream.out, NULL) == 0) {
        (void)pc_stream_flush_now(&conn->stream, NULL);
    }
    pc_amqp_conn_go_down(conn, &why);
    return 0;
}

static int
on_start(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    if (pc_amqp_server_read(m->table, &conn->server, err) < 0 ||
        pc_amqp_login_write(&conn->stream.out, conn->config, m->mechanisms, err) < 0) {
        return -1;
    }
    conn->state = PC_AMQP_IN_LOGIN;
    return 0;
}

/* Of a loop that stands still while a task runs, the broker would think that it is gone, and give the task to
 * the next: that connection has the kernel's keep-alive only. */
static uint16_t
agree_heartbeat(const pc_amqp_conn *conn, uint16_t theirs)
{
    const pc_broker_config *config = conn->config;
    double ours = config->heartbeat > 0 && !config->stalls ? ceil(config->heartbeat) : 0;
    return ours < (double)theirs ? (uint16_t)ours : theirs;
}

static int
on_tune(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    uint32_t frame_max =
        m->frame_max == 0 || m->frame_max > PC_AMQP_FRAME_MAX ? PC_AMQP_FRAME_MAX : m->frame_max;
    if (frame_max < PC_AMQP_FRAME_MIN) {
        return pc_fail(err, PC_EPROTO,
                       "the server wants frames of at most %u bytes, AMQP demands %u", frame_max,
                       PC_AMQP_FRAME_MIN);
    }
    uint16_t heartbeat = agree_heartbeat(conn, m->heartbeat);
    pc_slice vhost = pc_slice_str(conn->config->vhost == NULL ? "/" : conn->config->vhost);
    if (pc_amqp_write_tune_ok(&conn->stream.out, PC_AMQP_CHANNEL, frame_max, heartbeat, err) < 0 ||
        pc_amqp_write_open(&conn->stream.out, vhost, err) < 0) {
        return -1;
    }
    conn->frame_max = frame_max;
    conn->heartbeat_ns = heartbeat * PC_NS_PER_SEC;
    conn->state = PC_AMQP_IN_OPENING;
    return 0;
}

static int
on_open_ok(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    (void)m;
    conn->state = PC_AMQP_IN_REFUSED;  // no channel yet
    return pc_amqp_conn_reopen(conn, err);
}

static int
on_blocked(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    (void)err;
    conn->blocked = m->id == PC_AMQP_BLOCKED;
    size_t n =
        m->text.len < sizeof conn->blocked_why - 1 ? m->text.len : sizeof conn->blocked_why - 1;
    memcpy(conn->blocked_why, n == 0 ? "" : m->text.ptr, n);
    conn->blocked_why[n] = '\0';
    if (conn->hooks.blocked != NULL) {
        conn->hooks.blocked(conn->hooks.ctx);
    }
    return 0;
}

static int
on_close_ok(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    (void)m;
    (void)err;
    pc_amqp_conn_drop(conn);
    return 0;
}

/* Which method may come when, and what follows. */
static const struct {
    pc_amqp_id id;
    int from;  // first and last state
    int to;
    int (*handle)(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err);
} connection_methods[] = {
    {PC_AMQP_START, PC_AMQP_IN_GREETING, PC_AMQP_IN_GREETING, on_start},
    {PC_AMQP_TUNE, PC_AMQP_IN_LOGIN, PC_AMQP_IN_LOGIN, on_tune},
    {PC_AMQP_OPEN_OK, PC_AMQP_IN_OPENING, PC_AMQP_IN_OPENING, on_open_ok},
    {PC_AMQP_BLOCKED, PC_AMQP_IN_OPENING, PC_AMQP_IN_CLOSING, on_blocked},
    {PC_AMQP_UNBLOCKED, PC_AMQP_IN_OPENING, PC_AMQP_IN_CLOSING, on_blocked},
    {PC_AMQP_CLOSE, PC_AMQP_IN_GREETING, PC_AMQP_IN_CLOSING, on_close},
    {PC_AMQP_CLOSE_OK, PC_AMQP_IN_CLOSING, PC_AMQP_IN_CLOSING, on_close_ok},
};

static int
on_connection_method(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    for (size_t i = 0; i < sizeof connection_methods / sizeof connection_methods[0]; i++) {
        if (connection_methods[i].id == m->id && conn->state >= connection_methods[i].from &&
            conn->state <= connection_methods[i].to) {
            int rc = connection_methods[i].handle(conn, m, err);
            pc_stream_flush(&conn->stream);
            return rc;
        }
    }
    return pc_fail(err, PC_EPROTO, "the server sent method 0x%08x out of turn", (unsigned)m->id);
}

/* ---- methods of the channel ---- */

static const struct {
    uint16_t reply;
    pc_code code;
} refusals[] = {
    {311, PC_ELIMIT}, {403, PC_EAUTH}, {404, PC_ENOTFOUND}, {405, PC_ESTATE}, {406, PC_EDATA},
};

static pc_code
code_of(uint16_t reply)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (refusals[i].reply == reply) {
            return refusals[i].code;
        }
    }
    return PC_EIO;
}

static int
on_channel_close(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    pc_err why;
    pc_fail(&why, code_of(m->code), "%s: refused by the broker: %u %.*s", conn->name, m->code,
            pc_amqp_clip(m->text), m->text.ptr);
    if (pc_amqp_write_channel_close_ok(&conn->stream.out, PC_AMQP_CHANNEL, err) < 0) {
        return -1;
    }
    pc_stream_flush(&conn->stream);
    conn->wanted_first = conn->wanted_end = 0;
    pc_amqp_content_reset(&conn->content);
    if (conn->state == PC_AMQP_IN_LEAVING) {
        return pc_amqp_send_close(conn, err);
    }
    if (conn->state == PC_AMQP_IN_CLOSING) {
        return 0;
    }
    conn->state = PC_AMQP_IN_REFUSED;
    conn->hooks.refused(conn->hooks.ctx, m->culprit, &why);
    return 0;
}

static int
on_flow(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    pc_amqp_method blocked = {.id = m->active ? PC_AMQP_UNBLOCKED : PC_AMQP_BLOCKED,
                              .text = pc_slice_str("channel.flow")};
    if (pc_amqp_write_flow_ok(&conn->stream.out, PC_AMQP_CHANNEL, m->active, err) < 0) {
        return -1;
    }
    pc_stream_flush(&conn->stream);
    return on_blocked(conn, &blocked, err);
}

static int
on_channel_open_ok(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    if (pc_amqp_on_reply(conn, m, NULL, err) < 0) {
        return -1;
    }
    if (conn->state == PC_AMQP_IN_CHANNEL) {
        conn->state = PC_AMQP_IN_READY;
        // No deadline any more; heartbeats from now on.
        pc_loop_clear_timer(conn->loop, &conn->timer);
        if (conn->heartbeat_ns > 0 &&
            pc_loop_set_timer(conn->loop, &conn->timer,
                              pc_mono_add(pc_mono_now(), conn->heartbeat_ns / 2), err) < 0) {
            return -1;
        }
        conn->hooks.ready(conn->hooks.ctx);
    }
    return 0;
}

static int
on_channel_method(pc_amqp_conn *conn, const pc_amqp_method *m, pc_err *err)
{
    bool leaving = conn->state != PC_AMQP_IN_READY;
    switch (m->id) {
    case PC_AMQP_DELIVER:
    case PC_AMQP_GET_OK:
    case PC_AMQP_RETURN: return pc_amqp_content_method(&conn->content, m, err);
    case PC_AMQP_ACK:
    case PC_AMQP_NACK:
        if (conn->hooks.confirm != NULL && !leaving) {
            conn->hooks.confirm(conn->hooks.ctx, m->tag, m->multiple, m->id == PC_AMQP_ACK);
        }
        return 0;
    case PC_AMQP_CANCEL:
        if (conn->hooks.cancelled != NULL && !leaving) {
            conn->hooks.cancelled(conn->hooks.ctx, m->consumer_tag);
        }
        return 0;
    case PC_AMQP_CHANNEL_OPEN_OK: return on_channel_open_ok(conn, m, err);
    case PC_AMQP_CHANNEL_FLOW: return on_flow(conn, m, err);
    case PC_AMQP_CHANNEL_CLOSE: return on_channel_close(conn, m, err);
    case PC_AMQP_CHANNEL_CLOSE_OK:
        return conn->state == PC_AMQP_IN_LEAVING ? pc_amqp_send_close(conn, err) : 0;
    default: return leaving ? 0 : pc_amqp_on_reply(conn, m, NULL, err);
    }
}

int
pc_amqp_on_method(pc_amqp_conn *conn, const pc_amqp_frame *frame, pc_err *err)
{
    pc_amqp_method method;
    if (pc_amqp_method_read(conn->codec, frame->payload, &method, err) < 0) {
        return -1;
    }
    bool for_channel = (uint32_t)method.id >> 16 != (uint32_t)PC_AMQP_START >> 16;
    if (for_channel != (frame->channel == PC_AMQP_CHANNEL) ||
        (for_channel && conn->state < PC_AMQP_IN_CHANNEL)) {
        return pc_fail(err, PC_EPROTO, "the server sent method 0x%08x on channel %u",
                       (unsigned)method.id, frame->channel);
    }
    return for_channel ? on_channel_method(conn, &method, err)
                       : on_connection_method(conn, &method, err);
}
