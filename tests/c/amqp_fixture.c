/* SPDX-License-Identifier: BSD-3-Clause */
#include "amqp_fixture.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/uuid.h"
#include "harness.h"

#define RELAY_PAIRS 8

static char url_parts[4][100];

static int
dial(const char *host, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 &&
        inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &to.sin_addr) ==
            1 &&
        connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
        return fd;
    }
    close(fd);
    return -1;
}

pc_broker_config
amqp_config(void)
{
    const char *url = getenv("PYCELERYC_TEST_AMQP");
    url = url == NULL || *url == '\0' ? "amqp://guest:guest@127.0.0.1:5672" : url;
    int n = sscanf(url, "amqp://%99[^:]:%99[^@]@%99[^:]:%9[0-9]", url_parts[0], url_parts[1],
                   url_parts[2], url_parts[3]);
    PC_ASSERT(n == 4, "PYCELERYC_TEST_AMQP must be amqp://user:password@host:port, is %s", url);
    int fd = dial(url_parts[2], atoi(url_parts[3]));
    PC_ASSERT(fd >= 0, "these tests need a RabbitMQ at %s (PYCELERYC_TEST_AMQP)", url);
    close(fd);
    return (pc_broker_config){
        .scheme = "amqp",
        .host = url_parts[2],
        .port = atoi(url_parts[3]),
        .user = url_parts[0],
        .password = url_parts[1],
        .vhost = "/",
        .heartbeat = 60,
        .connect_timeout = 5,
        .client_name = "pyceleryc tests",
        .confirm = 1,
    };
}

pc_mono
in_seconds(double seconds)
{
    return pc_mono_add(pc_mono_now(), (int64_t)(seconds * 1e9));
}

void
amqp_queue_name(char *name, const char *prefix)
{
    char id[PC_UUID_LEN + 1];
    PC_ASSERT_INT(pc_uuid4(id, NULL), 0);
    snprintf(name, 64, "%.20s-%s", prefix, id);
}

pc_queue
amqp_queue(const char *name)
{
    return (pc_queue){.name = name, .durable = false, .auto_delete = false};
}

pc_message
amqp_message(const char *queue, const char *body, size_t len)
{
    pc_message message;
    pc_message_init(&message);
    message.content_type = pc_slice_str("application/json");
    message.content_encoding = pc_slice_str("utf-8");
    message.exchange = pc_slice_str("");
    message.routing_key = pc_slice_str(queue);
    message.delivery_mode = 1;
    message.priority = 0;
    message.body = pc_slice_of(body, len);
    return message;
}

pc_producer *
amqp_producer(const pc_broker_config *config)
{
    pc_err err = {0};
    pc_producer *producer = pc_producer_amqp.create(config, NULL, &err);
    PC_ASSERT(producer != NULL, "%s", err.msg);
    return producer;
}

void
amqp_producer_end(pc_producer *producer, const char *queue_to_remove)
{
    pc_err err = {0};
    if (queue_to_remove != NULL) {
        int rc = producer->ops->remove(producer, queue_to_remove, in_seconds(5), &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
    }
    PC_ASSERT(producer->ops->close(producer, in_seconds(5), &err) == 0, "%s", err.msg);
    producer->ops->destroy(producer);
}

/* ---- the sink ---- */

uint32_t
amqp_sum(const char *body, size_t len)
{
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < len; i++) {
        sum = (sum ^ (unsigned char)body[i]) * 16777619u;
    }
    return sum;
}

static void
on_message(void *ctx, const pc_message *message)
{
    amqp_sink *sink = ctx;
    sink->count++;
    sink->redelivered += message->redelivered;
    sink->body_len = message->body.len;
    if (message->body.len > 100) {
        sink->body_sum = amqp_sum(message->body.ptr, message->body.len);
    }
    if (sink->see != NULL) {
        sink->see(sink, message);
    }
    if (sink->hold) {
        PC_ASSERT(sink->held < 20000);
        sink->tags[sink->held++] = message->tag;
    } else {
        PC_ASSERT_INT(sink->source->ops->settle(sink->source, message->tag, sink->how, NULL), 0);
    }
}

static void
on_up(void *ctx)
{
    ((amqp_sink *)ctx)->ups++;
}

static void
on_down(void *ctx, const pc_err *why)
{
    amqp_sink *sink = ctx;
    sink->downs++;
    sink->why = *why;
}

static void
on_cancelled(void *ctx, const char *queue)
{
    amqp_sink *sink = ctx;
    sink->cancels++;
    snprintf(sink->cancelled, sizeof sink->cancelled, "%s", queue);
}

static void
on_refused(void *ctx, const char *queue, const pc_err *why)
{
    amqp_sink *sink = ctx;
    sink->refusals++;
    snprintf(sink->refused, sizeof sink->refused, "%s: %s", queue, why->msg);
}

amqp_sink *
amqp_sink_new(const pc_broker_config *config)
{
    pc_err err = {0};
    amqp_sink *sink = pc_zalloc(sizeof *sink);
    PC_ASSERT(sink != NULL);
    pc_source_hooks hooks = {on_message, on_up, on_down, on_cancelled, sink, NULL, NULL, on_refused};
    sink->loop = pc_loop_new(&err);
    sink->source = pc_source_amqp.create(config, sink->loop, &hooks, NULL, &err);
    PC_ASSERT(sink->source != NULL, "%s", err.msg);
    return sink;
}

void
amqp_sink_start(amqp_sink *sink, const char *queue, unsigned prefetch)
{
    pc_err err = {0};
    pc_source *source = sink->source;
    if (queue != NULL) {
        pc_queue what = amqp_queue(queue);
        PC_ASSERT(source->ops->add_queue(source, &what, &err) == 0, "%s", err.msg);
    }
    PC_ASSERT(source->ops->prefetch(source, prefetch, &err) == 0, "%s", err.msg);
    PC_ASSERT(source->ops->connect(source, &err) == 0, "%s", err.msg);
    int ups = sink->ups;
    int downs = sink->downs;
    pc_mono deadline = in_seconds(10);
    while (sink->ups == ups) {
        PC_ASSERT(sink->downs == downs, "%s", sink->why.msg);
        PC_ASSERT(pc_mono_now().ns < deadline.ns);
        PC_ASSERT(pc_loop_step(sink->loop, deadline, NULL) >= 0);
    }
}

void
amqp_sink_end(amqp_sink *sink)
{
    pc_err err = {0};
    int rc = sink->source->ops->close(sink->source, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    sink->source->ops->destroy(sink->source);
    pc_loop_free(sink->loop);
    pc_free(sink);
}

void
amqp_turn_until(pc_loop *loop, const int *value, int want)
{
    pc_mono deadline = in_seconds(10);
    while (*value < want) {
        PC_ASSERT(pc_mono_now().ns < deadline.ns, "still %d, %d wanted", *value, want);
        PC_ASSERT(pc_loop_step(loop, deadline, NULL) >= 0);
    }
}

void
amqp_turn_for(pc_loop *loop, double seconds)
{
    pc_mono deadline = in_seconds(seconds);
    while (pc_mono_now().ns < deadline.ns) {
        PC_ASSERT(pc_loop_step(loop, deadline, NULL) >= 0);
    }
}

/* ---- the relay ---- */

typedef struct pair {
    int client;
    int broker;
} pair;

struct amqp_relay {
    pc_broker_config to;
    int listener;
    int bell[2];
    pthread_t thread;
    pair pairs[RELAY_PAIRS];
    atomic_bool freeze_up;
    atomic_bool freeze_down;
    atomic_bool cut;
    atomic_bool stop;
    atomic_int cuts_done;
    atomic_int asked;    // freezes
    atomic_int applied;  // of them, seen by the thread
    const char *injection;
    size_t injection_len;
    atomic_bool inject;
};

static void
close_pair(pair *p)
{
    close(p->client);
    close(p->broker);
    *p = (pair){-1, -1};
}

static void
accept_pair(amqp_relay *relay)
{
    int client = accept(relay->listener, NULL, NULL);
    int broker = dial(relay->to.host, relay->to.port);
    int yes = 1;  // else a second small packet waits up to 40 ms for the answer to the first
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(broker, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    for (int i = 0; i < RELAY_PAIRS && client >= 0 && broker >= 0; i++) {
        if (relay->pairs[i].client < 0) {
            relay->pairs[i] = (pair){client, broker};
            return;
        }
    }
    close(client);
    close(broker);
}

static bool
copy(int from, int to)
{
    char bytes[65536];
    ssize_t got = recv(from, bytes, sizeof bytes, 0);
    return got > 0 && send(to, bytes, (size_t)got, MSG_NOSIGNAL) == got;
}

static void
relay_turn(amqp_relay *relay)
{
    struct pollfd fds[2 + 2 * RELAY_PAIRS];
    atomic_store(&relay->applied, atomic_load(&relay->asked));
    fds[0] = (struct pollfd){relay->listener, POLLIN, 0};
    fds[1] = (struct pollfd){relay->bell[0], POLLIN, 0};
    for (int i = 0; i < RELAY_PAIRS; i++) {
        int client = atomic_load(&relay->freeze_up) ? -1 : relay->pairs[i].client;
        int broker = atomic_load(&relay->freeze_down) ? -1 : relay->pairs[i].broker;
        fds[2 + 2 * i] = (struct pollfd){client, POLLIN, 0};
        fds[3 + 2 * i] = (struct pollfd){broker, POLLIN, 0};
    }
    poll(fds, 2 + 2 * RELAY_PAIRS, -1);
    char byte;
    if (fds[1].revents != 0) {
        (void)!read(relay->bell[0], &byte, 1);
    }
    if (atomic_exchange(&relay->cut, false)) {
        for (int i = 0; i < RELAY_PAIRS; i++) {
            close_pair(&relay->pairs[i]);
        }
        atomic_fetch_add(&relay->cuts_done, 1);
        return;
    }
    if (atomic_load(&relay->inject)) {
        (void)!send(relay->pairs[0].client, relay->injection, relay->injection_len, MSG_NOSIGNAL);
        atomic_store(&relay->inject, false);  // only now: the test goes on when it sees this
    }
    for (int i = 0; i < RELAY_PAIRS; i++) {
        pair *p = &relay->pairs[i];
        if ((fds[2 + 2 * i].revents != 0 && !copy(p->client, p->broker)) ||
            (fds[3 + 2 * i].revents != 0 && !copy(p->broker, p->client))) {
            close_pair(p);
        }
    }
    if (fds[0].revents != 0) {
        accept_pair(relay);
    }
}

static void *
relay_main(void *arg)
{
    amqp_relay *relay = arg;
    while (!atomic_load(&relay->stop)) {
        relay_turn(relay);
    }
    return NULL;
}

static void
ring(amqp_relay *relay)
{
    PC_ASSERT_INT(write(relay->bell[1], "x", 1), 1);
}

static int
listen_anywhere(int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PC_ASSERT_INT(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    PC_ASSERT_INT(listen(fd, 16), 0);
    PC_ASSERT_INT(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

amqp_relay *
amqp_relay_start(const pc_broker_config *to, int *port)
{
    amqp_relay *relay = pc_zalloc(sizeof *relay);
    PC_ASSERT(relay != NULL);
    relay->to = *to;
    for (int i = 0; i < RELAY_PAIRS; i++) {
        relay->pairs[i] = (pair){-1, -1};
    }
    relay->listener = listen_anywhere(port);
    PC_ASSERT_INT(pipe(relay->bell), 0);
    PC_ASSERT_INT(pthread_create(&relay->thread, NULL, relay_main, relay), 0);
    return relay;
}

void
amqp_relay_cut(amqp_relay *relay)
{
    int before = atomic_load(&relay->cuts_done);
    atomic_store(&relay->cut, true);
    ring(relay);
    while (atomic_load(&relay->cuts_done) == before) {
        usleep(1000);
    }
}

void
amqp_relay_freeze(amqp_relay *relay, bool up, bool down)
{
    atomic_store(&relay->freeze_up, up);
    atomic_store(&relay->freeze_down, down);
    int ticket = atomic_fetch_add(&relay->asked, 1) + 1;
    ring(relay);
    while (atomic_load(&relay->applied) < ticket) {
        usleep(1000);
    }
}

void
amqp_relay_inject(amqp_relay *relay, const char *bytes, size_t len)
{
    relay->injection = bytes;
    relay->injection_len = len;
    atomic_store(&relay->inject, true);
    ring(relay);
    while (atomic_load(&relay->inject)) {
        usleep(1000);
    }
    usleep(20000);  // on its way through the kernel
}

void
amqp_relay_stop(amqp_relay *relay)
{
    atomic_store(&relay->stop, true);
    ring(relay);
    pthread_join(relay->thread, NULL);
    for (int i = 0; i < RELAY_PAIRS; i++) {
        close_pair(&relay->pairs[i]);
    }
    close(relay->listener);
    close(relay->bell[0]);
    close(relay->bell[1]);
    pc_free(relay);
}

/* ---- the canned server ---- */

struct amqp_canned {
    int listener;
    pthread_t thread;
    const char *greeting;
    size_t len;
};

static void *
canned_main(void *arg)
{
    amqp_canned *canned = arg;
    char bytes[4096];
    size_t total = 0;
    int fd = accept(canned->listener, NULL, NULL);
    if (fd >= 0 && send(fd, canned->greeting, canned->len, MSG_NOSIGNAL) == (ssize_t)canned->len) {
        ssize_t got = 1;
        while (got > 0 && total <= 8) {
            got = recv(fd, bytes, sizeof bytes, 0);
            total += got > 0 ? (size_t)got : 0;
        }
    }
    close(fd);
    return NULL;
}

amqp_canned *
amqp_canned_start(const char *greeting, size_t len, int *port)
{
    amqp_canned *canned = pc_zalloc(sizeof *canned);
    PC_ASSERT(canned != NULL);
    canned->greeting = greeting;
    canned->len = len;
    canned->listener = listen_anywhere(port);
    PC_ASSERT_INT(pthread_create(&canned->thread, NULL, canned_main, canned), 0);
    return canned;
}

void
amqp_canned_stop(amqp_canned *canned)
{
    pthread_join(canned->thread, NULL);
    close(canned->listener);
    pc_free(canned);
}

void
amqp_rig_init(amqp_rig *r, int confirm, int window)
{
    pc_err err = {0};
    r->config = r->through = amqp_config();
    r->relay = amqp_relay_start(&r->config, &r->through.port);
    r->through.confirm = confirm;
    r->through.window = window;
    r->producer = amqp_producer(&r->through);
    r->direct = amqp_producer(&r->config);
    amqp_queue_name(r->queue, "pc-test");
    pc_queue what = amqp_queue(r->queue);
    int rc = r->direct->ops->declare(r->direct, &what, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

void
amqp_rig_fini(amqp_rig *r)
{
    amqp_producer_end(r->producer, NULL);
    amqp_producer_end(r->direct, r->queue);
    amqp_relay_stop(r->relay);
}

int
amqp_rig_size(amqp_rig *r)
{
    pc_err err = {0};
    uint64_t messages = 0;
    uint64_t consumers = 0;
    int rc = r->direct->ops->size(r->direct, r->queue, &messages, &consumers, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    return (int)messages;
}
