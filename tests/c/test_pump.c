/* SPDX-License-Identifier: BSD-3-Clause */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/pump.h"

/* A "server" on the loop: every byte that arrives through the pipe answers one request. */
typedef struct shared {
    pc_pump *pump;
    int fds[2];
    pc_watch watch;
    pc_defer send;
    int to_send;
    int answers;
    int turns;
} shared;

typedef struct client {
    shared *all;
    pthread_t thread;
    int want;  // number of answers that satisfies
    int requests;
    int rc;
    bool eintr;
    pc_err err;
} client;

static void
on_answer(void *ctx, unsigned events)
{
    (void)events;
    shared *all = ctx;
    char bytes[64];
    ssize_t n = read(all->fds[0], bytes, sizeof bytes);
    PC_ASSERT(n > 0);
    all->answers += (int)n;
    all->turns++;
}

static void
on_send(void *ctx)
{
    shared *all = ctx;
    for (; all->to_send > 0; all->to_send--) {
        PC_ASSERT_INT(write(all->fds[1], "x", 1), 1);
    }
}

static void
setup(shared *all)
{
    *all = (shared){.pump = pc_pump_new(NULL)};
    PC_ASSERT(all->pump);
    PC_ASSERT_INT(pipe(all->fds), 0);
    pc_watch_init(&all->watch, all->fds[0], on_answer, all);
    pc_defer_init(&all->send, on_send, all);
    PC_ASSERT_INT(pc_loop_watch(pc_pump_loop(all->pump), &all->watch, PC_READ, NULL), 0);
}

static void
teardown(shared *all)
{
    pc_loop_unwatch(pc_pump_loop(all->pump), &all->watch);
    pc_pump_free(all->pump);
    close(all->fds[0]);
    close(all->fds[1]);
}

static int
enough(void *ctx)
{
    const client *me = ctx;
    return me->all->answers >= me->want;
}

static pc_mono
in_ms(int ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static void
request(shared *all)
{
    all->to_send++;
    pc_loop_defer(pc_pump_loop(all->pump), &all->send);
}

/* Waits until there are `want` answers, at most 5 s. */
static void *
wait_for_answers(void *ctx)
{
    client *me = ctx;
    pc_pump_lock(me->all->pump);
    me->rc = pc_pump_wait(me->all->pump, enough, me, in_ms(5000), &me->eintr, &me->err);
    pc_pump_unlock(me->all->pump);
    return NULL;
}

/* Sends one request after the other and waits for each answer; answers are common, so this
 * asks for as many as there were before and one. */
static void *
ask_repeatedly(void *ctx)
{
    client *me = ctx;
    for (int i = 0; i < me->requests; i++) {
        pc_pump_lock(me->all->pump);
        request(me->all);
        me->want = me->all->answers + 1;
        me->rc |= pc_pump_wait(me->all->pump, enough, me, in_ms(5000), NULL, &me->err);
        pc_pump_unlock(me->all->pump);
    }
    return NULL;
}

void
test_pump_predicate_is_asked_before_the_first_sleep(void)
{
    shared all;
    setup(&all);
    client me = {.all = &all, .want = 0};
    pc_pump_lock(all.pump);
    PC_ASSERT_INT(pc_pump_wait(all.pump, enough, &me, (pc_mono){0}, NULL, NULL), 0);
    pc_pump_unlock(all.pump);
    teardown(&all);
}

void
test_pump_deadline(void)
{
    shared all;
    setup(&all);
    client me = {.all = &all, .want = 1};
    pc_mono start = pc_mono_now();
    pc_pump_lock(all.pump);
    PC_ASSERT_INT(pc_pump_wait(all.pump, enough, &me, in_ms(20), NULL, &me.err), -1);
    pc_pump_unlock(all.pump);
    PC_ASSERT_INT(me.err.code, PC_ETIMEOUT);
    PC_ASSERT(pc_mono_now().ns - start.ns >= 20 * PC_NS_PER_MS);
    teardown(&all);
}

void
test_pump_poll_flushes_and_handles_what_is_ready(void)
{
    shared all;
    setup(&all);
    pc_pump_lock(all.pump);
    request(&all);
    PC_ASSERT_INT(pc_pump_poll(all.pump, NULL), 0);
    PC_ASSERT_INT(pc_pump_poll(all.pump, NULL), 0);
    PC_ASSERT_INT(all.answers, 1);
    pc_pump_unlock(all.pump);
    teardown(&all);
}

void
test_pump_many_threads(void)
{
    enum { THREADS = 6, REQUESTS = 300 };
    shared all;
    client many[THREADS];
    setup(&all);
    for (int i = 0; i < THREADS; i++) {
        many[i] = (client){.all = &all, .requests = REQUESTS};
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, ask_repeatedly, &many[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT(many[i].rc == 0, "%s", many[i].err.msg);
    }
    PC_ASSERT(all.answers <= THREADS * REQUESTS);
    teardown(&all);
}

/* Sleepers want 3, 2 and 1 answers: the pumper leaves early or late, somebody always goes on. */
void
test_pump_successor(void)
{
    enum { THREADS = 5 };
    shared all;
    client many[THREADS];
    setup(&all);
    for (int i = 0; i < THREADS; i++) {
        many[i] = (client){.all = &all, .want = i + 1};
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, wait_for_answers, &many[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        usleep(10000);
        pc_pump_lock(all.pump);
        request(&all);
        pc_pump_unlock(all.pump);
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT(many[i].rc == 0, "%s", many[i].err.msg);
    }
    teardown(&all);
}

/* Nothing arrives on the loop: the change was made by another thread under the lock. */
void
test_pump_unlock_wakes_whom_it_satisfied(void)
{
    enum { THREADS = 3 };
    shared all;
    client many[THREADS];
    setup(&all);
    for (int i = 0; i < THREADS; i++) {
        many[i] = (client){.all = &all, .want = 1};
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, wait_for_answers, &many[i]), 0);
    }
    usleep(20000);
    pc_pump_lock(all.pump);
    all.answers = 1;
    pc_pump_unlock(all.pump);
    for (int i = 0; i < THREADS; i++) {
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT(many[i].rc == 0, "%s", many[i].err.msg);
    }
    PC_ASSERT_INT(all.turns, 0);
    teardown(&all);
}

static void
ignore(int number)
{
    (void)number;
}

/* One thread pumps, one sleeps aside: both must notice a signal sent to them. */
void
test_pump_signal_interrupts_pumper_and_sleeper(void)
{
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    PC_ASSERT_INT(sigaction(SIGUSR1, &action, NULL), 0);
    shared all;
    client many[2];
    setup(&all);
    for (int i = 0; i < 2; i++) {
        many[i] = (client){.all = &all, .want = 1};
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, wait_for_answers, &many[i]), 0);
        usleep(20000);
    }
    for (int i = 1; i >= 0; i--) {
        PC_ASSERT_INT(pthread_kill(many[i].thread, SIGUSR1), 0);
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT_INT(many[i].rc, -1);
        PC_ASSERT_INT(many[i].err.code, PC_ESTATE);
        PC_ASSERT(many[i].eintr);
    }
    teardown(&all);
}

void
test_pump_interrupt(void)
{
    shared all;
    client many[3];
    setup(&all);
    for (int i = 0; i < 3; i++) {
        many[i] = (client){.all = &all, .want = 1};
        PC_ASSERT_INT(pthread_create(&many[i].thread, NULL, wait_for_answers, &many[i]), 0);
    }
    usleep(20000);
    pc_pump_interrupt(all.pump);
    for (int i = 0; i < 3; i++) {
        PC_ASSERT_INT(pthread_join(many[i].thread, NULL), 0);
        PC_ASSERT(many[i].eintr);
    }
    teardown(&all);
}

static int
make(void *arg)
{
    (void)arg;
    pc_pump *pump = pc_pump_new(NULL);
    pc_pump_free(pump);
    return pump == NULL ? -1 : 0;
}

void
test_pump_survives_want_of_memory(void)
{
    PC_ASSERT_INT(PC_OOM(make, NULL), 2);
}

static shared *asked_about;  // interrupted() is not told
static int asked;
static int answer;

static int
ask_user(void)
{
    asked++;
    // the lock is free: the code that runs here may use the pump
    pc_pump_lock(asked_about->pump);
    if (asked == 2) {
        request(asked_about);
    }
    pc_pump_unlock(asked_about->pump);
    return answer;
}

void
test_pump_asks_while_it_waits(void)
{
    shared all;
    client me = {.all = &all, .want = 1};
    setup(&all);
    asked_about = &all;
    pc_pump_ask(all.pump, ask_user);
    pc_pump_lock(all.pump);
    PC_ASSERT_INT(pc_pump_wait(all.pump, enough, &me, in_ms(5000), NULL, &me.err), 0);
    PC_ASSERT_INT(asked, 2);
    answer = -1;
    me.want = 2;
    PC_ASSERT_INT(pc_pump_wait(all.pump, enough, &me, in_ms(5000), NULL, &me.err), -1);
    PC_ASSERT_INT(me.err.code, PC_ESTATE);
    PC_ASSERT_INT(asked, 3);
    pc_pump_unlock(all.pump);
    teardown(&all);
}
