/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams over TLS against `openssl s_server`, with certificates made for each test. */
#include "harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/stream.h"

#define BIG ((size_t)3 << 20)

typedef struct peer {
    pid_t pid;
    int port;
    int to;    // its standard input: what it sends
    int from;  // its standard output: what it received
} peer;

typedef struct client {
    pc_loop *loop;
    pc_stream stream;
    pc_tls_config tls;
    pc_endpoint endpoint;
    int opened;
    int closed;
    size_t consumed;
    size_t wrong;  // bytes that are not what the pattern says
    pc_err why;
} client;

static const char make_certificates[] =
    "exec >openssl.log 2>&1; set -e\n"
    "new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'\n"
    "openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=ca -days 2\n"
    "openssl req -x509 $new -keyout x.key -out other-ca.pem -subj /CN=other -days 2\n"
    "printf 'subjectAltName=DNS:queue.test,IP:127.0.0.1,IP:::1' >server.ext\n"
    "openssl req $new -keyout server.key -out server.csr -subj /CN=ignored\n"
    "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
    " -out server.pem -days 2 -extfile server.ext\n"
    "openssl req $new -keyout client.key -out client.csr -subj /CN=client\n"
    "openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
    " -out client.pem -days 2\n"
    "openssl ec -in client.key -aes256 -passout pass:secret -out locked.key\n";

static pc_mono
in_ms(int ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static int
listen_somewhere(int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PC_ASSERT(fd >= 0);
    PC_ASSERT_INT(bind(fd, (struct sockaddr *)&at, len), 0);
    PC_ASSERT_INT(listen(fd, 4), 0);
    PC_ASSERT_INT(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

static void
run_server(const peer *p, int in, int out, const char *options)
{
    char command[512];
    snprintf(command, sizeof command,
             "exec openssl s_server -quiet -accept 127.0.0.1:%d -cert server.pem "
             "-key server.key %s 2>server.log",
             p->port, options);
    dup2(in, 0);
    dup2(out, 1);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static bool
answers(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return ok;
}

/* Starts it and waits until it listens. */
static void
start_server(peer *p, const char *options)
{
    int in[2], out[2];
    PC_ASSERT_INT(system(make_certificates), 0);
    close(listen_somewhere(&p->port));
    PC_ASSERT(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    p->pid = fork();
    if (p->pid == 0) {
        run_server(p, in[0], out[1], options);
    }
    close(in[0]);
    close(out[1]);
    p->to = in[1];
    p->from = out[0];
    for (int i = 0; i < 500 && !answers(p->port); i++) {
        usleep(10000);
    }
}

static void
stop_server(peer *p)
{
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        PC_ASSERT_INT(waitpid(p->pid, NULL, 0), p->pid);
        p->pid = 0;
        close(p->to);
        close(p->from);
    }
}

static void
on_opened(void *ctx)
{
    ((client *)ctx)->opened++;
}

static unsigned char
pattern(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 9));
}

static void
on_readable(void *ctx)
{
    client *c = ctx;
    size_t len = pc_buf_len(&c->stream.in);
    const char *bytes = pc_buf_ptr(&c->stream.in);
    for (size_t i = 0; i < len; i++) {
        c->wrong += (unsigned char)bytes[i] != pattern(c->consumed + i);
    }
    c->consumed += len;
    pc_buf_consume(&c->stream.in, len);
}

static void
on_closed(void *ctx, const pc_err *why)
{
    client *c = ctx;
    c->closed++;
    c->why = *why;
}

static void
setup(client *c, int port)
{
    *c = (client){.loop = pc_loop_new(NULL)};
    PC_ASSERT(c->loop);
    c->tls = (pc_tls_config){
        .ca_file = "ca.pem", .server_name = "queue.test", .verify = true, .check_hostname = true};
    c->endpoint = (pc_endpoint){
        .host = "127.0.0.1", .port = port, .tls = &c->tls, .connect_timeout_ns = 8 * PC_NS_PER_SEC};
    pc_stream_hooks hooks = {on_opened, on_readable, on_closed, c};
    pc_stream_init(&c->stream, c->loop, &hooks);
}

static void
teardown(client *c)
{
    pc_stream_fini(&c->stream);
    pc_loop_free(c->loop);
}

static void
turn_until_decided(client *c)
{
    pc_mono end = in_ms(10000);
    while (c->opened + c->closed == 0 && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(c->loop, end, NULL) >= 0);
    }
}

static void
open_it(client *c)
{
    pc_err err = {0};
    c->opened = c->closed = 0;
    PC_ASSERT(pc_stream_open(&c->stream, &c->endpoint, &err) == 0, "%s", err.msg);
    turn_until_decided(c);
}

static void
expect_open(client *c)
{
    open_it(c);
    PC_ASSERT(c->opened == 1, "%s", c->why.msg);
    pc_stream_close(&c->stream);
}

static void
expect_refusal(client *c, pc_code code)
{
    open_it(c);
    PC_ASSERT_INT(c->opened, 0);
    PC_ASSERT_INT(c->closed, 1);
    PC_ASSERT(c->why.code == code, "%d: %s", c->why.code, c->why.msg);
}

static void
expect_bad_config(client *c, const char *named)
{
    pc_err err = {0};
    PC_ASSERT_INT(pc_stream_open(&c->stream, &c->endpoint, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT(strstr(err.msg, named) != NULL, "%s", err.msg);
}

void
test_tls_verifies_chain_and_name(void)
{
    peer p;
    client c;
    start_server(&p, "");
    setup(&c, p.port);
    expect_open(&c);
    c.tls.server_name = "127.0.0.1";
    expect_open(&c);
    c.tls.server_name = "::1";
    expect_open(&c);
    c.tls.server_name = "other.test";
    expect_refusal(&c, PC_EAUTH);
    PC_ASSERT(strstr(c.why.msg, "ostname") != NULL, "%s", c.why.msg);
    c.tls.server_name = "127.0.0.2";
    expect_refusal(&c, PC_EAUTH);
    c.tls.check_hostname = false;
    expect_open(&c);
    c.tls.ca_file = "other-ca.pem";
    expect_refusal(&c, PC_EAUTH);
    c.tls.ca_file = NULL;  // the system's store does not know it either
    expect_refusal(&c, PC_EAUTH);
    c.tls.verify = false;
    c.tls.server_name = NULL;
    expect_open(&c);
    teardown(&c);
    stop_server(&p);
}

void
test_tls_bad_configuration_fails_at_once(void)
{
    client c;
    PC_ASSERT_INT(system(make_certificates), 0);
    int port = 0;
    int listener = listen_somewhere(&port);
    setup(&c, port);
    pc_tls_config good = c.tls;
    c.tls.ca_file = "no-such.pem";
    expect_bad_config(&c, "no-such.pem");
    c.tls = good;
    c.tls.ca_file = "server.csr";
    expect_bad_config(&c, "server.csr");
    c.tls = good;
    c.tls.ca_path = "no-such-dir";
    expect_bad_config(&c, "no-such-dir");
    c.tls = good;
    c.tls.cert_file = "no-such.pem";
    expect_bad_config(&c, "no-such.pem");
    c.tls.cert_file = "client.pem";
    c.tls.key_file = "no-such.key";
    expect_bad_config(&c, "no-such.key");
    c.tls.key_file = "server.key";  // of another certificate
    expect_bad_config(&c, "server.key");
    c.tls.key_file = "locked.key";
    expect_bad_config(&c, "locked.key");
    c.tls.key_password = "wrong";
    expect_bad_config(&c, "locked.key");
    c.tls = good;
    c.tls.ciphers = "NO-SUCH-CIPHER";
    expect_bad_config(&c, "NO-SUCH-CIPHER");
    c.tls = good;
    c.tls.verify = false;
    expect_bad_config(&c, "host name");
    c.tls = good;
    c.tls.server_name = NULL;
    expect_bad_config(&c, "server name");
    PC_ASSERT_INT(c.closed, 0);
    close(listener);
    teardown(&c);
}

/* TLS 1.3 tells the client of its refusal only after the handshake: it is open for a moment. */
static void
expect_end(client *c, pc_code code)
{
    open_it(c);
    pc_mono end = in_ms(5000);
    while (c->closed == 0 && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(c->loop, end, NULL) >= 0);
    }
    PC_ASSERT_INT(c->closed, 1);
    PC_ASSERT(c->why.code == code, "%d: %s", c->why.code, c->why.msg);
}

void
test_tls_client_certificate(void)
{
    peer p;
    client c;
    start_server(&p, "-Verify 1 -verify_return_error -CAfile ca.pem");
    setup(&c, p.port);
    expect_end(&c, PC_EAUTH);
    c.tls.cert_file = "client.pem";
    c.tls.key_file = "client.key";
    expect_open(&c);
    c.tls.key_file = "locked.key";
    c.tls.key_password = "secret";
    expect_open(&c);
    teardown(&c);
    stop_server(&p);
}

void
test_tls_version_1_2(void)
{
    peer p;
    client c;
    start_server(&p, "-tls1_2");
    setup(&c, p.port);
    c.tls.ciphers = "ECDHE+AESGCM";
    expect_open(&c);
    teardown(&c);
    stop_server(&p);
}

static void *
feed_server(void *ctx)
{
    int fd = *(int *)ctx;
    static char bytes[8192];
    for (size_t at = 0; at < BIG;) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (char)pattern(at + i);
        }
        ssize_t n = write(fd, bytes, sizeof bytes);
        if (n <= 0) {
            break;
        }
        at += (size_t)n;
    }
    return NULL;
}

static void *
drain_server(void *ctx)
{
    int fd = *(int *)ctx;
    static unsigned char bytes[65536];
    size_t total = 0;
    while (total < BIG) {
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n <= 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            PC_ASSERT(bytes[i] == pattern(total + (size_t)i));
        }
        total += (size_t)n;
    }
    PC_ASSERT_INT(total, BIG);
    return NULL;
}

/* Short writes, records across reads, and decrypted bytes that epoll cannot see. */
void
test_tls_big_transfer_both_ways(void)
{
    peer p;
    client c;
    pthread_t feeder, drainer;
    start_server(&p, "");
    setup(&c, p.port);
    open_it(&c);
    PC_ASSERT(c.opened == 1, "%s", c.why.msg);
    char *out = pc_buf_reserve(&c.stream.out, BIG, NULL);
    PC_ASSERT(out);
    for (size_t i = 0; i < BIG; i++) {
        out[i] = (char)pattern(i);
    }
    pc_buf_commit(&c.stream.out, BIG);
    pc_stream_flush(&c.stream);
    PC_ASSERT_INT(pthread_create(&feeder, NULL, feed_server, &p.to), 0);
    PC_ASSERT_INT(pthread_create(&drainer, NULL, drain_server, &p.from), 0);
    while ((c.consumed < BIG || pc_buf_len(&c.stream.out) > 0) && c.closed == 0) {
        PC_ASSERT(pc_loop_step(c.loop, in_ms(5000), NULL) > 0);
    }
    PC_ASSERT_INT(pthread_join(feeder, NULL), 0);
    PC_ASSERT_INT(pthread_join(drainer, NULL), 0);
    PC_ASSERT_INT(c.closed, 0);
    PC_ASSERT_INT(c.wrong, 0);
    PC_ASSERT_INT(c.stream.bytes_out, BIG);
    teardown(&c);
    stop_server(&p);
}

/* The process would die of SIGPIPE if OpenSSL wrote to the socket itself. */
void
test_tls_peer_goes_away(void)
{
    peer p;
    client c;
    signal(SIGPIPE, SIG_DFL);
    start_server(&p, "");
    setup(&c, p.port);
    open_it(&c);
    PC_ASSERT_INT(c.opened, 1);
    stop_server(&p);
    for (int i = 0; i < 3 && c.closed == 0; i++) {
        PC_ASSERT_INT(pc_buf_put_str(&c.stream.out, "hello", NULL), 0);
        pc_stream_flush(&c.stream);
        (void)pc_loop_prepare(c.loop, in_ms(0));
        usleep(5000);
    }
    while (c.closed == 0) {
        PC_ASSERT(pc_loop_step(c.loop, in_ms(5000), NULL) > 0);
    }
    PC_ASSERT_INT(c.closed, 1);
    PC_ASSERT(c.why.code == PC_EIO, "%s", c.why.msg);
    teardown(&c);
}

static void
accept_and_say(client *c, int listener, const char *text)
{
    PC_ASSERT_INT(pc_stream_open(&c->stream, &c->endpoint, NULL), 0);
    int fd = accept(listener, NULL, NULL);
    PC_ASSERT(fd >= 0);
    if (text != NULL) {
        PC_ASSERT(send(fd, text, strlen(text), 0) > 0);
        PC_ASSERT_INT(shutdown(fd, SHUT_WR), 0);
    }
    turn_until_decided(c);
    close(fd);
    PC_ASSERT_INT(c->opened, 0);
    PC_ASSERT_INT(c->closed, 1);
}

void
test_tls_against_something_else(void)
{
    client c;
    int port = 0;
    int listener = listen_somewhere(&port);
    setup(&c, port);
    c.tls = (pc_tls_config){0};
    accept_and_say(&c, listener, "AMQP plain text of some other protocol");
    PC_ASSERT(c.why.code == PC_EPROTO || c.why.code == PC_EIO, "%s", c.why.msg);
    c.closed = 0;
    accept_and_say(&c, listener, "-ERR plain text of some other protocol\r\n");
    PC_ASSERT(c.why.code == PC_EPROTO, "%s", c.why.msg);
    c.closed = 0;
    c.endpoint.connect_timeout_ns = 50 * PC_NS_PER_MS;
    accept_and_say(&c, listener, NULL);  // silence
    PC_ASSERT(c.why.code == PC_ETIMEOUT, "%s", c.why.msg);
    close(listener);
    teardown(&c);
}

static int
make_session(void *arg)
{
    pc_tls *tls = pc_tls_new(arg, -1, NULL);
    pc_tls_free(tls);
    return tls == NULL ? -1 : 0;
}

void
test_tls_survives_want_of_memory(void)
{
    pc_tls_config config = {.server_name = "queue.test"};
    PC_ASSERT_INT(PC_OOM(make_session, &config), 1);
}
