/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite broker: what it promises, and its rates. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "io/sqlite_db.h"
#include "io/sqlite_queue.h"
#include "sqlite_rig.h"

/* --- source --- */

void
test_sqlite_keeps_message_and_order(void)
{
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, 100);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 100);
    sq_rig *self = sq_start_rig(0);
    PC_ASSERT(sq_turn_until(self, &self->got, 100, 3000));
    for (int i = 0; i < 100; i++) {
        PC_ASSERT_INT(self->numbers[i], i);
        PC_ASSERT(!self->redelivered[i]);
    }
    PC_ASSERT_STR(self->text, "99");
    PC_ASSERT_INT(self->last.delivery_mode, 2);
    PC_ASSERT_INT(self->last.priority, -1);
    PC_ASSERT_INT(self->last.timestamp, -1);
    PC_ASSERT_INT(self->last.headers_kind, PC_HEADERS_JSON);
    PC_ASSERT(self->last.reply_to.ptr == NULL);
    for (int i = 0; i < 100; i++) {
        PC_ASSERT_INT(sq_in->settle(self->source, self->tags[i], PC_ACK, NULL), 0);
    }
    sq_end_rig(self);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 0);
    sq_end_producer(producer);
}

void
test_sqlite_unsettled_come_back(void)
{
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, 4);
    sq_rig *self = sq_start_rig(0);
    PC_ASSERT(sq_turn_until(self, &self->got, 4, 3000));
    sq_in->settle(self->source, self->tags[0], PC_ACK, NULL);
    sq_in->settle(self->source, self->tags[1], PC_REJECT, NULL);
    sq_in->settle(self->source, self->tags[3], PC_REQUEUE, NULL);
    PC_ASSERT(sq_turn_until(self, &self->got, 5, 3000));
    PC_ASSERT_INT(self->numbers[4], 3);
    PC_ASSERT(self->redelivered[4]);
    sq_end_rig(self);  // 2 and 3 are given back
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 2);
    self = sq_start_rig(0);
    PC_ASSERT(sq_turn_until(self, &self->got, 2, 3000));
    PC_ASSERT_INT(self->numbers[0], 2);
    PC_ASSERT(self->redelivered[0]);
    sq_end_rig(self);
    sq_end_producer(producer);
}

void
test_sqlite_priority_first(void)
{
    pc_producer *producer = sq_make_producer();
    const int priorities[] = {-1, 3, 9, 3, 0};
    for (int i = 0; i < 5; i++) {
        char text[2] = {(char)('0' + i), '\0'};
        PC_ASSERT_INT(sq_send_with(producer, "q", text, priorities[i], 0, NULL), 0);
    }
    sq_rig *self = sq_start(2, true);
    PC_ASSERT(sq_turn_until(self, &self->got, 5, 3000));
    const int want[] = {2, 1, 3, 0, 4};
    for (int i = 0; i < 5; i++) {
        PC_ASSERT_INT(self->numbers[i], want[i]);
    }
    sq_end_rig(self);
    sq_end_producer(producer);
}

void
test_sqlite_due_waits(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(0);
    sq_turn_for(self, 20);
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(sq_send_with(producer, "q", "1", -1, 900, NULL), 0);
    PC_ASSERT_INT(sq_send_with(producer, "q", "2", -1, 600, NULL), 0);
    PC_ASSERT_INT(sq_send_with(producer, "q", "3", -1, -500, NULL), 0);  // already due
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 1);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 3000));
    PC_ASSERT_INT(self->numbers[0], 3);
    PC_ASSERT(sq_turn_until(self, &self->got, 3, 5000));
    int64_t ms = (pc_mono_now().ns - start.ns) / PC_NS_PER_MS;
    PC_ASSERT(ms >= 899, "took %lld ms", (long long)ms);
    PC_ASSERT_INT(self->numbers[1], 2);
    PC_ASSERT_INT(self->numbers[2], 1);
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* What falls due while the source takes nothing must not keep the loop awake. */
void
test_sqlite_due_does_not_disturb_a_pause(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(1);
    PC_ASSERT_INT(sq_send_with(producer, "q", "1", -1, 100, NULL), 0);
    sq_turn_for(self, 50);
    PC_ASSERT_INT(sq_in->pause(self->source, NULL), 0);
    sq_turn_for(self, 100);
    int turns = 0;
    for (pc_mono end = sq_after_ms(200); pc_mono_now().ns < end.ns; turns++) {
        PC_ASSERT(pc_loop_step(self->loop, end, NULL) >= 0);
    }
    PC_ASSERT(turns < 20, "%d turns", turns);
    PC_ASSERT_INT(self->got, 0);
    sq_end_rig(self);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 0);  // nobody was there to wake it
    self = sq_start_rig(1);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 1000));
    sq_end_rig(self);
    sq_end_producer(producer);
}

void
test_sqlite_prefetch_limits(void)
{
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, 10);
    sq_rig *self = sq_start_rig(3);
    sq_turn_for(self, 50);
    PC_ASSERT_INT(self->got, 3);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 7);
    sq_in->settle(self->source, self->tags[0], PC_ACK, NULL);
    sq_turn_for(self, 50);
    PC_ASSERT_INT(self->got, 4);
    sq_in->prefetch(self->source, 5, NULL);
    sq_turn_for(self, 50);
    PC_ASSERT_INT(self->got, 6);
    sq_in->pause(self->source, NULL);
    for (int i = 1; i < 6; i++) {
        sq_in->settle(self->source, self->tags[i], PC_ACK, NULL);
    }
    sq_turn_for(self, 50);
    PC_ASSERT_INT(self->got, 6);
    sq_end_rig(self);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 4);
    sq_end_producer(producer);
}

void
test_sqlite_several_queues_share(void)
{
    pc_producer *producer = sq_make_producer();
    for (int i = 0; i < 50; i++) {
        sq_send_text(producer, "q", "1");
        sq_send_text(producer, "r", "2");
    }
    sq_rig *self = sq_make_rig(SQ_DB);
    self->ack = true;
    sq_add_queue(self, "q");
    sq_add_queue(self, "r");
    sq_in->prefetch(self->source, 10, NULL);
    sq_in->connect(self->source, NULL);
    PC_ASSERT(sq_turn_until(self, &self->got, 100, 3000));
    int of_r = 0;
    for (int i = 0; i < 50; i++) {
        of_r += self->numbers[i] == 2;
    }
    PC_ASSERT(of_r >= 15 && of_r <= 35, "%d of the first 50", of_r);
    PC_ASSERT_INT(sq_in->drop_queue(self->source, "r", NULL), 0);
    sq_send_text(producer, "r", "3");
    sq_turn_for(self, 50);
    PC_ASSERT_INT(self->got, 100);
    sq_end_rig(self);
    sq_end_producer(producer);
}

void
test_sqlite_no_ack_queue(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_make_rig(SQ_DB);
    pc_queue queue = {.name = "n", .no_ack = true, .auto_delete = true};
    PC_ASSERT_INT(sq_in->add_queue(self->source, &queue, NULL), 0);
    sq_in->prefetch(self->source, 1, NULL);
    sq_in->connect(self->source, NULL);
    PC_ASSERT(sq_turn_until(self, &self->up, 1, 3000));
    for (int i = 0; i < 5; i++) {
        sq_send_text(producer, "n", "1");
    }
    PC_ASSERT(sq_turn_until(self, &self->got, 5, 3000));
    sq_turn_for(self, 20);
    PC_ASSERT_INT(sq_ready_in(producer, "n"), 0);
    sq_end_rig(self);
    uint64_t n;
    pc_err err = {0};
    PC_ASSERT_INT(sq_out->size(producer, "n", &n, &n, sq_after_ms(100), &err), -1);  // auto-deleted
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    sq_end_producer(producer);
}

void
test_sqlite_removed_queue_is_cancelled(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(1);
    PC_ASSERT_INT(sq_out->remove(producer, "q", sq_after_ms(1000), NULL), 0);
    PC_ASSERT(sq_turn_until(self, &self->cancelled, 1, 4000));
    sq_add_queue(self, "q");
    sq_send_text(producer, "q", "7");
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 2000));
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* Of 12 MB messages only a few are claimed at a time, and all arrive whole. */
void
test_sqlite_huge_messages(void)
{
    enum { SIZE = 12 << 20, COUNT = 6 };
    pc_err err = {0};
    pc_producer *producer = sq_make_producer();
    char *body = calloc(1, SIZE);
    pc_message message;
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.body = pc_slice_of(body, SIZE);
    for (int i = 0; i < COUNT; i++) {
        body[0] = (char)('0' + i);
        PC_ASSERT(sq_out->publish(producer, &message, false, (pc_wall){0}, false, sq_after_ms(9000),
                                  &err) == 0,
                  "%s", err.msg);
    }
    free(body);
    sq_rig *self = sq_start(1, true);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 9000));
    PC_ASSERT_INT(self->last.body.len, SIZE);
    PC_ASSERT_INT(sq_in->prefetch(self->source, 0, NULL), 0);
    PC_ASSERT(sq_turn_until(self, &self->got, COUNT, 9000));
    for (int i = 0; i < COUNT; i++) {
        PC_ASSERT_INT(self->numbers[i], i);
    }
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* --- producer --- */

static int
send_to(pc_producer *producer, const char *exchange, const char *key, bool mandatory, pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.exchange = pc_slice_str(exchange);
    message.routing_key = pc_slice_str(key);
    message.body = pc_slice_str("x");
    return sq_out->publish(producer, &message, mandatory, (pc_wall){0}, false, sq_after_ms(1000),
                           err);
}

void
test_sqlite_exchanges(void)
{
    pc_producer *producer = sq_make_producer();
    pc_err err = {0};
    const pc_queue queues[] = {
        {.name = "d", .exchange = "direct", .exchange_type = "direct", .routing_key = "k"},
        {.name = "t1", .exchange = "topic", .exchange_type = "topic", .routing_key = "a.*"},
        {.name = "t2", .exchange = "topic", .exchange_type = "topic", .routing_key = "a.#"},
        {.name = "f1", .exchange = "fan", .exchange_type = "fanout"},
        {.name = "f2", .exchange = "fan", .exchange_type = "fanout"},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++) {
            PC_ASSERT(sq_out->declare(producer, &queues[i], sq_after_ms(1000), &err) == 0, "%s",
                      err.msg);
        }
    }
    PC_ASSERT_INT(send_to(producer, "direct", "k", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "direct", "other", false, &err), 0);
    PC_ASSERT_INT(send_to(producer, "direct", "other", true, &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    PC_ASSERT_INT(send_to(producer, "topic", "a.b", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "topic", "a.b.c", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "fan", "whatever", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "nobody", "made", true, &err), 0);
    PC_ASSERT_INT(sq_ready_in(producer, "d"), 1);
    PC_ASSERT_INT(sq_ready_in(producer, "t1"), 1);
    PC_ASSERT_INT(sq_ready_in(producer, "t2"), 2);
    PC_ASSERT_INT(sq_ready_in(producer, "f1"), 1);
    PC_ASSERT_INT(sq_ready_in(producer, "f2"), 1);
    PC_ASSERT_INT(sq_ready_in(producer, "made"), 1);
    pc_queue headers = {.name = "h", .exchange = "h", .exchange_type = "headers"};
    PC_ASSERT_INT(sq_out->declare(producer, &headers, sq_after_ms(1000), &err), -1);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    sq_end_producer(producer);
}

void
test_sqlite_topic_patterns(void)
{
    static const struct {
        const char *pattern;
        const char *key;
        bool match;
    } cases[] = {
        {"a.b", "a.b", true},
        {"a.*", "a.b", true},
        {"a.*", "a", false},
        {"a.*", "a.b.c", false},
        {"#", "", true},
        {"#", "a.b.c", true},
        {"a.#", "a", true},
        {"a.#", "a.b.c", true},
        {"#.c", "a.b.c", true},
        {"#.c", "c", true},
        {"#.c", "a.b", false},
        {"a.#.c", "a.c", true},
        {"a.#.c", "a.c.c", true},
        {"#.b.*", "a.b.b.c", true},
        {"*", "a", true},
        {"*", "a.b", false},
        {"#.#", "a", true},
        {"#.a.#.b", "x.a.y.b", true},
        {"#.a.#.b", "x.a.y", false},
        {"", "a", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool got =
            pc_sqlite_topic_match(pc_slice_str(cases[i].pattern), pc_slice_str(cases[i].key));
        PC_ASSERT(got == cases[i].match, "%s against %s", cases[i].pattern, cases[i].key);
    }
}

void
test_sqlite_get_purge_remove(void)
{
    pc_producer *producer = sq_make_producer();
    pc_buf memory;
    pc_message message;
    bool found;
    uint64_t n = 0;
    pc_err err = {0};
    pc_buf_init(&memory);
    PC_ASSERT_INT(sq_out->get(producer, "q", &found, &message, &memory, sq_after_ms(100), &err),
                  -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    sq_send_numbers(producer, 10, 14);
    PC_ASSERT_INT(sq_out->get(producer, "q", &found, &message, &memory, sq_after_ms(1000), &err),
                  0);
    PC_ASSERT(found && pc_slice_is(message.body, "10"));
    PC_ASSERT(!message.redelivered);
    PC_ASSERT(pc_slice_is(message.headers, "{\"task\": \"add\"}"));
    PC_ASSERT_INT(sq_out->purge(producer, "q", &n, sq_after_ms(1000), &err), 0);
    PC_ASSERT_INT(n, 3);
    PC_ASSERT_INT(sq_out->get(producer, "q", &found, &message, &memory, sq_after_ms(1000), &err),
                  0);
    PC_ASSERT(!found);
    PC_ASSERT_INT(sq_out->remove(producer, "q", sq_after_ms(1000), &err), 0);
    PC_ASSERT_INT(sq_out->remove(producer, "q", sq_after_ms(1000), &err), 0);
    PC_ASSERT_INT(sq_out->size(producer, "q", &n, &n, sq_after_ms(1000), &err), -1);
    pc_buf_fini(&memory);
    sq_end_producer(producer);
}

static void *
publish_many(void *ctx)
{
    sq_send_numbers(ctx, 0, 500);
    return NULL;
}

void
test_sqlite_two_threads_publish(void)
{
    pc_producer *producer = sq_make_producer();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        PC_ASSERT_INT(pthread_create(&threads[i], NULL, publish_many, producer), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 1000);
    sq_end_producer(producer);
}

/* --- rates --- */

void
bench_sqlite_publish(long n)
{
    pc_producer *producer = sq_make_producer();
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        sq_send_text(producer, "q", "1");
    }
    sq_end_producer(producer);
}

static void
fill_queue(long n)
{
    pc_err err = {0};
    static const char headers[] = "{\"lang\": \"py\", \"task\": \"proj.add\"}";
    char body[90];
    char long_headers[500];
    pc_buf scratch;
    pc_sqlite_route route = {0};
    pc_sqlite *db = pc_sqlite_open(SQ_DB, PC_SQLITE_NORMAL, sq_after_ms(1000), &err);
    PC_ASSERT(db != NULL, "%s", err.msg);
    memset(body, 'b', sizeof body);
    memset(long_headers, ' ', sizeof long_headers);
    memcpy(long_headers, headers, sizeof headers - 1);
    pc_buf_init(&scratch);
    pc_message message;
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_of(long_headers, sizeof long_headers);
    message.body = pc_slice_of(body, sizeof body);
    PC_ASSERT_INT(pc_sqlite_begin(db, sq_after_ms(1000), &err), 0);
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(pc_sqlite_queue_put(db, &message, 0, &scratch, &route, &err), 0);
    }
    PC_ASSERT_INT(pc_sqlite_commit(db, &err), 0);
    pc_sqlite_close(db);
    pc_buf_fini(&scratch);
}

static void
consume(long n, unsigned prefetch)
{
    fill_queue(n);
    sq_rig *self = sq_make_rig(SQ_DB);
    self->ack = true;
    sq_add_queue(self, "q");
    sq_in->prefetch(self->source, prefetch, NULL);
    sq_in->connect(self->source, NULL);
    ct_reset_timer();
    PC_ASSERT(sq_turn_until(self, &self->got, (int)n, 600000));
    sq_end_rig(self);
}

void
bench_sqlite_consume_batch_64(long n)
{
    consume(n, 64);
}

void
bench_sqlite_consume_batch_8(long n)
{
    consume(n, 8);
}

void
bench_sqlite_consume_batch_1(long n)
{
    consume(n, 1);
}
