/* SPDX-License-Identifier: BSD-3-Clause */
/* Results over reply queues: the worker's side and the program's side against each other. */
#include <stdio.h>
#include <unistd.h>

#include "amqp_fixture.h"
#include "base/mem.h"
#include "harness.h"
#include "io/amqp_inbox.h"
#include "io/store.h"

typedef struct worker {
    pc_loop *loop;
    pc_store *store;
    int ups;
    int downs;
    int stored;
    int failed;
    long last_cookie;
} worker;

static void
on_stored(void *ctx, void *cookie, const pc_err *why)
{
    worker *w = ctx;
    PC_ASSERT_INT((long)(intptr_t)cookie, w->last_cookie + 1);
    w->last_cookie++;
    w->stored++;
    w->failed += why != NULL;
}

static void
on_down(void *ctx, const pc_err *why)
{
    (void)why;
    ((worker *)ctx)->downs++;
}

static void
on_up(void *ctx)
{
    ((worker *)ctx)->ups++;
}

static void
worker_init(worker *w, const pc_broker_config *broker)
{
    pc_err err = {0};
    *w = (worker){0};
    pc_store_config config = {.scheme = "rpc", .broker = broker};
    pc_store_hooks hooks = {on_stored, on_down, on_up, w};
    w->loop = pc_loop_new(&err);
    w->store = pc_store_rpc.create(&config, w->loop, &hooks, NULL, &err);
    PC_ASSERT(w->store != NULL, "%s", err.msg);
}

static void
worker_fini(worker *w)
{
    w->store->ops->destroy(w->store);
    pc_loop_free(w->loop);
}

static void
put(worker *w, const char *reply_to, const char *id, const char *document, long cookie)
{
    pc_err err = {0};
    pc_store_item item = {
        .id = pc_slice_str(id),
        .state = PC_SUCCESS,
        .document = pc_slice_str(document),
        .content_type = pc_slice_str("application/json"),
        .content_encoding = pc_slice_str("utf-8"),
        .reply_to = pc_slice_str(reply_to),
        .correlation_id = pc_slice_str(id),
    };
    int rc = w->store->ops->put(w->store, &item, (void *)(intptr_t)cookie, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

static pc_results *
open_results(const pc_broker_config *broker, const char *queue)
{
    pc_err err = {0};
    pc_store_config config = {
        .scheme = "rpc", .broker = broker, .reply_queue = queue, .expires = 60};
    pc_results *results = pc_results_rpc.create(&config, NULL, &err);
    PC_ASSERT(results != NULL, "%s", err.msg);
    return results;
}

static void
expect_next(pc_results *results, const char *id, const char *document)
{
    pc_err err = {0};
    pc_buf out;
    bool eintr = false;
    pc_buf_init(&out);
    int rc = results->ops->wait(results, pc_slice_str(id), &out, in_seconds(5), &eintr, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    PC_ASSERT(pc_slice_is(pc_buf_slice(&out), document), "%.*s", (int)pc_buf_len(&out),
              pc_buf_ptr(&out));
    pc_buf_fini(&out);
}

static bool
holds(pc_results *results, const char *id, const char *document)
{
    pc_err err = {0};
    pc_buf out;
    bool found = false;
    pc_buf_init(&out);
    int rc = results->ops->get(results, pc_slice_str(id), &out, &found, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    bool same = found && pc_slice_is(pc_buf_slice(&out), document);
    pc_buf_fini(&out);
    return same;
}

void
test_amqp_rpc_round_trip(void)
{
    pc_broker_config broker = amqp_config();
    pc_err err = {0};
    char queue[64];
    worker w;
    amqp_queue_name(queue, "pc-reply");
    pc_results *results = open_results(&broker, queue);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t1"), &err), 0);
    worker_init(&w, &broker);
    put(&w, queue, "t1", "one", 1);
    put(&w, "", "t2", "nobody wants it", 2);
    put(&w, queue, "t1", "two", 3);
    put(&w, queue, "t3", "not watched", 4);
    put(&w, "a-client-that-is-gone", "t4", "x", 5);
    PC_ASSERT_INT(w.store->ops->pending(w.store), 5);
    amqp_turn_until(w.loop, &w.stored, 5);
    PC_ASSERT_INT(w.failed, 0);
    PC_ASSERT_INT(w.store->ops->pending(w.store), 0);
    expect_next(results, "t1", "one");
    PC_ASSERT(holds(results, "t1", "two"));
    expect_next(results, "t1", "two");
    PC_ASSERT(holds(results, "t1", "two"));
    expect_next(results, "t3", "not watched");
    PC_ASSERT(!holds(results, "t2", ""));
    results->ops->unwatch(results, pc_slice_str("t1"));
    PC_ASSERT(holds(results, "t1", "two"));
    PC_ASSERT_INT(results->ops->forget(results, pc_slice_str("t1"), in_seconds(1), &err), 0);
    PC_ASSERT(!holds(results, "t1", "two"));
    worker_fini(&w);
    results->ops->destroy(results);
}

void
test_amqp_rpc_wait_ends_at_its_deadline(void)
{
    pc_broker_config broker = amqp_config();
    pc_err err = {0};
    pc_buf out;
    bool eintr = false;
    char queue[64];
    amqp_queue_name(queue, "pc-reply");
    pc_results *results = open_results(&broker, queue);
    pc_buf_init(&out);
    PC_ASSERT_INT(
        results->ops->wait(results, pc_slice_str("t"), &out, in_seconds(0.2), &eintr, &err), -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(!eintr);
    pc_buf_fini(&out);
    results->ops->destroy(results);
}

/* The program writes a result itself (mark as failed, …): it comes back by the queue. */
void
test_amqp_rpc_set_reaches_the_reply_queue(void)
{
    pc_broker_config broker = amqp_config();
    pc_err err = {0};
    char queue[64];
    amqp_queue_name(queue, "pc-reply");
    pc_results *results = open_results(&broker, queue);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t"), &err), 0);
    pc_store_item item = {
        .id = pc_slice_str("t"),
        .document = pc_slice_str("by hand"),
        .reply_to = pc_slice_str(queue),
    };
    PC_ASSERT(results->ops->set(results, &item, in_seconds(5), &err) == 0, "%s", err.msg);
    expect_next(results, "t", "by hand");
    results->ops->destroy(results);
}

void
test_amqp_rpc_store_survives_a_cut(void)
{
    pc_broker_config broker = amqp_config();
    pc_broker_config through = broker;
    amqp_relay *relay = amqp_relay_start(&broker, &through.port);
    pc_err err = {0};
    char queue[64];
    worker w;
    amqp_queue_name(queue, "pc-reply");
    pc_results *results = open_results(&broker, queue);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t1"), &err), 0);
    worker_init(&w, &through);
    amqp_turn_until(w.loop, &w.ups, 1);
    amqp_relay_freeze(relay, true, false);
    put(&w, queue, "t1", "one", 1);
    put(&w, "", "t2", "", 2);
    put(&w, queue, "t3", "three", 3);
    amqp_turn_for(w.loop, 0.1);
    PC_ASSERT_INT(w.stored, 0);
    amqp_relay_cut(relay);
    amqp_relay_freeze(relay, false, false);
    amqp_turn_until(w.loop, &w.stored, 3);
    PC_ASSERT(w.downs >= 1 && w.ups >= 2 && w.failed == 0);
    expect_next(results, "t1", "one");
    expect_next(results, "t3", "three");
    worker_fini(&w);
    results->ops->destroy(results);
    amqp_relay_stop(relay);
}

void
test_amqp_rpc_results_consume_again_after_a_cut(void)
{
    pc_broker_config broker = amqp_config();
    pc_broker_config through = broker;
    amqp_relay *relay = amqp_relay_start(&broker, &through.port);
    pc_err err = {0};
    char queue[64];
    worker w;
    amqp_queue_name(queue, "pc-reply");
    pc_results *results = open_results(&through, queue);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t1"), &err), 0);
    amqp_relay_cut(relay);
    usleep(30000);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t2"), &err), 0);
    worker_init(&w, &broker);
    put(&w, queue, "t2", "after", 1);
    amqp_turn_until(w.loop, &w.stored, 1);
    expect_next(results, "t2", "after");
    worker_fini(&w);
    results->ops->destroy(results);
    amqp_relay_stop(relay);
}

void
test_amqp_rpc_without_a_broker(void)
{
    pc_broker_config broker = amqp_config();
    pc_err err = {0};
    pc_buf out;
    bool eintr = false;
    broker.port = 1;
    broker.connect_timeout = 0.2;
    pc_results *results = open_results(&broker, "pc-reply-nowhere");
    pc_buf_init(&out);
    PC_ASSERT_INT(results->ops->watch(results, pc_slice_str("t"), &err), 0);
    PC_ASSERT_INT(
        results->ops->wait(results, pc_slice_str("t"), &out, in_seconds(0.3), &eintr, &err), -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    pc_buf_fini(&out);
    results->ops->destroy(results);
}

void
test_amqp_inbox_is_bounded(void)
{
    pc_amqp_inbox inbox;
    char id[16];
    pc_amqp_inbox_init(&inbox, 100);
    for (int i = 0; i < 1000; i++) {
        int len = snprintf(id, sizeof id, "%d", i);
        PC_ASSERT_INT(
            pc_amqp_inbox_put(&inbox, pc_slice_of(id, (size_t)len), pc_slice_str("x"), NULL), 0);
    }
    PC_ASSERT_INT(inbox.ids.len, 100);
    PC_ASSERT(pc_amqp_inbox_peek(&inbox, pc_slice_str("899")).ptr == NULL);
    PC_ASSERT(pc_amqp_inbox_peek(&inbox, pc_slice_str("900")).ptr != NULL);
    PC_ASSERT_INT(pc_amqp_inbox_watch(&inbox, pc_slice_str("900"), NULL), 0);
    for (int i = 0; i < 2000; i++) {
        PC_ASSERT_INT(pc_amqp_inbox_put(&inbox, pc_slice_str("900"), pc_slice_str("y"), NULL), 0);
    }
    pc_amqp_inbox_unwatch(&inbox, pc_slice_str("900"));
    PC_ASSERT_INT(inbox.unwatched_len, 100);
    pc_amqp_inbox_fini(&inbox);
}

static int
make_both(void *arg)
{
    (void)arg;
    pc_loop *loop = pc_loop_new(NULL);
    if (loop == NULL) {
        return -1;
    }
    pc_broker_config broker = {.host = "h"};
    pc_store_config config = {.broker = &broker, .reply_queue = "q", .expires = 1};
    pc_store_hooks hooks = {0};
    pc_results *results = pc_results_rpc.create(&config, NULL, NULL);
    pc_store *store = pc_store_rpc.create(&config, loop, &hooks, NULL, NULL);
    pc_store_item item = {.id = pc_slice_str("i"), .reply_to = pc_slice_str("r")};
    int rc = results == NULL || store == NULL ? -1 : store->ops->put(store, &item, NULL, NULL);
    pc_results_rpc.destroy(results);
    pc_store_rpc.destroy(store);
    pc_loop_free(loop);
    return rc;
}

void
test_amqp_rpc_survives_the_lack_of_memory(void)
{
    PC_ASSERT(PC_OOM(make_both, NULL) > 3);
}
