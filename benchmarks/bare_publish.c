/* SPDX-License-Identifier: BSD-3-Clause */
/* The yardstick of vs_celery_canvas.py: a bare loop over rabbitmq-c that publishes n task messages, persistent and
 * confirmed, and prints messages per second. No task queue around it: the message is made once.
 *
 *     bare_publish amqp://user:password@host:port/vhost n */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHANNEL 1
#define ROUNDS 3  // after one to warm up

static const char body[] = "[[1234], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]";
static const char id[] = "2f3a3b52-0d3c-4f0e-9c58-6a2f6d2f1c11";

static void
check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bare_publish: %s failed\n", what);
        exit(1);
    }
}

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static amqp_connection_state_t
login(char *url)
{
    struct amqp_connection_info to;
    amqp_default_connection_info(&to);
    check(amqp_parse_url(url, &to) == AMQP_STATUS_OK, "amqp_parse_url");
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c);
    check(amqp_socket_open(socket, to.host, to.port) == AMQP_STATUS_OK, "amqp_socket_open");
    const char *vhost = to.vhost[0] == '\0' ? "/" : to.vhost;
    amqp_rpc_reply_t reply =
        amqp_login(c, vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, to.user, to.password);
    check(reply.reply_type == AMQP_RESPONSE_NORMAL, "amqp_login");
    amqp_channel_open(c, CHANNEL);
    amqp_confirm_select(c, CHANNEL);
    check(amqp_get_rpc_reply(c).reply_type == AMQP_RESPONSE_NORMAL, "confirm.select");
    return c;
}

static amqp_table_entry_t
header(const char *key, amqp_field_value_t value)
{
    return (amqp_table_entry_t){amqp_cstring_bytes(key), value};
}

static amqp_field_value_t
text(const char *value)
{
    return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)};
}

/* The headers of protocol 2. */
static int
fill(amqp_table_entry_t *out)
{
    static const char *const texts[] = {"id", "root_id", "group"};
    static const char *const voids[] = {"shadow", "eta", "expires", "parent_id", "stamped_headers"};
    const amqp_field_value_t nothing = {.kind = AMQP_FIELD_KIND_VOID};
    int n = 0;
    out[n++] = header("lang", text("py"));
    out[n++] = header("task", text("tasks_app.noop"));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        out[n++] = header(texts[i], text(id));
    }
    for (size_t i = 0; i < sizeof voids / sizeof voids[0]; i++) {
        out[n++] = header(voids[i], nothing);
    }
    out[n++] = header("group_index", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I32, .value.i32 = 1});
    out[n++] = header("retries", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I32, .value.i32 = 0});
    out[n++] = header("argsrepr", text("(1234,)"));
    out[n++] = header("kwargsrepr", text("{}"));
    out[n++] = header("origin", text("gen12345@localhost"));
    out[n++] = header("ignore_result", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1});
    out[n++] = header("replaced_task_nesting", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I32, .value.i32 = 0});
    return n;
}

static amqp_basic_properties_t
properties(amqp_table_entry_t *entries)
{
    amqp_basic_properties_t p = {0};
    p._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_HEADERS_FLAG
               | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG
               | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
    p.content_type = amqp_cstring_bytes("application/json");
    p.content_encoding = amqp_cstring_bytes("utf-8");
    p.headers.entries = entries;
    p.headers.num_entries = fill(entries);
    p.delivery_mode = AMQP_DELIVERY_PERSISTENT;
    p.correlation_id = p.reply_to = amqp_cstring_bytes(id);
    return p;
}

/* Takes in confirms until `n` messages are confirmed; with `wait` false only what is there. */
static long
take_confirms(amqp_connection_state_t c, long confirmed, long n, int wait)
{
    struct timeval none = {0, 0};
    struct timeval some = {30, 0};
    amqp_frame_t frame;
    while (confirmed < n) {
        int rc = amqp_simple_wait_frame_noblock(c, &frame, wait ? &some : &none);
        if (rc == AMQP_STATUS_TIMEOUT && !wait) {
            break;
        }
        check(rc == AMQP_STATUS_OK, "waiting for a confirm");
        check(frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_ACK_METHOD, "basic.ack");
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        confirmed = ack->multiple ? (long)ack->delivery_tag : confirmed + 1;
        amqp_maybe_release_buffers(c);
    }
    return confirmed;
}

static double
publish(amqp_connection_state_t c, amqp_bytes_t queue, long n, long before)
{
    amqp_table_entry_t entries[32];
    amqp_basic_properties_t p = properties(entries);
    long confirmed = 0;
    double start = now();
    for (long i = 0; i < n; i++) {
        amqp_bytes_t data = {sizeof body - 1, (void *)(uintptr_t)body};
        int rc = amqp_basic_publish(c, CHANNEL, amqp_empty_bytes, queue, 0, 0, &p, data);
        check(rc == AMQP_STATUS_OK, "amqp_basic_publish");
        if (i % 64 == 0) {
            confirmed = take_confirms(c, confirmed + before, i + before, 0) - before;
        }
    }
    take_confirms(c, confirmed + before, n + before, 1);
    return (double)n / (now() - start);
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
    check(argc == 3, "usage: bare_publish URL N; it");
    long n = atol(argv[2]);
    double rates[ROUNDS + 1];
    char name[64];
    amqp_connection_state_t c = login(argv[1]);
    snprintf(name, sizeof name, "bare-publish-%ld", (long)time(NULL));
    amqp_bytes_t queue = amqp_cstring_bytes(name);
    check(amqp_queue_declare(c, CHANNEL, queue, 0, 1, 0, 0, amqp_empty_table) != NULL, "queue.declare");
    for (int round = 0; round <= ROUNDS; round++) {
        rates[round] = publish(c, queue, n, round * n);
        amqp_queue_purge(c, CHANNEL, queue);
    }
    amqp_queue_delete(c, CHANNEL, queue, 0, 0);
    qsort(rates + 1, ROUNDS, sizeof rates[0], compare);
    printf("{\"per_second\": %.0f}\n", rates[1 + ROUNDS / 2]);
    amqp_connection_close(c, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(c);
    return 0;
}
