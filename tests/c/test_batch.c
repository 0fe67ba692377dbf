/* SPDX-License-Identifier: BSD-3-Clause */
/* Batches, and publish_many() of each broker. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp_fixture.h"
#include "io/batch.h"
#include "memory_world.h"
#include "sqlite_rig.h"

#define N 3000

static void
add_number(pc_batch *batch, const char *queue, int number)
{
    char body[16];
    pc_err err = {0};
    int len = snprintf(body, sizeof body, "%d", number);
    pc_outgoing out = {.message = amqp_message(queue, body, (size_t)len)};
    PC_ASSERT(pc_batch_add(batch, &out, &err) == 0, "%s", err.msg);
}

static void
add_numbers(pc_batch *batch, const char *queue, int n)
{
    for (int i = 0; i < n; i++) {
        add_number(batch, queue, i);
    }
}

/* ---- the batch itself ---- */

void
test_batch_keeps_copies(void)
{
    pc_batch batch;
    char text[] = "first";
    char *large = calloc(1, 1000000);
    pc_err err = {0};
    pc_batch_init(&batch);
    pc_outgoing one = {.message = amqp_message("q", text, 5), .mandatory = true};
    pc_outgoing two = {.message = amqp_message("q", large, 1000000)};
    PC_ASSERT_INT(pc_batch_add(&batch, &one, &err), 0);
    PC_ASSERT_INT(pc_batch_add(&batch, &two, &err), 0);
    add_numbers(&batch, "q", 200);
    memset(text, 'x', 5);
    free(large);
    PC_ASSERT_INT((int)batch.len, 202);
    PC_ASSERT(pc_slice_is(batch.items[0].message.body, "first"));
    PC_ASSERT(batch.items[0].mandatory && !batch.items[1].mandatory);
    PC_ASSERT_INT((int)batch.items[1].message.body.len, 1000000);
    PC_ASSERT(pc_slice_is(batch.items[201].message.body, "199"));
    pc_batch_truncate(&batch, 1);
    PC_ASSERT_INT((int)batch.len, 1);
    pc_batch_truncate(&batch, 5);
    PC_ASSERT_INT((int)batch.len, 1);
    pc_batch_fini(&batch);
}

/* ---- memory and sqlite ---- */

void
test_batch_memory(void)
{
    world w;
    pc_batch batch;
    pc_err err = {0};
    world_setup(&w);
    world_declare(&w, "q", "", NULL, NULL);
    pc_batch_init(&batch);
    PC_ASSERT_INT(pc_batch_publish(&batch, w.producer, in_seconds(1), &err), 0);
    add_numbers(&batch, "q", 100);
    PC_ASSERT_INT(pc_batch_publish(&batch, w.producer, in_seconds(1), &err), 0);
    PC_ASSERT_INT(world_ready(&w, "q"), 100);
    PC_ASSERT_INT(pc_batch_publish(&batch, w.producer, in_seconds(1), &err), 0);
    PC_ASSERT_INT(world_ready(&w, "q"), 100);
    pc_batch_fini(&batch);
    world_teardown(&w);
}

static void
expect_numbers(pc_producer *producer, int n)
{
    pc_buf memory;
    pc_message message;
    pc_err err = {0};
    bool found = true;
    pc_buf_init(&memory);
    for (int i = 0; i < n; i++) {
        char want[16];
        (void)snprintf(want, sizeof want, "%d", i);
        PC_ASSERT_INT(producer->ops->get(producer, "q", &found, &message, &memory, in_seconds(2), &err), 0);
        PC_ASSERT(found && pc_slice_is(message.body, want), "message %d", i);
    }
    pc_buf_fini(&memory);
}

void
test_batch_sqlite_is_one_transaction(void)
{
    pc_producer *producer = sq_make_producer();
    pc_batch batch;
    pc_err err = {0};
    pc_batch_init(&batch);
    add_numbers(&batch, "q", N);
    PC_ASSERT(pc_batch_publish(&batch, producer, in_seconds(10), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), N);
    // one that no queue takes, among others: none of them is there
    pc_outgoing lost = {.message = amqp_message("q", "x", 1), .mandatory = true};
    pc_queue queue = {.name = "bound", .exchange = "ex", .exchange_type = "direct", .routing_key = "a", .durable = true};
    PC_ASSERT_INT(producer->ops->declare(producer, &queue, in_seconds(2), &err), 0);
    lost.message.exchange = pc_slice_str("ex");
    lost.message.routing_key = pc_slice_str("nobody");
    add_numbers(&batch, "q", 5);
    PC_ASSERT_INT(pc_batch_add(&batch, &lost, &err), 0);
    PC_ASSERT_INT(pc_batch_publish(&batch, producer, in_seconds(2), &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    PC_ASSERT_INT((int)(batch.len - batch.sent), 6);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), N);
    expect_numbers(producer, N);
    pc_batch_fini(&batch);
    sq_end_producer(producer);
}

/* ---- amqp ---- */

typedef struct tally {
    int seen[N];
} tally;

static void
count(amqp_sink *sink, const pc_message *message)
{
    tally *t = sink->see_ctx;
    char text[16] = {0};
    memcpy(text, message->body.ptr, message->body.len < 15 ? message->body.len : 15);
    t->seen[atoi(text)]++;
}

/* How many arrived exactly once; those that did not arrive count in *lost. */
static int
collect(const char *queue, int want, int *lost)
{
    pc_broker_config config = amqp_config();
    amqp_sink *sink = amqp_sink_new(&config);
    tally *t = calloc(1, sizeof *t);
    int once = 0;
    sink->see = count;
    sink->see_ctx = t;
    amqp_sink_start(sink, queue, 0);
    amqp_turn_until(sink->loop, &sink->count, want);
    amqp_turn_for(sink->loop, 0.2);
    *lost = 0;
    for (int i = 0; i < N; i++) {
        once += t->seen[i] == 1;
        *lost += t->seen[i] == 0;
    }
    amqp_sink_end(sink);
    free(t);
    return once;
}

static pc_producer *
declared(const pc_broker_config *config, const char *name)
{
    pc_err err = {0};
    pc_producer *producer = amqp_producer(config);
    pc_queue queue = amqp_queue(name);
    PC_ASSERT(producer->ops->declare(producer, &queue, in_seconds(10), &err) == 0, "%s", err.msg);
    return producer;
}

void
test_batch_amqp_with_each_kind_of_confirm(void)
{
    for (int confirm = 0; confirm <= 2; confirm++) {
        pc_broker_config config = amqp_config();
        char name[64];
        pc_batch batch;
        pc_err err = {0};
        int lost;
        config.confirm = confirm;
        config.window = 500;  // smaller than the batch
        amqp_queue_name(name, "batch");
        pc_producer *producer = declared(&config, name);
        pc_batch_init(&batch);
        add_numbers(&batch, name, N);
        PC_ASSERT(pc_batch_publish(&batch, producer, in_seconds(20), &err) == 0, "%s", err.msg);
        PC_ASSERT_INT(producer->ops->flush(producer, in_seconds(10), &err), 0);
        PC_ASSERT_INT(collect(name, N, &lost), N);
        pc_batch_fini(&batch);
        amqp_producer_end(producer, name);
    }
}

static void
mute_cut(pc_producer *producer, pc_batch *batch, amqp_relay *relay)
{
    pc_err err = {0};
    amqp_relay_freeze(relay, false, true);  // the broker's confirms don't come
    PC_ASSERT_INT(pc_batch_publish(batch, producer, in_seconds(0.5), &err), -1);
    PC_ASSERT_INT(err.code, PC_EFULL);
    PC_ASSERT(batch->sent > 0 && batch->sent < batch->len, "%zu", batch->sent);
    amqp_relay_freeze(relay, false, false);
    amqp_relay_cut(relay);
}

/* The first part is in the window without confirms when the connection is cut; the rest goes over the
 * next. What was unconfirmed is sent again: it may arrive twice, but none is lost. */
void
test_batch_amqp_cut_in_the_middle_loses_nothing(void)
{
    pc_broker_config direct = amqp_config();
    pc_broker_config config = direct;
    char name[64];
    pc_batch batch;
    pc_err err = {0};
    int lost;
    amqp_relay *relay = amqp_relay_start(&direct, &config.port);
    config.host = "127.0.0.1";
    config.confirm = 1;
    config.window = 1000;
    amqp_queue_name(name, "batch");
    pc_producer *producer = declared(&config, name);
    pc_batch_init(&batch);
    add_numbers(&batch, name, N);
    mute_cut(producer, &batch, relay);
    size_t sent = batch.sent;
    PC_ASSERT(pc_batch_publish(&batch, producer, in_seconds(20), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(producer->ops->flush(producer, in_seconds(10), &err), 0);
    int once = collect(name, N, &lost);
    PC_ASSERT_INT(lost, 0);
    PC_ASSERT(once >= N - (int)sent, "%d once, %zu were unconfirmed", once, sent);
    pc_batch_fini(&batch);
    amqp_relay_stop(relay);
    amqp_producer_end(producer, NULL);
    producer = amqp_producer(&direct);
    amqp_producer_end(producer, name);
}

void
test_batch_amqp_without_a_broker_sends_nothing(void)
{
    pc_broker_config config = amqp_config();
    pc_batch batch;
    pc_err err = {0};
    config.port = 1;
    config.confirm = 1;
    pc_producer *producer = amqp_producer(&config);
    pc_batch_init(&batch);
    add_numbers(&batch, "q", 10);
    PC_ASSERT_INT(pc_batch_publish(&batch, producer, in_seconds(0.3), &err), -1);
    PC_ASSERT_INT((int)batch.sent, 0);
    PC_ASSERT_INT((int)producer->ops->unconfirmed(producer), 0);
    pc_batch_fini(&batch);
    producer->ops->destroy(producer);
}
