/* SPDX-License-Identifier: BSD-3-Clause */
/* Children's lives: wearing out, resizing, births that fail, ends that hang. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "work/slot.h"
#include "worker_world.h"

static pid_t
only_pid(rig *r)
{
    pid_t pids[8] = {0};

    (void)pc_worker_pids(r->worker, pids, 8);
    return pids[0];
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
finish(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

/* --- wearing out ---------------------------------------------------------- */

void
test_max_tasks(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    r.config.prefetch = 100;
    r.config.pool_config.max_tasks = 3;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    for (int i = 2; i <= 61; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, r.settled == 61);
    PC_ASSERT_INT(atomic_load(&r.shared->total), 61);
    // each child ran three, neither more nor less
    PC_ASSERT(r.deaths >= 19 && r.deaths <= 20, "%d children ended", r.deaths);
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    finish(&r);
}

/* Jobs that were taken back do not count. */
void
test_max_tasks_after_a_stall(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 100;
    r.config.pool_config.max_tasks = 4;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    pid_t pid = only_pid(&r);
    (void)kill(pid, SIGSTOP);
    for (int i = 2; i <= 9; i++) {
        rig_send(&r, i, "task", "ok");
    }
    rig_turns(&r, 40);
    (void)kill(pid, SIGCONT);
    RIG_UNTIL(&r, r.settled == 9);
    PC_ASSERT_INT(atomic_load(&r.shared->total), 9);
    finish(&r);
}

void
test_max_rss(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.pool_config.max_rss_kib = 1;
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 5; i++) {
        rig_send(&r, i, "task", "ok");
        RIG_UNTIL(&r, r.settled == i && r.deaths == i);
    }
    PC_ASSERT_INT(atomic_load(&r.shared->child_stops), 5);
    finish(&r);
}

void
test_resize(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    PC_ASSERT_INT(pc_worker_resize(r.worker, 4, NULL), 0);
    // shrinks before they are up
    PC_ASSERT_INT(pc_worker_resize(r.worker, 2, NULL), 0);
    RIG_UNTIL(&r, r.ups == 4 && r.deaths == 2);
    for (int i = 1; i <= 4; i++) {
        rig_send(&r, i, "task", "sleep:20");
    }
    RIG_UNTIL(&r, rig_stats(&r).in_pool == 2);
    PC_ASSERT_INT(pc_worker_resize(r.worker, 1, NULL), 0);
    RIG_UNTIL(&r, r.settled == 4 && r.deaths == 3);
    PC_ASSERT(pc_worker_resize(r.worker, 0, &err) < 0 && err.code == PC_EDATA);
    PC_ASSERT(strstr(r.words, "lost") == NULL);
    finish(&r);
}

/* Those that are being started were forked from what the restart is to replace. */
void
test_restart_while_children_start(void)
{
    rig r;

    rig_init(&r, "prefork", 3);
    rig_task(&r, "task", true);
    PC_ASSERT_INT(pc_worker_start(r.worker, NULL), 0);
    pc_worker_restart_pool(r.worker);
    RIG_UNTIL(&r, r.ups == 6 && r.deaths == 3);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    rig_turns(&r, 50);
    PC_ASSERT_INT(r.forks, 6);
    finish(&r);
}

/* The second pool's children hold copies of the first one's sockets: it ends in order nevertheless. */
void
test_two_pools_in_one_process(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "prefork", 1);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    pc_worker *first = r.worker;
    pc_worker *second = pc_worker_new(&r.config, &r.runner, &r.hooks, &r.log, &err);
    PC_ASSERT(second != NULL);
    r.worker = second;
    PC_ASSERT_INT(pc_worker_start(second, NULL), 0);
    RIG_UNTIL(&r, r.ups == 2);
    r.worker = first;
    pc_mono began = pc_mono_now();
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), "");
    PC_ASSERT(pc_mono_now().ns - began.ns < 3 * PC_NS_PER_SEC);
    PC_ASSERT_INT(atomic_load(&r.shared->child_stops), 1);
    pc_worker_free(second);
    rig_free(&r);
}

/* --- birth ---------------------------------------------------------------- */

void
test_fork_fails_for_a_while(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    r.fork_fails = true;
    (void)kill(only_pid(&r), SIGKILL);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.deaths == 1);
    r.waits = 0;
    int forks = r.forks;
    for (pc_mono end = in_ms(700); pc_mono_now().ns < end.ns;) {
        PC_ASSERT(rig_turn(&r, 1000) >= 0);
    }
    PC_ASSERT(r.forks > forks && r.forks <= forks + 3, "%d forks", r.forks - forks);
    PC_ASSERT(r.waits < 20, "%d turns", r.waits);
    r.fork_fails = false;
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

/* No descriptors for a new child. */
void
test_descriptors_run_out(void)
{
    rig r;
    struct rlimit old, low;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups == 1);
    rig_send(&r, 1, "task", "exit:1");
    PC_ASSERT_INT(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = 3;
    PC_ASSERT_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.deaths == 1);
    rig_turns(&r, 50);
    PC_ASSERT(r.errors >= 1 && r.forks == 1);
    PC_ASSERT_INT(setrlimit(RLIMIT_NOFILE, &old), 0);
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

/* The next try could not even be noted: room() makes up for it. */
void
test_fork_fails_without_a_timer(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    pc_slot *child = ((pc_prefork *)r.worker->pool)->slots[0];
    r.fork_fails = true;
    (void)kill(only_pid(&r), SIGKILL);
    RIG_UNTIL(&r, r.deaths == 1);
    pc_loop_clear_timer(pc_worker_loop(r.worker), &child->hurry);
    r.fork_fails = false;
    rig_turns(&r, 20);
    PC_ASSERT_INT(child->state, PC_SLOT_EMPTY);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

void
test_resize_when_fork_fails(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "prefork", 1);
    rig_start(&r);
    r.fork_fails = true;
    PC_ASSERT(pc_worker_resize(r.worker, 2, &err) < 0 && err.code == PC_EIO);
    r.fork_fails = false;
    RIG_UNTIL(&r, r.ups == 2);
    finish(&r);
}

void
test_start_without_a_fork(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "prefork", 2);
    rig_make(&r);
    r.fork_fails = true;
    PC_ASSERT(pc_worker_start(r.worker, &err) < 0 && err.code == PC_EIO && err.sys_errno == EAGAIN);
    rig_free(&r);
}

void
test_children_that_die_at_start(void)
{
    rig r;

    rig_init(&r, "prefork", 3);
    r.start_code = 7;
    rig_start(&r);
    RIG_UNTIL(&r, r.deaths == 3);
    for (pc_mono end = in_ms(600); pc_mono_now().ns < end.ns;) {
        PC_ASSERT(rig_turn(&r, 50) >= 0);
    }
    PC_ASSERT(r.forks <= 6, "%d forks", r.forks);
    PC_ASSERT_INT(r.ups, 0);
    r.start_code = 0;
    RIG_UNTIL(&r, r.ups == 3);
    finish(&r);
}

void
test_child_that_hangs_at_start(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.pool_config.start_timeout = 0.1;
    r.start_hangs = true;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.deaths == 1);
    r.start_hangs = false;
    RIG_UNTIL(&r, r.settled == 1);
    finish(&r);
}

/* It sees no end of its socket: only the deadline helps. */
void
test_stop_when_a_child_hangs_at_start(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    r.start_hangs = true;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "received:t1"));
    pc_mono began = pc_mono_now();
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 300), "t1 ");
    PC_ASSERT(pc_mono_now().ns - began.ns < 10 * PC_NS_PER_SEC);
    rig_free(&r);
}

/* Somebody else took the child's status away. */
void
test_status_was_taken(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    hand_over(&r, 1, "sleep:5 exit:3");
    (void)waitpid(only_pid(&r), NULL, 0);
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT_INT(rig_seen(&r, "final:died"), 1);
    PC_ASSERT(strstr(r.words, "how:unknown status") != NULL);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

void
test_freed_while_tasks_run(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 4; i++) {
        rig_send(&r, i, "task", "sleep:3000");
    }
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t2"));
    rig_free(&r);
}

/* The second stands behind the first when that has started, and starts when nobody looks for a start any more. */
void
test_start_behind_a_short_task_is_noticed(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", false);
    rig_start(&r);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    rig_send(&r, 2, "task", "sleep:3");
    rig_send(&r, 3, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t3") && rig_seen(&r, "ack:t3"));
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_is_idle(&r));
    finish(&r);
}
