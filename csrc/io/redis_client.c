/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. Everything here is touched with the pump's lock held; pc_pump_wait lets it go while
 * a thread sleeps, and whichever thread pumps runs the callbacks of all. A `call` is one
 * thread's group of commands. It is on the heap, because a thread that gives up (deadline,
 * signal) leaves it behind: the answers that are still under way then end in an orphan, which
 * goes with the last of them. Shutdown: no thread inside, then connection, orphans, pump. */
#include "io/redis_client.h"

#include "base/list.h"
#include "base/mem.h"
#include "io/pump.h"
#include "io/redis_conn.h"

struct pc_redis_client {
    pc_pump *pump;
    pc_redis *conn;
    // --
    pc_link calls;      // sent, not all answered
    uint64_t failures;  // lost or refused connections so far
    pc_err why;         // of the last one
};

typedef struct call {
    pc_link link;
    pc_redis_client *client;
    pc_reply *replies;  // an array with a place for each
    size_t got;
    bool lost;
    bool orphan;
} call;

static void
free_call(call *c)
{
    if (c != NULL) {
        pc_link_remove(&c->link);
        pc_reply_free(c->replies);
        pc_free(c);
    }
}

static call *
new_call(pc_redis_client *client, size_t total, pc_err *err)
{
    call *c = pc_zalloc(sizeof *c);
    if (c == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&c->link);
    c->client = client;
    c->replies = pc_reply_array(total);
    if (c->replies == NULL) {
        free_call(c);
        pc_fail_nomem(err);
        return NULL;
    }
    return c;
}

/* The connection is gone: so are the answers of all calls. */
static void
lose_calls(pc_redis_client *client, const pc_err *why)
{
    client->why = *why;
    client->failures++;
    for (pc_link *link; (link = pc_list_take_front(&client->calls)) != NULL;) {
        call *c = PC_CONTAINER_OF(link, call, link);
        c->lost = true;
        if (c->orphan) {
            free_call(c);
        }
    }
}

static void
on_down(void *ctx, const pc_err *why)
{
    lose_calls(ctx, why);
}

static void
on_up(void *ctx)
{
    (void)ctx;  // the waiting threads ask the connection
}

/* hooks.down ends the calls of a lost connection. */
static void
on_reply(void *ctx, const pc_reply *reply, const pc_err *lost)
{
    call *c = ctx;
    (void)reply;
    if (lost != NULL) {
        return;
    }
    c->replies->children[c->got++] = pc_redis_take_reply(c->client->conn);
    if (c->got == c->replies->len) {
        pc_link_remove(&c->link);
        if (c->orphan) {
            free_call(c);
        }
    }
}

// ---- one attempt ----

typedef struct connecting {
    const pc_redis_client *client;
    uint64_t failures;
} connecting;

static int
is_settled(void *ctx)
{
    const connecting *c = ctx;
    return pc_redis_is_up(c->client->conn) || c->client->failures != c->failures;
}

static int
ensure_up(pc_redis_client *client, pc_mono deadline, bool *eintr, pc_err *err)
{
    // a connection that died while nobody used it says so now
    if (pc_pump_poll(client->pump, err) < 0) {
        return -1;
    }
    connecting c = {client, client->failures};
    if (pc_redis_connect(client->conn, err) < 0
        || pc_pump_wait(client->pump, is_settled, &c, deadline, eintr, err) < 0) {
        return -1;
    }
    if (!pc_redis_is_up(client->conn)) {
        return pc_fail(err, client->why.code, "%s", client->why.msg);
    }
    return 0;
}

static int
send_group(pc_redis_client *client, call *c, const pc_redis_cmd *commands, size_t n,
           unsigned flags, pc_err *err)
{
    const pc_slice multi = pc_slice_str("MULTI");
    const pc_slice exec = pc_slice_str("EXEC");
    bool whole = (flags & PC_REDIS_TRANSACTION) != 0;
    if (c->replies->len > 0) {
        pc_list_put_back(&client->calls, &c->link);
    }
    int rc = whole ? pc_redis_command(client->conn, 1, &multi, on_reply, c, err) : 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = pc_redis_command(client->conn, commands[i].argc, commands[i].argv, on_reply, c, err);
    }
    if (whole && rc == 0) {
        rc = pc_redis_command(client->conn, 1, &exec, on_reply, c, err);
    }
    return rc;
}

/* Half a group (memory ran out) must not stay on the connection. */
static void
drop_connection(pc_redis_client *client, const pc_err *why)
{
    pc_err copy = *why;
    pc_redis_close(client->conn);
    lose_calls(client, &copy);
}

static int
is_answered(void *ctx)
{
    const call *c = ctx;
    return c->lost || c->got == c->replies->len;
}

/* 0: answered or lost, see the call. */
static int
attempt(pc_redis_client *client, call *c, const pc_redis_cmd *commands, size_t n, unsigned flags,
        pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_err why = {0};
    if (ensure_up(client, deadline, eintr, err) < 0) {
        return -1;
    }
    if (send_group(client, c, commands, n, flags, &why) < 0) {
        drop_connection(client, &why);
        return pc_fail(err, why.code, "%s", why.msg);
    }
    return pc_pump_wait(client->pump, is_answered, c, deadline, eintr, err);
}

// ---- the answer ----

static int
find_error(const pc_redis_client *client, const pc_reply *replies, pc_err *err)
{
    for (size_t i = 0; i < replies->len; i++) {
        if (pc_redis_check(client->conn, replies->children[i], err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Takes the answers out of the call: for a transaction they are those of EXEC. */
static int
open_answer(const pc_redis_client *client, call *c, unsigned flags, pc_reply **out, pc_err *err)
{
    pc_reply *all = c->replies;
    if (find_error(client, all, err) < 0) {
        return -1;
    }
    if ((flags & PC_REDIS_TRANSACTION) == 0) {
        *out = all;
        c->replies = NULL;
        return 0;
    }
    pc_reply *exec = all->children[all->len - 1];
    if (exec->type != PC_REPLY_ARRAY) {
        return pc_fail(err, PC_EPROTO, "%s: EXEC gave no list of answers",
                       pc_redis_where(client->conn));
    }
    if (find_error(client, exec, err) < 0) {
        return -1;
    }
    *out = exec;
    all->children[all->len - 1] = NULL;
    return 0;
}

static int
give_up(const pc_redis_client *client, const call *c, pc_code code, pc_err *err)
{
    if (code == PC_ETIMEOUT) {
        return pc_fail(err, code, "%s: %s before the deadline", pc_redis_where(client->conn),
                       pc_link_in(&c->link) ? "no answer" : "not connected");
    }
    return -1;
}

static void
forget_answers(call *c)
{
    for (size_t i = 0; i < c->got; i++) {
        pc_reply_free(c->replies->children[i]);
        c->replies->children[i] = NULL;
    }
    c->got = 0;
    c->lost = false;
}

static int
run_locked(pc_redis_client *client, call *c, const pc_redis_cmd *commands, size_t n,
           unsigned flags, pc_reply **out, pc_mono deadline, bool *eintr, pc_err *err)
{
    int tries = (flags & PC_REDIS_ONCE) != 0 ? 1 : 2;
    do {
        forget_answers(c);
        if (attempt(client, c, commands, n, flags, deadline, eintr, err) < 0) {
            return give_up(client, c, err->code, err);
        }
    } while (c->lost && --tries > 0);
    if (c->lost) {
        return pc_fail(err, PC_EIO, "%s (the commands may have been executed)", client->why.msg);
    }
    int rc = open_answer(client, c, flags, out, err);
    if (rc < 0 && err->code == PC_EIO && pc_list_empty(&client->calls)) {
        pc_redis_close(client->conn);  // LOADING, READONLY: another connection may do better
    }
    return rc;
}

int
pc_redis_client_run(pc_redis_client *client, const pc_redis_cmd *commands, size_t n,
                    unsigned flags, pc_reply **replies, pc_mono deadline, bool *eintr,
                    pc_err *err)
{
    pc_reply *answer = NULL;
    pc_err own = {0};
    err = err == NULL ? &own : err;
    call *c = new_call(client, (flags & PC_REDIS_TRANSACTION) != 0 ? n + 2 : n, err);
    if (c == NULL) {
        return -1;
    }
    pc_pump_lock(client->pump);
    int rc = run_locked(client, c, commands, n, flags, &answer, deadline, eintr, err);
    if (pc_link_in(&c->link)) {
        c->orphan = true;
    } else {
        free_call(c);
    }
    pc_pump_unlock(client->pump);
    if (replies != NULL) {
        *replies = answer;
    } else {
        pc_reply_free(answer);
    }
    return rc;
}

// ---- construction ----

pc_redis_client *
pc_redis_client_new(const pc_redis_config *config, pc_err *err)
{
    pc_redis_client *client = pc_zalloc(sizeof *client);
    if (client == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&client->calls);
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .ctx = client};
    client->pump = pc_pump_new(err);
    if (client->pump == NULL) {
        goto fail;
    }
    client->conn = pc_redis_new(config, pc_pump_loop(client->pump), &hooks, err);
    if (client->conn == NULL) {
        goto fail;
    }
    return client;
fail:
    pc_redis_client_free(client);
    return NULL;
}

void
pc_redis_client_abandon(pc_redis_client *client)
{
    pc_redis_abandon(client->conn);
}

void
pc_redis_client_free(pc_redis_client *client)
{
    if (client == NULL) {
        return;
    }
    pc_redis_free(client->conn);
    while (!pc_list_empty(&client->calls)) {
        free_call(PC_CONTAINER_OF(client->calls.next, call, link));
    }
    pc_pump_free(client->pump);
    pc_free(client);
}

int
pc_redis_client_get(pc_redis_client *client, pc_slice key, pc_reply **answer, pc_mono deadline,
                    bool *eintr, pc_err *err)
{
    pc_slice argv[] = {pc_slice_str("GET"), key};
    pc_redis_cmd get = {2, argv};
    return pc_redis_client_run(client, &get, 1, 0, answer, deadline, eintr, err);
}
