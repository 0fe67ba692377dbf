/* SPDX-License-Identifier: BSD-3-Clause */
/* The runner of the rig: processes by fork(), threads by pthread, bodies as scripts. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "worker_world.h"

static rig *the_rig;              // one a process; signal handlers need it
static atomic_ulong interrupted[8];  // threads; several limits may strike in one turn
static _Thread_local volatile sig_atomic_t soft_now;
static _Thread_local int running;  // the task's number

int
rig_number(const pc_message *message)
{
    static const char key[] = "\"id\": \"t";
    const char *at = memmem(message->headers.ptr, message->headers.len, key, sizeof key - 1);

    return at == NULL ? 0 : atoi(at + sizeof key - 1);
}

static bool
soft_limit_reached(void)
{
    bool reached = soft_now;

    for (size_t i = 0; i < sizeof interrupted / sizeof interrupted[0]; i++) {
        unsigned long self = (unsigned long)pthread_self();
        reached = atomic_compare_exchange_strong(&interrupted[i], &self, 0) || reached;
    }
    soft_now = 0;
    atomic_fetch_add(&the_rig->shared->soft, reached);
    return reached;
}

/* true: interrupted by the soft limit */
static bool
nap(long ms)
{
    pc_mono end = in_ms((int)ms);
    struct timespec slice = {0, 1000000};

    while (pc_mono_now().ns < end.ns) {
        nanosleep(&slice, NULL);
        if (soft_limit_reached()) {
            return true;
        }
    }
    return false;
}

static void
make_big(pc_outcome *outcome, pc_buf *memory, long kb)
{
    size_t len = (size_t)kb * 1024;
    char *to = pc_buf_reserve(memory, len, NULL);

    if (to != NULL) {
        memset(to, 'b', len);
        pc_buf_commit(memory, len);
        outcome->document = pc_buf_slice(memory);
    }
}

static const struct {
    const char *word;
    pc_state state;
    unsigned flags;
    bool document;
} endings[] = {
    {"ok", PC_SUCCESS, 0, true},          {"fail", PC_FAILURE, 0, true},
    {"ignore", PC_IGNORED, 0, false},     {"retry", PC_RETRY, 0, true},
    {"reject", PC_REJECTED, 0, false},    {"requeue", PC_REJECTED, PC_OUT_REQUEUE, false},
    {"refuse", PC_FAILURE, PC_OUT_REFUSED, false},
    {"undecodable", PC_FAILURE, PC_OUT_UNDECODABLE, false},
};

static void
end_with(pc_outcome *outcome, size_t i)
{
    outcome->state = endings[i].state;
    outcome->flags = endings[i].flags | (endings[i].document ? PC_OUT_DOCUMENT : 0);
    if (outcome->document.ptr == NULL) {
        outcome->document = pc_slice_str(endings[i].word);
    }
}

void
rig_end_with(pc_outcome *outcome, const char *word)
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (strcmp(word, endings[i].word) == 0) {
            end_with(outcome, i);
        }
    }
}

/* The number after this task's, as its next one. */
static void
offer(const pc_outcome *to, const char *script)
{
    rig *r = the_rig;
    const rig_next *next = &r->next;
    pc_message message;
    pc_buf frame;
    char headers[200];

    snprintf(headers, sizeof headers, "{\"task\": \"%s\", \"id\": \"t%d\"%s}", next->task == NULL ? "task" : next->task,
             running + 1, next->headers == NULL ? "" : next->headers);
    pc_message_init(&message);
    message.exchange = pc_slice_str(next->exchange == NULL ? "" : next->exchange);
    message.routing_key = pc_slice_str(next->queue == NULL ? "q" : next->queue);
    message.content_type = pc_slice_str(next->content_type == NULL ? "application/json" : next->content_type);
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str(headers);
    message.body = next->big.ptr == NULL ? pc_slice_str(script) : next->big;
    pc_buf_init(&frame);
    PC_ASSERT_INT(pc_message_pack(&message, &frame, NULL), 0);
    bool granted = to->offer(to->offer_to, pc_buf_slice(&frame));
    atomic_fetch_add(granted ? &r->shared->granted : &r->shared->refused, 1);
    pc_buf_fini(&frame);
}

static void
go_on(const pc_outcome *to, long links)
{
    char script[32] = "ok";

    if (links > 1) {
        snprintf(script, sizeof script, "chain:%ld", links - 1);
    }
    offer(to, the_rig->next.script == NULL ? script : the_rig->next.script);
}

static void
obey(const char *word, long value, pc_outcome *outcome, pc_buf *memory)
{
    rig_end_with(outcome, word);
    if (strcmp(word, "sleep") == 0 && nap(value)) {
        end_with(outcome, 1);
    } else if (strcmp(word, "gate") == 0) {
        while (atomic_load(&the_rig->shared->open) == 0 && !nap(1)) {
        }
    } else if (strcmp(word, "raise") == 0) {
        raise((int)value);
    } else if (strcmp(word, "exit") == 0) {
        _exit((int)value);
    } else if (strcmp(word, "deaf") == 0) {
        signal(SIGTERM, SIG_IGN);
    } else if (strcmp(word, "big") == 0) {
        make_big(outcome, memory, value);
    } else if (strcmp(word, "chain") == 0) {
        go_on(outcome, value);
    } else if (strcmp(word, "nodoc") == 0) {
        outcome->flags &= ~PC_OUT_DOCUMENT;
    }
}

static void
run(void *ctx, pc_slice frame, pc_outcome *outcome, pc_buf *memory)
{
    rig *r = ctx;
    pc_message message;
    char script[128];
    char *rest = NULL;
    pc_mono start = pc_mono_now();

    PC_ASSERT_INT(pc_message_unpack(frame, &message, NULL), 0);
    int number = rig_number(&message);
    running = number;
    int place = atomic_fetch_add(&r->shared->total, 1) + 1;
    if (atomic_fetch_add(&r->shared->runs[number], 1) == 0) {
        atomic_store(&r->shared->first[number], place);
    }
    end_with(outcome, 0);
    snprintf(script, sizeof script, "%.*s", message.body.len < 100 ? (int)message.body.len : 100,
             message.body.ptr);
    for (char *word = strtok_r(script, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *colon = strchr(word, ':');
        if (colon != NULL) {
            *colon = '\0';
        }
        obey(word, colon == NULL ? 0 : atol(colon + 1), outcome, memory);
    }
    atomic_fetch_add(&r->shared->ended[number], 1);
    outcome->run_ns = pc_mono_now().ns - start.ns;
}

static pid_t
fork_child(void *ctx)
{
    rig *r = ctx;

    r->forks++;
    if (r->fork_fails) {
        errno = EAGAIN;
        return -1;
    }
    return fork();
}

static void
on_usr1(int signum)
{
    (void)signum;
    if (pc_child_soft_due(the_rig->child)) {
        soft_now = 1;
    }
}

static int
child_start(void *ctx, int index, const pc_child *child)
{
    rig *r = ctx;

    (void)index;
    r->child = child;
    signal(SIGUSR1, on_usr1);
    pc_worker_abandon(r->worker);
    atomic_fetch_add(&r->shared->child_starts, 1);
    while (r->start_hangs) {
        pause();
    }
    return r->start_code;
}

static int
child_stop(void *ctx, int code)
{
    atomic_fetch_add(&((rig *)ctx)->shared->child_stops, 1);
    return code;
}

static void
child_exit(void *ctx, int code)
{
    (void)ctx;
    _exit(code);
}

static int
child_signals(void *ctx)
{
    (void)ctx;
    return 0;
}

typedef struct errand {
    void (*main)(void *arg);
    void *arg;
} errand;

static void *
thread_main(void *arg)
{
    errand what = *(errand *)arg;

    free(arg);
    what.main(what.arg);
    return NULL;
}

static int
start_thread(void *ctx, void (*main)(void *arg), void *arg, int index, pc_err *err)
{
    rig *r = ctx;
    errand *what = malloc(sizeof *what);
    pthread_t thread;

    (void)index;
    if (r->fork_fails || what == NULL) {
        free(what);
        return pc_fail(err, PC_EIO, "no thread");
    }
    *what = (errand){main, arg};
    PC_ASSERT_INT(pthread_create(&thread, NULL, thread_main, what), 0);
    pthread_detach(thread);
    return 0;
}

static int
interrupt_thread(void *ctx, unsigned long thread)
{
    (void)ctx;
    for (size_t i = 0; i < sizeof interrupted / sizeof interrupted[0]; i++) {
        unsigned long none = 0;
        if (atomic_compare_exchange_strong(&interrupted[i], &none, thread)) {
            return 0;
        }
    }
    return -1;
}

static unsigned long
thread_id(void *ctx)
{
    (void)ctx;
    return (unsigned long)pthread_self();
}

void
rig_runner(rig *r)
{
    the_rig = r;
    r->runner = (pc_runner){run, fork_child, child_start, child_stop, child_exit, child_signals, NULL,
                            start_thread, interrupt_thread, thread_id, rig_turn_line, rig_strike, r};
}
