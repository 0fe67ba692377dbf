/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite broker among several processes: nothing lost, nothing doubled, quick wake-ups. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "io/sqlite_bell.h"
#include "sqlite_rig.h"

#define SENDERS 3
#define EACH 6700
#define TOTAL (SENDERS * EACH)

/* Counted in memory that all processes share. */
typedef struct tally {
    _Atomic int sum;
    _Atomic int seen[TOTAL];
} tally;

static void
consume_and_count(tally *shared)
{
    sq_rig *self = sq_start_rig(64);
    while (shared->sum < TOTAL) {
        (void)sq_turn_until(self, &self->got, 1, 50);
        for (int i = 0; i < self->got; i++) {
            shared->seen[self->numbers[i]]++;
            shared->sum++;
            PC_ASSERT_INT(sq_in->settle(self->source, self->tags[i], PC_ACK, NULL), 0);
        }
        self->got = 0;
    }
    sq_end_rig(self);
}

static pid_t
fork_sender(int from)
{
    pid_t pid = fork();
    if (pid == 0) {
        pc_producer *producer = sq_make_producer();
        sq_send_numbers(producer, from, from + EACH);
        sq_end_producer(producer);
        _exit(0);
    }
    return pid;
}

static pid_t
fork_consumer(tally *shared)
{
    pid_t pid = fork();
    if (pid == 0) {
        consume_and_count(shared);
        _exit(0);
    }
    return pid;
}

void
test_sqlite_many_processes_lose_and_double_nothing(void)
{
    tally *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PC_ASSERT(shared != MAP_FAILED);
    pid_t children[SENDERS + 2];
    for (int i = 0; i < SENDERS; i++) {
        children[i] = fork_sender(i * EACH);
    }
    children[SENDERS] = fork_consumer(shared);
    children[SENDERS + 1] = fork_consumer(shared);
    for (int i = 0; i < SENDERS + 2; i++) {
        int status;
        PC_ASSERT(waitpid(children[i], &status, 0) == children[i] && status == 0, "status %d",
                  status);
    }
    for (int i = 0; i < TOTAL; i++) {
        PC_ASSERT(shared->seen[i] == 1, "%d came %d times", i, shared->seen[i]);
    }
    pc_producer *producer = sq_make_producer();
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 0);
    sq_end_producer(producer);
    munmap(shared, sizeof *shared);
}

/* Publishes and counts until it is killed; what was counted must arrive. */
static pid_t
fork_endless_sender(_Atomic int *published)
{
    pid_t pid = fork();
    if (pid == 0) {
        pc_producer *producer = sq_make_producer();
        for (int i = *published; i < TOTAL; i = *published) {
            sq_send_numbers(producer, i, i + 1);
            (*published)++;
        }
        _exit(0);
    }
    return pid;
}

static void
kill_after(pid_t pid, long ms)
{
    struct timespec pause = {.tv_nsec = ms * PC_NS_PER_MS};
    nanosleep(&pause, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void
test_sqlite_kills_lose_nothing(void)
{
    size_t size = sizeof(tally) + sizeof(int);
    tally *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PC_ASSERT(shared != MAP_FAILED);
    _Atomic int *published = (_Atomic int *)(shared + 1);
    for (int i = 0; i < 12; i++) {
        pid_t sender = fork_endless_sender(published);
        pid_t consumer = fork_consumer(shared);
        kill_after(consumer, 30 + 7 * i);
        kill_after(sender, 3 + i);
    }
    sq_rig *self = sq_start_rig(64);
    pc_producer *producer = sq_make_producer();
    while (self->got > 0 || sq_ready_in(producer, "q") > 0) {
        for (int i = 0; i < self->got; i++) {
            shared->seen[self->numbers[i]]++;
            sq_in->settle(self->source, self->tags[i], PC_ACK, NULL);
        }
        self->got = 0;
        (void)sq_turn_until(self, &self->got, 1, 50);
    }
    PC_ASSERT(*published > 100, "%d", *published);
    for (int i = 0; i < *published; i++) {
        PC_ASSERT(shared->seen[i] >= 1, "%d of %d is lost", i, *published);
    }
    sq_end_producer(producer);
    sq_end_rig(self);
    munmap(shared, size);
}

/* A consumer that takes ten messages and sleeps; with a child of its own that holds all its
 * descriptors. */
static pid_t
fork_hoarder(int ready)
{
    pid_t pid = fork();
    if (pid == 0) {
        sq_rig *self = sq_start_rig(10);
        PC_ASSERT(sq_turn_until(self, &self->got, 10, 5000));
        if (fork() == 0) {
            sleep(10);
            _exit(0);
        }
        PC_ASSERT(write(ready, "x", 1) == 1);
        sq_turn_for(self, 20000);
        _exit(0);
    }
    return pid;
}

void
test_sqlite_dead_consumers_messages_come_back(void)
{
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, 10);
    sq_end_producer(producer);
    int pipes[2];
    char byte;
    PC_ASSERT_INT(pipe(pipes), 0);
    pid_t pid = fork_hoarder(pipes[1]);
    PC_ASSERT_INT(read(pipes[0], &byte, 1), 1);
    sq_rig *self = sq_start_rig(0);
    sq_turn_for(self, 2500);  // long enough for a look at the living owner
    PC_ASSERT_INT(self->got, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    pc_mono start = pc_mono_now();
    PC_ASSERT(sq_turn_until(self, &self->got, 10, 5000));
    int64_t ms = (pc_mono_now().ns - start.ns) / PC_NS_PER_MS;
    PC_ASSERT(ms < 3000, "took %lld ms", (long long)ms);
    for (int i = 0; i < 10; i++) {
        PC_ASSERT_INT(self->numbers[i], i);
        PC_ASSERT(self->redelivered[i]);
    }
    sq_end_rig(self);
}

/* Two workers of one process see each other as alive, and the end of one gives its messages to the
 * other. */
void
test_sqlite_two_workers_in_one_process(void)
{
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, 5);
    sq_rig *first = sq_start_rig(5);
    PC_ASSERT(sq_turn_until(first, &first->got, 5, 3000));
    sq_rig *second = sq_start_rig(5);
    sq_turn_for(second, 2500);
    PC_ASSERT_INT(second->got, 0);
    sq_in->destroy(first->source);  // not closed in order
    PC_ASSERT(sq_turn_until(second, &second->got, 5, 3000));
    pc_loop_free(first->loop);
    free(first);
    sq_end_rig(second);
    sq_end_producer(producer);
}

/* A child abandons what it inherited and opens its own; neither disturbs the other. */
void
test_sqlite_fork_abandons(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(0);
    sq_turn_for(self, 20);
    sq_send_numbers(producer, 0, 1);
    pid_t pid = fork();
    if (pid == 0) {
        sq_in->abandon(self->source);
        sq_in->destroy(self->source);
        sq_out->abandon(producer);
        sq_out->destroy(producer);
        pc_producer *own = sq_make_producer();
        sq_send_numbers(own, 1, 100);
        sq_end_producer(own);
        _exit(0);
    }
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    PC_ASSERT(sq_turn_until(self, &self->got, 100, 3000));
    sq_send_numbers(producer, 100, 101);
    PC_ASSERT(sq_turn_until(self, &self->got, 101, 3000));
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* Who forgets to abandon gets an error, and harms nobody. */
void
test_sqlite_fork_without_abandon(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(0);
    sq_send_numbers(producer, 0, 1);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 3000));
    pid_t pid = fork();
    if (pid == 0) {
        pc_err err = {0};
        PC_ASSERT_INT(sq_send_with(producer, "q", "1", -1, 0, &err), -1);
        PC_ASSERT_INT(err.code, PC_ESTATE);
        sq_out->destroy(producer);
        _exit(0);
    }
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    PC_ASSERT_INT(sq_in->settle(self->source, self->tags[0], PC_ACK, NULL), 0);
    sq_send_numbers(producer, 1, 2);
    PC_ASSERT(sq_turn_until(self, &self->got, 2, 500));
    sq_end_rig(self);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 1);
    sq_end_producer(producer);
}

/* --- wake-ups --- */

static int
by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* Echoes: reads a byte, publishes the moment. */
static pid_t
fork_clock(int requests, int other_end)
{
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(other_end);
        pc_producer *producer = sq_make_producer();
        while (read(requests, &byte, 1) == 1) {
            struct timespec pause = {.tv_nsec =
                                         2 * PC_NS_PER_MS};  // the other side has to fall asleep
            nanosleep(&pause, NULL);
            char text[32];
            snprintf(text, sizeof text, "%lld", (long long)pc_mono_now().ns);
            sq_send_text(producer, "q", text);
        }
        sq_end_producer(producer);
        _exit(0);
    }
    return pid;
}

#define WAKES 200

void
test_sqlite_wake_up_latency(void)
{
    int pipes[2];
    int64_t spans[WAKES];
    PC_ASSERT_INT(pipe(pipes), 0);
    pid_t pid = fork_clock(pipes[0], pipes[1]);
    close(pipes[0]);
    sq_rig *self = sq_start(0, true);
    for (int i = 0; i < WAKES; i++) {
        int want = self->got + 1;
        PC_ASSERT_INT(write(pipes[1], "x", 1), 1);
        PC_ASSERT(sq_turn_until(self, &self->got, want, 3000));
        spans[i] = pc_mono_now().ns - strtoll(self->text, NULL, 10);
    }
    close(pipes[1]);
    waitpid(pid, NULL, 0);
    qsort(spans, WAKES, sizeof spans[0], by_value);
    printf("publish to delivery: p50 %lld us, p99 %lld us\n", (long long)spans[WAKES / 2] / 1000,
           (long long)spans[WAKES * 99 / 100] / 1000);
    // without the bell it would be half of PC_BELL_CHECK_NS; other work on the machine costs a few milliseconds
    PC_ASSERT(spans[WAKES / 2] < PC_BELL_CHECK_NS / 20, "p50 %lld ns", (long long)spans[WAKES / 2]);
    sq_end_rig(self);
}
