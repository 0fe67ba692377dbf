/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_conn.h"

#include <math.h>

#include "base/mem.h"
#include "io/amqp_copy.h"
#include "io/amqp_frame.h"
#include "io/amqp_methods.h"

#define LOGIN_SECONDS 30.0  // when no connect timeout is configured

/* ---- life ---- */

static void on_opened(void *ctx);
static void on_readable(void *ctx);
static void on_closed(void *ctx, const pc_err *why);
static void on_timer(void *ctx, pc_mono now);

static char *
make_name(const pc_broker_config *config, pc_err *err)
{
    pc_buf text;
    pc_buf_init(&text);
    if (pc_buf_printf(&text, err, "amqp%s://%s:%d/%s", config->tls == NULL ? "" : "s", config->host,
                      config->port, config->vhost == NULL ? "/" : config->vhost) < 0) {
        pc_buf_fini(&text);
        return NULL;
    }
    char *name = pc_strdup(pc_buf_ptr(&text), pc_buf_len(&text));
    pc_buf_fini(&text);
    if (name == NULL) {
        pc_fail_nomem(err);
    }
    return name;
}

int
pc_amqp_conn_init(pc_amqp_conn *conn, pc_loop *loop, const pc_broker_config *config,
                  const pc_amqp_hooks *hooks, const pc_log *log, pc_err *err)
{
    *conn = (pc_amqp_conn){.loop = loop, .hooks = *hooks, .log = log};
    pc_stream_hooks stream_hooks = {on_opened, on_readable, on_closed, conn};
    pc_stream_init(&conn->stream, loop, &stream_hooks);
    pc_timer_init(&conn->timer, on_timer, conn);
    pc_amqp_content_init(&conn->content);
    if (config->host == NULL) {
        pc_fail(err, PC_EDATA, "no host of the AMQP broker is given");
        goto fail;
    }
    conn->codec = pc_amqp_codec_new(err);
    conn->config = pc_amqp_copy_config(config, err);
    conn->name = make_name(config, err);
    if (conn->codec == NULL || conn->config == NULL || conn->name == NULL) {
        goto fail;
    }
    return 0;
fail:
    pc_amqp_conn_fini(conn);
    return -1;
}

int
pc_amqp_conn_redirect(pc_amqp_conn *conn, const pc_broker_config *config, pc_err *err)
{
    if (config->host == NULL) {
        return pc_fail(err, PC_EDATA, "no host of the AMQP broker is given");
    }
    pc_broker_config *copy = pc_amqp_copy_config(config, err);
    char *name = make_name(config, err);
    if (copy == NULL || name == NULL) {
        pc_free(copy);
        pc_free(name);
        return -1;
    }
    pc_free(conn->config);
    pc_free(conn->name);
    conn->config = copy;
    conn->name = name;
    return 0;
}

void
pc_amqp_conn_fini(pc_amqp_conn *conn)
{
    if (conn == NULL || conn->loop == NULL) {
        return;
    }
    pc_amqp_conn_drop(conn);
    pc_stream_fini(&conn->stream);
    pc_amqp_content_fini(&conn->content);
    pc_amqp_codec_free(conn->codec);
    pc_free(conn->wanted);
    pc_free(conn->name);
    pc_free(conn->config);
    *conn = (pc_amqp_conn){0};
}

static void
forget(pc_amqp_conn *conn)
{
    conn->state = PC_AMQP_IN_CLOSED;
    conn->epoch++;
    conn->blocked = false;
    conn->wanted_first = conn->wanted_end = 0;
    pc_loop_clear_timer(conn->loop, &conn->timer);
    pc_amqp_content_reset(&conn->content);
}

void
pc_amqp_conn_drop(pc_amqp_conn *conn)
{
    forget(conn);
    pc_stream_close(&conn->stream);
}

void
pc_amqp_conn_quit(pc_amqp_conn *conn)
{
    if (conn->state > PC_AMQP_IN_OPENING && pc_amqp_send_close(conn, NULL) == 0) {
        (void)pc_stream_flush_now(&conn->stream, NULL);
    }
    pc_amqp_conn_drop(conn);
}

void
pc_amqp_conn_abandon(pc_amqp_conn *conn)
{
    forget(conn);
    pc_stream_abandon(&conn->stream);
}

bool
pc_amqp_conn_is_ready(const pc_amqp_conn *conn)
{
    return conn->state == PC_AMQP_IN_READY;
}

bool
pc_amqp_conn_is_closed(const pc_amqp_conn *conn)
{
    return conn->state == PC_AMQP_IN_CLOSED;
}

/* Reports the end, unless the owner asked for it. */
void
pc_amqp_conn_go_down(pc_amqp_conn *conn, const pc_err *why)
{
    bool asked = conn->state == PC_AMQP_IN_LEAVING || conn->state == PC_AMQP_IN_CLOSING;
    pc_amqp_conn_drop(conn);
    if (!asked) {
        conn->hooks.down(conn->hooks.ctx, why);
    }
}

static void
fail_down(pc_amqp_conn *conn, const pc_err *what)
{
    pc_err err;
    pc_fail(&err, what->code, "%s: %s", conn->name, what->msg);
    err.sys_errno = what->sys_errno;
    pc_amqp_conn_go_down(conn, &err);
}

static int64_t
login_ns(const pc_amqp_conn *conn)
{
    double seconds =
        conn->config->connect_timeout > 0 ? conn->config->connect_timeout : LOGIN_SECONDS;
    return (int64_t)(fmin(seconds, 1e6) * (double)PC_NS_PER_SEC);
}

int
pc_amqp_conn_open(pc_amqp_conn *conn, pc_err *err)
{
    if (conn->state != PC_AMQP_IN_CLOSED) {
        return pc_fail(err, PC_ESTATE, "%s: connected already", conn->name);
    }
    pc_endpoint endpoint = {
        .host = conn->config->host,
        .port = conn->config->port,
        .tls = conn->config->tls,
        .connect_timeout_ns = login_ns(conn),
        .user_timeout_ms = conn->user_timeout_ms,
    };
    forget(conn);
    conn->frame_max = PC_AMQP_FRAME_MAX;
    conn->heartbeat_ns = 0;
    conn->culprit = 0;
    if (pc_stream_open(&conn->stream, &endpoint, err) < 0) {
        return -1;
    }
    conn->state = PC_AMQP_IN_CONNECTING;
    return 0;
}

int
pc_amqp_conn_reopen(pc_amqp_conn *conn, pc_err *err)
{
    if (conn->state != PC_AMQP_IN_REFUSED) {
        return pc_fail(err, PC_ESTATE, "%s: the channel is not closed", conn->name);
    }
    if (pc_amqp_write_channel_open(&conn->stream.out, PC_AMQP_CHANNEL, err) < 0 ||
        pc_amqp_conn_want(conn, PC_AMQP_CHANNEL_OPEN_OK, NULL, NULL, err) < 0) {
        return -1;
    }
    conn->state = PC_AMQP_IN_CHANNEL;
    pc_stream_flush(&conn->stream);
    return 0;
}

int
pc_amqp_send_close(pc_amqp_conn *conn, pc_err *err)
{
    conn->state = PC_AMQP_IN_CLOSING;
    return pc_amqp_write_close(&conn->stream.out, err);
}

void
pc_amqp_conn_close(pc_amqp_conn *conn)
{
    int rc = -1;
    if (conn->state == PC_AMQP_IN_READY) {
        conn->state = PC_AMQP_IN_LEAVING;
        rc = pc_amqp_write_channel_close(&conn->stream.out, PC_AMQP_CHANNEL, NULL);
    } else if (conn->state == PC_AMQP_IN_CHANNEL || conn->state == PC_AMQP_IN_REFUSED) {
        rc = pc_amqp_send_close(conn, NULL);
    } else if (conn->state == PC_AMQP_IN_LEAVING || conn->state == PC_AMQP_IN_CLOSING) {
        return;
    }
    if (rc < 0) {
        pc_amqp_conn_drop(conn);
        return;
    }
    pc_stream_flush(&conn->stream);
}

/* ---- replies ---- */

static int
grow_wanted(pc_amqp_conn *conn, pc_err *err)
{
    size_t n = conn->wanted_end - conn->wanted_first;
    if (conn->wanted_first > 0) {
        memmove(conn->wanted, conn->wanted + conn->wanted_first, n * sizeof *conn->wanted);
        conn->wanted_first = 0;
        conn->wanted_end = n;
    }
    if (n < conn->wanted_cap) {
        return 0;
    }
    size_t cap = conn->wanted_cap == 0 ? 16 : conn->wanted_cap * 2;
    pc_amqp_wanted *wanted = pc_realloc(conn->wanted, cap * sizeof *wanted);
    if (wanted == NULL) {
        return pc_fail_nomem(err);
    }
    conn->wanted = wanted;
    conn->wanted_cap = cap;
    return 0;
}

int
pc_amqp_conn_want(pc_amqp_conn *conn, pc_amqp_id id, pc_amqp_reply *done, void *ctx, pc_err *err)
{
    if (conn->wanted_end == conn->wanted_cap && grow_wanted(conn, err) < 0) {
        return -1;
    }
    conn->wanted[conn->wanted_end++] = (pc_amqp_wanted){id, done, ctx};
    return 0;
}

/* RabbitMQ's queues answer these two themselves, beside the channel: they may come after the
 * answers to what was asked later. All others keep their order. */
static bool
may_stray(pc_amqp_id id)
{
    return id == PC_AMQP_CONSUME_OK || id == PC_AMQP_CANCEL_OK;
}

/* The place of the reply in `wanted`, or wanted_end. */
static size_t
find_wanted(const pc_amqp_conn *conn, pc_amqp_id id)
{
    for (size_t i = conn->wanted_first; i < conn->wanted_end; i++) {
        if (conn->wanted[i].id == id) {
            return i;
        }
        if (!may_stray(id) && !may_stray(conn->wanted[i].id)) {
            break;
        }
    }
    return conn->wanted_end;
}

int
pc_amqp_on_reply(pc_amqp_conn *conn, const pc_amqp_method *method, const pc_message *message,
                 pc_err *err)
{
    pc_amqp_id id = method->id == PC_AMQP_GET_EMPTY ? PC_AMQP_GET_OK : method->id;
    size_t at = find_wanted(conn, id);
    if (at == conn->wanted_end) {
        return pc_fail(err, PC_EPROTO, "the server sent the reply 0x%08x that nobody asked for",
                       (unsigned)method->id);
    }
    pc_amqp_wanted wanted = conn->wanted[at];
    memmove(&conn->wanted[conn->wanted_first + 1], &conn->wanted[conn->wanted_first],
            (at - conn->wanted_first) * sizeof wanted);
    if (++conn->wanted_first == conn->wanted_end) {
        conn->wanted_first = conn->wanted_end = 0;
    }
    if (wanted.done != NULL) {
        wanted.done(wanted.ctx, method, message);
    }
    return 0;
}

/* ---- content ---- */

static void
on_returned(pc_amqp_conn *conn, const pc_amqp_method *m, const pc_message *message)
{
    if (conn->hooks.returned != NULL) {
        pc_err why;
        pc_fail(&why, PC_ENOTFOUND, "%s: message returned by the broker: %u %.*s", conn->name,
                m->code, pc_amqp_clip(m->text), m->text.ptr);
        conn->hooks.returned(conn->hooks.ctx, message, &why);
    }
}

static int
on_content(pc_amqp_conn *conn, pc_err *err)
{
    const pc_amqp_content *content = &conn->content;
    uint64_t epoch = conn->epoch;
    int rc = 0;
    conn->content.stage = 0;  // a hook may look, and even end the connection
    if (conn->state != PC_AMQP_IN_READY) {
        rc = 0;
    } else if (content->method.id == PC_AMQP_GET_OK) {
        rc = pc_amqp_on_reply(conn, &content->method, &content->message, err);
    } else if (content->method.id == PC_AMQP_RETURN) {
        on_returned(conn, &content->method, &content->message);
    } else if (conn->hooks.message != NULL) {
        conn->hooks.message(conn->hooks.ctx, &content->message, content->method.consumer_tag);
    }
    if (conn->epoch == epoch) {
        pc_amqp_content_reset(&conn->content);
    }
    return rc;
}

/* ---- frames ---- */

static int
on_frame(pc_amqp_conn *conn, const pc_amqp_frame *frame, pc_err *err)
{
    if (frame->channel > PC_AMQP_CHANNEL) {
        return pc_fail(err, PC_EPROTO, "the server sent a frame on channel %u", frame->channel);
    }
    int complete = 0;
    switch (frame->type) {
    case PC_AMQP_METHOD: return pc_amqp_on_method(conn, frame, err);
    case PC_AMQP_HEADER:
        complete = pc_amqp_content_header(&conn->content, frame->payload, err);
        break;
    case PC_AMQP_BODY: complete = pc_amqp_content_body(&conn->content, frame->payload, err); break;
    default:  // a heartbeat: the stream has noted the time
        break;
    }
    return complete > 0 ? on_content(conn, err) : complete;
}

static void
on_readable(void *ctx)
{
    pc_amqp_conn *conn = ctx;
    uint64_t epoch = conn->epoch;
    pc_err err = {0};
    for (;;) {
        pc_amqp_frame frame;
        int64_t used =
            pc_amqp_frame_split(pc_buf_slice(&conn->stream.in), conn->frame_max, &frame, &err);
        if (used == PC_MORE) {
            break;
        }
        int rc = used < 0 ? -1 : on_frame(conn, &frame, &err);
        if (conn->epoch != epoch) {
            return;
        }
        if (rc < 0) {
            fail_down(conn, &err);
            return;
        }
        pc_buf_consume(&conn->stream.in, (size_t)used);
    }
    if (pc_amqp_content_pin(&conn->content, &err) < 0) {
        fail_down(conn, &err);
    }
}

static void
on_opened(void *ctx)
{
    static const char header[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};
    pc_amqp_conn *conn = ctx;
    pc_err err = {0};
    conn->state = PC_AMQP_IN_GREETING;
    pc_mono deadline = pc_mono_add(pc_mono_now(), login_ns(conn));
    if (pc_buf_put(&conn->stream.out, header, sizeof header, &err) < 0 ||
        pc_loop_set_timer(conn->loop, &conn->timer, deadline, &err) < 0) {
        fail_down(conn, &err);
        return;
    }
    pc_stream_flush(&conn->stream);
}

static void
on_closed(void *ctx, const pc_err *why)
{
    pc_amqp_conn *conn = ctx;
    if (conn->state != PC_AMQP_IN_LOGIN) {
        fail_down(conn, why);
        return;
    }
    pc_err err;
    pc_fail(
        &err, why->code,
        "%s: the server hung up during login of user '%s': probably wrong user name or password",
        conn->name, pc_amqp_user_of(conn));
    pc_amqp_conn_go_down(conn, &err);
}

/* Half an interval without output: a heartbeat. Two intervals without input: the peer is gone. */
static int
keep_alive(pc_amqp_conn *conn, pc_mono now, pc_err *err)
{
    pc_stream *stream = &conn->stream;
    if (now.ns - stream->last_in.ns > 2 * conn->heartbeat_ns) {
        return pc_fail(err, PC_EIO, "no sign of life from the broker for %.0f seconds",
                       (double)(now.ns - stream->last_in.ns) / (double)PC_NS_PER_SEC);
    }
    if (now.ns - stream->last_out.ns >= conn->heartbeat_ns / 2 - PC_NS_PER_MS &&
        pc_buf_len(&stream->out) == 0) {
        if (pc_amqp_write_heartbeat(&stream->out, err) < 0) {
            return -1;
        }
        pc_stream_flush(stream);
    }
    return pc_loop_set_timer(conn->loop, &conn->timer, pc_mono_add(now, conn->heartbeat_ns / 2),
                             err);
}

static void
on_timer(void *ctx, pc_mono now)
{
    pc_amqp_conn *conn = ctx;
    pc_err err = {0};
    int rc = conn->state < PC_AMQP_IN_CHANNEL || conn->heartbeat_ns == 0
                 ? pc_fail(&err, PC_ETIMEOUT, "no answer from the broker during login")
                 : keep_alive(conn, now, &err);
    if (rc < 0) {
        fail_down(conn, &err);
    }
}
