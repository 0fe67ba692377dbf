/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/httpd.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/socket.h"

#define BACKLOG 128
#define LINGER_NS PC_NS_PER_SEC
#define DISCARD_MAX 65536
#define PAUSE_NS (100 * PC_NS_PER_MS)
#define PLAIN_TEXT "text/plain; charset=utf-8"

typedef enum phase { FREE, READING, WRITING, LINGERING } phase;

typedef struct place {
    pc_httpd *server;
    int fd;
    phase phase;
    pc_watch watch;
    pc_timer timer;
    size_t in_len;
    size_t discarded;
    pc_buf out;
    char in[PC_HTTP_HEAD_MAX];
} place;

struct pc_httpd {
    pc_loop *loop;
    void (*respond)(void *ctx, const pc_http_request *request, pc_httpd_answer *answer);
    void *ctx;
    int fd;
    int port;
    pc_watch watch;
    pc_timer pause;  // after accept() failed for want of descriptors or memory
    place places[PC_HTTPD_PLACES];
};

/* --- a connection ----------------------------------------------------- */

static void
hang_up(place *at)
{
    if (at->phase == FREE) {
        return;
    }
    pc_loop_unwatch(at->server->loop, &at->watch);
    pc_loop_clear_timer(at->server->loop, &at->timer);
    (void)shutdown(at->fd, SHUT_RDWR);
    (void)close(at->fd);
    at->fd = -1;
    at->phase = FREE;
    pc_buf_reset(&at->out, 1 << 16);
}

static void
linger(place *at)
{
    at->phase = LINGERING;
    (void)shutdown(at->fd, SHUT_WR);
    pc_mono until = pc_mono_add(pc_mono_now(), LINGER_NS);
    if (pc_loop_watch(at->server->loop, &at->watch, PC_READ, NULL) < 0
        || pc_loop_set_timer(at->server->loop, &at->timer, until, NULL) < 0) {
        hang_up(at);
    }
}

static void
send_rest(place *at)
{
    while (pc_buf_len(&at->out) > 0) {
        ssize_t sent = send(at->fd, pc_buf_ptr(&at->out), pc_buf_len(&at->out), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (pc_loop_watch(at->server->loop, &at->watch, PC_WRITE, NULL) < 0) {
                hang_up(at);
            }
            return;
        }
        if (sent < 0) {
            hang_up(at);
            return;
        }
        pc_buf_consume(&at->out, (size_t)sent);
    }
    linger(at);
}

static void
answer(place *at, const pc_httpd_answer *what, bool head_only)
{
    char head[PC_HTTP_ANSWER_MAX];
    pc_buf out;
    size_t len = pc_http_answer_head(head, sizeof head, what->status, what->content_type, what->body.len);

    pc_buf_init(&out);
    at->phase = WRITING;
    if (pc_buf_put(&out, head, len, NULL) < 0
        || (!head_only && what->body.len > 0 && pc_buf_put_slice(&out, what->body, NULL) < 0)) {
        pc_buf_fini(&out);
        hang_up(at);
        return;
    }
    pc_buf_fini(&at->out);
    at->out = out;
    send_rest(at);
}

static void
refuse(place *at, int status)
{
    pc_httpd_answer what = {.status = status, .content_type = PLAIN_TEXT, .body = pc_slice_str(pc_http_reason(status))};

    answer(at, &what, false);
}

static void
serve(place *at, const pc_http_request *request)
{
    bool head_only = pc_slice_is(request->method, "HEAD");
    pc_buf memory;

    if (!head_only && !pc_slice_is(request->method, "GET")) {
        refuse(at, 405);
        return;
    }
    pc_buf_init(&memory);
    pc_httpd_answer what = {.status = 200, .content_type = PLAIN_TEXT, .memory = &memory};
    at->server->respond(at->server->ctx, request, &what);
    answer(at, &what, head_only);
    pc_buf_fini(&memory);
}

static void
take_request(place *at)
{
    pc_http_request request;
    ptrdiff_t used = pc_http_read(pc_slice_of(at->in, at->in_len), &request);

    if (used < 0) {
        refuse(at, request.status);
    } else if (used > 0) {
        serve(at, &request);
    }
}

static void
receive(place *at)
{
    char waste[4096];
    bool reading = at->phase == READING;
    ssize_t got = reading ? recv(at->fd, at->in + at->in_len, sizeof(at->in) - at->in_len, 0)
                          : recv(at->fd, waste, sizeof waste, 0);

    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
        return;
    }
    if (got <= 0) {
        hang_up(at);
        return;
    }
    if (reading) {
        at->in_len += (size_t)got;
        take_request(at);
        return;
    }
    at->discarded += (size_t)got;
    if (at->discarded > DISCARD_MAX) {
        hang_up(at);
    }
}

static void
ready(void *ctx, unsigned events)
{
    place *at = ctx;

    if (at->phase == WRITING && (events & (PC_WRITE | PC_HANGUP))) {
        send_rest(at);
    } else if (at->phase != FREE && (events & (PC_READ | PC_HANGUP))) {
        receive(at);
    }
}

static void
too_late(void *ctx, pc_mono now)
{
    place *at = ctx;

    (void)now;
    if (at->phase == READING && at->in_len > 0) {
        at->phase = WRITING;
        refuse(at, 408);
        if (at->phase == WRITING) {  // it does not even read
            hang_up(at);
        }
        return;
    }
    hang_up(at);
}

/* --- the listener ----------------------------------------------------- */

static place *
free_place(pc_httpd *server)
{
    for (size_t i = 0; i < PC_HTTPD_PLACES; i++) {
        if (server->places[i].phase == FREE) {
            return &server->places[i];
        }
    }
    return NULL;
}

static void
turn_away(int fd)
{
    char text[PC_HTTP_ANSWER_MAX];
    size_t len = pc_http_answer_head(text, sizeof text, 503, PLAIN_TEXT, 0);
    char waste[4096];

    // what has come already is taken, so that closing does not reset the connection
    (void)!recv(fd, waste, sizeof waste, MSG_DONTWAIT);
    (void)!send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(fd, SHUT_RDWR);
    (void)close(fd);
}

static void
receive_client(pc_httpd *server, int fd)
{
    place *at = free_place(server);

    if (at == NULL) {
        turn_away(fd);
        return;
    }
    at->fd = fd;
    at->phase = READING;
    at->in_len = 0;
    at->discarded = 0;
    pc_socket_tune(fd, true, 0);
    pc_watch_init(&at->watch, fd, ready, at);
    if (pc_loop_watch(server->loop, &at->watch, PC_READ, NULL) < 0
        || pc_loop_set_timer(server->loop, &at->timer, pc_mono_add(pc_mono_now(), PC_HTTPD_TIMEOUT_NS), NULL) < 0) {
        hang_up(at);
    }
}

static void
listen_again(void *ctx, pc_mono now)
{
    pc_httpd *server = ctx;

    if (pc_loop_watch(server->loop, &server->watch, PC_READ, NULL) < 0) {
        (void)pc_loop_set_timer(server->loop, &server->pause, pc_mono_add(now, PAUSE_NS), NULL);
    }
}

static void
rest(pc_httpd *server)
{
    // a descriptor that cannot be had now would keep the loop from sleeping
    if (pc_loop_set_timer(server->loop, &server->pause, pc_mono_add(pc_mono_now(), PAUSE_NS), NULL) == 0) {
        pc_loop_unwatch(server->loop, &server->watch);
    }
}

static void
knock(void *ctx, unsigned events)
{
    pc_httpd *server = ctx;

    (void)events;
    for (int n = 0; n < BACKLOG; n++) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            receive_client(server, fd);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                rest(server);
            }
            return;
        }
    }
}

/* --- making ----------------------------------------------------------- */

static int
listen_on(const struct addrinfo *address)
{
    int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int
port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char port[8] = "0";

    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0
        || getnameinfo((struct sockaddr *)&address, len, NULL, 0, port, sizeof port, NI_NUMERICSERV) != 0) {
        return 0;
    }
    return (int)strtol(port, NULL, 10);
}

static int
open_listener(const char *host, int port, pc_err *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char number[16];
    bool all = *host == '\0' || strcmp(host, "*") == 0;

    (void)snprintf(number, sizeof number, "%d", port);
    int rc = getaddrinfo(all ? NULL : host, number, &hints, &found);
    if (rc != 0) {
        return pc_fail(err, PC_EIO, "cannot look up the HTTP address %s: %s", host, gai_strerror(rc));
    }
    int fd = -1;
    errno = EADDRNOTAVAIL;
    for (struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next) {
        fd = listen_on(at);
    }
    int saved = errno;
    freeaddrinfo(found);
    errno = saved;
    return fd >= 0 ? fd : pc_fail_errno(err, PC_EIO, "cannot listen for HTTP on %s:%d", all ? "*" : host, port);
}

pc_httpd *
pc_httpd_new(pc_loop *loop, const char *host, int port,
             void (*respond)(void *ctx, const pc_http_request *request, pc_httpd_answer *answer), void *ctx,
             pc_err *err)
{
    pc_httpd *server = pc_zalloc(sizeof(*server));

    if (server == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *server = (pc_httpd){.loop = loop, .respond = respond, .ctx = ctx, .fd = -1};
    for (size_t i = 0; i < PC_HTTPD_PLACES; i++) {
        server->places[i].server = server;
        server->places[i].fd = -1;
        pc_timer_init(&server->places[i].timer, too_late, &server->places[i]);
        pc_buf_init(&server->places[i].out);
    }
    pc_timer_init(&server->pause, listen_again, server);
    server->fd = open_listener(host, port, err);
    if (server->fd < 0) {
        goto fail;
    }
    server->port = port_of(server->fd);
    pc_watch_init(&server->watch, server->fd, knock, server);
    if (pc_loop_watch(loop, &server->watch, PC_READ, err) < 0) {
        goto fail;
    }
    return server;

fail:
    pc_httpd_free(server);
    return NULL;
}

void
pc_httpd_free(pc_httpd *server)
{
    if (server == NULL) {
        return;
    }
    for (size_t i = 0; i < PC_HTTPD_PLACES; i++) {
        hang_up(&server->places[i]);
        pc_buf_fini(&server->places[i].out);
    }
    pc_loop_clear_timer(server->loop, &server->pause);
    if (server->fd >= 0) {
        pc_loop_unwatch(server->loop, &server->watch);
        (void)close(server->fd);
    }
    pc_free(server);
}

int
pc_httpd_port(const pc_httpd *server)
{
    return server->port;
}

void
pc_httpd_abandon(const pc_httpd *server)
{
    (void)close(server->fd);
    for (size_t i = 0; i < PC_HTTPD_PLACES; i++) {
        if (server->places[i].fd >= 0) {
            (void)close(server->places[i].fd);
        }
    }
}
