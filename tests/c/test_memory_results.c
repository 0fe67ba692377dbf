/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of store and results, on the in-memory broker. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/store.h"
#include "memory_world.h"

typedef struct archive {
    world w;
    pc_store_config config;
    pc_results *results;
    pc_store *store;
    pc_loop *loop;
    char stored[MOST];
    int count;
} archive;

static void
on_stored(void *ctx, void *cookie, const pc_err *why)
{
    archive *a = ctx;
    PC_ASSERT(why == NULL);
    a->stored[a->count++] = *(const char *)cookie;
}

static void
setup_archive(archive *a)
{
    *a = (archive){.loop = pc_loop_new(NULL)};
    world_setup(&a->w);
    a->config = (pc_store_config){.scheme = "memory", .hub = a->w.hub};
    pc_store_hooks hooks = {.stored = on_stored, .ctx = a};
    a->store = pc_store_memory.create(&a->config, a->loop, &hooks, NULL, NULL);
    a->results = pc_results_memory.create(&a->config, NULL, NULL);
    PC_ASSERT(a->store && a->results);
}

static void
teardown_archive(archive *a)
{
    a->store->ops->destroy(a->store);
    a->results->ops->destroy(a->results);
    pc_loop_free(a->loop);
    world_teardown(&a->w);
}

static int
put(const archive *a, const char *id, pc_state state, const char *document)
{
    pc_store_item item = {
        .id = pc_slice_str(id), .state = state, .document = pc_slice_str(document)};
    return a->results->ops->set(a->results, &item, soon, NULL);
}

static const char *
get(const archive *a, const char *id)
{
    static char text[64];
    pc_buf out;
    bool found = false;
    pc_buf_init(&out);
    PC_ASSERT_INT(a->results->ops->get(a->results, pc_slice_str(id), &out, &found, soon, NULL), 0);
    snprintf(text, sizeof text, "%.*s", (int)pc_buf_len(&out), found ? pc_buf_ptr(&out) : "");
    pc_buf_fini(&out);
    return found ? text : NULL;
}

static const char *
wait_for(const archive *a, const char *id, pc_mono deadline, bool *eintr, pc_err *err)
{
    static _Thread_local char text[64];
    pc_buf out;
    pc_buf_init(&out);
    int rc = a->results->ops->wait(a->results, pc_slice_str(id), &out, deadline, eintr, err);
    snprintf(text, sizeof text, "%.*s", (int)pc_buf_len(&out), rc == 0 ? pc_buf_ptr(&out) : "");
    pc_buf_fini(&out);
    return rc == 0 ? text : NULL;
}

void
test_memory_results_set_get_forget(void)
{
    archive a;
    setup_archive(&a);
    PC_ASSERT_STR(get(&a, "1"), NULL);
    PC_ASSERT_INT(put(&a, "1", PC_STARTED, "started"), 0);
    PC_ASSERT_STR(get(&a, "1"), "started");
    PC_ASSERT_INT(put(&a, "1", PC_SUCCESS, "done"), 0);
    PC_ASSERT_INT(put(&a, "1", PC_FAILURE, "late"), 0);
    PC_ASSERT_STR(get(&a, "1"), "done");
    PC_ASSERT_INT(put(&a, "1", PC_SUCCESS, "again"), 0);
    PC_ASSERT_STR(get(&a, "1"), "again");
    const pc_results_ops *ops = a.results->ops;
    PC_ASSERT_INT(ops->forget(a.results, pc_slice_str("1"), soon, NULL), 0);
    PC_ASSERT_INT(ops->forget(a.results, pc_slice_str("1"), soon, NULL), 0);
    PC_ASSERT_STR(get(&a, "1"), NULL);
    PC_ASSERT_INT(put(&a, "1", PC_PENDING, "new"), 0);
    PC_ASSERT_STR(get(&a, "1"), "new");
    teardown_archive(&a);
}

void
test_memory_store_answers_later_and_in_order(void)
{
    archive a;
    static char letters[] = "abc";
    setup_archive(&a);
    for (int i = 0; i < 3; i++) {
        pc_store_item item = {.id = pc_slice_of(&letters[i], 1),
                              .state = PC_SUCCESS,
                              .document = pc_slice_str("doc")};
        PC_ASSERT_INT(a.store->ops->put(a.store, &item, &letters[i], NULL), 0);
    }
    PC_ASSERT_INT(a.count, 0);
    PC_ASSERT_INT(a.store->ops->pending(a.store), 3);
    PC_ASSERT(pc_loop_step(a.loop, soon, NULL) >= 0);
    PC_ASSERT_STR(a.stored, "abc");
    PC_ASSERT_INT(a.store->ops->pending(a.store), 0);
    PC_ASSERT_STR(get(&a, "b"), "doc");
    pc_store_item last = {.id = pc_slice_str("d"), .document = pc_slice_str("doc")};
    PC_ASSERT_INT(a.store->ops->put(a.store, &last, letters, NULL), 0);
    teardown_archive(&a);
}

void
test_memory_results_expire(void)
{
    archive a;
    setup_archive(&a);
    a.config.expires = 0.5;
    a.results->ops->destroy(a.results);
    a.results = pc_results_memory.create(&a.config, NULL, NULL);
    PC_ASSERT(a.results);
    PC_ASSERT_INT(put(&a, "1", PC_SUCCESS, "x"), 0);
    PC_ASSERT_INT(a.results->ops->watch(a.results, pc_slice_str("2"), NULL), 0);
    PC_ASSERT_INT(put(&a, "2", PC_SUCCESS, "y"), 0);
    PC_ASSERT_STR(get(&a, "1"), "x");
    usleep(550000);
    PC_ASSERT_STR(get(&a, "1"), NULL);
    PC_ASSERT_STR(get(&a, "2"), NULL);
    teardown_archive(&a);
}

void
test_memory_wait_hands_out_each_document_once(void)
{
    archive a;
    pc_err err = {0};
    bool eintr = true;
    setup_archive(&a);
    PC_ASSERT_INT(put(&a, "1", PC_STARTED, "first"), 0);
    PC_ASSERT_STR(wait_for(&a, "1", soon, &eintr, NULL), "first");
    PC_ASSERT(!eintr);
    PC_ASSERT_STR(wait_for(&a, "1", in_ms(10), &eintr, &err), NULL);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(!eintr);
    PC_ASSERT_INT(put(&a, "1", PC_SUCCESS, "second"), 0);
    PC_ASSERT_STR(wait_for(&a, "1", soon, NULL, NULL), "second");
    a.results->ops->unwatch(a.results, pc_slice_str("1"));
    a.results->ops->unwatch(a.results, pc_slice_str("1"));
    // a new interest reads what is stored
    PC_ASSERT_STR(wait_for(&a, "1", soon, NULL, NULL), "second");
    teardown_archive(&a);
}

typedef struct waiting {
    archive *a;
    pthread_t thread;
    char id[12];
    char got[16];
    pc_err err;
    bool eintr;
    atomic_bool done;
} waiting;

static void *
wait_in_thread(void *ctx)
{
    waiting *me = ctx;
    const char *got = wait_for(me->a, me->id, in_ms(10000), &me->eintr, &me->err);
    snprintf(me->got, sizeof me->got, "%s", got == NULL ? "nothing" : got);
    atomic_store(&me->done, true);
    return NULL;
}

void
test_memory_wait_in_many_threads(void)
{
    enum { THREADS = 8 };
    archive a;
    waiting many[THREADS];
    setup_archive(&a);
    for (int i = 0; i < THREADS; i++) {
        many[i] = (waiting){.a = &a};
        snprintf(many[i].id, sizeof many[i].id, "%d", i / 2);
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, wait_in_thread, &many[i]), 0);
    }
    usleep(100000);                                         // all of them wait
    a.results->ops->unwatch(a.results, pc_slice_str("0"));  // while two wait for it
    for (int i = 0; i < THREADS / 2; i++) {
        char id[12];
        snprintf(id, sizeof id, "%d", i);
        PC_ASSERT_INT(put(&a, id, PC_SUCCESS, id), 0);
    }
    // Two threads wait for each id: both are served.
    for (int i = 0; i < THREADS; i++) {
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT_STR(many[i].got, many[i].id);
    }
    teardown_archive(&a);
}

static void
ignore(int number)
{
    (void)number;
}

void
test_memory_wait_ends_on_a_signal(void)
{
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    PC_ASSERT_INT(sigaction(SIGUSR1, &action, NULL), 0);
    archive a;
    waiting w = {.a = &a, .id = "1"};
    setup_archive(&a);
    PC_ASSERT_INT(pthread_create(&w.thread, NULL, wait_in_thread, &w), 0);
    while (!atomic_load(&w.done)) {  // the first may come before it waits
        usleep(5000);
        PC_ASSERT_INT(pthread_kill(w.thread, SIGUSR1), 0);
    }
    PC_ASSERT_INT(pthread_join(w.thread, NULL), 0);
    PC_ASSERT_STR(w.got, "nothing");
    PC_ASSERT_INT(w.err.code, PC_ESTATE);
    PC_ASSERT(w.eintr);
    teardown_archive(&a);
}

void
test_memory_results_abandoned_by_a_child(void)
{
    archive a;
    setup_archive(&a);
    PC_ASSERT_INT(a.results->ops->watch(a.results, pc_slice_str("1"), NULL), 0);
    pid_t child = fork();
    if (child == 0) {
        a.results->ops->abandon(a.results);
        a.results->ops->destroy(a.results);
        a.store->ops->abandon(a.store);
        a.store->ops->destroy(a.store);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT_INT(waitpid(child, &status, 0), child);
    PC_ASSERT_INT(status, 0);
    teardown_archive(&a);
}
