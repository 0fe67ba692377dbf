/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/minder.h"

#include <signal.h>
#include <unistd.h>

#define LOOK (100 * PC_NS_PER_MS)
#define LINGER PC_NS_PER_SEC

void
pc_minder_init(pc_minder *minder, pc_pump *pump, const pc_minder_hooks *hooks)
{
    *minder = (pc_minder){.pump = pump, .hooks = *hooks, .owner = getpid()};
    pc_park_init(&minder->park);
}

static bool
is_open(const pc_minder *m)
{
    return m->hooks.open(m->hooks.ctx);
}

static int
is_over(void *ctx)
{
    const pc_minder *m = ctx;
    return m->stopping || !is_open(m) || m->hooks.sent(m->hooks.ctx);
}

static void
rest(pc_minder *m, int64_t span)
{
    pc_pump_unlock(m->pump);
    (void)pc_park_sleep(&m->park, pc_mono_add(pc_mono_now(), span));
    pc_pump_lock(m->pump);
}

/* Errors are of no use here: the connection reports its own, and a caller's call or exit tells. */
static void
look(pc_minder *m)
{
    bool interrupted = false;  // wanted, so that the wait does not ask Python about signals
    (void)pc_pump_poll(m->pump, NULL);
    (void)pc_pump_wait(m->pump, is_over, m, PC_MONO_NEVER, &interrupted, NULL);
}

static void *
serve(void *ctx)
{
    pc_minder *m = ctx;
    pc_pump_lock(m->pump);
    while (!m->stopping && (m->needed || is_open(m))) {
        m->needed = false;
        rest(m, is_open(m) ? LOOK : LINGER);
        if (!m->stopping && is_open(m)) {
            look(m);
        }
    }
    m->running = false;
    m->stopping = false;
    pc_pump_unlock(m->pump);
    return NULL;
}

static void
start(pc_minder *m)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pc_park_init(&m->park);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    m->running = pthread_create(&m->thread, NULL, serve, m) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    m->joinable = m->running;
}

void
pc_minder_need(pc_minder *minder)
{
    minder->needed = true;
    if (minder->running || minder->pump == NULL) {
        return;
    }
    if (minder->joinable) {  // it has let go of the lock for the last time
        (void)pthread_join(minder->thread, NULL);
    }
    start(minder);
}

void
pc_minder_hurry(pc_minder *minder)
{
    pc_minder_need(minder);
    if (minder->running) {
        pc_park_wake(&minder->park);
    }
}

void
pc_minder_end(pc_minder *minder)
{
    if (minder->running) {
        minder->stopping = true;
        pc_park_wake(&minder->park);
    }
}

void
pc_minder_stop(pc_minder *minder)
{
    if (minder->pump == NULL || minder->owner != getpid()) {
        return;
    }
    pc_pump_lock(minder->pump);
    bool mine = minder->joinable;  // another thread may be here, too
    pthread_t thread = minder->thread;
    minder->joinable = false;
    pc_minder_end(minder);
    pc_pump_unlock(minder->pump);  // ends its wait
    if (mine) {
        (void)pthread_join(thread, NULL);
    }
}

void
pc_minder_resume(pc_minder *minder)
{
    pc_pump_lock(minder->pump);
    if (is_open(minder)) {
        pc_minder_need(minder);
    }
    pc_pump_unlock(minder->pump);
}

void
pc_minder_forget(pc_minder *minder)
{
    pc_minder_stop(minder);
    *minder = (pc_minder){0};
}
