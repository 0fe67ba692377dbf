/* SPDX-License-Identifier: BSD-3-Clause */
/* The rig's event loop, for the pool asyncio. A script has one word, of these: an ending of worker_script.c · sleep:ms · gate ·
 * deaf:ms (as sleep, but takes so long to end when it is killed) · block:ms (the loop does not turn; killed, it ends at once) ·
 * plain (the script "sleep:60" in a thread of its own) · waits (as gate, but it does not start before it is over). */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"
#include "work/line.h"
#include "worker_world.h"

#define COROUTINES_MAX 2000

typedef struct coroutine {
    pc_line *line;
    pc_handed *at;
    rig *r;
    int number;
    char script[32];
    pc_mono due;
    bool gate;
    bool deaf;
    bool killed;
    atomic_bool struck;
} coroutine;

typedef struct event_loop {
    coroutine *all[COROUTINES_MAX];
    size_t len;
} event_loop;

static void
end(coroutine *c, bool lost, const char *how)
{
    if (!lost) {
        rig_end_with(&c->at->outcome, how);
        atomic_fetch_add(&c->r->shared->ended[c->number], 1);
    }
    pc_line_hand_in(c->line, c->at, lost);
    free(c);
}

static void *
in_thread(void *arg)
{
    coroutine *c = arg;
    struct timespec nap = {0, 60 * PC_NS_PER_MS};

    pc_line_start(c->line, c->at, true);
    nanosleep(&nap, NULL);
    end(c, false, "ok");
    return NULL;
}

static void
begin_plain(coroutine *c)
{
    pthread_t thread;

    PC_ASSERT_INT(pthread_create(&thread, NULL, in_thread, c), 0);
    pthread_detach(thread);
}

static void
block(coroutine *c, int ms)
{
    struct timespec slice = {0, PC_NS_PER_MS};

    for (pc_mono until = in_ms(ms); pc_mono_now().ns < until.ns && !atomic_load(&c->struck);) {
        nanosleep(&slice, NULL);
    }
    c->due = in_ms(0);
}

static void
begin(event_loop *loop, rig *r, pc_line *line, pc_handed *at)
{
    pc_message message;
    coroutine *c = calloc(1, sizeof *c);

    PC_ASSERT(c != NULL && loop->len < COROUTINES_MAX);
    PC_ASSERT_INT(pc_message_unpack(pc_job_frame(at->job), &message, NULL), 0);
    *c = (coroutine){.line = line, .at = at, .r = r, .number = rig_number(&message)};
    snprintf(c->script, sizeof c->script, "%.*s", (int)message.body.len, message.body.ptr);
    atomic_fetch_add(&r->shared->total, 1);
    atomic_fetch_add(&r->shared->runs[c->number], 1);
    bool plain = strcmp(c->script, "plain") == 0;
    pc_line_begin(line, at, c, plain);
    if (plain) {
        begin_plain(c);
        return;
    }
    loop->all[loop->len++] = c;
    if (strcmp(c->script, "waits") != 0) {
        pc_line_start(line, at, false);
    }
    const char *colon = strchr(c->script, ':');
    int ms = colon == NULL ? 0 : atoi(colon + 1);
    c->due = in_ms(ms);
    c->gate = strcmp(c->script, "gate") == 0 || strcmp(c->script, "waits") == 0;
    c->deaf = strncmp(c->script, "deaf", 4) == 0;
    if (strncmp(c->script, "block", 5) == 0) {
        block(c, ms);
    }
}

static coroutine *
find(event_loop *loop, const pc_handed *at)
{
    for (size_t i = 0; i < loop->len; i++) {
        if (loop->all[i]->at == at) {
            return loop->all[i];
        }
    }
    PC_ASSERT(false, "an order about a job that is over");
    return NULL;
}

static void
take_out(event_loop *loop, size_t i)
{
    loop->all[i] = loop->all[--loop->len];
}

static void
remove_one(event_loop *loop, const coroutine *c)
{
    for (size_t i = 0; i < loop->len; i++) {
        if (loop->all[i] == c) {
            take_out(loop, i);
            return;
        }
    }
}

static void
soft(event_loop *loop, coroutine *c)
{
    atomic_fetch_add(&c->r->shared->soft, 1);
    remove_one(loop, c);
    end(c, false, "fail");
}

static void
kill_one(event_loop *loop, coroutine *c)
{
    if (c->deaf) {
        c->killed = true;
        return;
    }
    remove_one(loop, c);
    end(c, true, "");
}

/* False: it quits. */
static bool
obey_line(event_loop *loop, rig *r, pc_line *line)
{
    pc_line_item items[7];
    size_t len;

    while ((len = pc_line_take(line, items, 7)) > 0) {
        for (size_t i = 0; i < len; i++) {
            if (items[i].word == PC_LINE_QUIT) {
                return false;
            }
            if (items[i].word == PC_LINE_RUN) {
                begin(loop, r, line, items[i].at);
            } else if (items[i].word == PC_LINE_SOFT) {
                soft(loop, find(loop, items[i].at));
            } else {
                kill_one(loop, find(loop, items[i].at));
            }
        }
    }
    return true;
}

static void
end_due(event_loop *loop, const rig *r)
{
    for (size_t i = loop->len; i-- > 0;) {
        coroutine *c = loop->all[i];
        if (c->gate ? atomic_load(&r->shared->open) != 0 : pc_mono_now().ns >= c->due.ns) {
            take_out(loop, i);
            end(c, c->killed, strpbrk(c->script, ":") != NULL || c->gate ? "ok" : c->script);
        }
    }
}

void
rig_turn_line(void *ctx, pc_line *line)
{
    rig *r = ctx;
    static _Thread_local event_loop loop;
    struct pollfd call = {.fd = pc_line_fd(line), .events = POLLIN};

    for (loop.len = 0; obey_line(&loop, r, line); end_due(&loop, r)) {
        (void)poll(&call, 1, 1);
        if (atomic_exchange(&r->shared->loop_fails, 0) != 0) {
            break;
        }
    }
    while (loop.len > 0) {
        kill_one(&loop, loop.all[loop.len - 1]);
        if (loop.len > 0 && loop.all[loop.len - 1]->killed) {
            coroutine *c = loop.all[--loop.len];
            end(c, true, "");
        }
    }
}

bool
rig_strike(void *ctx, void *run, bool soft)
{
    coroutine *c = run;

    (void)ctx;
    if (strncmp(c->script, "block", 5) != 0) {
        return false;
    }
    if (soft) {
        atomic_fetch_add(&c->r->shared->soft, 1);
    }
    atomic_store(&c->struck, true);
    return true;
}
