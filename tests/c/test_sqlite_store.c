/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite result store, the worker's side and a program's side, on the file "r.db" of the test's
 * own directory. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/sqlite_bell.h"
#include "io/store.h"

#define DB "r.db"

static const pc_store_ops *const to = &pc_store_sqlite;
static const pc_results_ops *const from = &pc_results_sqlite;

static pc_mono
after_ms(int64_t ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

/* --- rig of the worker's side --- */

typedef struct rig {
    pc_loop *loop;
    pc_store *store;
    int stored;
    int failed;
    int down;
    int up;
    long last;  // cookie; they must come in order
    pc_err why;
} rig;

static void
on_stored(void *ctx, void *cookie, const pc_err *why)
{
    rig *self = ctx;
    PC_ASSERT((long)cookie == self->last + 1, "%ld after %ld", (long)cookie, self->last);
    self->last = (long)cookie;
    self->stored++;
    self->failed += why != NULL;
}

static void
on_down(void *ctx, const pc_err *why)
{
    ((rig *)ctx)->down++;
    ((rig *)ctx)->why = *why;
}

static void
on_up(void *ctx)
{
    ((rig *)ctx)->up++;
}

static void
init_rig(rig *self, const char *path, double expires)
{
    pc_err err = {0};
    pc_store_config config = {.scheme = "sqlite", .path = path, .expires = expires};
    pc_store_hooks hooks = {on_stored, on_down, on_up, self};
    *self = (rig){0};
    self->loop = pc_loop_new(&err);
    PC_ASSERT(self->loop != NULL, "%s", err.msg);
    self->store = to->create(&config, self->loop, &hooks, NULL, &err);
    PC_ASSERT(self->store != NULL, "%s", err.msg);
}

static void
fini_rig(rig *self)
{
    to->destroy(self->store);
    pc_loop_free(self->loop);
}

static pc_store_item
item_of(const char *id, pc_state state, const char *document)
{
    return (pc_store_item){
        .id = pc_slice_str(id), .state = state, .document = pc_slice_str(document)};
}

static void
put(rig *self, const char *id, pc_state state, const char *document, long cookie)
{
    pc_store_item item = item_of(id, state, document);
    PC_ASSERT_INT(to->put(self->store, &item, (void *)cookie, NULL), 0);
}

static bool
turn_until(rig *self, const int *counter, int want, int64_t ms)
{
    pc_mono until = after_ms(ms);
    while (*counter < want && pc_mono_now().ns < until.ns) {
        int wait_ms = pc_loop_prepare(self->loop, until);
        PC_ASSERT_INT(pc_loop_wait(self->loop, *counter >= want ? 0 : wait_ms, NULL), 0);
        (void)pc_loop_dispatch(self->loop);
    }
    return *counter >= want;
}

/* --- rig of a program's side --- */

static pc_results *
make_results(double expires)
{
    pc_err err = {0};
    pc_store_config config = {.scheme = "sqlite", .path = DB, .expires = expires};
    pc_results *results = from->create(&config, NULL, &err);
    PC_ASSERT(results != NULL, "%s", err.msg);
    return results;
}

static void
expect(pc_results *results, const char *id, const char *want)
{
    pc_buf out;
    bool found;
    pc_err err = {0};
    pc_buf_init(&out);
    PC_ASSERT(from->get(results, pc_slice_str(id), &out, &found, after_ms(1000), &err) == 0, "%s",
              err.msg);
    PC_ASSERT_INT(found, want != NULL);
    PC_ASSERT(want == NULL || pc_slice_is(pc_buf_slice(&out), want), "%.*s", (int)pc_buf_len(&out),
              pc_buf_ptr(&out));
    pc_buf_fini(&out);
}

static int
wait_for(pc_results *results, const char *id, const char *want, int64_t ms, bool *eintr,
         pc_err *err)
{
    pc_buf out;
    pc_buf_init(&out);
    int rc = from->wait(results, pc_slice_str(id), &out, after_ms(ms), eintr, err);
    if (rc == 0) {
        PC_ASSERT(pc_slice_is(pc_buf_slice(&out), want), "%.*s", (int)pc_buf_len(&out),
                  pc_buf_ptr(&out));
    }
    pc_buf_fini(&out);
    return rc;
}

/* --- tests --- */

void
test_sqlite_store_puts_in_order(void)
{
    rig self;
    init_rig(&self, DB, 0);
    for (long i = 1; i <= 2500; i++) {
        char id[32];
        snprintf(id, sizeof id, "id%ld", i);
        put(&self, id, PC_SUCCESS, "{}", i);
    }
    PC_ASSERT_INT(self.stored, 0);
    PC_ASSERT_INT(to->pending(self.store), 2500);
    PC_ASSERT(turn_until(&self, &self.stored, 2500, 3000));
    PC_ASSERT_INT(self.failed, 0);
    PC_ASSERT_INT(to->pending(self.store), 0);
    fini_rig(&self);
    pc_results *results = make_results(0);
    expect(results, "id2500", "{}");
    expect(results, "id2501", NULL);
    from->destroy(results);
}

void
test_sqlite_store_keeps_success(void)
{
    rig self;
    init_rig(&self, DB, 0);
    pc_results *results = make_results(0);
    put(&self, "a", PC_STARTED, "started", 1);
    put(&self, "a", PC_SUCCESS, "done", 2);
    put(&self, "a", PC_FAILURE, "failed", 3);
    put(&self, "b", PC_STATE_COUNT, "custom", 4);
    put(&self, "b", PC_FAILURE, "failed", 5);
    PC_ASSERT(turn_until(&self, &self.stored, 5, 3000));
    PC_ASSERT_INT(self.failed, 0);
    expect(results, "a", "done");
    expect(results, "b", "failed");
    pc_store_item again = item_of("a", PC_SUCCESS, "done again");
    PC_ASSERT_INT(from->set(results, &again, after_ms(1000), NULL), 0);
    expect(results, "a", "done again");
    PC_ASSERT_INT(from->forget(results, pc_slice_str("a"), after_ms(1000), NULL), 0);
    expect(results, "a", NULL);
    from->destroy(results);
    fini_rig(&self);
}

void
test_sqlite_store_expires(void)
{
    rig self;
    init_rig(&self, DB, 0.1);
    pc_results *results = make_results(0);
    put(&self, "a", PC_SUCCESS, "old", 1);
    PC_ASSERT(turn_until(&self, &self.stored, 1, 3000));
    expect(results, "a", "old");
    struct timespec pause = {.tv_nsec = 120 * PC_NS_PER_MS};
    nanosleep(&pause, NULL);
    expect(results, "a", NULL);
    put(&self, "a", PC_STARTED, "new", 2);  // an expired SUCCESS is no SUCCESS
    PC_ASSERT(turn_until(&self, &self.stored, 2, 3000));
    expect(results, "a", "new");
    fini_rig(&self);
    from->destroy(results);
}

void
test_sqlite_results_wait_gives_each_once(void)
{
    pc_err err = {0};
    pc_results *results = make_results(0);
    pc_store_item item = item_of("a", PC_STARTED, "1");
    PC_ASSERT_INT(from->watch(results, pc_slice_str("a"), &err), 0);
    PC_ASSERT_INT(from->set(results, &item, after_ms(1000), &err), 0);
    PC_ASSERT_INT(wait_for(results, "a", "1", 1000, NULL, &err), 0);
    PC_ASSERT_INT(wait_for(results, "a", "", 50, NULL, &err), -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    item = item_of("a", PC_SUCCESS, "2");
    PC_ASSERT_INT(from->set(results, &item, after_ms(1000), &err), 0);
    PC_ASSERT_INT(wait_for(results, "a", "2", 1000, NULL, &err), 0);
    from->unwatch(results, pc_slice_str("a"));
    PC_ASSERT_INT(wait_for(results, "a", "2", 1000, NULL, &err),
                  0);  // a new watch reads what is stored
    from->destroy(results);
}

static void
ignore(int signal_number)
{
    (void)signal_number;
}

void
test_sqlite_results_wait_ends_with_a_signal(void)
{
    pc_err err = {0};
    bool eintr = false;
    pc_results *results = make_results(0);
    struct sigaction action = {.sa_handler = ignore};
    // again and again: the first may come before the wait has begun
    struct itimerval timer = {.it_value.tv_usec = 50000, .it_interval.tv_usec = 50000};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    PC_ASSERT_INT(wait_for(results, "a", "", 20000, &eintr, &err), -1);
    PC_ASSERT(eintr && err.code == PC_ESTATE, "%s", err.msg);
    from->destroy(results);
}

typedef struct job {
    pc_results *results;
    char id[16];
    int rc;
} job;

static void *
wait_in_thread(void *ctx)
{
    job *self = ctx;
    self->rc = wait_for(self->results, self->id, self->id, 5000, NULL, NULL);
    return NULL;
}

#define THREADS 8

void
test_sqlite_results_many_threads_wait(void)
{
    pthread_t threads[THREADS];
    job jobs[THREADS];
    pc_results *results = make_results(0);
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){.results = results};
        snprintf(jobs[i].id, sizeof jobs[i].id, "id%d", i);
        PC_ASSERT_INT(pthread_create(&threads[i], NULL, wait_in_thread, &jobs[i]), 0);
    }
    rig self;
    init_rig(&self, DB, 0);
    for (int i = 0; i < THREADS; i += 2) {
        put(&self, jobs[i].id, PC_SUCCESS, jobs[i].id, i / 2 + 1);
    }
    PC_ASSERT(turn_until(&self, &self.stored, THREADS / 2, 3000));
    for (int i = 1; i < THREADS; i += 2) {  // from our own process and object
        pc_store_item item = item_of(jobs[i].id, PC_SUCCESS, jobs[i].id);
        PC_ASSERT_INT(from->set(results, &item, after_ms(1000), NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        PC_ASSERT_INT(jobs[i].rc, 0);
    }
    fini_rig(&self);
    from->destroy(results);
}

/* --- wake-up --- */

static int
by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* Reads a number, stores the moment under it. */
static pid_t
fork_worker(int requests, int other_end)
{
    pid_t pid = fork();
    if (pid == 0) {
        rig self;
        int number;
        close(other_end);
        init_rig(&self, DB, 0);
        while (read(requests, &number, sizeof number) == sizeof number) {
            char id[16];
            char text[32];
            struct timespec pause = {.tv_nsec =
                                         2 * PC_NS_PER_MS};  // the other side has to fall asleep
            nanosleep(&pause, NULL);
            snprintf(id, sizeof id, "%d", number);
            snprintf(text, sizeof text, "%lld", (long long)pc_mono_now().ns);
            put(&self, id, PC_SUCCESS, text, number);
            PC_ASSERT(turn_until(&self, &self.stored, number, 3000));
        }
        fini_rig(&self);
        _exit(0);
    }
    return pid;
}

#define WAKES 200

void
test_sqlite_results_wake_up_latency(void)
{
    int pipes[2];
    int64_t spans[WAKES];
    PC_ASSERT_INT(pipe(pipes), 0);
    pid_t pid = fork_worker(pipes[0], pipes[1]);
    close(pipes[0]);
    pc_results *results = make_results(0);
    for (int i = 1; i <= WAKES; i++) {
        char id[16];
        pc_buf out;
        pc_buf_init(&out);
        snprintf(id, sizeof id, "%d", i);
        PC_ASSERT(write(pipes[1], &i, sizeof i) == sizeof i);
        PC_ASSERT_INT(from->wait(results, pc_slice_str(id), &out, after_ms(3000), NULL, NULL), 0);
        PC_ASSERT_INT(pc_buf_put_u8(&out, 0, NULL), 0);
        spans[i - 1] = pc_mono_now().ns - strtoll(pc_buf_ptr(&out), NULL, 10);
        pc_buf_fini(&out);
    }
    close(pipes[1]);
    waitpid(pid, NULL, 0);
    qsort(spans, WAKES, sizeof spans[0], by_value);
    printf("put to wait: p50 %lld us, p99 %lld us\n", (long long)spans[WAKES / 2] / 1000,
           (long long)spans[WAKES * 99 / 100] / 1000);
    // without the bell it would be half of PC_BELL_CHECK_NS; other work on the machine costs a few milliseconds
    PC_ASSERT(spans[WAKES / 2] < PC_BELL_CHECK_NS / 20, "p50 %lld ns", (long long)spans[WAKES / 2]);
    from->destroy(results);
}

/* --- faults --- */

void
test_sqlite_store_waits_for_its_directory(void)
{
    rig self;
    init_rig(&self, "later/" DB, 0);
    put(&self, "a", PC_SUCCESS, "x", 1);
    PC_ASSERT(turn_until(&self, &self.down, 1, 3000));
    PC_ASSERT(strstr(self.why.msg, "later/r.db") != NULL, "%s", self.why.msg);
    PC_ASSERT_INT(self.stored, 0);
    PC_ASSERT_INT(system("mkdir later"), 0);
    PC_ASSERT(turn_until(&self, &self.stored, 1, 5000));
    PC_ASSERT_INT(self.failed, 0);
    PC_ASSERT_INT(self.up, 1);
    PC_ASSERT_INT(self.down, 1);
    fini_rig(&self);
}

void
test_sqlite_results_removed_file(void)
{
    pc_err err = {0};
    pc_results *results = make_results(0);
    pc_store_item item = item_of("a", PC_SUCCESS, "1");
    PC_ASSERT_INT(from->set(results, &item, after_ms(1000), &err), 0);
    PC_ASSERT_INT(system("rm -rf r.db*"), 0);
    expect(results, "a", NULL);
    PC_ASSERT_INT(from->set(results, &item, after_ms(1000), &err), 0);
    expect(results, "a", "1");
    from->destroy(results);
}

void
test_sqlite_results_fork_abandons(void)
{
    pc_results *results = make_results(0);
    pc_store_item item = item_of("a", PC_SUCCESS, "1");
    PC_ASSERT_INT(from->set(results, &item, after_ms(1000), NULL), 0);
    pid_t pid = fork();
    if (pid == 0) {
        from->abandon(results);
        from->destroy(results);
        pc_results *own = make_results(0);
        expect(own, "a", "1");
        item = item_of("b", PC_SUCCESS, "2");
        PC_ASSERT_INT(from->set(own, &item, after_ms(1000), NULL), 0);
        from->destroy(own);
        _exit(0);
    }
    PC_ASSERT_INT(wait_for(results, "b", "2", 3000, NULL, NULL), 0);
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    expect(results, "a", "1");
    from->destroy(results);
}

static int
store_once(void *arg)
{
    rig *self = arg;
    pc_store_config config = {.scheme = "sqlite", .path = DB, .expires = 10};
    pc_store_hooks hooks = {on_stored, on_down, on_up, self};
    *self = (rig){0};
    self->loop = pc_loop_new(NULL);
    if (self->loop == NULL) {
        return -1;
    }
    self->store = to->create(&config, self->loop, &hooks, NULL, NULL);
    pc_store_item item = item_of("a", PC_SUCCESS, "1");
    int rc = self->store == NULL ? -1 : to->put(self->store, &item, (void *)1, NULL);
    if (rc == 0) {
        (void)pc_loop_prepare(self->loop, after_ms(0));
        (void)pc_loop_wait(self->loop, 0, NULL);
        (void)pc_loop_dispatch(self->loop);
        rc = self->stored == 1 ? 0 : -1;
    }
    to->destroy(self->store);
    pc_loop_free(self->loop);
    return rc;
}

static int
wait_once(void *arg)
{
    pc_store_config config = {.scheme = "sqlite", .path = DB};
    pc_buf out;
    (void)arg;
    pc_results *results = from->create(&config, NULL, NULL);
    if (results == NULL) {
        return -1;
    }
    pc_buf_init(&out);
    pc_store_item item = item_of("a", PC_SUCCESS, "1");
    int rc = from->set(results, &item, after_ms(1000), NULL);
    rc = rc < 0 ? rc : from->wait(results, item.id, &out, after_ms(1000), NULL, NULL);
    pc_buf_fini(&out);
    from->destroy(results);
    return rc;
}

void
test_sqlite_store_out_of_memory(void)
{
    rig self;
    PC_ASSERT(PC_OOM(store_once, &self) > 3);
    PC_ASSERT(PC_OOM(wait_once, NULL) > 3);
}

/* Whatever the first attempt lacks beside its directory, there is a second one. */
void
test_sqlite_store_tries_again_after_lack_of_memory(void)
{
    for (int n = 0; n < 20; n++) {
        rig self;
        init_rig(&self, "later/" DB, 0);
        put(&self, "a", PC_SUCCESS, "x", 1);
        pc_mem_fail_after(n);
        (void)pc_loop_prepare(self.loop, after_ms(0));
        pc_mem_fail_after(-1);
        PC_ASSERT_INT(system("mkdir later"), 0);
        PC_ASSERT(turn_until(&self, &self.stored, 1, 2000), "allocation %d", n);
        fini_rig(&self);
        PC_ASSERT_INT(system("rm -r later"), 0);
    }
}

/* --- rate --- */

void
bench_sqlite_store(long n)
{
    rig self;
    init_rig(&self, DB, 0);
    char document[200];
    memset(document, 'd', sizeof document - 1);
    document[sizeof document - 1] = '\0';
    ct_reset_timer();
    for (long i = 1; i <= n; i++) {
        char id[64];
        snprintf(id, sizeof id, "%036ld", i * 7919 % 1000003);
        put(&self, id, PC_SUCCESS, document, i);
        if (i % 64 == 0 || i == n) {
            PC_ASSERT(turn_until(&self, &self.stored, (int)i, 60000));
        }
    }
    fini_rig(&self);
}
