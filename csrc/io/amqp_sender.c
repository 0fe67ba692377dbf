/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_sender.h"

#define WINDOW_MESSAGES 10000
#define WINDOW_BYTES ((size_t)64 * 1024 * 1024)
#define POLL_EVERY 64u
#define POLL_EVERY_FULL 8u             // above half a window
#define POLL_IDLE (10 * PC_NS_PER_MS)  // after such a pause the connection may be gone
#define USER_TIMEOUT_MS 60000
#define CHUNK ((size_t)256 * 1024)  // of a batch; leaves as one write
#define OVERHEAD 200u               // of a message's frames and properties, about

/* A thread that waits for the confirms of the messages first to last; on its stack. */
typedef struct waiter {
    pc_link link;
    uint64_t first;
    uint64_t last;
    size_t open;  // not settled yet
    bool failed;
    pc_err err;
} waiter;

/* ---- what the link reports ---- */

static waiter *
find_waiter(const pc_amqp_sender *s, uint64_t serial)
{
    for (pc_link *at = s->waiters.next; at != &s->waiters; at = at->next) {
        waiter *w = PC_CONTAINER_OF(at, waiter, link);
        if (w->first <= serial && serial <= w->last) {
            return w;
        }
    }
    return NULL;
}

static void
on_settled(void *ctx, void *cookie, const pc_err *why)
{
    pc_amqp_sender *s = ctx;
    waiter *w = find_waiter(s, (uint64_t)(uintptr_t)cookie);
    if (w != NULL) {
        w->open--;
        if (why != NULL && !w->failed) {
            w->failed = true;
            w->err = *why;
        }
    } else if (why != NULL) {
        pc_log_write(s->log, PC_ERROR, "A message was refused and is lost: %s", why->msg);
        s->has_refusal = true;
        s->refusal = *why;
    }
}

static void
on_returned(void *ctx, const pc_message *message, const pc_err *why)
{
    pc_amqp_sender *s = ctx;
    s->returned++;
    pc_log_write(s->log, PC_WARNING, "%s (exchange '%.*s', routing key '%.*s', %llu so far)",
                 why->msg, (int)message->exchange.len, message->exchange.ptr,
                 (int)message->routing_key.len, message->routing_key.ptr,
                 (unsigned long long)s->returned);
}

/* ---- waiting, with the lock held ---- */

typedef struct condition {
    pc_amqp_sender *s;
    unsigned downs;  // when the wait began
    size_t bytes;    // of the message to come
} condition;

static bool
is_denied(const condition *c)
{
    return c->s->link.downs != c->downs && c->s->link.why_down.code == PC_EAUTH;
}

static int
is_connected(void *ctx)
{
    const condition *c = ctx;
    return pc_amqp_conn_is_ready(&c->s->link.conn) || is_denied(c);
}

static bool
has_room(const pc_amqp_sender *s, size_t bytes)
{
    const pc_amqp_window *w = &s->link.window;
    return pc_buf_len(&s->link.conn.stream.out) < PC_AMQP_OUT_HIGH &&
           (w->open == 0 || (w->open < s->window && w->open_bytes + bytes <= WINDOW_BYTES));
}

static int
may_publish(void *ctx)
{
    const condition *c = ctx;
    return (pc_amqp_link_takes(&c->s->link) && has_room(c->s, c->bytes)) || is_denied(c);
}

static int
is_flushed(void *ctx)
{
    const condition *c = ctx;
    const pc_amqp_link *link = &c->s->link;
    bool written = link->confirms || pc_buf_len(&link->conn.stream.out) == 0;
    return (link->window.open == 0 && written) || is_denied(c);
}

static int
is_confirmed(void *ctx)
{
    return ((const waiter *)ctx)->open == 0;
}

static int
is_calm(void *ctx)
{
    const condition *c = ctx;
    return pc_amqp_window_under_way(&c->s->link.window) == 0 ||
           !pc_amqp_conn_is_ready(&c->s->link.conn);
}

/* Says what the wait that timed out was for. */
static int
explain_timeout(pc_amqp_sender *s, pc_err *err)
{
    const pc_amqp_link *link = &s->link;
    if (!pc_amqp_conn_is_ready(&link->conn)) {
        return link->why_down.code != PC_OK
                   ? pc_fail(err, PC_EIO, "no connection in time: %s", link->why_down.msg)
                   : pc_fail(err, PC_ETIMEOUT, "%s: no connection in time", link->conn.name);
    }
    if (link->conn.blocked) {
        return pc_fail(err, PC_EFULL, "%s: the broker takes no messages now (%s)", link->conn.name,
                       link->conn.blocked_why);
    }
    return pc_fail(err, PC_EFULL, "%s: the broker is too slow: %zu messages are not confirmed yet",
                   link->conn.name, link->window.open);
}

static int
wait_for(pc_amqp_sender *s, int (*done)(void *ctx), condition *c, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(s->pump, done, c, deadline, NULL, &why) < 0) {
        if (why.code == PC_ETIMEOUT) {
            return explain_timeout(s, err);
        }
        return pc_fail(err, why.code, "%s", why.msg);
    }
    return is_denied(c) ? pc_fail(err, PC_EAUTH, "%s", s->link.why_down.msg) : 0;
}

static int
poll_link(pc_amqp_sender *s, pc_mono now, pc_err *err)
{
    s->unpolled = 0;
    s->polled = now;
    return pc_pump_poll(s->pump, err);
}

int
pc_amqp_sender_poll(pc_amqp_sender *s, pc_err *err)
{
    return poll_link(s, pc_mono_now(), err);
}

int
pc_amqp_sender_refresh(pc_amqp_sender *s, pc_err *err)
{
    pc_mono now = pc_mono_now();
    unsigned every = s->link.window.open > s->window / 2 ? POLL_EVERY_FULL : POLL_EVERY;
    uint64_t before = s->link.conn.stream.bytes_in;
    bool idle = now.ns - s->polled.ns > POLL_IDLE;
    if (!idle && ++s->unpolled < every) {
        return 0;
    }
    if (poll_link(s, now, err) < 0) {
        return -1;
    }
    // The last words of a connection hide its end from the first look.
    return idle && s->link.conn.stream.bytes_in != before ? poll_link(s, now, err) : 0;
}

int
pc_amqp_sender_connect(pc_amqp_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->link.downs};
    if (pc_amqp_conn_is_ready(&s->link.conn)) {
        return 0;
    }
    pc_amqp_link_wake(&s->link);
    return wait_for(s, is_connected, &c, deadline, err);
}

/* ---- publishing ---- */

static int
wait_for_confirm(pc_amqp_sender *s, waiter *w, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(s->pump, is_confirmed, w, deadline, NULL, &why) == 0) {
        return w->failed ? pc_fail(err, w->err.code, "%s", w->err.msg) : 0;
    }
    if (s->confirm < 2 && why.code == PC_ESTATE) {
        return pc_fail(err, why.code, "%s", why.msg);
    }
    if (s->confirm < 2) {
        return 0;  // it stays in the window
    }
    for (uint64_t serial = w->first; serial <= w->last; serial++) {
        pc_amqp_window_cancel(&s->link.window, (void *)(uintptr_t)serial);
    }
    return pc_fail(err, PC_ETIMEOUT,
                   "%s: %zu messages were sent but not confirmed in time; they may arrive "
                   "nevertheless",
                   s->link.conn.name, w->open);
}

static bool
is_open(void *ctx)
{
    return ((const pc_amqp_sender *)ctx)->link.window.open > 0;
}

static bool
has_left(void *ctx)
{
    const pc_amqp_link *link = &((const pc_amqp_sender *)ctx)->link;
    return pc_amqp_conn_is_ready(&link->conn) && pc_buf_len(&link->conn.stream.out) == 0 &&
           !pc_amqp_window_has_unsent(&link->window);
}

static int
is_sent(void *ctx)
{
    const condition *c = ctx;
    return has_left(c->s) || is_denied(c);
}

/* The connection was dead already. The caller can still be told that there is no broker: it is sent
 * again before this call ends. */
static int
send_again(pc_amqp_sender *s, uint64_t serial, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->link.downs};
    if (poll_link(s, pc_mono_now(), err) < 0) {
        return -1;
    }
    pc_amqp_link_wake(&s->link);
    if (wait_for(s, is_sent, &c, deadline, err) < 0) {
        pc_amqp_window_cancel(&s->link.window, (void *)(uintptr_t)serial);
        return -1;
    }
    return 0;
}

/* With no window, a message that did not leave is lost: that must be said. */
static int
push(pc_amqp_sender *s, uint64_t serial, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    pc_amqp_link_send(&s->link);
    if (!pc_amqp_conn_is_ready(&s->link.conn) ||
        pc_stream_flush_now(&s->link.conn.stream, &why) == 0) {
        return 0;
    }
    if (s->confirm == 0) {
        return pc_fail(err, why.code, "%s: the message may be lost: %s", s->link.conn.name,
                       why.msg);
    }
    return send_again(s, serial, deadline, err);
}

/* Large ones are what a broker refuses. */
static bool
must_wait(const pc_amqp_sender *s, const pc_message *message)
{
    return s->confirm == 2 || (s->confirm == 1 && message->body.len >= PC_AMQP_LARGE);
}

static void
mind(pc_amqp_sender *s)
{
    if (s->confirm == 1 && s->link.window.open > 0) {
        pc_minder_need(&s->minder);
        if (pc_amqp_window_holds(&s->link.window)) {
            pc_minder_hurry(&s->minder);
        }
    }
}

static int
publish_one(pc_amqp_sender *s, const pc_message *message, bool mandatory, pc_mono deadline,
            pc_err *err)
{
    if (pc_amqp_sender_refresh(s, err) < 0) {
        return -1;
    }
    condition c = {s, s->link.downs, message->body.len};
    if (!may_publish(&c)) {
        pc_amqp_link_wake(&s->link);
        if (wait_for(s, may_publish, &c, deadline, err) < 0) {
            return -1;
        }
    }
    uint64_t serial = ++s->serial;
    if (pc_amqp_link_put(&s->link, message, mandatory, (void *)(uintptr_t)serial, err) < 0) {
        return -1;
    }
    if (!must_wait(s, message)) {
        return push(s, serial, deadline, err);
    }
    waiter w = {.first = serial, .last = serial, .open = 1};
    pc_list_put_back(&s->waiters, &w.link);
    int rc = push(s, serial, deadline, err);
    if (rc == 0) {
        rc = wait_for_confirm(s, &w, deadline, err);
    }
    pc_link_remove(&w.link);
    return rc;
}

int
pc_amqp_sender_publish(pc_amqp_sender *s, const pc_message *message, bool mandatory,
                       pc_mono deadline, pc_err *err)
{
    int rc = publish_one(s, message, mandatory, deadline, err);
    mind(s);
    return rc;
}

/* ---- publishing many ---- */

typedef struct many {
    const pc_outgoing *messages;
    size_t n;
    size_t put;      // so many are in the window, or written
    uint64_t first;  // serial of the first one; they are reserved
    unsigned downs;  // of the link, when the last chunk began
} many;

static int
wait_for_room(pc_amqp_sender *s, size_t bytes, pc_mono deadline, pc_err *err)
{
    condition c = {s, s->link.downs, bytes};
    pc_amqp_link_wake(&s->link);
    return wait_for(s, may_publish, &c, deadline, err);
}

/* Puts messages until a chunk is full or there is no room; at least one. */
static int
put_chunk(pc_amqp_sender *s, many *m, pc_mono deadline, pc_err *err)
{
    size_t bytes = 0;
    while (m->put < m->n && bytes < CHUNK) {
        const pc_outgoing *next = &m->messages[m->put];
        condition c = {s, s->link.downs, next->message.body.len};
        if (!may_publish(&c)) {
            if (bytes > 0) {
                return 0;  // what is there leaves first
            }
            if (wait_for_room(s, c.bytes, deadline, err) < 0) {
                return -1;
            }
        }
        m->downs = bytes == 0 ? s->link.downs : m->downs;
        if (pc_amqp_link_put(&s->link, &next->message, next->mandatory,
                             (void *)(uintptr_t)(m->first + m->put), err) < 0) {
            return -1;
        }
        m->put++;
        bytes += next->message.body.len + next->message.headers.len + OVERHEAD;
    }
    return 0;
}

static int
put_all(pc_amqp_sender *s, many *m, pc_mono deadline, pc_err *err)
{
    while (m->put < m->n) {
        size_t before = m->put;
        if (poll_link(s, pc_mono_now(), err) < 0 || put_chunk(s, m, deadline, err) < 0) {
            return -1;
        }
        pc_amqp_link_send(&s->link);
        bool flushed = pc_amqp_conn_is_ready(&s->link.conn) &&
                       pc_stream_flush_now(&s->link.conn.stream, NULL) == 0;
        if (s->confirm == 0 && (!flushed || s->link.downs != m->downs)) {
            m->put = before;
            return pc_fail(err, PC_EIO, "%s: messages may be lost: the connection broke",
                           s->link.conn.name);
        }
    }
    return 0;
}

static int
is_written_or_down(void *ctx)
{
    const condition *c = ctx;
    return c->s->link.downs != c->downs || pc_buf_len(&c->s->link.conn.stream.out) == 0;
}

/* With confirms: nothing is left to send, also after a reconnect. Without: it is gone. */
static int
wait_until_sent(pc_amqp_sender *s, many *m, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->confirm == 0 ? m->downs : s->link.downs};
    if (s->confirm == 0) {
        int rc = wait_for(s, is_written_or_down, &c, deadline, err);
        return rc == 0 && s->link.downs != c.downs
                   ? pc_fail(err, PC_EIO, "%s: messages may be lost: the connection broke",
                             s->link.conn.name)
                   : rc;
    }
    if (is_sent(&c)) {
        return 0;
    }
    pc_amqp_link_wake(&s->link);
    return wait_for(s, is_sent, &c, deadline, err);
}

static int
publish_many(pc_amqp_sender *s, many *m, pc_mono deadline, pc_err *err)
{
    if (put_all(s, m, deadline, err) == 0 && wait_until_sent(s, m, deadline, err) == 0) {
        return 0;
    }
    if (s->confirm != 0 && m->put > 0) {
        m->put -= pc_amqp_window_take_back(&s->link.window, (uintptr_t)m->first,
                                           (uintptr_t)(m->first + m->put - 1));
    }
    return -1;
}

int
pc_amqp_sender_publish_many(pc_amqp_sender *s, const pc_outgoing *messages, size_t n,
                            pc_mono deadline, size_t *done, pc_err *err)
{
    // Other threads may publish while this one waits.
    many m = {.messages = messages, .n = n, .first = s->serial + 1};
    waiter w = {.first = m.first, .last = m.first + n - 1, .open = n};
    bool waits = false;
    s->serial += n;
    for (size_t i = 0; i < n && !waits; i++) {
        waits = must_wait(s, &messages[i].message);
    }
    pc_link_init(&w.link);
    if (waits) {
        pc_list_put_back(&s->waiters, &w.link);
    }
    int rc = publish_many(s, &m, deadline, err);
    if (rc == 0 && waits) {
        rc = wait_for_confirm(s, &w, deadline, err);
    }
    if (waits) {
        pc_link_remove(&w.link);
    }
    mind(s);
    *done = m.put;
    return rc;
}

int
pc_amqp_sender_flush(pc_amqp_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->link.downs};
    if (!is_flushed(&c)) {
        pc_amqp_link_wake(&s->link);
        if (wait_for(s, is_flushed, &c, deadline, err) < 0) {
            return -1;
        }
    }
    if (s->has_refusal) {
        s->has_refusal = false;
        return pc_fail(err, s->refusal.code, "a message was refused: %s", s->refusal.msg);
    }
    return 0;
}

int
pc_amqp_sender_calm(pc_amqp_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s, .downs = s->link.downs};
    return wait_for(s, is_calm, &c, deadline, err);
}

/* ---- life ---- */

static void
on_up(void *ctx)
{
    pc_amqp_sender *s = ctx;
    s->hooks.up(s->hooks.ctx);
}

static void
on_down(void *ctx, const pc_err *why)
{
    pc_amqp_sender *s = ctx;
    s->hooks.down(s->hooks.ctx, why);
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    pc_amqp_sender *s = ctx;
    if (s->confirm == 0 && culprit == PC_AMQP_PUBLISH) {
        pc_log_write(s->log, PC_ERROR, "A message was refused and is lost: %s", why->msg);
    }
    s->hooks.refused(s->hooks.ctx, culprit, why);
}

static void
on_message(void *ctx, const pc_message *message, pc_slice consumer_tag)
{
    pc_amqp_sender *s = ctx;
    if (s->hooks.message != NULL) {
        s->hooks.message(s->hooks.ctx, message, consumer_tag);
    }
}

static void
on_cancelled(void *ctx, pc_slice consumer_tag)
{
    pc_amqp_sender *s = ctx;
    if (s->hooks.cancelled != NULL) {
        s->hooks.cancelled(s->hooks.ctx, consumer_tag);
    }
}

int
pc_amqp_sender_init(pc_amqp_sender *s, const pc_broker_config *config,
                    const pc_amqp_sender_hooks *hooks, const pc_log *log, pc_err *err)
{
    *s = (pc_amqp_sender){.hooks = *hooks, .log = log, .confirm = config->confirm};
    s->window = config->window > 0 ? (size_t)config->window : WINDOW_MESSAGES;
    pc_link_init(&s->waiters);
    pc_broker_config quiet = *config;
    quiet.heartbeat = 0;  // nobody would send them between two calls
    pc_amqp_link_hooks mine = {
        .up = on_up,
        .down = on_down,
        .refused = on_refused,
        .settled = on_settled,
        .message = on_message,
        .returned = on_returned,
        .cancelled = on_cancelled,
        .ctx = s,
    };
    s->pump = pc_pump_new(err);
    if (s->pump == NULL || pc_amqp_link_init(&s->link, pc_pump_loop(s->pump), &quiet,
                                             s->confirm != 0, &mine, log, err) < 0) {
        pc_amqp_sender_fini(s);
        return -1;
    }
    s->link.conn.user_timeout_ms = USER_TIMEOUT_MS;
    pc_pump_ask(s->pump, config->interrupted);
    pc_minder_hooks minding = {.open = is_open, .sent = has_left, .ctx = s};
    pc_minder_init(&s->minder, s->pump, &minding);
    return 0;
}

void
pc_amqp_sender_fini(pc_amqp_sender *s)
{
    if (s == NULL || s->pump == NULL) {
        return;
    }
    pc_minder_stop(&s->minder);
    pc_amqp_link_fini(&s->link);
    pc_pump_free(s->pump);
    *s = (pc_amqp_sender){0};
}

static int
is_gone(void *ctx)
{
    return pc_amqp_conn_is_closed(&((const condition *)ctx)->s->link.conn);
}

int
pc_amqp_sender_close(pc_amqp_sender *s, pc_mono deadline, pc_err *err)
{
    condition c = {.s = s};
    int rc = pc_amqp_sender_flush(s, deadline, err);
    pc_minder_end(&s->minder);
    pc_amqp_link_close(&s->link);
    // What matters is confirmed; the goodbye is not worth an error.
    (void)pc_pump_wait(s->pump, is_gone, &c, deadline, NULL, NULL);
    pc_amqp_link_drop(&s->link);
    return rc;
}
