/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_conn.h"

#include <limits.h>
#include <stdio.h>

#include "base/mem.h"
#include "io/redis_reader.h"
#include "io/redis_resp.h"
#include "io/stream.h"


typedef enum phase { CLOSED, OPENING, GREETING, UP } phase;

struct pc_redis {
    pc_redis_hooks hooks;
    pc_loop *loop;
    pc_stream stream;
    pc_redis_place *place;
    // --
    phase phase;
    bool seeking;         // connected to a Sentinel
    size_t sentinel;      // the one that answered last is asked first
    size_t asked;         // Sentinels in this search
    uint64_t epoch;       // changes with each close, for loops that call back
    pc_redis_reader *reader;
    pc_reply *current;    // being handed out
    pc_redis_fifo fifo;   // command connections, and the greeting
    size_t unconfirmed;   // subscriptions: answers that are due
    pc_mono waiting_since;  // the oldest due answer was asked for, or the last bytes came
    pc_timer watchdog;
};

// ---- errors ----

int
pc_redis_check(const pc_redis *conn, const pc_reply *reply, pc_err *err)
{
    if (reply->type != PC_REPLY_ERROR) {
        return 0;
    }
    pc_slice text = reply->text;
    int len = text.len > INT_MAX ? INT_MAX : (int)text.len;
    return pc_fail(err, pc_redis_code(text), "%s: %.*s", conn->place->where, len, text.ptr);
}

// ---- closing ----

static void
shut(pc_redis *conn)
{
    conn->phase = CLOSED;
    conn->seeking = false;
    conn->epoch++;
    conn->unconfirmed = 0;
    pc_loop_clear_timer(conn->loop, &conn->watchdog);
    pc_redis_reader_free(conn->reader);
    conn->reader = NULL;
}

void
pc_redis_close(pc_redis *conn)
{
    if (conn->phase != CLOSED) {
        pc_stream_close(&conn->stream);
        shut(conn);
    }
    conn->fifo.count = 0;
}

void
pc_redis_abandon(pc_redis *conn)
{
    pc_stream_abandon(&conn->stream);
    shut(conn);
    conn->fifo.count = 0;
}

/* Opens a stream to a server or a Sentinel, instead of the one that is open. */
static int
open_stream(pc_redis *conn, const pc_endpoint *to, pc_err *err)
{
    pc_err why = {0};
    pc_stream_close(&conn->stream);
    shut(conn);
    conn->fifo.count = 0;
    conn->reader = pc_redis_reader_new(err);
    if (conn->reader == NULL) {
        return -1;
    }
    conn->phase = OPENING;
    if (pc_stream_open(&conn->stream, to, &why) < 0) {
        shut(conn);
        return pc_fail(err, why.code, "%s: %s", conn->place->where, why.msg);
    }
    return 0;
}

/* The next Sentinel of this search; -1: all were asked, and *err, what the last one was about, stays. */
static int
ask_next_sentinel(pc_redis *conn, pc_err *err)
{
    size_t n = pc_redis_place_sentinels(conn->place);
    while (conn->asked < n) {
        conn->sentinel = (conn->sentinel + (conn->asked > 0)) % n;
        conn->asked++;
        pc_redis_place_sentinel(conn->place, conn->sentinel);
        if (open_stream(conn, &conn->place->sentinel, err) == 0) {
            conn->seeking = true;
            return 0;
        }
    }
    return -1;
}

/* Only from the loop's paths, so that the owner's hooks never run inside one of its own calls. */
static void
die(pc_redis *conn, const pc_err *why)
{
    pc_err copy = *why;
    if (conn->seeking && ask_next_sentinel(conn, &copy) == 0) {
        return;
    }
    pc_stream_close(&conn->stream);
    shut(conn);
    while (conn->fifo.count > 0) {
        pc_redis_expect e = pc_redis_fifo_take(&conn->fifo);
        if (e.callback != NULL) {
            e.callback(e.ctx, NULL, &copy);
        }
    }
    conn->hooks.down(conn->hooks.ctx, &copy);
}

/* PC_ETIMEOUT is kept for the deadlines of callers: a connect that took too long is a failed
 * connection. */
static void
on_closed(void *ctx, const pc_err *why)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    pc_code code = why->code == PC_OK || why->code == PC_ETIMEOUT ? PC_EIO : why->code;
    pc_fail(&err, code, "%s: %s", conn->place->where, why->msg);
    err.sys_errno = why->sys_errno;
    die(conn, &err);
}

// ---- the watchdog ----

static bool
answer_due(const pc_redis *conn)
{
    return conn->fifo.count > 0 || conn->unconfirmed > 0;
}

static int64_t
patience(const pc_redis *conn)
{
    return conn->phase == UP ? conn->place->answer_ns : conn->place->greeting_ns;
}

static void
watch_answers(void *ctx, pc_mono now)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    int64_t limit = patience(conn);
    if (limit == 0) {
        return;
    }
    pc_mono since = answer_due(conn) ? conn->waiting_since : now;
    pc_mono when = pc_mono_add(since, limit);
    if (when.ns <= now.ns) {
        pc_fail(&err, PC_EIO, "%s: no answer for %g s, connection given up", conn->place->where,
                (double)limit / (double)PC_NS_PER_SEC);
        die(conn, &err);
    } else if (pc_loop_set_timer(conn->loop, &conn->watchdog, when, &err) < 0) {
        die(conn, &err);
    }
}

static void
begin_waiting(pc_redis *conn)
{
    if (!answer_due(conn)) {
        conn->waiting_since = pc_mono_now();
    }
}

// ---- sending ----

static int
format(pc_redis *conn, size_t argc, const pc_slice *argv, pc_err *err)
{
    pc_buf *out = &conn->stream.out;
    size_t bytes = 0;
    for (size_t i = 0; i < argc; i++) {
        bytes += argv[i].len;
    }
    char *start = pc_buf_reserve(out, pc_redis_resp_room(argc, bytes), err);
    if (start == NULL) {
        return -1;
    }
    char *to = pc_redis_resp_begin(start, argc);
    for (size_t i = 0; i < argc; i++) {
        to = pc_redis_resp_word(to, argv[i]);
    }
    pc_buf_commit(out, (size_t)(to - start));
    return 0;
}

/* The command is in the output. */
static void
expect_answer(pc_redis *conn, pc_redis_callback *callback, void *ctx)
{
    begin_waiting(conn);
    pc_redis_fifo_put(&conn->fifo, (pc_redis_expect){callback, ctx});
    pc_stream_flush(&conn->stream);
}

static int
send(pc_redis *conn, size_t argc, const pc_slice *argv, pc_redis_callback *callback, void *ctx,
     pc_err *err)
{
    if (pc_redis_fifo_reserve(&conn->fifo, err) < 0 || format(conn, argc, argv, err) < 0) {
        return -1;
    }
    expect_answer(conn, callback, ctx);
    return 0;
}

static int
check_up(const pc_redis *conn, pc_err *err)
{
    if (conn->phase != UP || conn->hooks.message != NULL) {
        return pc_fail(err, PC_ESTATE, "%s: not connected for commands", conn->place->where);
    }
    return 0;
}

int
pc_redis_command(pc_redis *conn, size_t argc, const pc_slice *argv, pc_redis_callback *callback,
                 void *ctx, pc_err *err)
{
    return check_up(conn, err) < 0 ? -1 : send(conn, argc, argv, callback, ctx, err);
}

int
pc_redis_written(pc_redis *conn, pc_slice command, pc_redis_callback *callback, void *ctx,
                 pc_err *err)
{
    if (check_up(conn, err) < 0 || pc_redis_fifo_reserve(&conn->fifo, err) < 0
        || pc_buf_put_slice(&conn->stream.out, command, err) < 0) {
        return -1;
    }
    expect_answer(conn, callback, ctx);
    return 0;
}

int
pc_redis_subscribe(pc_redis *conn, size_t argc, const pc_slice *argv, pc_err *err)
{
    if (conn->phase != UP || conn->hooks.message == NULL) {
        return pc_fail(err, PC_ESTATE, "%s: not connected for subscriptions", conn->place->where);
    }
    if (format(conn, argc, argv, err) < 0) {
        return -1;
    }
    begin_waiting(conn);
    conn->unconfirmed += argc > 1 ? argc - 1 : 1;
    pc_stream_flush(&conn->stream);
    return 0;
}

bool
pc_redis_is_written(const pc_redis *conn)
{
    return pc_buf_len(&conn->stream.out) == 0;
}

void
pc_redis_flush_now(pc_redis *conn)
{
    if (conn->phase >= GREETING) {
        // the stream reports the failure again from the loop
        (void)pc_stream_flush_now(&conn->stream, NULL);
    }
}

// ---- receiving ----

static bool
is_published(const pc_reply *reply)
{
    if (reply->type != PC_REPLY_ARRAY || reply->len == 0) {
        return false;
    }
    pc_slice kind = reply->children[0]->text;
    return pc_slice_is(kind, "message") || pc_slice_is(kind, "pmessage");
}

static void
hand_out(pc_redis *conn, pc_reply *reply)
{
    conn->current = reply;
    if (conn->fifo.count > 0) {
        pc_redis_expect e = pc_redis_fifo_take(&conn->fifo);
        if (e.callback != NULL) {
            e.callback(e.ctx, reply, NULL);
        }
    } else if (conn->hooks.message != NULL) {
        if (conn->unconfirmed > 0 && !is_published(reply)) {
            conn->unconfirmed--;
        }
        conn->hooks.message(conn->hooks.ctx, reply);
    } else {
        // e.g. "-ERR max number of clients reached" or a kill with a farewell
        pc_err err = {0};
        if (pc_redis_check(conn, reply, &err) == 0) {
            pc_fail(&err, PC_EPROTO, "%s: an answer nobody asked for", conn->place->where);
        }
        die(conn, &err);
    }
    pc_reply_free(conn->current);
    conn->current = NULL;
}

pc_reply *
pc_redis_take_reply(pc_redis *conn)
{
    pc_reply *reply = conn->current;
    conn->current = NULL;
    return reply;
}

static void
on_readable(void *ctx)
{
    pc_redis *conn = ctx;
    pc_buf *in = &conn->stream.in;
    pc_err err = {0};
    conn->waiting_since = pc_mono_now();
    if (pc_redis_reader_feed(conn->reader, pc_buf_slice(in), &err) < 0) {
        die(conn, &err);
        return;
    }
    pc_buf_consume(in, pc_buf_len(in));
    uint64_t epoch = conn->epoch;
    while (conn->epoch == epoch) {
        pc_reply *reply = NULL;
        pc_err why = {0};
        if (pc_redis_reader_next(conn->reader, &reply, &why) < 0) {
            pc_fail(&err, why.code, "%s: %s", conn->place->where, why.msg);
            die(conn, &err);
            return;
        }
        if (reply == NULL) {
            return;
        }
        hand_out(conn, reply);
    }
}

// ---- connecting ----

/* A server that doesn't know AUTH repeats its arguments in the error. */
static void
on_auth(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    if (why != NULL || pc_redis_check(conn, reply, &err) == 0) {
        return;
    }
    const pc_redis_place *place = conn->place;
    const char *password = conn->seeking ? place->sentinels.password : place->config.password;
    bool tells = memmem(err.msg, strlen(err.msg), password, strlen(password)) != NULL;
    if (err.code == PC_EDATA || tells) {
        pc_fail(&err, PC_EAUTH, "%s: AUTH refused; check user and password", conn->place->where);
    }
    die(conn, &err);
}

static void
on_select(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    if (why == NULL && pc_redis_check(conn, reply, &err) < 0) {
        die(conn, &err);
    }
}

/* The last answer of the greeting. An ACL may forbid PING; that is no reason to stay away. */
static void
on_ping(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    bool forbidden = reply->type == PC_REPLY_ERROR && reply->text.len > 6
                     && memcmp(reply->text.ptr, "NOPERM", 6) == 0;
    if (!forbidden && pc_redis_check(conn, reply, &err) < 0) {
        die(conn, &err);
        return;
    }
    conn->phase = UP;
    if (conn->place->answer_ns == 0) {
        pc_loop_clear_timer(conn->loop, &conn->watchdog);
    }
    conn->hooks.up(conn->hooks.ctx);
}

/* A Sentinel may not have noticed yet, or the server has come back as what it was. */
static void
on_role(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    if (why == NULL && reply->type == PC_REPLY_ARRAY && reply->len > 0
        && !pc_slice_is(reply->children[0]->text, "master")) {
        pc_fail(&err, PC_EIO, "%s: %s:%d is no master any more", conn->place->where,
                conn->place->endpoint.host, conn->place->endpoint.port);
        die(conn, &err);
    }
}

static int
log_in(pc_redis *conn, const char *user, const char *password, pc_err *err)
{
    pc_slice words[] = {pc_slice_str("AUTH"), pc_slice_str(user), pc_slice_str(password)};
    if (password == NULL) {
        return 0;
    }
    if (user == NULL) {
        words[1] = words[2];
    }
    return send(conn, user == NULL ? 2 : 3, words, on_auth, conn, err);
}

static int
greet(pc_redis *conn, pc_err *err)
{
    const pc_redis_config *c = &conn->place->config;
    char db[16];
    snprintf(db, sizeof db, "%d", c->db);
    pc_slice name[] = {pc_slice_str("CLIENT"), pc_slice_str("SETNAME"),
                       pc_slice_str(c->client_name)};
    pc_slice select[] = {pc_slice_str("SELECT"), pc_slice_str(db)};
    pc_slice ping[] = {pc_slice_str("PING")};
    pc_slice role[] = {pc_slice_str("ROLE")};
    if (log_in(conn, c->user, c->password, err) < 0
        || (c->sentinels != NULL && send(conn, 1, role, on_role, conn, err) < 0)) {
        return -1;
    }
    if (c->client_name != NULL && send(conn, 3, name, NULL, NULL, err) < 0) {
        return -1;
    }
    if (c->db != 0 && send(conn, 2, select, on_select, conn, err) < 0) {
        return -1;
    }
    return send(conn, 1, ping, on_ping, conn, err);
}

// ---- Sentinel ----

static void
on_master(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis *conn = ctx;
    const pc_endpoint *at = &conn->place->sentinel;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    if (pc_redis_check(conn, reply, &err) < 0) {
        die(conn, &err);
    } else if (pc_redis_place_master(conn->place, reply) < 0) {
        pc_fail(&err, PC_EIO, "%s: Sentinel %s:%d knows no master of this name", conn->place->where,
                at->host, at->port);
        die(conn, &err);
    } else if (open_stream(conn, &conn->place->endpoint, &err) < 0) {
        die(conn, &err);
    }
}

static int
ask_for_master(pc_redis *conn, pc_err *err)
{
    const pc_redis_sentinels *s = &conn->place->sentinels;
    pc_slice which[] = {pc_slice_str("SENTINEL"), pc_slice_str("GET-MASTER-ADDR-BY-NAME"),
                        pc_slice_str(s->master_name)};
    if (log_in(conn, s->user, s->password, err) < 0) {
        return -1;
    }
    return send(conn, 3, which, on_master, conn, err);
}

static void
on_opened(void *ctx)
{
    pc_redis *conn = ctx;
    pc_err err = {0};
    conn->phase = GREETING;
    conn->waiting_since = pc_mono_now();
    pc_mono when = pc_mono_add(conn->waiting_since, patience(conn));
    if (pc_loop_set_timer(conn->loop, &conn->watchdog, when, &err) < 0
        || (conn->seeking ? ask_for_master(conn, &err) : greet(conn, &err)) < 0) {
        die(conn, &err);
    }
}

int
pc_redis_connect(pc_redis *conn, pc_err *err)
{
    if (conn->phase != CLOSED) {
        return 0;
    }
    if (conn->place->config.sentinels == NULL) {
        return open_stream(conn, &conn->place->endpoint, err);
    }
    conn->asked = 0;
    return ask_next_sentinel(conn, err);
}

// ---- construction ----

int
pc_redis_redirect(pc_redis *conn, const pc_redis_config *config, pc_err *err)
{
    pc_redis_place *place = pc_redis_place_new(config, err);
    if (place == NULL) {
        return -1;
    }
    pc_redis_place_free(conn->place);
    conn->place = place;
    return 0;
}

pc_redis *
pc_redis_new(const pc_redis_config *config, pc_loop *loop, const pc_redis_hooks *hooks,
             pc_err *err)
{
    pc_redis *conn = pc_zalloc(sizeof *conn);
    if (conn == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    conn->hooks = *hooks;
    conn->loop = loop;
    pc_stream_hooks stream = {.opened = on_opened, .readable = on_readable, .closed = on_closed,
                              .ctx = conn};
    pc_stream_init(&conn->stream, loop, &stream);
    pc_timer_init(&conn->watchdog, watch_answers, conn);
    if (pc_redis_redirect(conn, config, err) < 0) {
        pc_redis_free(conn);
        return NULL;
    }
    return conn;
}

void
pc_redis_free(pc_redis *conn)
{
    if (conn == NULL) {
        return;
    }
    pc_redis_close(conn);
    pc_stream_fini(&conn->stream);
    pc_redis_place_free(conn->place);
    pc_redis_fifo_fini(&conn->fifo);
    pc_free(conn);
}

bool
pc_redis_is_up(const pc_redis *conn)
{
    return conn->phase == UP;
}

bool
pc_redis_is_closed(const pc_redis *conn)
{
    return conn->phase == CLOSED;
}

const char *
pc_redis_where(const pc_redis *conn)
{
    return conn->place->where;
}
