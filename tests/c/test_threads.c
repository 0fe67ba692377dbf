/* SPDX-License-Identifier: BSD-3-Clause */
/* The threads pool, and what all pools without processes share. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "harness.h"
#include "worker_world.h"

static void
finish(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

/* Threads that were left alone free what they hold when they come to their end. */
static void
wait_for_memory(long before)
{
    for (pc_mono end = in_ms(4000); pc_mem_live() != before;) {
        PC_ASSERT(pc_mono_now().ns < end.ns, "%ld blocks left", pc_mem_live() - before);
        usleep(2000);
    }
}

void
test_many_tasks_over_threads(void)
{
    rig r;

    rig_init(&r, "threads", 6);
    r.quiet = true;
    r.config.prefetch = 100;
    r.config.want_received = r.config.want_accepted = false;
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 5000; i++) {
        rig_send(&r, i, "task", i % 500 == 0 ? "sleep:10" : "ok");
    }
    RIG_UNTIL(&r, r.settled == 5000);
    for (int i = 1; i <= 5000; i++) {
        PC_ASSERT_INT(atomic_load(&r.shared->runs[i]), 1);
    }
    finish(&r);
}

void
test_threads_run_side_by_side(void)
{
    rig r;

    rig_init(&r, "threads", 4);
    rig_task(&r, "task", false);
    rig_start(&r);
    for (int i = 1; i <= 6; i++) {
        rig_send(&r, i, "task", "gate");
    }
    // accepted and acknowledged while they run
    RIG_UNTIL(&r, rig_seen(&r, "ack:t4"));
    rig_turns(&r, 20);
    PC_ASSERT_INT(rig_stats(&r).in_pool, 4);
    PC_ASSERT_INT(rig_stats(&r).ready, 2);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 6 && rig_is_idle(&r));
    finish(&r);
}

void
test_threads_resize(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "threads", 1);
    r.config.prefetch = 50;
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 30; i++) {
        rig_send(&r, i, "task", "gate");
    }
    PC_ASSERT_INT(pc_worker_resize(r.worker, 8, NULL), 0);
    RIG_UNTIL(&r, rig_stats(&r).in_pool == 8 && atomic_load(&r.shared->total) == 8);
    PC_ASSERT_INT(pc_worker_resize(r.worker, 2, NULL), 0);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 30);
    atomic_store(&r.shared->open, 0);
    for (int i = 31; i <= 40; i++) {
        rig_send(&r, i, "task", "gate");
    }
    RIG_UNTIL(&r, rig_stats(&r).in_pool == 2);
    rig_turns(&r, 30);
    PC_ASSERT_INT(atomic_load(&r.shared->total), 32);
    PC_ASSERT(pc_worker_resize(r.worker, 0, &err) < 0 && err.code == PC_EDATA);
    r.fork_fails = true;
    PC_ASSERT(pc_worker_resize(r.worker, 5, &err) < 0 && err.code == PC_EIO);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 40);
    finish(&r);
}

void
test_threads_grow_while_all_are_busy(void)
{
    rig r;

    rig_init(&r, "threads", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate");
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "received:t2"));
    PC_ASSERT_INT(pc_worker_resize(r.worker, 2, NULL), 0);
    RIG_UNTIL(&r, rig_seen(&r, "ack:t2"));
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 2);
    finish(&r);
}

void
test_soft_limit_of_a_thread(void)
{
    rig r;
    pc_spec spec = rig_spec("limited");

    rig_init(&r, "threads", 2);
    spec.acks_late = true;
    spec.soft_time_limit = 0.03;
    spec.time_limit = 0.06;
    rig_add(&r, spec);
    rig_task(&r, "free", true);
    rig_start(&r);
    for (int i = 1; i <= 20; i += 2) {
        rig_send(&r, i, "limited", "sleep:2000");
        rig_send(&r, i + 1, "free", "sleep:5");
    }
    RIG_UNTIL(&r, r.settled == 20);
    PC_ASSERT_INT(atomic_load(&r.shared->soft), 10);
    PC_ASSERT_INT(r.errors, 0);
    finish(&r);
}

/* No thread can be killed: the revoke says so, the hard limit is logged, the task ends by itself. */
void
test_no_force(void)
{
    rig r;
    pc_err err = {0};
    pc_spec spec = rig_spec("task");

    rig_init(&r, "threads", 1);
    spec.acks_late = true;
    spec.time_limit = 0.03;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, &err) != NULL);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    rig_turns(&r, 80);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT(rig_before(&r, "stored:t1", "ack:t1"));
    finish(&r);
}

void
test_warm_stop_waits_for_threads(void)
{
    rig r;

    rig_init(&r, "threads", 2);
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 6; i++) {
        rig_send(&r, i, "task", "sleep:60");
    }
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t2"));
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 3000), "t3 t4 t5 t6 ");
    PC_ASSERT(rig_seen(&r, "ack:t1") && rig_seen(&r, "ack:t2"));
    rig_free(&r);
}

static void
stop_with_busy_thread(pc_stop how, bool close_first)
{
    static rig r;  // outlives the threads, which look into it
    long before = pc_mem_live();

    rig_init(&r, "threads", 3);
    rig_task(&r, "late", true);
    rig_task(&r, "early", false);
    rig_start(&r);
    rig_send(&r, 1, "late", "sleep:1200");
    rig_send(&r, 2, "early", "sleep:1200");
    rig_send(&r, 3, "late", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "ack:t2") && rig_seen(&r, "ack:t3"));
    if (close_first) {
        pc_mono began = pc_mono_now();
        PC_ASSERT_STR(rig_stop(&r, how, 50), "t1 ");
        PC_ASSERT(pc_mono_now().ns - began.ns < 1000 * PC_NS_PER_MS);
    }
    pc_worker_free(r.worker);
    world_teardown(&r.w);
    wait_for_memory(before);
    PC_ASSERT_INT(atomic_load(&r.shared->ended[1]), 1);
}

void
test_stop_with_a_thread_that_does_not_return(void)
{
    stop_with_busy_thread(PC_STOP_WARM, true);
}

void
test_cold_stop_with_a_thread_that_does_not_return(void)
{
    stop_with_busy_thread(PC_STOP_COLD, true);
}

void
test_free_without_stop(void)
{
    stop_with_busy_thread(PC_STOP_WARM, false);
}

void
test_free_idle_without_stop(void)
{
    static rig r;
    long before = pc_mem_live();

    rig_init(&r, "threads", 3);
    rig_start(&r);
    pc_worker_free(r.worker);
    world_teardown(&r.w);
    wait_for_memory(before);
}

void
test_start_without_threads(void)
{
    rig r;

    rig_init(&r, "threads", 2);
    rig_make(&r);
    r.fork_fails = true;
    PC_ASSERT(pc_worker_start(r.worker, NULL) < 0);
    rig_free(&r);
}

void
test_solo(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "solo", 1);
    rig_task(&r, "early", false);
    rig_task(&r, "late", true);
    rig_start(&r);
    for (int i = 1; i <= 40; i++) {
        rig_send(&r, i, i % 2 ? "early" : "late", "ok");
    }
    RIG_UNTIL(&r, r.settled == 40 && rig_is_idle(&r));
    for (int i = 1; i <= 40; i++) {
        PC_ASSERT_INT(atomic_load(&r.shared->first[i]), i);
    }
    PC_ASSERT(pc_worker_resize(r.worker, 2, &err) < 0 && err.code == PC_EUNSUP);
    finish(&r);
}
