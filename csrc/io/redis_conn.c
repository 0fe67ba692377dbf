/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_conn.h"

#include <hiredis/hiredis.h>
#include <limits.h>
#include <stdio.h>

#include "base/mem.h"
#include "io/stream.h"

#define READER_KEEP (1024 * 1024)    // free input buffer hiredis may keep
#define MAX_COMMAND ((size_t)1 << 30)  // hiredis 0.14 counts bytes in an int
#define ARGS_ON_STACK 16

typedef enum phase { CLOSED, OPENING, GREETING, UP } phase;

struct pc_redis {
    pc_redis_hooks hooks;
    pc_loop *loop;
    pc_stream stream;
    pc_redis_place place;
    // --
    phase phase;
    uint64_t epoch;       // changes with each close, for loops that call back
    redisReader *reader;
    pc_reply *current;    // being handed out
    pc_redis_fifo fifo;   // command connections, and the greeting
    size_t unconfirmed;   // subscriptions: answers that are due
    pc_mono waiting_since;  // the oldest due answer was asked for, or the last bytes came
    pc_timer watchdog;
};

// ---- from hiredis to our tree ----

/* hiredis takes NULL for "memory is out" and gives the reader's error back. */
static void *
attach(const redisReadTask *task, pc_reply *reply)
{
    if (reply != NULL && task->parent != NULL) {
        pc_reply *parent = task->parent->obj;
        parent->children[task->idx] = reply;
    }
    return reply;
}

static void *
create_string(const redisReadTask *task, char *text, size_t len)
{
    pc_reply_type type = task->type == REDIS_REPLY_ERROR    ? PC_REPLY_ERROR
                         : task->type == REDIS_REPLY_STATUS ? PC_REPLY_STATUS
                                                            : PC_REPLY_STRING;
    pc_reply *reply = len < SIZE_MAX / 2 ? pc_reply_new(type, len + 1) : NULL;
    if (reply != NULL) {
        char *copy = (char *)(reply + 1);
        memcpy(copy, text, len);
        copy[len] = '\0';
        reply->text = pc_slice_of(copy, len);
    }
    return attach(task, reply);
}

#if HIREDIS_MAJOR < 1
static void *
create_array(const redisReadTask *task, int len)
{
    return attach(task, len < 0 ? NULL : pc_reply_array((size_t)len));
}
#else
static void *
create_array(const redisReadTask *task, size_t len)
{
    return attach(task, pc_reply_array(len));
}

/* Never asked for (that would be RESP3), but hiredis would invent pointers without them. */
static void *
create_double(const redisReadTask *task, double value, char *text, size_t len)
{
    (void)value;
    return create_string(task, text, len);
}
#endif

static void *
create_integer(const redisReadTask *task, long long value)
{
    pc_reply *reply = pc_reply_new(PC_REPLY_INTEGER, 0);
    if (reply != NULL) {
        reply->integer = value;
    }
    return attach(task, reply);
}

#if HIREDIS_MAJOR >= 1
static void *
create_bool(const redisReadTask *task, int value)
{
    return create_integer(task, value);
}
#endif

static void *
create_nil(const redisReadTask *task)
{
    return attach(task, pc_reply_new(PC_REPLY_NIL, 0));
}

static void
free_object(void *reply)
{
    pc_reply_free(reply);
}

static const redisReplyObjectFunctions creators = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
    .freeObject = free_object,
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
    return pc_fail(err, pc_redis_code(text), "%s: %.*s", conn->place.where, len, text.ptr);
}

// ---- closing ----

static void
shut(pc_redis *conn)
{
    conn->phase = CLOSED;
    conn->epoch++;
    conn->unconfirmed = 0;
    pc_loop_clear_timer(conn->loop, &conn->watchdog);
    if (conn->reader != NULL) {
        redisReaderFree(conn->reader);
        conn->reader = NULL;
    }
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

/* Only from the loop's paths, so that the owner's hooks never run inside one of its own calls. */
static void
die(pc_redis *conn, const pc_err *why)
{
    pc_err copy = *why;
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
    pc_fail(&err, code, "%s: %s", conn->place.where, why->msg);
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
    return conn->phase == UP ? conn->place.answer_ns : conn->place.greeting_ns;
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
        pc_fail(&err, PC_EIO, "%s: no answer for %g s, connection given up", conn->place.where,
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
format_with(pc_redis *conn, size_t argc, const char **texts, size_t *lens, const pc_slice *argv,
            pc_err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < argc; i++) {
        texts[i] = argv[i].ptr == NULL ? "" : argv[i].ptr;
        lens[i] = argv[i].len;
        total = argv[i].len > MAX_COMMAND ? MAX_COMMAND : total + argv[i].len;
    }
    if (total >= MAX_COMMAND || argc > MAX_COMMAND / 64) {
        return pc_fail(err, PC_ELIMIT, "%s: a command of 1 GiB or more", conn->place.where);
    }
    char *text = NULL;
    long long len = redisFormatCommandArgv(&text, (int)argc, texts, lens);
    if (len < 0) {
        return pc_fail_nomem(err);
    }
    int rc = pc_buf_put(&conn->stream.out, text, (size_t)len, err);
    redisFreeCommand(text);
    return rc;
}

static int
format(pc_redis *conn, size_t argc, const pc_slice *argv, pc_err *err)
{
    const char *texts[ARGS_ON_STACK];
    size_t lens[ARGS_ON_STACK];
    if (argc <= ARGS_ON_STACK) {
        return format_with(conn, argc, texts, lens, argv, err);
    }
    const char **many_texts = pc_alloc(argc * sizeof *many_texts);
    size_t *many_lens = pc_alloc(argc * sizeof *many_lens);
    int rc = many_texts == NULL || many_lens == NULL
                 ? pc_fail_nomem(err)
                 : format_with(conn, argc, many_texts, many_lens, argv, err);
    pc_free(many_texts);
    pc_free(many_lens);
    return rc;
}

static int
send(pc_redis *conn, size_t argc, const pc_slice *argv, pc_redis_expect expect, pc_err *err)
{
    if (pc_redis_fifo_reserve(&conn->fifo, err) < 0) {
        return -1;
    }
    if (format(conn, argc, argv, err) < 0) {
        return -1;
    }
    begin_waiting(conn);
    pc_redis_fifo_put(&conn->fifo, expect);
    pc_stream_flush(&conn->stream);
    return 0;
}

int
pc_redis_command(pc_redis *conn, size_t argc, const pc_slice *argv, pc_redis_callback *callback,
                 void *ctx, pc_err *err)
{
    if (conn->phase != UP || conn->hooks.message != NULL) {
        return pc_fail(err, PC_ESTATE, "%s: not connected for commands", conn->place.where);
    }
    return send(conn, argc, argv, (pc_redis_expect){callback, ctx}, err);
}

int
pc_redis_subscribe(pc_redis *conn, size_t argc, const pc_slice *argv, pc_err *err)
{
    if (conn->phase != UP || conn->hooks.message == NULL) {
        return pc_fail(err, PC_ESTATE, "%s: not connected for subscriptions", conn->place.where);
    }
    if (format(conn, argc, argv, err) < 0) {
        return -1;
    }
    begin_waiting(conn);
    conn->unconfirmed += argc > 1 ? argc - 1 : 1;
    pc_stream_flush(&conn->stream);
    return 0;
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
            pc_fail(&err, PC_EPROTO, "%s: an answer nobody asked for", conn->place.where);
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

static int
next_reply(pc_redis *conn, pc_reply **reply, pc_err *err)
{
    void *object = NULL;
    if (redisReaderGetReply(conn->reader, &object) != REDIS_OK) {
        return conn->reader->err == REDIS_ERR_OOM
                   ? pc_fail_nomem(err)
                   : pc_fail(err, PC_EPROTO, "%s: %s", conn->place.where, conn->reader->errstr);
    }
    *reply = object;
    return 0;
}

static void
on_readable(void *ctx)
{
    pc_redis *conn = ctx;
    pc_buf *in = &conn->stream.in;
    pc_err err = {0};
    conn->waiting_since = pc_mono_now();
    if (redisReaderFeed(conn->reader, pc_buf_ptr(in), pc_buf_len(in)) != REDIS_OK) {
        pc_fail_nomem(&err);
        die(conn, &err);
        return;
    }
    pc_buf_consume(in, pc_buf_len(in));
    uint64_t epoch = conn->epoch;
    while (conn->epoch == epoch) {
        pc_reply *reply = NULL;
        if (next_reply(conn, &reply, &err) < 0) {
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
    const char *password = conn->place.config.password;
    bool tells = memmem(err.msg, strlen(err.msg), password, strlen(password)) != NULL;
    if (err.code == PC_EDATA || tells) {
        pc_fail(&err, PC_EAUTH, "%s: AUTH refused; check user and password", conn->place.where);
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
    if (conn->place.answer_ns == 0) {
        pc_loop_clear_timer(conn->loop, &conn->watchdog);
    }
    conn->hooks.up(conn->hooks.ctx);
}

static int
greet(pc_redis *conn, pc_err *err)
{
    const pc_redis_config *c = &conn->place.config;
    char db[16];
    snprintf(db, sizeof db, "%d", c->db);
    pc_slice auth[] = {pc_slice_str("AUTH"), pc_slice_str(c->user), pc_slice_str(c->password)};
    pc_slice name[] = {pc_slice_str("CLIENT"), pc_slice_str("SETNAME"),
                       pc_slice_str(c->client_name)};
    pc_slice select[] = {pc_slice_str("SELECT"), pc_slice_str(db)};
    pc_slice ping[] = {pc_slice_str("PING")};
    size_t nauth = 3;
    if (c->user == NULL) {
        auth[1] = auth[2];
        nauth = 2;
    }
    if (c->password != NULL && send(conn, nauth, auth, (pc_redis_expect){on_auth, conn}, err) < 0) {
        return -1;
    }
    if (c->client_name != NULL && send(conn, 3, name, (pc_redis_expect){NULL, NULL}, err) < 0) {
        return -1;
    }
    if (c->db != 0 && send(conn, 2, select, (pc_redis_expect){on_select, conn}, err) < 0) {
        return -1;
    }
    return send(conn, 1, ping, (pc_redis_expect){on_ping, conn}, err);
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
        || greet(conn, &err) < 0) {
        die(conn, &err);
    }
}

int
pc_redis_connect(pc_redis *conn, pc_err *err)
{
    pc_err why = {0};
    if (conn->phase != CLOSED) {
        return 0;
    }
    // hiredis takes the table as writable and never writes it
    redisReplyObjectFunctions *table = (redisReplyObjectFunctions *)(uintptr_t)&creators;
    conn->reader = redisReaderCreateWithFunctions(table);
    if (conn->reader == NULL) {
        return pc_fail_nomem(err);
    }
    conn->reader->maxbuf = READER_KEEP;
    conn->phase = OPENING;
    if (pc_stream_open(&conn->stream, &conn->place.endpoint, &why) < 0) {
        shut(conn);
        pc_fail(err, why.code, "%s: %s", conn->place.where, why.msg);
        return -1;
    }
    return 0;
}

// ---- construction ----

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
    if (pc_redis_place_init(&conn->place, config, err) < 0) {
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
    pc_redis_place_fini(&conn->place);
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
    return conn->place.where;
}
