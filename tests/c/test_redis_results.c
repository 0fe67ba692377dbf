/* SPDX-License-Identifier: BSD-3-Clause */
/* A program's side: pc_results_redis. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "harness.h"
#include "io/redis_conn.h"
#include "redis_rig.h"

#define OPS (&pc_results_redis)

static pc_results *
open_results(const pc_store_config *config)
{
    pc_err err = {0};
    pc_results *results = OPS->create(config, NULL, &err);
    PC_ASSERT(results != NULL, "%s", err.msg);
    return results;
}

/* Documents look like {"status": "PROGRESS", "result": 7}. */
static void
set(pc_results *results, const char *id, const char *status, int n)
{
    char document[100];
    pc_err err = {0};
    int len = snprintf(document, sizeof document, "{\"status\": \"%s\", \"result\": %d}", status, n);
    pc_store_item item = {.id = pc_slice_str(id), .document = {document, (size_t)len}};
    int rc = OPS->set(results, &item, redis_rig_in(10), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

static void
watch(pc_results *results, const char *id)
{
    pc_err err = {0};
    int rc = OPS->watch(results, pc_slice_str(id), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

/* The next document is this one. */
static void
expect(pc_results *results, const char *id, const char *status, int n)
{
    char want[100];
    pc_buf out;
    pc_err err = {0};
    bool eintr = false;
    pc_buf_init(&out);
    int len = snprintf(want, sizeof want, "{\"status\": \"%s\", \"result\": %d}", status, n);
    int rc = OPS->wait(results, pc_slice_str(id), &out, redis_rig_in(10), &eintr, &err);
    PC_ASSERT(rc == 0, "%s %s %d: %s", id, status, n, err.msg);
    PC_ASSERT(pc_slice_eq(pc_buf_slice(&out), pc_slice_of(want, (size_t)len)), "%s: got %.*s, not %s",
              id, (int)pc_buf_len(&out), pc_buf_ptr(&out), want);
    pc_buf_fini(&out);
}

static void
expect_nothing(pc_results *results, const char *id, double seconds)
{
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    int rc = OPS->wait(results, pc_slice_str(id), &out, redis_rig_in(seconds), NULL, &err);
    PC_ASSERT(rc == -1, "%s: got %.*s", id, (int)pc_buf_len(&out), pc_buf_ptr(&out));
    PC_ASSERT(err.code == PC_ETIMEOUT, "%s", err.msg);
    pc_buf_fini(&out);
}

void
test_redis_results_set_get_forget(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_buf out;
    pc_err err = {0};
    bool found = true;
    pc_buf_init(&out);
    PC_ASSERT_INT(OPS->get(results, pc_slice_str("a"), &out, &found, redis_rig_in(5), &err), 0);
    PC_ASSERT(!found && pc_buf_len(&out) == 0);
    set(results, "a", "STARTED", 1);
    set(results, "a", "SUCCESS", 2);
    set(results, "a", "REVOKED", 3);
    PC_ASSERT_INT(OPS->get(results, pc_slice_str("a"), &out, &found, redis_rig_in(5), &err), 0);
    PC_ASSERT(found && pc_slice_is(pc_buf_slice(&out), "{\"status\": \"SUCCESS\", \"result\": 2}"));
    PC_ASSERT(redis_rig_int(&config, "TTL %scelery-task-meta-a", config.key_prefix) > 90);
    PC_ASSERT_INT(OPS->forget(results, pc_slice_str("a"), redis_rig_in(5), &err), 0);
    redis_rig_expect(&config, "a", NULL);
    redis_rig_int(&config, "RPUSH %scelery-task-meta-b x", config.key_prefix);
    PC_ASSERT_INT(OPS->get(results, pc_slice_str("b"), &out, &found, redis_rig_in(5), &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    pc_store_item huge = {.id = pc_slice_str("c"), .document = {"x", PC_REDIS_VALUE_MAX + 1}};
    PC_ASSERT_INT(OPS->set(results, &huge, redis_rig_in(5), &err), -1);
    PC_ASSERT_INT(err.code, PC_ELIMIT);
    pc_buf_fini(&out);
    OPS->destroy(results);
    redis_rig_clean(&config);
}

void
test_redis_results_wait_reads_what_is_stored(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_results *other = open_results(&config);
    set(other, "a", "STARTED", 1);
    expect(results, "a", "STARTED", 1);
    expect_nothing(results, "a", 0.1);
    set(other, "a", "SUCCESS", 2);
    expect(results, "a", "SUCCESS", 2);
    // interest has ended with the ready state; asking again begins again
    expect(results, "a", "SUCCESS", 2);
    expect_nothing(results, "unknown", 0.1);
    OPS->destroy(results);
    OPS->destroy(other);
    redis_rig_clean(&config);
}

void
test_redis_results_every_document_once_and_in_order(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_results *other = open_results(&config);
    // the connection is up and this subscription confirmed after the first wait
    watch(results, "a");
    expect_nothing(results, "a", 0.1);
    for (int i = 0; i < 20; i++) {
        set(other, "a", "PROGRESS", i);
        set(other, "a", "PROGRESS", i);  // an equal neighbour
    }
    set(other, "a", "FAILURE", 99);
    for (int i = 0; i < 20; i++) {
        expect(results, "a", "PROGRESS", i);
    }
    expect(results, "a", "FAILURE", 99);
    OPS->destroy(results);
    OPS->destroy(other);
    redis_rig_clean(&config);
}

void
test_redis_results_stored_and_published_is_one(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_results *other = open_results(&config);
    for (int i = 0; i < 50; i++) {
        char id[24];
        snprintf(id, sizeof id, "%d", i);
        watch(results, id);  // the subscription may or may not be confirmed by now
        set(other, id, "STARTED", i);
        expect(results, id, "STARTED", i);
        expect_nothing(results, id, 0.005);
    }
    OPS->destroy(results);
    OPS->destroy(other);
    redis_rig_clean(&config);
}

void
test_redis_results_queue_is_bounded(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_results *other = open_results(&config);
    watch(results, "a");
    watch(results, "b");
    expect_nothing(results, "a", 0.1);
    for (int i = 0; i < 1200; i++) {
        set(other, "a", "PROGRESS", i);
    }
    expect_nothing(results, "b", 0.2);  // reads them all
    expect(results, "a", "PROGRESS", 200);
    expect(results, "a", "PROGRESS", 201);
    OPS->unwatch(results, pc_slice_str("a"));
    OPS->unwatch(results, pc_slice_str("never watched"));
    OPS->destroy(results);
    OPS->destroy(other);
    redis_rig_clean(&config);
}

void
test_redis_results_unsubscribe_in_batches(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pc_results *other = open_results(&config);
    char id[24];
    for (int i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "%d", i);
        watch(results, id);
    }
    for (int i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "%d", i);
        set(other, id, "SUCCESS", i);
        expect(results, id, "SUCCESS", i);
    }
    watch(results, "last");
    expect_nothing(results, "last", 0.1);
    pc_reply *channels = redis_rig_do(&config, "PUBSUB CHANNELS %s*", config.key_prefix);
    PC_ASSERT(channels->len <= 64 + 1, "%zu channels", channels->len);
    pc_reply_free(channels);
    // one that was left, subscribed or not, can be waited for again
    expect(results, "299", "SUCCESS", 299);
    expect(results, "3", "SUCCESS", 3);
    OPS->destroy(results);
    OPS->destroy(other);
    redis_rig_clean(&config);
}

// ---- threads ----

enum { THREADS = 8, IDS = 40 };

typedef struct job {
    pc_results *results;
    int number;
} job;

static void *
wait_for_mine(void *arg)
{
    const job *j = arg;
    char id[24];
    for (int i = 0; i < IDS; i++) {
        snprintf(id, sizeof id, "%d-%d", j->number, i);
        watch(j->results, id);
    }
    for (int i = 0; i < IDS; i++) {
        snprintf(id, sizeof id, "%d-%d", j->number, i);
        expect(j->results, id, "SUCCESS", i);
    }
    return NULL;
}

static void *
answer_all(void *arg)
{
    char id[24];
    for (int i = 0; i < THREADS * IDS; i++) {
        snprintf(id, sizeof id, "%d-%d", i % THREADS, i / THREADS);
        set(arg, id, "SUCCESS", i / THREADS);
    }
    return NULL;
}

void
test_redis_results_from_8_threads(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    pthread_t threads[THREADS + 1];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){results, i};
        PC_ASSERT(pthread_create(&threads[i], NULL, wait_for_mine, &jobs[i]) == 0);
    }
    PC_ASSERT(pthread_create(&threads[THREADS], NULL, answer_all, results) == 0);
    for (int i = 0; i <= THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    OPS->destroy(results);
    redis_rig_clean(&config);
}

static void *
wait_for_a(void *arg)
{
    expect(arg, "a", "SUCCESS", 1);
    return NULL;
}

/* Some come early, some while the others leave, some after. */
void
test_redis_results_one_id_wakes_all_threads(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    for (int round = 0; round < 20; round++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            PC_ASSERT(pthread_create(&threads[i], NULL, wait_for_a, results) == 0);
        }
        set(results, "a", "SUCCESS", 1);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        PC_ASSERT_INT(OPS->forget(results, pc_slice_str("a"), redis_rig_in(5), NULL), 0);
    }
    OPS->destroy(results);
    redis_rig_clean(&config);
}

static void
ignore_signal(int number)
{
    (void)number;
}

typedef struct interrupted {
    pc_results *results;
    atomic_int done;
    bool eintr;
    pc_code code;
} interrupted;

static void *
wait_interrupted(void *arg)
{
    interrupted *in = arg;
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    int rc = OPS->wait(in->results, pc_slice_str("a"), &out, redis_rig_in(15), &in->eintr, &err);
    PC_ASSERT_INT(rc, -1);
    in->code = err.code;
    pc_buf_fini(&out);
    atomic_store(&in->done, 1);
    return NULL;
}

void
test_redis_results_signal_ends_the_wait(void)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    PC_ASSERT(sigaction(SIGUSR1, &action, NULL) == 0);
    pc_store_config config = redis_rig_config(NULL);
    interrupted in = {.results = open_results(&config)};
    pthread_t thread;
    PC_ASSERT(pthread_create(&thread, NULL, wait_interrupted, &in) == 0);
    while (!atomic_load(&in.done)) {  // the first may come before it waits
        usleep(50000);
        if (!atomic_load(&in.done)) {
            pthread_kill(thread, SIGUSR1);
        }
    }
    pthread_join(thread, NULL);
    PC_ASSERT(in.eintr);
    PC_ASSERT_INT(in.code, PC_ESTATE);
    OPS->destroy(in.results);
    redis_rig_clean(&config);
}

// ---- trouble ----

typedef struct restart {
    pc_store_config *config;
    redis_server *server;
} restart;

static void *
restart_and_answer(void *arg)
{
    restart *r = arg;
    usleep(100000);
    redis_server_kill(r->server);
    usleep(100000);
    redis_server_start(r->server, NULL, NULL);
    pc_results *other = open_results(r->config);
    set(other, "a", "SUCCESS", 1);
    usleep(300000);
    set(other, "b", "SUCCESS", 2);
    OPS->destroy(other);
    return NULL;
}

void
test_redis_results_wait_survives_a_restart(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config config = redis_rig_config(&server);
    pc_results *results = open_results(&config);
    restart r = {&config, &server};
    pthread_t thread;
    watch(results, "a");
    watch(results, "b");
    PC_ASSERT(pthread_create(&thread, NULL, restart_and_answer, &r) == 0);
    expect(results, "a", "SUCCESS", 1);
    expect(results, "b", "SUCCESS", 2);
    pthread_join(thread, NULL);
    OPS->destroy(results);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_results_same_document_after_a_reconnect_is_not_news(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config private = redis_rig_config(&server);
    pc_results *lonely = open_results(&private);
    watch(lonely, "a");
    set(lonely, "a", "STARTED", 1);
    expect(lonely, "a", "STARTED", 1);
    redis_rig_int(&private, "CLIENT KILL TYPE pubsub");
    expect_nothing(lonely, "a", 0.4);
    set(lonely, "a", "SUCCESS", 2);
    expect(lonely, "a", "SUCCESS", 2);
    OPS->destroy(lonely);
    OPS->destroy(results);
    redis_rig_clean(&private);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_results_watch_without_a_server(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    redis_server_kill(&server);
    pc_store_config config = redis_rig_config(&server);
    pc_results *results = open_results(&config);
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    watch(results, "a");
    watch(results, "b");
    int rc = OPS->wait(results, pc_slice_str("a"), &out, redis_rig_in(0.3), NULL, &err);
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(strstr(err.msg, "127.0.0.1:") != NULL, "%s", err.msg);
    redis_server_start(&server, NULL, NULL);
    set(results, "a", "SUCCESS", 1);
    expect(results, "a", "SUCCESS", 1);
    pc_buf_fini(&out);
    OPS->destroy(results);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_results_wrong_password_ends_the_wait(void)
{
    static const char *const options[] = {"--requirepass", "geheim", NULL};
    redis_server server = {0};
    redis_server_start(&server, options, NULL);
    pc_store_config config = redis_rig_config(&server);
    config.password = "falsch";
    pc_results *results = open_results(&config);
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    watch(results, "a");
    for (int i = 0; i < 3; i++) {
        int rc = OPS->wait(results, pc_slice_str("a"), &out, redis_rig_in(15), NULL, &err);
        PC_ASSERT_INT(rc, -1);
        PC_ASSERT(err.code == PC_EAUTH, "%s", err.msg);
        PC_ASSERT(strstr(err.msg, "falsch") == NULL, "%s", err.msg);
    }
    pc_buf_fini(&out);
    OPS->destroy(results);
    config.password = "geheim";
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_results_wrong_database_ends_the_wait(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_store_config wrong = config;
    wrong.db = 99999;
    pc_results *results = open_results(&wrong);
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    int rc = OPS->wait(results, pc_slice_str("a"), &out, redis_rig_in(15), NULL, &err);
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT(err.code == PC_EDATA && strstr(err.msg, "/99999: ") != NULL, "%s", err.msg);
    pc_buf_fini(&out);
    OPS->destroy(results);
    redis_rig_clean(&config);
}

void
test_redis_results_abandon_leaves_the_parent_alone(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    watch(results, "a");
    expect_nothing(results, "a", 0.1);
    pid_t pid = fork();
    if (pid == 0) {
        OPS->abandon(results);
        OPS->destroy(results);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
    set(results, "a", "SUCCESS", 1);
    expect(results, "a", "SUCCESS", 1);
    OPS->destroy(results);
    redis_rig_clean(&config);
}

/* Whichever allocation fails: an error or the document, no crash, no leak; and the next call
 * works. */
void
test_redis_results_survive_failing_allocations(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *other = open_results(&config);
    set(other, "a", "SUCCESS", 1);
    for (long n = 1; n <= 60; n++) {
        pc_buf out;
        pc_err err = {0};
        pc_buf_init(&out);
        pc_mem_fail_after(n);
        pc_results *results = OPS->create(&config, NULL, &err);
        int rc = results == NULL ? -1 : OPS->watch(results, pc_slice_str("a"), &err);
        if (rc == 0) {
            rc = OPS->wait(results, pc_slice_str("a"), &out, redis_rig_in(10), NULL, &err);
        }
        pc_mem_fail_after(-1);
        PC_ASSERT(rc == 0 || err.code == PC_ENOMEM, "%ld: %s", n, err.msg);
        if (results != NULL) {
            expect(results, "a", "SUCCESS", 1);
            OPS->destroy(results);
        }
        pc_buf_fini(&out);
    }
    OPS->destroy(other);
    redis_rig_clean(&config);
}

void
bench_redis_results_watch(long n)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    watch(results, "first");
    expect_nothing(results, "first", 0.05);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        char id[24];
        snprintf(id, sizeof id, "%ld", i);
        watch(results, id);
    }
    OPS->destroy(results);
    redis_rig_clean(&config);
}

void
bench_redis_results_set_and_wait(long n)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_results *results = open_results(&config);
    watch(results, "first");
    expect_nothing(results, "first", 0.05);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        char id[24];
        snprintf(id, sizeof id, "%ld", i);
        watch(results, id);
        set(results, id, "SUCCESS", (int)i);
        expect(results, id, "SUCCESS", (int)i);
    }
    for (long i = 0; i < n; i++) {
        char id[24];
        snprintf(id, sizeof id, "%ld", i);
        PC_ASSERT(OPS->forget(results, pc_slice_str(id), redis_rig_in(5), NULL) == 0);
    }
    OPS->destroy(results);
    redis_rig_clean(&config);
}
