/* SPDX-License-Identifier: BSD-3-Clause */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/loop.h"

static const pc_mono never = {INT64_MAX};

typedef struct probe {
    pc_loop *loop;
    pc_watch watch;
    pc_timer timer;
    pc_defer defer;
    int fds[2];
    int calls;
    unsigned events;
    int again;             // how often the defer or timer adds itself again
    struct probe *victim;  // unwatched when called
    struct probe *before;  // its timer fires first
} probe;

static pc_mono
in_ms(int ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static void
on_ready(void *ctx, unsigned events)
{
    probe *p = ctx;
    p->calls++;
    p->events = events;
    if (p->victim != NULL) {
        pc_loop_unwatch(p->loop, &p->victim->watch);
    }
}

static void
on_due(void *ctx, pc_mono now)
{
    probe *p = ctx;
    p->calls++;
    PC_ASSERT(p->before == NULL || p->before->calls > 0);
    if (p->again-- > 0) {
        PC_ASSERT_INT(pc_loop_set_timer(p->loop, &p->timer, now, NULL), 0);
    }
}

static void
on_defer(void *ctx)
{
    probe *p = ctx;
    p->calls++;
    if (p->again-- > 0) {
        pc_loop_defer(p->loop, &p->defer);
    }
}

static void
probe_init(probe *p, pc_loop *loop)
{
    *p = (probe){.loop = loop};
    PC_ASSERT_INT(pipe(p->fds), 0);
    pc_watch_init(&p->watch, p->fds[0], on_ready, p);
    pc_timer_init(&p->timer, on_due, p);
    pc_defer_init(&p->defer, on_defer, p);
}

static void
feed(const probe *p)
{
    PC_ASSERT_INT(write(p->fds[1], "x", 1), 1);
}

static void
drain(const probe *p)
{
    char byte;
    PC_ASSERT_INT(read(p->fds[0], &byte, 1), 1);
}

static pc_loop *
new_loop(void)
{
    pc_loop *loop = pc_loop_new(NULL);
    PC_ASSERT(loop);
    return loop;
}

void
test_loop_reports_what_is_ready(void)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(0), NULL), 0);
    feed(&p);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    PC_ASSERT_INT(p.events, PC_READ);
    // level-triggered: what was left is reported again
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    drain(&p);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(0), NULL), 0);
    close(p.fds[1]);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    PC_ASSERT(p.events & PC_HANGUP);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, 0, NULL), 0);
    PC_ASSERT_INT(p.watch.slot, 0);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(0), NULL), 0);
    pc_loop_free(loop);
}

void
test_loop_changes_interest(void)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    pc_watch_init(&p.watch, p.fds[1], on_ready, &p);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(0), NULL), 0);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, PC_READ | PC_WRITE, NULL), 0);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    PC_ASSERT_INT(p.events, PC_WRITE);
    pc_loop_unwatch(loop, &p.watch);
    pc_loop_unwatch(loop, &p.watch);
    pc_loop_free(loop);
}

/* Both are reported by one wait(); whichever comes first removes the other. */
void
test_loop_skips_a_watch_removed_in_dispatch(void)
{
    pc_loop *loop = new_loop();
    probe a, b;
    probe_init(&a, loop);
    probe_init(&b, loop);
    a.victim = &b;
    b.victim = &a;
    PC_ASSERT_INT(pc_loop_watch(loop, &a.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(pc_loop_watch(loop, &b.watch, PC_READ, NULL), 0);
    feed(&a);
    feed(&b);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    PC_ASSERT_INT(a.calls + b.calls, 1);
    pc_loop_free(loop);
}

/* The slot is used again between wait() and dispatch(): the old event must not reach the new watch.
 */
void
test_loop_event_does_not_reach_the_next_user_of_a_slot(void)
{
    pc_loop *loop = new_loop();
    probe a, b;
    probe_init(&a, loop);
    probe_init(&b, loop);
    PC_ASSERT_INT(pc_loop_watch(loop, &a.watch, PC_READ, NULL), 0);
    feed(&a);
    int wait_ms = pc_loop_prepare(loop, never);
    PC_ASSERT_INT(wait_ms, -1);
    PC_ASSERT_INT(pc_loop_wait(loop, wait_ms, NULL), 0);
    uint32_t slot = a.watch.slot;
    pc_loop_unwatch(loop, &a.watch);
    PC_ASSERT_INT(pc_loop_watch(loop, &b.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(b.watch.slot, slot);
    PC_ASSERT_INT(pc_loop_dispatch(loop), 0);
    PC_ASSERT_INT(a.calls + b.calls, 0);
    pc_loop_free(loop);
}

void
test_loop_many_watches(void)
{
    enum { COUNT = 200 };
    pc_loop *loop = new_loop();
    static probe many[COUNT];
    for (int i = 0; i < COUNT; i++) {
        probe_init(&many[i], loop);
        PC_ASSERT_INT(pc_loop_watch(loop, &many[i].watch, PC_READ, NULL), 0);
        feed(&many[i]);
    }
    // more than one wait() can carry: the rest comes with the next
    int calls = 0;
    for (int turn = 0; turn < 3; turn++) {
        calls += pc_loop_step(loop, in_ms(0), NULL);
    }
    PC_ASSERT(calls >= COUNT);
    for (int i = 0; i < COUNT; i++) {
        PC_ASSERT(many[i].calls >= 1, "watch %d", i);
        pc_loop_unwatch(loop, &many[i].watch);
    }
    pc_loop_free(loop);
}

void
test_loop_refuses_what_epoll_cannot_watch(void)
{
    pc_loop *loop = new_loop();
    pc_err err = {0};
    pc_watch watch;
    pc_watch_init(&watch, -1, on_ready, NULL);
    PC_ASSERT_INT(pc_loop_watch(loop, &watch, PC_READ, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    PC_ASSERT_INT(watch.slot, 0);
    pc_loop_free(loop);
}

void
test_loop_timers_fire_in_order_and_once(void)
{
    pc_loop *loop = new_loop();
    probe a, b;
    probe_init(&a, loop);
    probe_init(&b, loop);
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(pc_loop_set_timer(loop, &a.timer, in_ms(5), NULL), 0);
    PC_ASSERT_INT(pc_loop_set_timer(loop, &b.timer, in_ms(2000), NULL), 0);
    PC_ASSERT_INT(pc_loop_set_timer(loop, &b.timer, in_ms(20), NULL), 0);
    b.before = &a;
    int fired = pc_loop_step(loop, never, NULL);  // both, when this process did not run for a while
    PC_ASSERT_INT(a.calls, 1);
    PC_ASSERT(pc_mono_now().ns - start.ns >= 5 * PC_NS_PER_MS);
    while (fired < 2) {
        fired += pc_loop_step(loop, never, NULL);
    }
    PC_ASSERT_INT(fired, 2);
    PC_ASSERT_INT(b.calls, 1);
    PC_ASSERT(pc_loop_now(loop).ns - start.ns >= 20 * PC_NS_PER_MS);
    PC_ASSERT_INT(pc_loop_set_timer(loop, &a.timer, in_ms(0), NULL), 0);
    pc_loop_clear_timer(loop, &a.timer);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(2), NULL), 0);
    pc_loop_free(loop);
}

void
test_loop_timer_set_to_now_by_itself_lets_the_turn_end(void)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    p.again = 1000;
    PC_ASSERT_INT(pc_loop_set_timer(loop, &p.timer, in_ms(0), NULL), 0);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 1);
    pc_loop_clear_timer(loop, &p.timer);
    pc_loop_free(loop);
}

typedef struct ordered {
    pc_defer defer;
    pc_loop *loop;
    struct ordered *follows;  // deferred next by this one
    char name;
    char *said;
} ordered;

static void
say(void *ctx)
{
    ordered *o = ctx;
    *strchr(o->said, '\0') = o->name;
    if (o->follows != NULL) {
        pc_loop_defer_next(o->loop, &o->follows->defer);
    }
}

void
test_loop_defer_next_is_before_the_others(void)
{
    char said[8] = "";
    ordered all[4];
    pc_loop *loop = new_loop();
    for (int i = 0; i < 4; i++) {
        all[i] = (ordered){.loop = loop, .name = (char)('a' + i), .said = said};
        pc_defer_init(&all[i].defer, say, &all[i]);
    }
    all[2].follows = &all[3];
    pc_loop_defer(loop, &all[0].defer);
    pc_loop_defer(loop, &all[1].defer);
    pc_loop_defer(loop, &all[2].defer);
    pc_loop_defer_next(loop, &all[2].defer);
    (void)pc_loop_prepare(loop, PC_MONO_NEVER);
    PC_ASSERT_STR(said, "cdab");
    pc_loop_free(loop);
}

void
test_loop_defers_run_once_before_the_sleep(void)
{
    pc_loop *loop = new_loop();
    probe p, gone;
    probe_init(&p, loop);
    probe_init(&gone, loop);
    p.again = 2;
    pc_loop_defer(loop, &p.defer);
    pc_loop_defer(loop, &p.defer);
    pc_loop_defer(loop, &gone.defer);
    pc_loop_undefer(loop, &gone.defer);
    (void)pc_loop_prepare(loop, in_ms(0));
    PC_ASSERT_INT(p.calls, 3);
    (void)pc_loop_prepare(loop, in_ms(0));
    PC_ASSERT_INT(p.calls, 3);
    PC_ASSERT_INT(gone.calls, 0);
    pc_loop_free(loop);
}

/* Unwatches the victim, so that what was found for it is not delivered any more. */
static void
on_first(void *ctx)
{
    probe *p = ctx;
    p->calls++;
    if (p->again-- == 0) {
        pc_loop_unwatch(p->loop, &p->victim->watch);
        pc_loop_undefer(p->loop, &p->defer);
    }
}

void
test_loop_first_of_all_comes_at_every_turn(void)
{
    pc_loop *loop = new_loop();
    probe p, victim;
    probe_init(&p, loop);
    probe_init(&victim, loop);
    p.victim = &victim;
    p.again = 3;
    pc_defer_init(&p.defer, on_first, &p);
    pc_loop_defer_first(loop, &p.defer);
    pc_loop_defer_first(loop, &p.defer);
    PC_ASSERT_INT(pc_loop_watch(loop, &victim.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(write(victim.fds[1], "x", 1), 1);
    for (int turn = 1; turn <= 5; turn++) {
        PC_ASSERT(pc_loop_step(loop, in_ms(0), NULL) >= 0);
        PC_ASSERT_INT(p.calls, turn == 1 ? 2 : 4);  // in prepare and in dispatch
        PC_ASSERT_INT(victim.calls, 1);
    }
    pc_loop_free(loop);
}

static void
on_first_of_prepare(void *ctx)
{
    probe *p = ctx;
    p->calls++;
    pc_loop_undefer(p->loop, &p->victim->defer);
}

void
test_loop_first_of_all_comes_before_what_was_deferred(void)
{
    pc_loop *loop = new_loop();
    probe p, victim;
    probe_init(&p, loop);
    probe_init(&victim, loop);
    p.victim = &victim;
    pc_defer_init(&p.defer, on_first_of_prepare, &p);
    pc_loop_defer_first(loop, &p.defer);
    pc_loop_defer(loop, &victim.defer);
    (void)pc_loop_prepare(loop, in_ms(0));
    PC_ASSERT_INT(p.calls, 1);
    PC_ASSERT_INT(victim.calls, 0);
    pc_loop_free(loop);
}

static void *
wake_soon(void *loop)
{
    usleep(20000);
    pc_loop_wake(loop);
    return NULL;
}

void
test_loop_wake_ends_a_running_and_the_next_wait(void)
{
    pc_loop *loop = new_loop();
    pthread_t thread;
    PC_ASSERT_INT(pthread_create(&thread, NULL, wake_soon, loop), 0);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 0);
    PC_ASSERT_INT(pthread_join(thread, NULL), 0);
    pc_loop_wake(loop);
    pc_loop_wake(loop);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 0);
    // both wakes were one: the next wait sleeps until its time
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(10), NULL), 0);
    PC_ASSERT(pc_mono_now().ns - start.ns >= 9 * PC_NS_PER_MS);
    pc_loop_free(loop);
}

/* What another thread may do under the owner's lock while the loop sleeps. */
void
test_loop_earlier_timer_during_the_sleep_wakes(void)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    int wait_ms = pc_loop_prepare(loop, never);
    PC_ASSERT_INT(pc_loop_set_timer(loop, &p.timer, in_ms(0), NULL), 0);
    PC_ASSERT_INT(pc_loop_wait(loop, wait_ms, NULL), 0);
    PC_ASSERT_INT(pc_loop_dispatch(loop), 1);
    PC_ASSERT_INT(p.calls, 1);
    pc_loop_free(loop);
}

static void
ignore(int number)
{
    (void)number;
}

void
test_loop_signal_is_an_ordinary_wake_up(void)
{
    struct sigaction action = {.sa_handler = ignore};
    PC_ASSERT_INT(sigaction(SIGALRM, &action, NULL), 0);
    pc_loop *loop = new_loop();
    // again and again: the first may come before the step has begun
    struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000};
    static const struct itimerval no_more;
    PC_ASSERT_INT(setitimer(ITIMER_REAL, &soon, NULL), 0);
    PC_ASSERT_INT(pc_loop_step(loop, never, NULL), 0);
    PC_ASSERT_INT(setitimer(ITIMER_REAL, &no_more, NULL), 0);
    PC_ASSERT(pc_loop_interrupted(loop));
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(0), NULL), 0);
    PC_ASSERT(!pc_loop_interrupted(loop));
    pc_loop_free(loop);
}

/* A forked child shares the epoll set; what it removes must stay watched by the parent. */
void
test_loop_forked_child_leaves_the_set_alone(void)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, PC_READ, NULL), 0);
    pid_t child = fork();
    if (child == 0) {
        pc_loop_unwatch(loop, &p.watch);
        pc_loop_free(loop);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT_INT(waitpid(child, &status, 0), child);
    PC_ASSERT_INT(status, 0);
    feed(&p);
    PC_ASSERT_INT(pc_loop_step(loop, in_ms(1000), NULL), 1);
    pc_loop_free(loop);
}

static void
turn_inside(void *ctx, unsigned events)
{
    (void)events;
    probe *p = ctx;
    p->calls++;
    if (p->again-- > 0) {
        PC_ASSERT(pc_loop_step(p->loop, in_ms(0), NULL) >= 1);
    }
    drain(p);
}

void
test_loop_turned_from_inside_a_callback(void)
{
    pc_loop *loop = new_loop();
    probe a, b;
    probe_init(&a, loop);
    probe_init(&b, loop);
    a.watch.ready = turn_inside;
    a.again = 1;
    PC_ASSERT_INT(pc_loop_watch(loop, &a.watch, PC_READ, NULL), 0);
    PC_ASSERT_INT(pc_loop_watch(loop, &b.watch, PC_READ, NULL), 0);
    feed(&a);
    feed(&a);
    feed(&b);
    PC_ASSERT(pc_loop_step(loop, never, NULL) >= 1);
    PC_ASSERT_INT(a.calls, 2);
    PC_ASSERT(b.calls >= 1);
    pc_loop_free(loop);
}

static int
make_and_use(void *arg)
{
    (void)arg;
    int rc = -1;
    probe p;
    pc_loop *loop = pc_loop_new(NULL);
    if (loop == NULL) {
        return -1;
    }
    probe_init(&p, loop);
    if (pc_loop_watch(loop, &p.watch, PC_READ, NULL) == 0 &&
        pc_loop_set_timer(loop, &p.timer, in_ms(0), NULL) == 0) {
        rc = 0;
    }
    pc_loop_unwatch(loop, &p.watch);
    close(p.fds[0]);
    close(p.fds[1]);
    pc_loop_free(loop);
    return rc;
}

void
test_loop_survives_want_of_memory(void)
{
    PC_ASSERT(PC_OOM(make_and_use, NULL) >= 3);
}

void
bench_loop_turn(long n)
{
    pc_loop *loop = new_loop();
    probe p;
    probe_init(&p, loop);
    PC_ASSERT_INT(pc_loop_watch(loop, &p.watch, PC_READ, NULL), 0);
    feed(&p);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        (void)pc_loop_step(loop, never, NULL);
    }
    pc_loop_free(loop);
}
