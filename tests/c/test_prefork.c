/* SPDX-License-Identifier: BSD-3-Clause */
/* The prefork pool at work: take-back, death, limits, signals, big frames; with real processes. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "harness.h"
#include "io/memory_hub.h"
#include "work/slot.h"
#include "worker_world.h"

static pid_t
only_pid(rig *r)
{
    pid_t pids[8] = {0};

    (void)pc_worker_pids(r->worker, pids, 8);
    return pids[0];
}

static pc_job *
first_job(rig *r)
{
    PC_ASSERT(!pc_list_empty(&r->worker->in_pool));
    return PC_CONTAINER_OF(r->worker->in_pool.next, pc_job, link);
}

/* Sends it, and stops turning as soon as the pool has it. */
static void
hand_over(rig *r, int number, const char *script)
{
    rig_send(r, number, "task", script);
    for (pc_mono end = in_ms(4000); rig_stats(r).in_pool == 0;) {
        PC_ASSERT(pc_mono_now().ns < end.ns && rig_turn(r, 0) >= 0);
    }
}

static void
wait_for_end_of(rig *r, int number)
{
    for (pc_mono end = in_ms(4000); atomic_load(&r->shared->ended[number]) == 0;) {
        PC_ASSERT(pc_mono_now().ns < end.ns);
        usleep(100);
    }
    usleep(20000);
}

static void
finish(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

/* --- taking back -------------------------------------------------------- */

#define MASS 50000

static void
check_mass(rig *r, int count)
{
    for (int i = 1; i <= count; i++) {
        int runs = atomic_load(&r->shared->runs[i]);
        PC_ASSERT(runs == 1, "task %d ran %d times", i, runs);
    }
    PC_ASSERT_INT(atomic_load(&r->shared->total), count);
    PC_ASSERT_INT(r->settled, count);
}

/* Short tasks with a long one among them every now and then: each runs exactly once, and nobody
 * waits behind a long one. */
void
test_short_and_long_tasks_over_four_children(void)
{
    rig r;

    rig_init(&r, "prefork", 4);
    r.quiet = true;
    r.config.prefetch = 400;
    r.config.want_received = r.config.want_accepted = false;
    rig_task(&r, "short", true);
    rig_task(&r, "long", true);
    rig_start(&r);
    for (int i = 1; i <= MASS; i++) {
        bool slow = i % 1000 == 0;
        // those that are long although their kind is short are what has to be taken back from
        rig_send(&r, i, i % 3000 == 0 ? "long" : "short", slow ? "sleep:25 nodoc" : "nodoc");
    }
    pc_mono began = pc_mono_now();
    while (r.settled < MASS) {
        PC_ASSERT(rig_turn(&r, 100) >= 0);
        PC_ASSERT(pc_mono_now().ns - began.ns < 18 * PC_NS_PER_SEC, "%d of %d", r.settled, MASS);
    }
    printf("%d tasks in %d ms\n", MASS, (int)((pc_mono_now().ns - began.ns) / PC_NS_PER_MS));
    check_mass(&r, MASS);
    finish(&r);
}

/* What was taken back is given out again in the order in which it came. */
void
test_taken_back_in_order(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 100;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;  // short: others may queue behind it
    rig_send(&r, 2, "task", "gate");
    for (int i = 3; i <= 30; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t2") && rig_stats(&r).ready == 28);
    int place = 3;
    for (pc_link *at = r.worker->ready.next; at != &r.worker->ready; at = at->next, place++) {
        PC_ASSERT_INT(atoi(pc_job_id(PC_CONTAINER_OF(at, pc_job, link)).ptr + 1), place);
    }
    // the child is known to be stuck: nothing more is written to it
    rig_turns(&r, 60);
    pc_slot *child = ((pc_place *)first_job(&r)->slot)->slot;
    PC_ASSERT(child->sent_seq <= 32, "%d frames", (int)child->sent_seq);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 30);
    for (int i = 1; i <= 30; i++) {
        PC_ASSERT_INT(atomic_load(&r.shared->first[i]), i);
    }
    finish(&r);
}

/* A queue behind a task that turns out long goes to the other child. */
void
test_nobody_waits_behind_a_long_task(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    r.config.prefetch = 100;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1") && r.ups == 2);
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    rig_send(&r, 2, "task", "gate");
    for (int i = 3; i <= 60; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, r.settled == 59);
    PC_ASSERT_INT(rig_stats(&r).in_pool, 1);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 60);
    finish(&r);
}

/* --- death -------------------------------------------------------------- */

void
test_idle_child_is_killed_and_replaced(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    PC_ASSERT_INT(kill(only_pid(&r), SIGKILL), 0);
    // given to a child that is dead already: it comes back, it is not lost
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    PC_ASSERT_INT(r.ups, 2);
    PC_ASSERT_INT(rig_seen(&r, "lost:t1"), 0);
    PC_ASSERT_INT(atomic_load(&r.shared->runs[1]), 1);
    finish(&r);
}

/* Its frame may be in the socket, read, or the job just begun. */
void
test_killed_at_any_moment(void)
{
    rig r;
    int lost = 0;

    rig_init(&r, "prefork", 1);
    r.config.pool_config.start_timeout = 5;
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    for (int i = 1; i <= 40; i++) {
        char word[32];
        rig_send(&r, i, "task", "ok");
        for (int turns = i % 5; turns > 0; turns--) {
            PC_ASSERT(rig_turn(&r, 0) >= 0);
        }
        usleep((useconds_t)(i * 7 % 50) * 10);
        pid_t pid = only_pid(&r);
        if (pid > 0) {
            (void)kill(pid, SIGKILL);
        }
        snprintf(word, sizeof word, "ack:t%d", i);
        RIG_UNTIL(&r, rig_seen(&r, word));
        snprintf(word, sizeof word, "lost:t%d", i);
        lost += rig_seen(&r, word);
        PC_ASSERT(atomic_load(&r.shared->runs[i]) <= 1);
        PC_ASSERT(rig_seen(&r, word) || atomic_load(&r.shared->runs[i]) == 1);
        snprintf(word, sizeof word, "stored:t%d", i);
        PC_ASSERT(rig_seen(&r, word) || lost > 0);
    }
    printf("%d lost of 40\n", lost);
    finish(&r);
}

/* The outcome is in the socket, unread, when the child dies: it counts. */
void
test_killed_between_outcome_and_read(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    for (int i = 1; i <= 5; i++) {
        char word[32];
        hand_over(&r, i, "sleep:5");
        wait_for_end_of(&r, i);
        (void)kill(only_pid(&r), SIGKILL);
        usleep(5000);
        snprintf(word, sizeof word, "ack:t%d", i);
        RIG_UNTIL(&r, rig_seen(&r, word));
        snprintf(word, sizeof word, "stored:t%d", i);
        PC_ASSERT(rig_seen(&r, word));
    }
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    finish(&r);
}

/* Jobs queued behind the one that kills its process come back and run. */
void
test_those_behind_a_crash_come_back(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 50;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    rig_send(&r, 2, "task", "sleep:2 raise:9");
    for (int i = 3; i <= 20; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, r.settled == 20);
    PC_ASSERT_INT(rig_seen(&r, "lost:t2"), 1);
    for (int i = 1; i <= 20; i++) {
        PC_ASSERT_INT(atomic_load(&r.shared->runs[i]), 1);
        PC_ASSERT_INT(atomic_load(&r.shared->first[i]), i);
    }
    finish(&r);
}

/* Children are shot at random while they work: with reject_on_worker_lost nothing is lost, and what
 * is queued behind a victim comes back. The connection breaks now and then, too. */
void
test_chaos(void)
{
    rig r;
    pc_spec spec = rig_spec("task");
    unsigned seed = 7;
    int shots = 0;

    rig_init(&r, "prefork", 4);
    r.quiet = true;
    r.config.prefetch = 60;
    spec.acks_late = spec.reject_on_worker_lost = true;
    rig_add(&r, spec);
    rig_start(&r);
    for (int i = 1; i <= 3000; i++) {
        rig_send(&r, i, "task", i % 40 == 0 ? "sleep:4 nodoc" : "ok");
    }
    pc_mono began = pc_mono_now();
    uint64_t left = 1, consumers;
    while (left > 0 || !rig_is_idle(&r) || !rig_stats(&r).connected) {
        pid_t pids[8] = {0};
        PC_ASSERT(pc_mono_now().ns - began.ns < 15 * PC_NS_PER_SEC, "%d left", (int)left);
        PC_ASSERT(rig_turn(&r, 3) >= 0);
        int n = pc_worker_pids(r.worker, pids, 8);
        if (n > 0 && shots < 60 && rand_r(&seed) % 8 == 0) {
            shots++;
            (void)kill(pids[rand_r(&seed) % n], shots % 2 ? SIGKILL : SIGTERM);
        }
        if (rig_stats(&r).connected && r.down < 3 && rand_r(&seed) % 100 == 0) {
            rig_break(&r);
        }
        PC_ASSERT_INT(pc_hub_size(r.w.hub, "q", &left, &consumers, NULL), 0);
    }
    int again = atomic_load(&r.shared->total) - 3000;
    printf("%d shots, %d breaks, %d ran again\n", shots, r.down, again);
    for (int i = 1; i <= 3000; i++) {
        PC_ASSERT(atomic_load(&r.shared->ended[i]) >= 1, "task %d never ended", i);
    }
    PC_ASSERT(shots >= 20, "%d shots, %d breaks, %d again, %d ms", shots, r.down, again, (int)((pc_mono_now().ns - began.ns) / PC_NS_PER_MS));
    PC_ASSERT(again >= 0 && again <= shots + 3 * (60 + 4));
    PC_ASSERT_INT(r.worker->stale_len, 0);
    finish(&r);
}

/* --- memory --- */

/* No room to read an outcome: the loop sleeps, looks again, and has it then. */
void
test_no_memory_to_read_with(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    hand_over(&r, 1, "sleep:5");
    wait_for_end_of(&r, 1);
    pc_slot *child = ((pc_place *)first_job(&r)->slot)->slot;
    pc_buf_fini(&child->in);
    pc_mem_fail_after(1);
    PC_ASSERT(rig_turn(&r, 0) >= 0);
    pc_mem_fail_after(-1);
    PC_ASSERT(child->starved && child->watch.slot == 0);
    r.waits = 0;
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT(r.waits < 20);
    PC_ASSERT(!child->starved && child->watch.slot != 0);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 1);
    finish(&r);
}

/* The same when the child is dead: its outcome waits in the socket, it is not lost. */
void
test_no_memory_to_read_from_the_dead(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    hand_over(&r, 1, "sleep:5");
    wait_for_end_of(&r, 1);
    (void)kill(only_pid(&r), SIGKILL);
    usleep(200000);
    pc_slot *child = ((pc_place *)first_job(&r)->slot)->slot;
    pc_buf_fini(&child->in);
    pc_loop_unwatch(pc_worker_loop(r.worker), &child->watch);
    pc_mem_fail_after(1);
    PC_ASSERT(rig_turn(&r, 0) >= 0);
    pc_mem_fail_after(-1);
    PC_ASSERT(child->starved && child->death.slot == 0);
    RIG_UNTIL(&r, r.settled == 1 && r.deaths == 1);
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 1);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

/* --- kills -------------------------------------------------------------- */

/* The job is over, its outcome not yet read, when its limit strikes: it is done, and neither the
 * child's next job nor its later death is the limit's. */
void
test_kill_that_comes_too_late(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    hand_over(&r, 1, "sleep:5");
    wait_for_end_of(&r, 1);
    PC_ASSERT_INT(r.worker->pool->ops->kill(r.worker->pool, first_job(&r), SIGTERM, PC_LOST_HARD, NULL), 0);
    rig_send(&r, 2, "task", "sleep:150 exit:9");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t2"));
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 1);
    PC_ASSERT_INT(rig_seen(&r, "final:died"), 1);
    PC_ASSERT_INT(rig_seen(&r, "final:hard"), 0);
    PC_ASSERT(strstr(r.words, "how:exitcode 9") != NULL);
    finish(&r);
}

/* Only the job that is meant dies of a limit; those queued behind it come back. */
void
test_hard_limit_spares_the_queue(void)
{
    rig r;
    pc_spec spec = rig_spec("task");

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 50;
    spec.acks_late = true;
    spec.time_limit = 0.03;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    for (int round = 0; round < 5; round++) {
        pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
        int base = 2 + round * 8;
        rig_send(&r, base, "task", "sleep:2000");
        for (int i = 1; i < 8; i++) {
            rig_send(&r, base + i, "task", "ok");
        }
        RIG_UNTIL(&r, r.settled == 9 + round * 8);
        PC_ASSERT_INT(rig_seen(&r, "final:hard"), round + 1);
    }
    PC_ASSERT_INT(rig_seen(&r, "final:died"), 0);
    PC_ASSERT_INT(atomic_load(&r.shared->total), 41);
    finish(&r);
}

void
test_revoke_with_a_signal_that_is_caught(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "deaf sleep:250 ok");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    rig_turns(&r, 20);
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, NULL) != NULL);
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 1);
    // the child that was to end has ended, and no job with it
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT_INT(r.deaths, 1);
    finish(&r);
}

void
test_soft_limit_reaches_only_its_task(void)
{
    rig r;
    pc_spec spec = rig_spec("limited");

    rig_init(&r, "prefork", 1);
    spec.acks_late = true;
    spec.soft_time_limit = 0.02;
    rig_add(&r, spec);
    rig_task(&r, "free", true);
    rig_start(&r);
    for (int i = 1; i <= 30; i += 2) {
        rig_send(&r, i, "limited", "sleep:20");
        rig_send(&r, i + 1, "free", "sleep:3");
    }
    RIG_UNTIL(&r, r.settled == 30);
    PC_ASSERT(atomic_load(&r.shared->soft) <= 15);
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    finish(&r);
}

/* A running task keeps the limits it began with: the hard one does not strike when the soft one was due. */
void
test_limits_changed_while_a_task_runs(void)
{
    rig r;
    pc_spec spec = rig_spec("task");

    rig_init(&r, "prefork", 2);
    spec.acks_late = true;
    spec.soft_time_limit = 0.1;
    spec.time_limit = 30;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "task", "sleep:5000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    spec.soft_time_limit = NAN;
    rig_add(&r, spec);
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT(rig_seen(&r, "soft:t1") && rig_seen(&r, "stored:t1"), "%s", r.words);
    PC_ASSERT_INT(rig_seen(&r, "final:hard"), 0);
    // the other way round: what began without a soft limit gets none
    spec.time_limit = 0.1;
    rig_add(&r, spec);
    rig_send(&r, 2, "task", "sleep:5000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t2"));
    spec.soft_time_limit = 0.01;
    rig_add(&r, spec);
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT(rig_seen(&r, "final:hard") && !rig_seen(&r, "soft:t2"), "%s", r.words);
    finish(&r);
}

/* As in Celery, 0 in a message leaves it to the task. */
void
test_limit_of_zero(void)
{
    rig r;
    pc_spec spec = rig_spec("limited");

    rig_init(&r, "prefork", 1);
    rig_task(&r, "free", true);
    spec.acks_late = true;
    spec.time_limit = 0.05;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send_with(&r, 1, "free", "sleep:20", ", \"timelimit\": [0, 0]");
    rig_send_with(&r, 2, "limited", "sleep:5000", ", \"timelimit\": [0, null]");
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT(rig_seen(&r, "stored:t1") && !rig_seen(&r, "soft:t1"), "%s", r.words);
    PC_ASSERT(rig_seen(&r, "lost:t2") && rig_seen(&r, "final:hard") == 1, "%s", r.words);
    finish(&r);
}

/* --- big frames ---------------------------------------------------------- */

static void
send_big(rig *r, int number, const char *script, size_t mb)
{
    size_t len = mb << 20;
    char *body = malloc(len + 1);

    PC_ASSERT(body != NULL);
    memset(body, ' ', len);
    memcpy(body, script, strlen(script));
    body[len] = '\0';
    rig_send(r, number, "task", body);
    free(body);
}

void
test_frames_larger_than_the_socket_buffer(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 4; i++) {
        send_big(&r, i, "big:20000", 20);
    }
    RIG_UNTIL(&r, r.settled == 4);
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    finish(&r);
}

void
test_child_killed_in_mid_frame(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    (void)kill(only_pid(&r), SIGSTOP);
    send_big(&r, 1, "ok", 20);
    RIG_UNTIL(&r, rig_stats(&r).in_pool == 1);
    r.waits = 0;
    for (pc_mono end = in_ms(200); pc_mono_now().ns < end.ns;) {
        PC_ASSERT(rig_turn(&r, 1000) >= 0);
    }
    PC_ASSERT(r.waits < 30, "%d turns with nothing to do", r.waits);
    (void)kill(only_pid(&r), SIGKILL);
    RIG_UNTIL(&r, r.settled == 1);  // comes back, runs in the next child
    PC_ASSERT_INT(atomic_load(&r.shared->runs[1]), 1);
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    // the other way: half of the document has come
    rig_send(&r, 2, "task", "big:30000");
    while (atomic_load(&r.shared->ended[2]) == 0) {
        PC_ASSERT(rig_turn(&r, 1) >= 0);
    }
    (void)kill(only_pid(&r), SIGKILL);
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT(rig_seen(&r, "lost:t2") + rig_seen(&r, "stored:t2") == 1);
    finish(&r);
}
