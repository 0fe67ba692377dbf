/* SPDX-License-Identifier: BSD-3-Clause */
/* A slower network for vs_celery_redis.py, where the kernel has no netem: a TCP proxy that hands on every byte a fixed time
 * after it came. One thread; what is on its way is a list of chunks per direction.
 *
 *     delay_proxy PORT MICROSECONDS      # prints the port it listens on; ends with its standard input */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PAIRS 64
#define CHUNK 65536
#define NS 1000000000LL

typedef struct chunk {
    struct chunk *next;
    int64_t due;
    size_t len, sent;
    char bytes[];
} chunk;

/* From `from` to `to`. */
typedef struct direction {
    int from, to;
    bool ended;  // nothing more comes
    chunk *first, **last;
} direction;

typedef struct pair {
    direction way[2];
} pair;

static pair *pairs[MAX_PAIRS];
static size_t npairs;
static int64_t delay;

static void
check(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static int64_t
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS + t.tv_nsec;
}

static struct sockaddr_in
loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static void
prepare(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
}

static void
add_pair(int listener, int port)
{
    int client = accept(listener, NULL, NULL);
    if (client < 0 || npairs == MAX_PAIRS) {
        close(client);
        return;
    }
    struct sockaddr_in to = loopback(port);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(server, (struct sockaddr *)&to, sizeof to) == 0, "connect");
    prepare(client);
    prepare(server);
    pair *p = calloc(1, sizeof *p);
    check(p != NULL, "calloc");
    p->way[0] = (direction){.from = client, .to = server, .last = &p->way[0].first};
    p->way[1] = (direction){.from = server, .to = client, .last = &p->way[1].first};
    pairs[npairs++] = p;
}

static void
take_in(direction *d)
{
    static char buffer[CHUNK];
    ssize_t n = read(d->from, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        d->ended = true;
        return;
    }
    chunk *c = malloc(sizeof *c + (size_t)n);
    check(c != NULL, "malloc");
    *c = (chunk){.due = now() + delay, .len = (size_t)n};
    memcpy(c->bytes, buffer, (size_t)n);
    *d->last = c;
    d->last = &c->next;
}

static void
hand_on(direction *d)
{
    while (d->first != NULL && d->first->due <= now()) {
        chunk *c = d->first;
        ssize_t n = send(d->to, c->bytes + c->sent, c->len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            return;  // looked at again when poll says so
        }
        c->sent = n < 0 ? c->len : c->sent + (size_t)n;
        if (c->sent < c->len) {
            return;
        }
        d->first = c->next;
        d->last = d->first == NULL ? &d->first : d->last;
        free(c);
    }
}

static bool
is_over(const pair *p)
{
    return (p->way[0].ended && p->way[0].first == NULL) || (p->way[1].ended && p->way[1].first == NULL);
}

static void
drop_over(void)
{
    size_t n = 0;
    for (size_t i = 0; i < npairs; i++) {
        if (!is_over(pairs[i])) {
            pairs[n++] = pairs[i];
            continue;
        }
        for (size_t w = 0; w < 2; w++) {
            for (chunk *c = pairs[i]->way[w].first, *next; c != NULL; c = next) {
                next = c->next;
                free(c);
            }
            close(pairs[i]->way[w].from);
        }
        free(pairs[i]);
    }
    npairs = n;
}

/* Until something can be read, something late can be written, or the next chunk is due. */
static void
wait_for(struct pollfd *fds, int listener)
{
    int64_t next = INT64_MAX;
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (size_t i = 0; i < 2 * npairs; i++) {
        const direction *d = &pairs[i / 2]->way[i % 2];
        const direction *back = &pairs[i / 2]->way[1 - i % 2];
        bool late = back->first != NULL && back->first->due <= now();
        fds[2 + i] = (struct pollfd){.fd = d->from,
                                     .events = (short)((d->ended ? 0 : POLLIN) | (late ? POLLOUT : 0))};
        if (d->first != NULL && d->first->due > now() && d->first->due < next) {
            next = d->first->due;
        }
    }
    int64_t left = next == INT64_MAX ? NS : next - now();
    left = left < 0 ? 0 : left;
    struct timespec t = {left / NS, (long)(left % NS)};
    check(ppoll(fds, 2 + 2 * npairs, &t, NULL) >= 0 || errno == EINTR, "ppoll");
}

int
main(int argc, char **argv)
{
    check(argc == 3, "usage: delay_proxy PORT MICROSECONDS");
    int port = atoi(argv[1]);
    delay = atoll(argv[2]) * 1000;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = loopback(0);
    socklen_t len = sizeof here;
    check(bind(listener, (struct sockaddr *)&here, sizeof here) == 0 && listen(listener, 16) == 0, "listen");
    check(getsockname(listener, (struct sockaddr *)&here, &len) == 0, "getsockname");
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    struct pollfd fds[2 + 2 * MAX_PAIRS];
    for (;;) {
        wait_for(fds, listener);
        if (fds[0].revents != 0) {
            return 0;
        }
        for (size_t i = 0; i < 2 * npairs; i++) {
            direction *d = &pairs[i / 2]->way[i % 2];
            if ((fds[2 + i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !d->ended) {
                take_in(d);
            }
        }
        for (size_t i = 0; i < 2 * npairs; i++) {
            hand_on(&pairs[i / 2]->way[i % 2]);
        }
        drop_over();
        if (fds[1].revents != 0) {
            add_pair(listener, port);
        }
    }
}
