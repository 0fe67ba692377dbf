/* SPDX-License-Identifier: BSD-3-Clause */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/stream.h"

#define BIG ((size_t)16 << 20)

typedef struct fixture {
    pc_loop *loop;
    pc_stream stream;
    pc_endpoint endpoint;
    int listener;
    int port;
    int peer;  // accepted socket, blocking
    int opened;
    int readable;
    int closed;
    bool in_call;  // a stream function is running: closed() would be an error
    bool close_when_readable;
    bool reopen_when_closed;
    size_t consume;  // bytes to consume per readable()
    size_t consumed;
    size_t most_in;  // most bytes seen by one readable()
    pc_err why;
} fixture;

static pc_mono
in_ms(int ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static void
on_opened(void *ctx)
{
    fixture *f = ctx;
    PC_ASSERT(!f->in_call);
    PC_ASSERT(pc_stream_is_open(&f->stream));
    f->opened++;
}

static void
on_readable(void *ctx)
{
    fixture *f = ctx;
    size_t len = pc_buf_len(&f->stream.in);
    f->readable++;
    f->most_in = len > f->most_in ? len : f->most_in;
    size_t take = len < f->consume ? len : f->consume;
    pc_buf_consume(&f->stream.in, take);
    f->consumed += take;
    if (f->close_when_readable) {
        pc_stream_close(&f->stream);
    }
}

static void
on_closed(void *ctx, const pc_err *why)
{
    fixture *f = ctx;
    PC_ASSERT(!f->in_call);
    PC_ASSERT(!pc_stream_is_open(&f->stream));
    f->closed++;
    f->why = *why;
    if (f->reopen_when_closed) {
        f->reopen_when_closed = false;
        PC_ASSERT_INT(pc_stream_open(&f->stream, &f->endpoint, NULL), 0);
    }
}

static int
listen_on_loopback(int backlog, int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PC_ASSERT(fd >= 0);
    PC_ASSERT_INT(bind(fd, (struct sockaddr *)&at, len), 0);
    PC_ASSERT_INT(listen(fd, backlog), 0);
    PC_ASSERT_INT(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

static void
setup(fixture *f)
{
    *f = (fixture){.loop = pc_loop_new(NULL), .peer = -1};
    PC_ASSERT(f->loop);
    f->listener = listen_on_loopback(8, &f->port);
    f->endpoint = (pc_endpoint){.host = "127.0.0.1",
                                .port = f->port,
                                .connect_timeout_ns = 5 * PC_NS_PER_SEC,
                                .user_timeout_ms = 30000};
    pc_stream_hooks hooks = {on_opened, on_readable, on_closed, f};
    pc_stream_init(&f->stream, f->loop, &hooks);
}

static void
teardown(fixture *f)
{
    pc_stream_fini(&f->stream);
    pc_stream_fini(&f->stream);
    pc_loop_free(f->loop);
    close(f->listener);
    if (f->peer >= 0) {
        close(f->peer);
    }
}

/* Turns the loop until the counter is at least `want`, at most 10 s. */
static void
turn_until(fixture *f, const int *counter, int want)
{
    pc_mono end = in_ms(10000);
    while (*counter < want && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(f->loop, end, NULL) >= 0);
    }
    PC_ASSERT(*counter >= want, "%d, not %d", *counter, want);
}

static void
open_it(fixture *f)
{
    pc_err err = {0};
    f->in_call = true;
    PC_ASSERT(pc_stream_open(&f->stream, &f->endpoint, &err) == 0, "%s", err.msg);
    f->in_call = false;
    turn_until(f, &f->opened, f->opened + 1);
    f->peer = accept(f->listener, NULL, NULL);
    PC_ASSERT(f->peer >= 0);
}

static void
put(fixture *f, const char *text)
{
    PC_ASSERT_INT(pc_buf_put_str(&f->stream.out, text, NULL), 0);
    f->in_call = true;
    pc_stream_flush(&f->stream);
    f->in_call = false;
}

static void
reset_peer(fixture *f)
{
    struct linger now = {.l_onoff = 1};
    PC_ASSERT_INT(setsockopt(f->peer, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(f->peer);
    f->peer = -1;
}

void
test_stream_sends_and_receives(void)
{
    fixture f;
    char got[16] = "";
    setup(&f);
    open_it(&f);
    put(&f, "hello ");
    put(&f, "world");
    PC_ASSERT_INT(recv(f.peer, got, sizeof got, MSG_DONTWAIT), -1);
    (void)pc_loop_step(f.loop, in_ms(0), NULL);
    PC_ASSERT_INT(recv(f.peer, got, sizeof got, 0), 11);
    PC_ASSERT_MEM(got, "hello world", 11);
    PC_ASSERT_INT(send(f.peer, "answer", 6, 0), 6);
    turn_until(&f, &f.readable, 1);
    PC_ASSERT(pc_slice_is(pc_buf_slice(&f.stream.in), "answer"));
    PC_ASSERT_INT(f.stream.bytes_out, 11);
    PC_ASSERT_INT(f.stream.bytes_in, 6);
    PC_ASSERT(f.stream.last_in.ns >= f.stream.last_out.ns);
    teardown(&f);
}

void
test_stream_sets_its_options(void)
{
    fixture f;
    int value = 0;
    socklen_t len = sizeof value;
    setup(&f);
    open_it(&f);
    PC_ASSERT_INT(getsockopt(f.stream.fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    PC_ASSERT_INT(value, 1);
    PC_ASSERT_INT(getsockopt(f.stream.fd, SOL_SOCKET, SO_KEEPALIVE, &value, &len), 0);
    PC_ASSERT_INT(value, 1);
    PC_ASSERT_INT(getsockopt(f.stream.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &len), 0);
    PC_ASSERT_INT(value, 30000);
    teardown(&f);
}

void
test_stream_refused(void)
{
    fixture f;
    setup(&f);
    close(f.listener);
    f.in_call = true;
    int rc = pc_stream_open(&f.stream, &f.endpoint, &f.why);
    f.in_call = false;
    if (rc == 0) {
        turn_until(&f, &f.closed, 1);
    }
    PC_ASSERT_INT(f.why.code, PC_EIO);
    PC_ASSERT_INT(f.why.sys_errno, ECONNREFUSED);
    PC_ASSERT_INT(f.opened, 0);
    f.listener = -1;
    teardown(&f);
}

/* localhost is ::1 and 127.0.0.1 on most machines; only the latter listens. */
void
test_stream_tries_the_next_address(void)
{
    fixture f;
    setup(&f);
    f.endpoint.host = "localhost";
    open_it(&f);
    PC_ASSERT_INT(f.closed, 0);
    teardown(&f);
}

void
test_stream_unknown_host_fails_at_once(void)
{
    fixture f;
    setup(&f);
    f.endpoint.host = "no.such.host.invalid";
    PC_ASSERT_INT(pc_stream_open(&f.stream, &f.endpoint, &f.why), -1);
    PC_ASSERT_INT(f.why.code, PC_EIO);
    PC_ASSERT_INT(f.closed, 0);
    f.endpoint.host = NULL;
    PC_ASSERT_INT(pc_stream_open(&f.stream, &f.endpoint, &f.why), -1);
    PC_ASSERT_INT(f.why.code, PC_EDATA);
    f.endpoint.host = "127.0.0.1";
    open_it(&f);
    PC_ASSERT_INT(pc_stream_open(&f.stream, &f.endpoint, &f.why), -1);
    PC_ASSERT_INT(f.why.code, PC_ESTATE);
    teardown(&f);
}

/* The queue of a listener that accepts nothing is full: further SYNs are dropped. */
void
test_stream_connect_timeout(void)
{
    enum { FILL = 4 };
    fixture f;
    int fill[FILL];
    setup(&f);
    int full = listen_on_loopback(0, &f.endpoint.port);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f.endpoint.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < FILL; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], (struct sockaddr *)&at, sizeof at);
    }
    usleep(20000);
    f.endpoint.connect_timeout_ns = 100 * PC_NS_PER_MS;
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(pc_stream_open(&f.stream, &f.endpoint, NULL), 0);
    turn_until(&f, &f.closed, 1);
    PC_ASSERT_INT(f.why.code, PC_ETIMEOUT);
    int64_t took = pc_mono_now().ns - start.ns;
    PC_ASSERT(took >= 99 * PC_NS_PER_MS && took < 2 * PC_NS_PER_SEC);
    for (int i = 0; i < FILL; i++) {
        close(fill[i]);
    }
    close(full);
    teardown(&f);
}

void
test_stream_end_of_file_comes_after_the_last_bytes(void)
{
    fixture f;
    setup(&f);
    open_it(&f);
    PC_ASSERT_INT(send(f.peer, "bye", 3, 0), 3);
    close(f.peer);
    f.peer = -1;
    f.consume = 3;
    turn_until(&f, &f.closed, 1);
    PC_ASSERT_INT(f.consumed, 3);
    PC_ASSERT_INT(f.why.code, PC_EIO);
    PC_ASSERT_INT(pc_buf_len(&f.stream.in), 0);
    // and nothing more
    (void)pc_loop_step(f.loop, in_ms(5), NULL);
    PC_ASSERT_INT(f.closed, 1);
    teardown(&f);
}

void
test_stream_reset_by_peer(void)
{
    fixture f;
    setup(&f);
    open_it(&f);
    reset_peer(&f);
    turn_until(&f, &f.closed, 1);
    PC_ASSERT_INT(f.why.code, PC_EIO);
    teardown(&f);
}

/* The reset is noticed by the write in prepare(): reported there, once. */
void
test_stream_flush_failure_is_reported_by_the_loop(void)
{
    fixture f;
    setup(&f);
    open_it(&f);
    reset_peer(&f);
    put(&f, "too late");
    (void)pc_loop_prepare(f.loop, in_ms(0));
    PC_ASSERT_INT(f.closed, 1);
    PC_ASSERT_INT(pc_buf_len(&f.stream.out), 0);
    (void)pc_loop_step(f.loop, in_ms(5), NULL);
    PC_ASSERT_INT(f.closed, 1);
    teardown(&f);
}

void
test_stream_flush_now(void)
{
    fixture f;
    char got[8] = "";
    setup(&f);
    PC_ASSERT_INT(pc_stream_flush_now(&f.stream, NULL), -1);
    open_it(&f);
    put(&f, "now");
    PC_ASSERT_INT(pc_stream_flush_now(&f.stream, NULL), 0);
    PC_ASSERT_INT(recv(f.peer, got, sizeof got, 0), 3);
    reset_peer(&f);
    put(&f, "lost");
    f.in_call = true;
    PC_ASSERT_INT(pc_stream_flush_now(&f.stream, NULL), -1);
    f.in_call = false;
    PC_ASSERT_INT(f.closed, 0);
    PC_ASSERT(!pc_stream_is_open(&f.stream));
    turn_until(&f, &f.closed, 1);
    teardown(&f);
}

/* What the peer said before it reset the connection is handed out although a write fails first. */
void
test_stream_last_words_before_a_failed_write(void)
{
    fixture f;
    setup(&f);
    open_it(&f);
    f.consume = 5;
    PC_ASSERT_INT(send(f.peer, "error", 5, 0), 5);
    PC_ASSERT_INT(shutdown(f.peer, SHUT_RDWR), 0);
    PC_ASSERT_INT(send(f.stream.fd, "x", 1, MSG_NOSIGNAL), 1);  // answered by a reset
    put(&f, "request");
    (void)pc_loop_prepare(f.loop, in_ms(0));
    turn_until(&f, &f.closed, 1);
    PC_ASSERT_INT(f.consumed, 5);
    teardown(&f);
}

void
test_stream_may_be_closed_and_opened_from_its_hooks(void)
{
    fixture f;
    setup(&f);
    open_it(&f);
    PC_ASSERT_INT(send(f.peer, "x", 1, 0), 1);
    close(f.peer);
    f.close_when_readable = true;
    turn_until(&f, &f.readable, 1);
    PC_ASSERT_INT(f.closed, 0);
    PC_ASSERT_INT(pc_loop_step(f.loop, in_ms(5), NULL), 0);
    f.close_when_readable = false;
    open_it(&f);
    f.reopen_when_closed = true;
    close(f.peer);
    turn_until(&f, &f.opened, 3);
    PC_ASSERT_INT(f.closed, 1);
    f.peer = accept(f.listener, NULL, NULL);
    teardown(&f);
}

static void *
echo(void *ctx)
{
    int fd = *(int *)ctx;
    static char bytes[1 << 16];
    ssize_t n = 0;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        for (ssize_t at = 0; at < n;) {
            ssize_t sent = send(fd, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
            if (sent <= 0) {
                return NULL;
            }
            at += sent;
        }
    }
    return NULL;
}

static unsigned char
pattern(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 9));
}

/* Far more than the socket's buffers take: short writes, EPOLLOUT, bounded reads. */
void
test_stream_big_transfer_both_ways(void)
{
    fixture f;
    pthread_t thread;
    setup(&f);
    open_it(&f);
    PC_ASSERT_INT(pthread_create(&thread, NULL, echo, &f.peer), 0);
    char *out = pc_buf_reserve(&f.stream.out, BIG, NULL);
    PC_ASSERT(out);
    for (size_t i = 0; i < BIG; i++) {
        out[i] = (char)pattern(i);
    }
    pc_buf_commit(&f.stream.out, BIG);
    pc_stream_flush(&f.stream);
    size_t got = 0;
    while (got < BIG) {
        PC_ASSERT(pc_loop_step(f.loop, in_ms(5000), NULL) > 0);
        size_t len = pc_buf_len(&f.stream.in);
        const char *in = pc_buf_ptr(&f.stream.in);
        for (size_t i = 0; i < len; i++) {
            PC_ASSERT((unsigned char)in[i] == pattern(got + i));
        }
        pc_buf_consume(&f.stream.in, len);
        got += len;
    }
    PC_ASSERT(f.most_in <= 320u * 1024, "%zu bytes in one turn", f.most_in);
    PC_ASSERT_INT(f.stream.bytes_out, BIG);
    PC_ASSERT_INT(f.stream.watch.events, PC_READ);
    pc_stream_close(&f.stream);
    PC_ASSERT_INT(pthread_join(thread, NULL), 0);
    teardown(&f);
}

void
test_stream_adopts_a_socket(void)
{
    fixture f;
    int pair[2];
    char got[4];
    setup(&f);
    PC_ASSERT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    PC_ASSERT_INT(pc_stream_adopt(&f.stream, -1, NULL), -1);
    PC_ASSERT_INT(pc_stream_adopt(&f.stream, pair[0], NULL), 0);
    PC_ASSERT(pc_stream_is_open(&f.stream));
    put(&f, "hi");
    PC_ASSERT_INT(pc_stream_flush_now(&f.stream, NULL), 0);
    PC_ASSERT_INT(recv(pair[1], got, sizeof got, 0), 2);
    close(pair[1]);
    turn_until(&f, &f.closed, 1);
    PC_ASSERT_INT(f.opened, 0);
    teardown(&f);
}

void
test_stream_unix_socket(void)
{
    fixture f;
    setup(&f);
    f.endpoint = (pc_endpoint){.unix_path = "sock", .connect_timeout_ns = PC_NS_PER_SEC};
    PC_ASSERT_INT(pc_stream_open(&f.stream, &f.endpoint, &f.why), -1);
    PC_ASSERT_INT(f.why.sys_errno, ENOENT);
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "sock"};
    close(f.listener);
    f.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    PC_ASSERT_INT(bind(f.listener, (struct sockaddr *)&at, sizeof at), 0);
    PC_ASSERT_INT(listen(f.listener, 1), 0);
    open_it(&f);
    PC_ASSERT_INT(send(f.peer, "x", 1, 0), 1);
    turn_until(&f, &f.readable, 1);
    teardown(&f);
}

/* The child closes its copy; the parent's connection and its place in the loop stay. */
void
test_stream_abandoned_by_a_child(void)
{
    fixture f;
    char got[4];
    setup(&f);
    open_it(&f);
    put(&f, "me");
    pid_t child = fork();
    if (child == 0) {
        pc_stream_abandon(&f.stream);
        pc_stream_fini(&f.stream);
        pc_loop_free(f.loop);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT_INT(waitpid(child, &status, 0), child);
    PC_ASSERT_INT(status, 0);
    (void)pc_loop_step(f.loop, in_ms(0), NULL);
    PC_ASSERT_INT(recv(f.peer, got, sizeof got, 0), 2);
    PC_ASSERT_INT(send(f.peer, "x", 1, 0), 1);
    turn_until(&f, &f.readable, 1);
    teardown(&f);
}

static int
try_to_open(void *arg)
{
    (void)arg;
    fixture f = {.loop = pc_loop_new(NULL), .peer = -1};
    if (f.loop == NULL) {
        return -1;
    }
    f.listener = listen_on_loopback(8, &f.port);
    f.endpoint =
        (pc_endpoint){.host = "127.0.0.1", .port = f.port, .connect_timeout_ns = PC_NS_PER_SEC};
    pc_stream_hooks hooks = {on_opened, on_readable, on_closed, &f};
    pc_stream_init(&f.stream, f.loop, &hooks);
    int rc = pc_stream_open(&f.stream, &f.endpoint, NULL);
    if (rc == 0) {
        turn_until(&f, &f.opened, 1);
        f.peer = accept(f.listener, NULL, NULL);
        PC_ASSERT_INT(send(f.peer, "x", 1, 0), 1);
        while (f.closed + f.readable == 0) {
            (void)pc_loop_step(f.loop, in_ms(1000), NULL);
        }
        rc = f.readable > 0 ? 0 : -1;
    }
    teardown(&f);
    return rc;
}

void
test_stream_survives_want_of_memory(void)
{
    PC_ASSERT(PC_OOM(try_to_open, NULL) >= 3);
}

/* One request and its answer a turn. */
void
bench_stream_ping_pong(long n)
{
    fixture f;
    pthread_t thread;
    setup(&f);
    open_it(&f);
    f.consume = SIZE_MAX;
    PC_ASSERT_INT(pthread_create(&thread, NULL, echo, &f.peer), 0);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        put(&f, "ping");
        (void)pc_loop_step(f.loop, PC_MONO_NEVER, NULL);
    }
    pc_stream_close(&f.stream);
    PC_ASSERT_INT(pthread_join(thread, NULL), 0);
    teardown(&f);
}
