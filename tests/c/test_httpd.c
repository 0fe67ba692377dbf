/* SPDX-License-Identifier: BSD-3-Clause */
/* The HTTP server as good and bad clients see it. Clients are plain blocking sockets; the loop is turned between their steps. */
#include "io/httpd.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

typedef struct rig {
    pc_loop *loop;
    pc_httpd *server;
    int asked;
    size_t big;  // bytes of the body of /big
} rig;

static void
respond(void *ctx, const pc_http_request *request, pc_httpd_answer *answer)
{
    rig *r = ctx;

    r->asked++;
    if (pc_slice_is(request->path, "/big")) {
        char *to = pc_buf_reserve(answer->memory, r->big, NULL);
        PC_ASSERT(to != NULL);
        memset(to, 'b', r->big);
        pc_buf_commit(answer->memory, r->big);
        answer->body = pc_buf_slice(answer->memory);
        return;
    }
    answer->body = pc_slice_str("hello\n");
}

static void
begin(rig *r)
{
    pc_err err = {0};

    *r = (rig){.loop = pc_loop_new(&err)};
    PC_ASSERT(r->loop != NULL, "%s", err.msg);
    r->server = pc_httpd_new(r->loop, "127.0.0.1", 0, respond, r, &err);
    PC_ASSERT(r->server != NULL, "%s", err.msg);
}

static void
end(rig *r)
{
    pc_httpd_free(r->server);
    pc_loop_free(r->loop);
}

static int
client(const rig *r)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)pc_httpd_port(r->server)),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    PC_ASSERT(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static void
say(int fd, const char *text)
{
    PC_ASSERT_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), (long long)strlen(text));
}

static void
turn(rig *r, int ms)
{
    pc_err err = {0};

    PC_ASSERT(pc_loop_step(r->loop, pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS), &err) >= 0, "%s", err.msg);
}

/* Turns until the server has closed its side; returns how much it sent in all, the front of it in `out`. */
static size_t
hear(rig *r, int fd, char *out, size_t size)
{
    size_t len = 0;
    char waste[65536];

    for (int i = 0; i < 2000; i++) {
        struct pollfd at = {fd, POLLIN, 0};
        while (poll(&at, 1, 0) > 0) {
            ssize_t got = recv(fd, waste, sizeof waste, 0);
            if (got <= 0) {
                out[len < size ? len : size - 1] = '\0';
                close(fd);
                return len;
            }
            for (ssize_t k = 0; k < got; k++, len++) {
                if (len < size - 1) {
                    out[len] = waste[k];
                }
            }
        }
        turn(r, 10);
    }
    PC_ASSERT(0, "no end of the answer");
    return 0;
}

static const char *
talk(rig *r, const char *request)
{
    static char out[2048];
    int fd = client(r);

    say(fd, request);
    (void)hear(r, fd, out, sizeof out);
    return out;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

void
test_answers(void)
{
    rig r;

    begin(&r);
    const char *said = talk(&r, GET("/a"));
    PC_ASSERT(strncmp(said, "HTTP/1.1 200 OK\r\n", 17) == 0, "%s", said);
    PC_ASSERT(strstr(said, "Content-Length: 6\r\n") && strstr(said, "\r\n\r\nhello\n"), "%s", said);
    said = talk(&r, "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
    PC_ASSERT(strstr(said, "Content-Length: 6\r\n") && strstr(said, "hello") == NULL, "%s", said);
    said = talk(&r, "DELETE /a HTTP/1.1\r\nHost: x\r\n\r\n");
    PC_ASSERT(strncmp(said, "HTTP/1.1 405 ", 13) == 0 && strstr(said, "Allow: GET, HEAD\r\n"), "%s", said);
    said = talk(&r, "nonsense\r\n\r\n");
    PC_ASSERT(strncmp(said, "HTTP/1.1 400 ", 13) == 0, "%s", said);
    PC_ASSERT_INT(r.asked, 2);
    end(&r);
}

void
test_a_request_in_pieces(void)
{
    rig r;
    char out[512];
    const char *text = GET("/slowly");

    begin(&r);
    int fd = client(&r);
    for (const char *at = text; *at != '\0'; at++) {
        PC_ASSERT_INT(send(fd, at, 1, MSG_NOSIGNAL), 1);
        turn(&r, 1);
    }
    (void)hear(&r, fd, out, sizeof out);
    PC_ASSERT(strncmp(out, "HTTP/1.1 200 ", 13) == 0, "%s", out);
    end(&r);
}

void
test_a_huge_head_is_refused_and_the_refusal_arrives(void)
{
    rig r;
    char out[512];
    char much[16384];

    begin(&r);
    int fd = client(&r);
    memset(much, 'a', sizeof much);
    say(fd, "GET / HTTP/1.1\r\nA: ");
    PC_ASSERT_INT(send(fd, much, sizeof much, MSG_NOSIGNAL), sizeof much);
    (void)hear(&r, fd, out, sizeof out);
    PC_ASSERT(strncmp(out, "HTTP/1.1 431 ", 13) == 0, "%s", out);
    end(&r);
}

void
test_a_large_answer_to_a_reader_that_pauses(void)
{
    rig r;
    char out[256];

    begin(&r);
    r.big = 8 << 20;
    int fd = client(&r);
    say(fd, GET("/big"));
    for (int i = 0; i < 5; i++) {
        turn(&r, 5);
    }
    size_t len = hear(&r, fd, out, sizeof out);
    PC_ASSERT_INT(len, (long long)r.big + (strstr(out, "\r\n\r\n") + 4 - out));
    end(&r);
}

void
test_too_many_connections_are_told_so(void)
{
    rig r;
    int fds[PC_HTTPD_PLACES];
    char out[512];

    begin(&r);
    for (int i = 0; i < PC_HTTPD_PLACES; i++) {
        fds[i] = client(&r);
        turn(&r, 5);
    }
    const char *said = talk(&r, GET("/a"));
    PC_ASSERT(strncmp(said, "HTTP/1.1 503 ", 13) == 0 && strstr(said, "Retry-After: 1\r\n"), "%s", said);
    close(fds[0]);
    turn(&r, 20);
    PC_ASSERT(strncmp(talk(&r, GET("/a")), "HTTP/1.1 200 ", 13) == 0);
    say(fds[1], GET("/a"));
    (void)hear(&r, fds[1], out, sizeof out);
    PC_ASSERT(strncmp(out, "HTTP/1.1 200 ", 13) == 0, "%s", out);
    for (int i = 2; i < PC_HTTPD_PLACES; i++) {
        close(fds[i]);
    }
    end(&r);
}

/* Five seconds of patience, then the slow one is told, and the silent one is not kept. */
void
test_slow_clients_are_sent_away(void)
{
    rig r;
    char slow[512], silent[512];

    begin(&r);
    pc_mono start = pc_mono_now();
    int first = client(&r), second = client(&r);
    say(first, "GET / HT");
    (void)hear(&r, first, slow, sizeof slow);
    (void)hear(&r, second, silent, sizeof silent);
    PC_ASSERT(strncmp(slow, "HTTP/1.1 408 ", 13) == 0, "%s", slow);
    PC_ASSERT_STR(silent, "");
    PC_ASSERT(pc_mono_now().ns - start.ns >= PC_HTTPD_TIMEOUT_NS - PC_NS_PER_MS);
    end(&r);
}

void
test_an_address_in_use(void)
{
    rig r;
    pc_err err = {0};
    char expected[64];

    begin(&r);
    int port = pc_httpd_port(r.server);
    PC_ASSERT(pc_httpd_new(r.loop, "127.0.0.1", port, respond, &r, &err) == NULL);
    snprintf(expected, sizeof expected, "cannot listen for HTTP on 127.0.0.1:%d", port);
    PC_ASSERT(err.code == PC_EIO && strncmp(err.msg, expected, strlen(expected)) == 0, "%s", err.msg);
    PC_ASSERT(pc_httpd_new(r.loop, "no-such-host.invalid", 0, respond, &r, &err) == NULL);
    PC_ASSERT(strstr(err.msg, "no-such-host.invalid") != NULL, "%s", err.msg);
    end(&r);
}

static int
try_server(void *arg)
{
    rig *r = arg;
    pc_httpd *server = pc_httpd_new(r->loop, "127.0.0.1", 0, respond, r, NULL);

    if (server == NULL) {
        return -1;
    }
    pc_httpd_free(server);
    return 0;
}

void
test_without_memory(void)
{
    rig r;

    begin(&r);
    PC_ASSERT(PC_OOM(try_server, &r) > 0);
    end(&r);
}
