/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. See pump.h for who turns the loop. Each thread inside pc_pump_wait has a
 * `waiter` on its stack: the pumper's is pump->pumper, the others' are in
 * pump->sleepers. Whoever may have changed something (a turn, a poll, an unlock) asks the
 * predicates and wakes exactly the satisfied: a sleeper through its park, the pumper through the
 * loop's eventfd. A waiter that leaves while nobody pumps wakes the oldest sleeper, which becomes
 * the pumper. Shut down by pc_pump_free when no thread is inside. */
#include "io/pump.h"

#include <pthread.h>

#include "base/mem.h"
#include "io/park.h"

#define ASK_NS (100 * PC_NS_PER_MS)  // a signal may come just before the sleep, or to another thread

typedef struct waiter {
    pc_link link;
    pc_park park;
    int (*done)(void *ctx);
    void *ctx;
    bool asks;           // pump->interrupted, before it gives up
    bool interruptible;
    bool interrupted;
} waiter;

struct pc_pump {
    pthread_mutex_t lock;
    pc_loop *loop;
    waiter *pumper;    // NULL: nobody is inside the loop's wait()
    pc_link sleepers;  // oldest first
    int (*interrupted)(void);  // or NULL
};

pc_pump *
pc_pump_new(pc_err *err)
{
    pc_pump *pump = pc_zalloc(sizeof *pump);
    if (pump == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&pump->sleepers);
    pump->loop = pc_loop_new(err);
    if (pump->loop == NULL) {
        goto fail;
    }
    if (pthread_mutex_init(&pump->lock, NULL) != 0) {
        pc_fail(err, PC_ENOMEM, "cannot create a mutex");
        goto fail;
    }
    return pump;
fail:
    pc_loop_free(pump->loop);
    pc_free(pump);
    return NULL;
}

void
pc_pump_free(pc_pump *pump)
{
    if (pump == NULL) {
        return;
    }
    pthread_mutex_destroy(&pump->lock);
    pc_loop_free(pump->loop);
    pc_free(pump);
}

pc_loop *
pc_pump_loop(pc_pump *pump)
{
    return pump->loop;
}

void
pc_pump_ask(pc_pump *pump, int (*interrupted)(void))
{
    pump->interrupted = interrupted;
}

static bool
satisfied(const waiter *w)
{
    return w->interrupted || w->done(w->ctx);
}

static void
wake_satisfied(pc_pump *pump)
{
    pc_link *link = pump->sleepers.next;
    for (; link != &pump->sleepers; link = link->next) {
        waiter *w = PC_CONTAINER_OF(link, waiter, link);
        if (satisfied(w)) {
            pc_park_wake(&w->park);
        }
    }
    if (pump->pumper != NULL && satisfied(pump->pumper)) {
        pc_loop_wake(pump->loop);
    }
}

void
pc_pump_lock(pc_pump *pump)
{
    pthread_mutex_lock(&pump->lock);
}

/* The pumper has prepared already and sleeps: what was deferred since would not run
 * before it wakes, so it runs here. */
void
pc_pump_unlock(pc_pump *pump)
{
    if (pump->pumper != NULL) {
        (void)pc_loop_prepare(pump->loop, PC_MONO_NEVER);
    }
    wake_satisfied(pump);
    pthread_mutex_unlock(&pump->lock);
}

int
pc_pump_poll(pc_pump *pump, pc_err *err)
{
    if (pump->pumper != NULL) {  // the loop's event array is the pumper's
        (void)pc_loop_prepare(pump->loop, PC_MONO_NEVER);
        return 0;
    }
    return pc_loop_step(pump->loop, (pc_mono){0}, err) < 0 ? -1 : 0;
}

/* One turn of the loop; the lock is released while the kernel waits. */
static int
turn(pc_pump *pump, waiter *self, pc_mono deadline, pc_err *err)
{
    int wait_ms = pc_loop_prepare(pump->loop, deadline);
    // What was deferred may have satisfied anybody, this thread included.
    pump->pumper = self;
    wake_satisfied(pump);
    pthread_mutex_unlock(&pump->lock);
    int rc = pc_loop_wait(pump->loop, wait_ms, err);
    pthread_mutex_lock(&pump->lock);
    pump->pumper = NULL;
    if (self->interruptible && pc_loop_interrupted(pump->loop)) {
        self->interrupted = true;
    }
    (void)pc_loop_dispatch(pump->loop);
    wake_satisfied(pump);
    return rc;
}

static void
sleep_aside(pc_pump *pump, waiter *self, pc_mono deadline)
{
    pc_list_put_back(&pump->sleepers, &self->link);
    pc_pump_unlock(pump);
    pc_park_end end = pc_park_sleep(&self->park, deadline);
    pthread_mutex_lock(&pump->lock);
    pc_link_remove(&self->link);
    if (self->interruptible && end == PC_PARK_SIGNAL) {
        self->interrupted = true;
    }
}

static void
wake_heir(pc_pump *pump)
{
    if (pump->pumper == NULL && !pc_list_empty(&pump->sleepers)) {
        waiter *heir = PC_CONTAINER_OF(pump->sleepers.next, waiter, link);
        pc_park_wake(&heir->park);
    }
}

/* Nobody may rely on this thread meanwhile: it runs other people's code. */
static void
ask(pc_pump *pump, waiter *self)
{
    wake_heir(pump);
    pc_pump_unlock(pump);
    self->interrupted = pump->interrupted() != 0;
    pthread_mutex_lock(&pump->lock);
}

static int
wait_until(pc_pump *pump, waiter *self, pc_mono deadline, pc_err *err)
{
    bool asks = self->asks;
    pc_mono next = asks ? pc_mono_add(pc_mono_now(), ASK_NS) : PC_MONO_NEVER;
    for (;;) {
        if (self->done(self->ctx)) {
            return 0;
        }
        pc_mono now = pc_mono_now();
        if (asks && (self->interrupted || now.ns >= next.ns)) {
            ask(pump, self);
            next = pc_mono_add(now, ASK_NS);
            if (!self->interrupted) {
                continue;
            }
        }
        if (self->interrupted) {
            return pc_fail(err, PC_ESTATE, "the wait was interrupted");
        }
        if (now.ns >= deadline.ns) {
            return pc_fail(err, PC_ETIMEOUT, "the wait timed out");
        }
        pc_mono until = next.ns < deadline.ns ? next : deadline;
        if (pump->pumper != NULL) {
            sleep_aside(pump, self, until);
        } else if (turn(pump, self, until, err) != 0) {
            return -1;
        }
    }
}

int
pc_pump_wait(pc_pump *pump, int (*done)(void *ctx), void *ctx, pc_mono deadline, bool *eintr,
             pc_err *err)
{
    waiter self = {.done = done, .ctx = ctx, .asks = eintr == NULL && pump->interrupted != NULL};
    self.interruptible = eintr != NULL || self.asks;
    pc_link_init(&self.link);
    pc_park_init(&self.park);
    int rc = wait_until(pump, &self, deadline, err);
    if (eintr != NULL) {
        *eintr = rc != 0 && self.interrupted;
    }
    wake_heir(pump);
    return rc;
}

void
pc_pump_interrupt(pc_pump *pump)
{
    pthread_mutex_lock(&pump->lock);
    pc_link *link = pump->sleepers.next;
    for (; link != &pump->sleepers; link = link->next) {
        waiter *w = PC_CONTAINER_OF(link, waiter, link);
        w->interrupted = w->interrupted || w->interruptible;
    }
    if (pump->pumper != NULL && pump->pumper->interruptible) {
        pump->pumper->interrupted = true;
    }
    wake_satisfied(pump);
    pthread_mutex_unlock(&pump->lock);
}
