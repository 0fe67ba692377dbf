/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/stream.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "io/socket.h"

#define READ_CHUNK (64u * 1024)
#define READ_BUDGET (256u * 1024)  // a turn, so that nobody else starves
#define KEEP_MEMORY (256u * 1024)  // of a buffer between two connections

enum {
    CLOSED,
    CONNECTING,  // connect() under way
    SHAKING,     // TLS handshake
    OPEN,
    ENDING  // failed; the last input is being handed out, closed() follows
};

static void on_ready(void *ctx, unsigned events);
static void on_timer(void *ctx, pc_mono now);
static void on_flush(void *ctx);

void
pc_stream_init(pc_stream *stream, pc_loop *loop, const pc_stream_hooks *hooks)
{
    *stream = (pc_stream){.loop = loop, .hooks = *hooks, .fd = -1};
    pc_buf_init(&stream->in);
    pc_buf_init(&stream->out);
    pc_watch_init(&stream->watch, -1, on_ready, stream);
    pc_timer_init(&stream->timer, on_timer, stream);
    pc_defer_init(&stream->flush, on_flush, stream);
}

/* --- closing --- */

static void
drop_socket(pc_stream *stream)
{
    pc_tls_free(stream->tls);
    stream->tls = NULL;
    if (stream->fd >= 0) {
        pc_loop_unwatch(stream->loop, &stream->watch);
        close(stream->fd);
        stream->fd = -1;
    }
    stream->want = 0;
}

static void
drop_addresses(pc_stream *stream)
{
    if (stream->addresses != NULL) {
        freeaddrinfo(stream->addresses);
    }
    stream->addresses = NULL;
    stream->next_address = NULL;
}

void
pc_stream_close(pc_stream *stream)
{
    stream->state = CLOSED;
    pc_loop_clear_timer(stream->loop, &stream->timer);
    pc_loop_undefer(stream->loop, &stream->flush);
    drop_socket(stream);
    drop_addresses(stream);
    pc_buf_reset(&stream->in, KEEP_MEMORY);
    pc_buf_reset(&stream->out, KEEP_MEMORY);
}

/* The loop knows that a child must leave the shared epoll set alone, and closing sends nothing. */
void
pc_stream_abandon(pc_stream *stream)
{
    pc_stream_close(stream);
}

void
pc_stream_fini(pc_stream *stream)
{
    if (stream == NULL || stream->loop == NULL) {
        return;
    }
    pc_stream_close(stream);
    pc_buf_fini(&stream->in);
    pc_buf_fini(&stream->out);
    stream->loop = NULL;
}

/* Only from the loop's callbacks. */
static void
report_closed(pc_stream *stream, const pc_err *why)
{
    pc_stream_close(stream);
    stream->hooks.closed(stream->hooks.ctx, why);
}

/* --- reading and writing --- */

/* 1: something moved, 0: nothing now, -1: over. */
static int
receive_plain(pc_stream *stream, char *to, size_t n, size_t *done, pc_err *err)
{
    ssize_t got = recv(stream->fd, to, n, MSG_DONTWAIT);
    if (got > 0) {
        *done = (size_t)got;
        return 1;
    }
    if (got == 0) {
        return pc_fail(err, PC_EIO, "the peer closed the connection");
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return 0;
    }
    return pc_fail_errno(err, PC_EIO, "connection lost");
}

static int
receive_tls(pc_stream *stream, char *to, size_t n, size_t *done, pc_err *err)
{
    int want = pc_tls_read(stream->tls, to, n, done, err);
    if (want == PC_TLS_EOF) {
        return pc_fail(err, PC_EIO, "the peer closed the connection");
    }
    if (want == PC_TLS_WRITE) {
        stream->want |= PC_WRITE;
    }
    return want < 0 ? -1 : want == PC_TLS_DONE;
}

static int
receive(pc_stream *stream, char *to, size_t n, size_t *done, pc_err *err)
{
    *done = 0;
    return stream->tls == NULL ? receive_plain(stream, to, n, done, err)
                               : receive_tls(stream, to, n, done, err);
}

/* Fills `in` until the kernel has no more, or for one turn's share. 0 or -1; bytes may
 * have arrived in both cases. A TLS record is at most 16 KiB and is taken out whole (see tls.h),
 * so that nothing decrypted stays behind where epoll cannot see it. */
static int
fill(pc_stream *stream, pc_err *err)
{
    size_t total = 0;
    int rc = 1;
    while (rc > 0 && total < READ_BUDGET) {
        char *to = pc_buf_reserve(&stream->in, READ_CHUNK, err);
        if (to == NULL) {
            return -1;
        }
        size_t done = 0;
        rc = receive(stream, to, READ_CHUNK, &done, err);
        pc_buf_commit(&stream->in, done);
        total += done;
        if (stream->tls == NULL && done > 0 && done < READ_CHUNK) {
            break;  // a short read: the kernel has no more
        }
    }
    if (total > 0) {
        stream->bytes_in += total;
        stream->last_in = pc_mono_now();
    }
    return rc < 0 ? -1 : 0;
}

static int
send_plain(pc_stream *stream, size_t *done, pc_err *err)
{
    ssize_t sent = send(stream->fd, pc_buf_ptr(&stream->out), pc_buf_len(&stream->out),
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
        *done = (size_t)sent;
        return 1;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return 0;
    }
    return pc_fail_errno(err, PC_EIO, "connection lost");
}

static int
send_tls(pc_stream *stream, size_t *done, pc_err *err)
{
    int want =
        pc_tls_write(stream->tls, pc_buf_ptr(&stream->out), pc_buf_len(&stream->out), done, err);
    if (want == PC_TLS_EOF) {
        return pc_fail(err, PC_EIO, "the peer closed the connection");
    }
    return want < 0 ? -1 : want == PC_TLS_DONE;
}

/* What to wait for now: input always, room for output when a write came up short (a
 * flush that is still to come needs no help from epoll). */
static int
rewatch(pc_stream *stream, pc_err *err)
{
    unsigned events = PC_READ | stream->want;
    if (pc_buf_len(&stream->out) > 0 && !pc_link_in(&stream->flush.link)) {
        events |= PC_WRITE;
    }
    return pc_loop_watch(stream->loop, &stream->watch, events, err);
}

static int
drain_out(pc_stream *stream, pc_err *err)
{
    int rc = 1;
    size_t total = 0;
    while (rc > 0 && pc_buf_len(&stream->out) > 0) {
        size_t done = 0;
        rc = stream->tls == NULL ? send_plain(stream, &done, err) : send_tls(stream, &done, err);
        pc_buf_consume(&stream->out, done);
        total += done;
    }
    if (total > 0) {
        stream->bytes_out += total;
        stream->last_out = pc_mono_now();
    }
    if (pc_buf_len(&stream->out) == 0) {
        pc_buf_reset(&stream->out, KEEP_MEMORY);
    }
    return rc < 0 ? -1 : rewatch(stream, err);
}

/* Hands out what arrived, then reports the end. The state tells afterwards whether the
 * reader closed (or closed and reopened) the stream meanwhile. */
static void
end(pc_stream *stream, const pc_err *why)
{
    stream->state = ENDING;
    if (pc_buf_len(&stream->in) > 0) {
        stream->hooks.readable(stream->hooks.ctx);
    }
    if (stream->state == ENDING) {
        report_closed(stream, why);
    }
}

/* Writing failed. The peer's last words, if any, say why: they are read first. */
static void
end_after_write(pc_stream *stream, const pc_err *why)
{
    while (pc_buf_len(&stream->in) < READ_BUDGET) {
        uint64_t before = stream->bytes_in;
        if (fill(stream, NULL) != 0 || stream->bytes_in == before) {
            break;
        }
    }
    end(stream, why);
}

static void
on_flush(void *ctx)
{
    pc_stream *stream = ctx;
    pc_err err = {0};
    if (stream->state == ENDING) {  // pc_stream_flush_now failed
        pc_fail(&err, PC_EIO, "connection lost while sending");
        end_after_write(stream, &err);
    } else if (stream->state == OPEN && drain_out(stream, &err) != 0) {
        end_after_write(stream, &err);
    }
}

static void
serve(pc_stream *stream, unsigned events)
{
    pc_err err = {0};
    stream->want = 0;
    size_t before = pc_buf_len(&stream->in);
    bool input = events != PC_WRITE || stream->tls != NULL;
    if (input && fill(stream, &err) != 0) {
        end(stream, &err);
        return;
    }
    if (pc_buf_len(&stream->in) > before) {
        stream->hooks.readable(stream->hooks.ctx);
    }
    if (stream->state != OPEN) {
        return;
    }
    // TLS may have waited for input to go on writing; else epoll says when.
    bool room = (events & PC_WRITE) != 0 || stream->tls != NULL;
    bool more = room && pc_buf_len(&stream->out) > 0;
    if ((more ? drain_out(stream, &err) : rewatch(stream, &err)) != 0) {
        end_after_write(stream, &err);
    }
}

/* --- opening --- */

static void
describe(const pc_stream *stream, char *to, size_t size)
{
    const pc_endpoint *at = &stream->endpoint;
    if (at->unix_path != NULL) {
        snprintf(to, size, "%s", at->unix_path);
    } else {
        snprintf(to, size, "%s:%d", at->host, at->port);
    }
}

static void
tune(const pc_stream *stream)
{
    pc_socket_tune(stream->fd, stream->endpoint.unix_path == NULL,
                   stream->endpoint.user_timeout_ms);
}

/* The time that is left, shared fairly among the addresses that are left: one that
 * swallows packets must not use up the others' chance. */
static int
set_attempt_timer(pc_stream *stream, const struct addrinfo *rest, pc_err *err)
{
    if (stream->endpoint.connect_timeout_ns <= 0) {
        return 0;
    }
    int64_t attempts = 1;
    for (; rest != NULL; rest = rest->ai_next) {
        attempts++;
    }
    pc_mono now = pc_mono_now();
    int64_t left = stream->give_up.ns - now.ns;
    pc_mono when = pc_mono_add(now, left / attempts);
    return pc_loop_set_timer(stream->loop, &stream->timer, when, err);
}

/* *again: the next address may do better; a bad certificate file or no memory would not. */
static int
attempt(pc_stream *stream, int family, const struct sockaddr *to, socklen_t len, bool *again,
        pc_err *err)
{
    *again = false;
    stream->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->fd < 0) {
        *again = errno == EAFNOSUPPORT;
        return pc_fail_errno(err, PC_EIO, "cannot create a socket");
    }
    if (stream->endpoint.tls != NULL) {
        stream->tls = pc_tls_new(stream->endpoint.tls, stream->fd, err);
        if (stream->tls == NULL) {
            return -1;
        }
    }
    if (connect(stream->fd, to, len) != 0 && errno != EINPROGRESS && errno != EINTR) {
        char where[200];
        describe(stream, where, sizeof where);
        *again = true;
        return pc_fail_errno(err, PC_EIO, "cannot connect to %s", where);
    }
    pc_watch_init(&stream->watch, stream->fd, on_ready, stream);
    return pc_loop_watch(stream->loop, &stream->watch, PC_WRITE, err);
}

/* Starts with the next address that does not fail at once; -1 with the error of the
 * last one when none is left. `err` must hold an error already when there may be none. */
static int
try_addresses(pc_stream *stream, pc_err *err)
{
    bool again = true;
    while (again && stream->next_address != NULL) {
        const struct addrinfo *at = stream->next_address;
        stream->next_address = at->ai_next;
        drop_socket(stream);
        if (attempt(stream, at->ai_family, at->ai_addr, at->ai_addrlen, &again, err) == 0) {
            return set_attempt_timer(stream, stream->next_address, err);
        }
    }
    return -1;
}

static int
open_unix(pc_stream *stream, pc_err *err)
{
    const char *path = stream->endpoint.unix_path;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path) {
        return pc_fail(err, PC_EDATA, "unix socket path %s is too long", path);
    }
    memcpy(to.sun_path, path, strlen(path));
    bool again = false;
    if (attempt(stream, AF_UNIX, (const struct sockaddr *)&to, sizeof to, &again, err) != 0) {
        return -1;
    }
    return set_attempt_timer(stream, NULL, err);
}

static int
open_tcp(pc_stream *stream, pc_err *err)
{
    const pc_endpoint *at = &stream->endpoint;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char port[12];
    snprintf(port, sizeof port, "%d", at->port);
    int rc = getaddrinfo(at->host, port, &hints, &stream->addresses);
    if (rc != 0) {
        stream->addresses = NULL;
        return pc_fail(err, PC_EIO, "cannot resolve %s: %s", at->host, gai_strerror(rc));
    }
    stream->next_address = stream->addresses;
    return try_addresses(stream, err);
}

int
pc_stream_open(pc_stream *stream, const pc_endpoint *endpoint, pc_err *err)
{
    if (stream->state != CLOSED) {
        return pc_fail(err, PC_ESTATE, "the stream is open already");
    }
    if (endpoint->host == NULL && endpoint->unix_path == NULL) {
        return pc_fail(err, PC_EDATA, "no host to connect to");
    }
    stream->endpoint = *endpoint;
    stream->give_up = pc_mono_add(pc_mono_now(), endpoint->connect_timeout_ns);
    stream->state = CONNECTING;
    int rc = endpoint->unix_path != NULL ? open_unix(stream, err) : open_tcp(stream, err);
    if (rc != 0) {
        pc_stream_close(stream);
    }
    return rc;
}

int
pc_stream_adopt(pc_stream *stream, int fd, pc_err *err)
{
    if (stream->state != CLOSED) {
        return pc_fail(err, PC_ESTATE, "the stream is open already");
    }
    if (pc_socket_unblock(fd) != 0) {
        return pc_fail_errno(err, PC_EIO, "cannot use descriptor %d", fd);
    }
    pc_watch_init(&stream->watch, fd, on_ready, stream);
    if (pc_loop_watch(stream->loop, &stream->watch, PC_READ, err) != 0) {
        return -1;
    }
    stream->endpoint = (pc_endpoint){0};
    stream->fd = fd;
    stream->state = OPEN;
    tune(stream);
    return 0;
}

static void
finish_open(pc_stream *stream)
{
    pc_err err = {0};
    pc_loop_clear_timer(stream->loop, &stream->timer);
    drop_addresses(stream);
    stream->want = 0;
    stream->state = OPEN;
    stream->last_in = stream->last_out = pc_mono_now();
    if (rewatch(stream, &err) != 0) {
        report_closed(stream, &err);
        return;
    }
    stream->hooks.opened(stream->hooks.ctx);
    if (stream->state == OPEN && pc_buf_len(&stream->out) > 0) {
        pc_stream_flush(stream);
    }
}

static void
shake(pc_stream *stream)
{
    pc_err err = {0};
    int want = pc_tls_handshake(stream->tls, &err);
    if (want == PC_TLS_DONE) {
        finish_open(stream);
        return;
    }
    if (want == PC_TLS_EOF) {
        want = pc_fail(&err, PC_EIO, "the peer closed the connection in the TLS handshake");
    }
    unsigned events = want == PC_TLS_WRITE ? PC_WRITE : PC_READ;
    if (want < 0 || pc_loop_watch(stream->loop, &stream->watch, events, &err) != 0) {
        report_closed(stream, &err);
    }
}

static void
next_or_closed(pc_stream *stream, pc_err *err)
{
    if (try_addresses(stream, err) != 0) {
        report_closed(stream, err);
    }
}

static void
finish_connect(pc_stream *stream)
{
    int code = pc_socket_error(stream->fd);
    if (code != 0) {
        pc_err err = {0};
        char where[200];
        describe(stream, where, sizeof where);
        errno = code;
        pc_fail_errno(&err, PC_EIO, "cannot connect to %s", where);
        next_or_closed(stream, &err);
        return;
    }
    tune(stream);
    if (stream->tls == NULL) {
        finish_open(stream);
        return;
    }
    // The whole time that is left is this connection's from now on.
    stream->state = SHAKING;
    stream->next_address = NULL;
    pc_err err = {0};
    if (set_attempt_timer(stream, NULL, &err) != 0) {
        report_closed(stream, &err);
        return;
    }
    shake(stream);
}

static void
on_timer(void *ctx, pc_mono now)
{
    (void)now;
    pc_stream *stream = ctx;
    pc_err err = {0};
    char where[200];
    describe(stream, where, sizeof where);
    pc_fail(&err, PC_ETIMEOUT, "no %s from %s within the connect timeout",
            stream->state == SHAKING ? "TLS handshake" : "answer", where);
    next_or_closed(stream, &err);
}

static void
on_ready(void *ctx, unsigned events)
{
    pc_stream *stream = ctx;
    switch (stream->state) {
    case CONNECTING: finish_connect(stream); break;
    case SHAKING: shake(stream); break;
    case OPEN: serve(stream, events); break;
    default:  // ENDING: the deferred call reports it
        break;
    }
}

/* --- for the owner --- */

bool
pc_stream_is_open(const pc_stream *stream)
{
    return stream->state == OPEN;
}

void
pc_stream_flush(pc_stream *stream)
{
    if (stream->state == OPEN) {
        pc_loop_defer(stream->loop, &stream->flush);
    }
}

int
pc_stream_flush_now(pc_stream *stream, pc_err *err)
{
    if (stream->state != OPEN) {
        return pc_fail(err, PC_EIO, "the connection is not open");
    }
    pc_loop_undefer(stream->loop, &stream->flush);
    if (drain_out(stream, err) == 0) {
        return 0;
    }
    stream->state = ENDING;
    pc_loop_defer(stream->loop, &stream->flush);
    return -1;
}
