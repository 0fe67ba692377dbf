/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate between parent and child: what has started, and what can be taken back. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "base/mem.h"
#include "work/pipe.h"

void
test_enter_and_recall(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 0);
    PC_ASSERT_INT(pc_gate_started(&gate), 0);
    PC_ASSERT(pc_gate_enter(&gate, 1));
    PC_ASSERT(pc_gate_enter(&gate, 2));
    PC_ASSERT_INT(pc_gate_started(&gate), 2);
    PC_ASSERT_INT(pc_gate_recall(&gate, 5), 2);
    for (uint64_t seq = 3; seq <= 5; seq++) {
        PC_ASSERT(!pc_gate_enter(&gate, seq));
    }
    PC_ASSERT(pc_gate_enter(&gate, 6));
    PC_ASSERT_INT(pc_gate_started(&gate), 6);
}

void
test_reset_takes_nothing_older(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 41);
    PC_ASSERT_INT(pc_gate_started(&gate), 41);
    PC_ASSERT(!pc_gate_enter(&gate, 41));
    PC_ASSERT(pc_gate_enter(&gate, 42));
}

/* More cycles than the word has generations. */
void
test_generations_wrap(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 0);
    for (uint64_t i = 1; i <= 100000; i++) {
        PC_ASSERT_INT(pc_gate_recall(&gate, i * 2 - 1), i == 1 ? 0 : i * 2 - 2);
        PC_ASSERT(!pc_gate_enter(&gate, i * 2 - 1));
        PC_ASSERT(pc_gate_enter(&gate, i * 2));
    }
}

void
test_soft_limit_is_of_one_job(void)
{
    pc_gate gate;
    pc_child child = {.gate = &gate};

    pc_gate_reset(&gate, 0);
    PC_ASSERT(!pc_child_soft_due(&child));
    atomic_store(&child.current, 7);
    PC_ASSERT(!pc_child_soft_due(&child));
    atomic_store(&gate.soft_seq, 7);
    PC_ASSERT(pc_child_soft_due(&child));
    atomic_store(&child.current, 8);
    PC_ASSERT(!pc_child_soft_due(&child));
}

/* --- offers ------------------------------------------------------------ */

void
test_offer_is_answered_once(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 0);
    uint32_t first = pc_gate_ask(&gate);
    PC_ASSERT(first != 0 && pc_gate_take(&gate, first) && !pc_gate_take(&gate, first));
    pc_gate_tell(&gate, first, true);
    PC_ASSERT(pc_gate_wait(&gate, first));
    uint32_t second = pc_gate_ask(&gate);
    PC_ASSERT(second != first && !pc_gate_take(&gate, first) && pc_gate_take(&gate, second));
    pc_gate_tell(&gate, second, false);
    PC_ASSERT(!pc_gate_wait(&gate, second));
}

void
test_offer_withdrawn(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 0);
    uint32_t number = pc_gate_ask(&gate);
    PC_ASSERT(!pc_gate_wait(&gate, number));
    PC_ASSERT(!pc_gate_take(&gate, number));
}

/* 0 means that a frame is no offer. */
void
test_offer_numbers_wrap(void)
{
    pc_gate gate;

    pc_gate_reset(&gate, 0);
    atomic_store(&gate.offer, UINT32_MAX);
    PC_ASSERT(pc_gate_ask(&gate) == 1);
    PC_ASSERT(pc_gate_take(&gate, 1));
}

#define OFFERS 20000

/* Takes what it finds, sometimes too late. */
static void *
answer_offers(void *arg)
{
    pc_gate *gate = arg;
    intptr_t given = 0;

    for (uint32_t number = 1; number <= OFFERS;) {
        if (!pc_gate_take(gate, number)) {
            uint32_t word = atomic_load(&gate->offer);
            number += word >> 3 > number || word == (number << 3 | 4);  // withdrawn
            continue;
        }
        given += number % 3 != 0;
        pc_gate_tell(gate, number, number % 3 != 0);
        number++;
        if (number % 5000 == 0) {
            usleep(30000);
        }
    }
    return (void *)given;
}

void
test_offers_between_threads(void)
{
    pc_gate gate;
    pthread_t parent;
    void *given;
    intptr_t granted = 0;

    pc_gate_reset(&gate, 0);
    PC_ASSERT_INT(pthread_create(&parent, NULL, answer_offers, &gate), 0);
    for (int i = 0; i < OFFERS; i++) {
        granted += pc_gate_wait(&gate, pc_gate_ask(&gate));
    }
    PC_ASSERT_INT(pthread_join(parent, &given), 0);
    PC_ASSERT(granted == (intptr_t)given && granted > OFFERS / 2, "%d, %d", (int)granted, (int)(intptr_t)given);
}

/* --- stress: a thread as the child ------------------------------------- */

#define SENT_MAX 400000

typedef struct lane {
    pc_gate gate;
    _Atomic uint64_t sent;
    atomic_bool end;
    unsigned char entered[SENT_MAX + 1];  // by the child
    unsigned char back[SENT_MAX + 1];     // by the parent
} lane;

static void *
child_life(void *arg)
{
    lane *at = arg;
    uint64_t seq = 0;

    while (!atomic_load(&at->end) || seq < atomic_load(&at->sent)) {
        if (seq < atomic_load(&at->sent)) {
            seq++;
            at->entered[seq] = pc_gate_enter(&at->gate, seq);
        } else {
            sched_yield();
        }
    }
    return NULL;
}

/* Each job is either started or taken back, never both, never neither. */
void
test_every_job_starts_or_comes_back(void)
{
    lane *at = calloc(1, sizeof *at);
    pthread_t thread;
    uint64_t sent = 0;
    uint64_t taken = 0;

    PC_ASSERT(at != NULL);
    pc_gate_reset(&at->gate, 0);
    PC_ASSERT_INT(pthread_create(&thread, NULL, child_life, at), 0);
    for (unsigned seed = 1; sent < SENT_MAX;) {
        for (int n = rand_r(&seed) % 8 + 1; n > 0 && sent < SENT_MAX; n--) {
            sent++;
        }
        atomic_store(&at->sent, sent);
        for (int spins = rand_r(&seed) % 200; spins > 0; spins--) {
            (void)pc_gate_started(&at->gate);
        }
        // now and then the child is let in before the gate is closed
        while (rand_r(&seed) % 4 != 0 && pc_gate_started(&at->gate) + 4 < sent && !at->back[sent - 3]) {
            sched_yield();
        }
        uint64_t started = pc_gate_recall(&at->gate, sent);
        for (uint64_t seq = sent; seq > started && !at->back[seq]; seq--) {
            at->back[seq] = 1;
            taken++;
        }
    }
    atomic_store(&at->end, true);
    PC_ASSERT_INT(pthread_join(thread, NULL), 0);
    for (uint64_t seq = 1; seq <= sent; seq++) {
        PC_ASSERT(at->entered[seq] + at->back[seq] == 1, "job %d: entered %d, back %d", (int)seq,
                  at->entered[seq], at->back[seq]);
    }
    PC_ASSERT(taken > 0 && taken < sent, "%d of %d taken back", (int)taken, (int)sent);
    free(at);
}

/* --- the child's end of the pipe --------------------------------------- */

static atomic_int runs;

static void
run(void *ctx, pc_slice frame, pc_outcome *outcome, pc_buf *memory)
{
    (void)ctx;
    atomic_fetch_add(&runs, 1);
    pc_buf_reset(memory, 0);
    PC_ASSERT_INT(pc_buf_put_slice(memory, frame, NULL), 0);
    outcome->state = PC_SUCCESS;
    outcome->flags = PC_OUT_DOCUMENT;
    outcome->document = pc_buf_slice(memory);
}

static int
start(void *ctx, int index, const pc_child *child)
{
    (void)ctx, (void)child;
    return index;  // the test's way to make it fail
}

static int
stop(void *ctx, int code)
{
    (void)ctx;
    return code;
}

static int
signals(void *ctx)
{
    (void)ctx;
    return 0;
}

typedef struct unconfirmed {
    int fd;
    atomic_int asked;
    int answers;        // so many times there is something
    pc_mono first;      // when it was asked for the first and the last time
    pc_mono last;
} unconfirmed;

static int
confirming(void *ctx)
{
    unconfirmed *what = ctx;
    what->last = pc_mono_now();
    if (atomic_load(&what->asked) == 0) {
        what->first = what->last;
    }
    return atomic_fetch_add(&what->asked, 1) < what->answers ? what->fd : -1;
}

typedef struct pipe_end {
    pc_gate gate;
    pc_runner runner;
    pc_child child;
    int fd;
    int index;
    int code;
    pthread_t thread;
} pipe_end;

static void *
life(void *arg)
{
    pipe_end *at = arg;

    at->code = pc_child_main(&at->child, at->index);
    close(at->child.fd);
    return NULL;
}

static void
open_pipe_with(pipe_end *at, int index, int (*confirms)(void *ctx), void *ctx)
{
    int pair[2];

    *at = (pipe_end){.index = index};
    PC_ASSERT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    at->runner = (pc_runner){.run = run, .child_start = start, .child_stop = stop, .child_signals = signals,
                             .confirming = confirms, .ctx = ctx};
    at->fd = pair[0];
    at->child = (pc_child){.fd = pair[1], .gate = &at->gate, .runner = &at->runner};
    pc_buf_init(&at->child.in);
    pc_buf_init(&at->child.memory);
    pc_gate_reset(&at->gate, 0);
    PC_ASSERT_INT(pthread_create(&at->thread, NULL, life, at), 0);
}

static void
open_pipe(pipe_end *at, int index)
{
    open_pipe_with(at, index, NULL, NULL);
}

static int
close_pipe(pipe_end *at)
{
    close(at->fd);
    PC_ASSERT_INT(pthread_join(at->thread, NULL), 0);
    pc_buf_fini(&at->child.in);
    pc_buf_fini(&at->child.memory);
    return at->code;
}

static void
read_fully(int fd, void *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t got = read(fd, (char *)to + have, len - have);
        PC_ASSERT(got > 0);
        have += (size_t)got;
    }
}

/* Frames in pieces of every size, byte by byte at first. */
void
test_frames_in_pieces(void)
{
    pipe_end at;
    pc_up_frame up;
    char bytes[3 * (sizeof(pc_down_frame) + 40)];
    size_t len = 0;

    for (uint64_t seq = 1; seq <= 3; seq++) {
        pc_down_frame frame = {.len = (uint32_t)(seq == 2 ? 0 : 40), .seq = seq};
        memcpy(bytes + len, &frame, sizeof frame);
        memset(bytes + len + sizeof frame, 'a' + (int)seq, frame.len);
        len += sizeof frame + frame.len;
    }
    for (size_t piece = 1; piece <= len; piece += 11) {
        open_pipe(&at, 0);
        read_fully(at.fd, &up, sizeof up);
        PC_ASSERT_INT(up.seq, 0);
        for (size_t from = 0; from < len; from += piece) {
            size_t n = len - from < piece ? len - from : piece;
            PC_ASSERT_INT(write(at.fd, bytes + from, n), (ssize_t)n);
        }
        for (uint64_t seq = 1; seq <= 3; seq++) {
            char document[40];
            read_fully(at.fd, &up, sizeof up);
            PC_ASSERT_INT(up.seq, seq);
            PC_ASSERT_INT(up.state, PC_SUCCESS);
            PC_ASSERT_INT(up.len, seq == 2 ? 0 : 40);
            read_fully(at.fd, document, up.len);
            PC_ASSERT(up.len == 0 || document[39] == 'a' + (int)seq);
        }
        PC_ASSERT_INT(close_pipe(&at), 0);
    }
}

void
test_child_that_does_not_start(void)
{
    pipe_end at;
    char byte;

    open_pipe(&at, 5);
    PC_ASSERT_INT(read(at.fd, &byte, 1), 0);
    PC_ASSERT_INT(close_pipe(&at), 5);
}

/* The frame's length is known and there is no memory for it: the child ends, it does not hang. */
void
test_child_out_of_memory(void)
{
    pipe_end at;
    pc_up_frame up;
    pc_down_frame frame = {.len = 1u << 20, .seq = 1};
    char byte;

    open_pipe(&at, 0);
    read_fully(at.fd, &up, sizeof up);
    nanosleep(&(struct timespec){0, 200000000}, NULL);  // it waits in recv, its first chunk reserved
    pc_mem_fail_after(1);
    PC_ASSERT_INT(write(at.fd, &frame, sizeof frame), sizeof frame);
    PC_ASSERT_INT(read(at.fd, &byte, 1), 0);
    pc_mem_fail_after(-1);
    PC_ASSERT_INT(close_pipe(&at), 1);
}

/* Waiting for confirms does not keep the child from its next task, and ends when there are none. */
void
test_child_that_confirms(void)
{
    pipe_end at;
    pc_up_frame up;
    int pair[2];
    PC_ASSERT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    unconfirmed what = {.fd = pair[0], .answers = 4};

    open_pipe_with(&at, 0, confirming, &what);
    read_fully(at.fd, &up, sizeof up);
    for (uint64_t seq = 1; seq <= 6; seq++) {
        pc_down_frame frame = {.seq = seq};
        pc_mono sent = pc_mono_now();
        PC_ASSERT_INT(write(at.fd, &frame, sizeof frame), sizeof frame);
        read_fully(at.fd, &up, sizeof up);
        PC_ASSERT_INT(up.seq, seq);
        PC_ASSERT(pc_mono_now().ns - sent.ns < 5 * PC_NS_PER_SEC);
    }
    PC_ASSERT_INT(close_pipe(&at), 0);
    PC_ASSERT(atomic_load(&what.asked) > what.answers);
    close(pair[0]);
    close(pair[1]);
}

/* The next task may come within a moment: until then a confirm waits. */
void
test_confirm_does_not_wake_a_busy_child(void)
{
    pipe_end at;
    pc_up_frame up;
    int pair[2];
    PC_ASSERT_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    PC_ASSERT_INT(write(pair[1], "x", 1), 1);
    unconfirmed what = {.fd = pair[0], .answers = 1};

    open_pipe_with(&at, 0, confirming, &what);
    read_fully(at.fd, &up, sizeof up);
    while (atomic_load(&what.asked) < 2) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    PC_ASSERT_INT(close_pipe(&at), 0);
    PC_ASSERT(what.last.ns - what.first.ns >= 4 * PC_NS_PER_MS, "%lld ns", (long long)(what.last.ns - what.first.ns));
    close(pair[0]);
    close(pair[1]);
}
