/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-memory broker: many threads, want of memory, forks, speed. */
#include "harness.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/store.h"
#include "memory_world.h"

static const char *const one_queue[] = {"q", NULL};
static const char *const two_queues[] = {"q", "p", NULL};

/* --- threads --- */

enum { EACH = 2000, SENDERS = 2, READERS = 2 };

static void *
send_many(void *ctx)
{
    for (int i = 0; i < EACH; i++) {
        PC_ASSERT_INT(world_publish(ctx, "", i % 2 == 0 ? "q" : "p", "x", i % 10, true), 0);
    }
    return NULL;
}

static void *
read_many(void *ctx)
{
    reader *r = ctx;
    pc_mono end = in_ms(15000);
    while (atomic_load(r->total) < EACH * SENDERS && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(r->loop, in_ms(20), NULL) >= 0);
    }
    PC_ASSERT_INT(r->source->ops->close(r->source, in_ms(0), NULL), 0);
    return NULL;
}

void
test_memory_many_threads_deliver_each_once(void)
{
    world w;
    reader readers[READERS];
    pthread_t threads[SENDERS + READERS];
    atomic_int total = 0;
    world_setup(&w);
    for (int i = 0; i < READERS; i++) {
        reader_start(&readers[i], &w, two_queues);
        readers[i].settle = true;
        readers[i].total = &total;
        PC_ASSERT_INT(readers[i].source->ops->prefetch(readers[i].source, 10, NULL), 0);
        PC_ASSERT_INT(pthread_create(&threads[i], NULL, read_many, &readers[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++) {
        PC_ASSERT_INT(pthread_create(&threads[READERS + i], NULL, send_many, &w), 0);
    }
    for (int i = 0; i < SENDERS + READERS; i++) {
        PC_ASSERT_INT(pthread_join(threads[i], NULL), 0);
    }
    PC_ASSERT_INT(atomic_load(&total), EACH * SENDERS);
    for (int i = 0; i < READERS; i++) {
        reader_stop(&readers[i]);
    }
    PC_ASSERT_INT(world_ready(&w, "q") + world_ready(&w, "p"), 0);
    world_teardown(&w);
}

void
test_memory_abandoned_by_a_child(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    world_send_each(&w, "q", "a");
    reader_turn(&r);
    pid_t child = fork();
    if (child == 0) {
        r.source->ops->abandon(r.source);
        r.source->ops->destroy(r.source);
        w.producer->ops->abandon(w.producer);
        pc_loop_free(r.loop);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT_INT(waitpid(child, &status, 0), child);
    PC_ASSERT_INT(status, 0);
    world_send_each(&w, "q", "b");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "ab");
    reader_stop(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 2);
    world_teardown(&w);
}

/* --- want of memory --- */

static void
count_stored(void *ctx, void *cookie, const pc_err *why)
{
    (void)cookie;
    *(int *)ctx += why == NULL;
}

static int
use_everything(void *arg)
{
    (void)arg;
    int rc = -1;
    pc_loop *loop = pc_loop_new(NULL);
    pc_hub *hub = pc_hub_new(NULL);
    pc_broker_config config = {.hub = hub};
    pc_store_config where = {.hub = hub, .expires = 10};
    reader r = {0};
    pc_source_hooks hooks = reader_hooks(&r);
    int stored = 0;
    pc_store_hooks store_hooks = {.stored = count_stored, .ctx = &stored};
    pc_store_item item = {.id = pc_slice_str("1"), .document = pc_slice_str("d")};
    pc_queue queue = {.name = "q", .exchange = "x", .exchange_type = "fanout"};
    pc_queue other = {.name = "p", .exchange = "x", .exchange_type = "fanout"};
    world w = {.hub = hub};
    pc_source *source = NULL;
    pc_store *store = NULL;
    pc_results *results = NULL;
    if (loop == NULL || hub == NULL) {
        goto done;
    }
    w.producer = pc_producer_memory.create(&config, NULL, NULL);
    source = pc_source_memory.create(&config, loop, &hooks, NULL, NULL);
    store = pc_store_memory.create(&where, loop, &store_hooks, NULL, NULL);
    results = pc_results_memory.create(&where, NULL, NULL);
    r.source = source;
    if (w.producer == NULL || source == NULL || store == NULL || results == NULL ||
        source->ops->add_queue(source, &queue, NULL) != 0 ||
        w.producer->ops->declare(w.producer, &other, soon, NULL) != 0 ||
        source->ops->connect(source, NULL) != 0 || world_publish(&w, "x", "", "a", -1, true) != 0 ||
        results->ops->watch(results, pc_slice_str("2"), NULL) != 0 ||
        store->ops->put(store, &item, "c", NULL) != 0 || pc_loop_step(loop, soon, NULL) < 0) {
        goto done;
    }
    rc = r.got == 1 && stored == 1 ? 0 : -1;
done:
    pc_store_memory.destroy(store);
    pc_results_memory.destroy(results);
    pc_source_memory.destroy(source);
    pc_producer_memory.destroy(w.producer);
    pc_hub_free(hub);
    pc_loop_free(loop);
    return rc;
}

void
test_memory_survives_want_of_memory(void)
{
    PC_ASSERT(PC_OOM(use_everything, NULL) >= 15);
}

/* --- speed --- */

void
bench_memory_publish_deliver_ack(long n)
{
    world w;
    reader r;
    atomic_int total = 0;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    r.settle = true;
    r.total = &total;
    (void)r.source->ops->prefetch(r.source, 100, NULL);
    ct_reset_timer();
    for (long sent = 0; sent < n;) {
        for (int i = 0; i < 50 && sent < n; i++, sent++) {
            (void)world_publish(&w, "", "q", "x", -1, false);
        }
        (void)pc_loop_step(r.loop, soon, NULL);
    }
    while (atomic_load(&total) < n) {
        (void)pc_loop_step(r.loop, soon, NULL);
    }
    reader_stop(&r);
    world_teardown(&w);
}
