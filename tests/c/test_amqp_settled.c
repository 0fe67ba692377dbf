/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages that come again although they were settled. */
#include <stdio.h>

#include "amqp_stage.h"
#include "base/mem.h"
#include "harness.h"
#include "io/amqp_settled.h"

static const pc_mono start = {1000 * PC_NS_PER_SEC};

static pc_mono
later(double seconds)
{
    return pc_mono_add(start, (int64_t)(seconds * 1e9));
}

/* Headers that tell the retries, and how often it was delivered, as a quorum queue does. */
static pc_message
make(char *headers, const char *body, char retries, int delivered)
{
    pc_message message = amqp_message("q", body, strlen(body));
    memcpy(headers, "\7retriesb", 9);
    headers[9] = retries;
    size_t len = 10;
    if (delivered >= 0) {
        memcpy(headers + len, "\20x-delivery-countl\0\0\0\0\0\0\0", 25);
        headers[len + 25] = (char)delivered;
        len += 26;
    }
    message.correlation_id = pc_slice_str("an id");
    message.headers_kind = PC_HEADERS_TABLE;
    message.headers = pc_slice_of(headers, len);
    return message;
}

static void
note(pc_amqp_settled *s, const char *body)
{
    char headers[64];
    pc_message message = make(headers, body, 0, -1);
    pc_amqp_settled_note_one(s, pc_amqp_settled_print(s, &message));
}

static bool
take(pc_amqp_settled *s, const char *body, pc_mono now)
{
    char headers[64];
    pc_message message = make(headers, body, 0, -1);
    return pc_amqp_settled_take(s, &message, now);
}

static pc_amqp_settled *
make_settled(void)
{
    pc_amqp_settled *s = pc_zalloc(sizeof *s);
    PC_ASSERT(s != NULL);
    pc_amqp_settled_init(s);
    return s;
}

/* A retry has the id and the arguments of the run before. */
void
test_amqp_settled_prints_differ_where_messages_do(void)
{
    pc_amqp_settled *s = make_settled();
    char a[64];
    char b[64];
    static const struct {
        const char *body;
        char retries;
        int delivered;
        bool same;
    } others[] = {
        {"[1, 2, 3, 4]", 0, 0, true},   {"[1, 2, 3, 4]", 0, 1, true},   {"[1, 2, 3, 4]", 0, 7, true},
        {"[1, 2, 3, 4]", 1, 1, false},  {"[1, 2, 3, 5]", 0, 1, false},  {"[1, 2, 3, 4] ", 0, 1, false},
        {"[1, 2, 3, 4]", 0, -1, true},
    };
    pc_message first = make(a, "[1, 2, 3, 4]", 0, 0);
    uint64_t print = pc_amqp_settled_print(s, &first);
    PC_ASSERT(print != 0);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        pc_message other = make(b, others[i].body, others[i].retries, others[i].delivered);
        PC_ASSERT_INT(pc_amqp_settled_print(s, &other) == print, others[i].same);
    }
    pc_free(s);
}

void
test_amqp_settled_doubts_what_the_broker_may_not_have_read(void)
{
    pc_amqp_settled *s = make_settled();
    note(s, "long ago");
    pc_amqp_settled_flushed(s, later(1));
    note(s, "just before");
    pc_amqp_settled_flushed(s, later(9.5));
    note(s, "into nothing");
    pc_amqp_settled_flushed(s, later(20));
    note(s, "not written");
    pc_amqp_settled_lost(s, later(10), later(30));
    PC_ASSERT(!take(s, "long ago", later(31)));
    PC_ASSERT(take(s, "just before", later(31)));
    PC_ASSERT(!take(s, "just before", later(31)));  // another one like it
    pc_amqp_settled_lost(s, later(40), later(40));  // again, with nothing new
    PC_ASSERT(take(s, "into nothing", later(41)));
    PC_ASSERT(take(s, "not written", later(41)));
    note(s, "known");
    PC_ASSERT(!take(s, "known", later(42)));  // of this connection
    pc_free(s);
}

void
test_amqp_settled_is_bounded(void)
{
    enum { MORE = PC_AMQP_SETTLED_MAX + 100 };
    pc_amqp_settled *s = make_settled();
    char body[24];
    for (int i = 0; i < MORE; i++) {
        snprintf(body, sizeof body, "%d", i);
        note(s, body);
    }
    pc_amqp_settled_lost(s, later(0), later(0));
    PC_ASSERT(!take(s, "99", later(1)));
    PC_ASSERT(take(s, "100", later(1)));
    PC_ASSERT(take(s, body, later(1)));
    char headers[64];
    pc_message late = make(headers, "late", 0, -1);
    pc_amqp_settled_too_late(s, pc_amqp_settled_print(s, &late), later(2));
    PC_ASSERT(take(s, "late", later(3)));
    PC_ASSERT(take(s, "2000", later(299)));
    PC_ASSERT(!take(s, "2001", later(400)));
    PC_ASSERT(!take(s, "2001", later(1)));  // forgotten for good
    pc_free(s);
}

/* Acknowledged, and on its way when the connection breaks, or just after that. What was not settled runs. */
static void
settle_and_cut(bool quorum)
{
    amqp_stage s;
    amqp_stage_init(&s, 0);
    pc_broker_config through = s.config;
    amqp_relay *relay = amqp_relay_start(&s.config, &through.port);
    char name[64];
    amqp_queue_name(name, "pc-test");
    pc_queue what = amqp_queue(name);
    what.durable = quorum;
    what.queue_arguments = pc_slice_of("\14x-queue-typeS\0\0\0\6quorum", quorum ? 24 : 0);
    amqp_sink *sink = amqp_sink_new(&through);
    sink->hold = true;
    amqp_add_queue(sink, &what);
    amqp_sink_start(sink, NULL, 50);
    amqp_publish(s.producer, name, 10);
    amqp_turn_until(sink->loop, &sink->count, 10);
    amqp_relay_freeze(relay, true, false);
    for (int i = 0; i < 5; i++) {
        amqp_settle(sink, i, i == 4 ? PC_REJECT : PC_ACK);
    }
    amqp_turn_for(sink->loop, 0.05);
    amqp_relay_cut(relay);
    amqp_relay_freeze(relay, false, false);
    amqp_turn_until(sink->loop, &sink->downs, 1);
    amqp_settle(sink, 5, PC_ACK);
    amqp_settle(sink, 6, PC_REQUEUE);
    amqp_sink_start(sink, NULL, 50);
    amqp_turn_until(sink->loop, &sink->count, 14);
    amqp_turn_for(sink->loop, 0.1);
    PC_ASSERT_INT(sink->count, 14);
    PC_ASSERT_INT(sink->redelivered, 4);
    for (int i = 10; i < 14; i++) {
        amqp_settle(sink, i, PC_ACK);
    }
    amqp_sink_end(sink);
    PC_ASSERT_INT(amqp_size(s.producer, name), 0);
    amqp_remove(s.producer, name);
    amqp_relay_stop(relay);
    amqp_stage_fini(&s, 0);
}

void
test_amqp_settled_messages_do_not_come_again(void)
{
    settle_and_cut(false);
}

void
test_amqp_settled_messages_of_a_quorum_queue_do_not_come_again(void)
{
    settle_and_cut(true);
}

void
bench_amqp_settled_print(long n)
{
    static const char headers[400] = "\4taskS\0\0\1\200";
    pc_amqp_settled *s = make_settled();
    pc_message message = amqp_message("celery", "[[1, 2], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]", 80);
    uint64_t sum = 0;
    message.correlation_id = pc_slice_str("5c1d1f5e-6c0e-4f0b-9d41-9f3e8f2c7a11");
    message.headers = pc_slice_of(headers, sizeof headers);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        sum += pc_amqp_settled_print(s, &message);
    }
    PC_ASSERT(sum != 1);
    pc_free(s);
}
