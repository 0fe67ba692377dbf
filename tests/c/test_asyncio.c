/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool asyncio, on an event loop that needs no interpreter (worker_line.c). */
#include <signal.h>
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

void
test_many_coroutines(void)
{
    rig r;

    rig_init(&r, "asyncio", 300);
    r.quiet = true;
    r.config.prefetch = 1000;
    r.config.want_received = r.config.want_accepted = false;
    rig_task(&r, "late", true);
    rig_task(&r, "early", false);
    rig_start(&r);
    for (int i = 1; i <= 5000; i++) {
        rig_send(&r, i, i % 2 ? "late" : "early", i % 3 ? "ok" : "sleep:5");
    }
    RIG_UNTIL(&r, r.settled == 5000 && rig_is_idle(&r));
    for (int i = 1; i <= 5000; i++) {
        PC_ASSERT_INT(atomic_load(&r.shared->runs[i]), 1);
    }
    finish(&r);
}

void
test_coroutines_are_under_way_at_once(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "asyncio", 3);
    rig_task(&r, "task", false);
    rig_start(&r);
    for (int i = 1; i <= 8; i++) {
        rig_send(&r, i, "task", "gate");
    }
    // accepted and acknowledged while they wait
    RIG_UNTIL(&r, rig_seen(&r, "ack:t3"));
    rig_turns(&r, 20);
    PC_ASSERT_INT(rig_stats(&r).in_pool, 3);
    PC_ASSERT_INT(pc_worker_resize(r.worker, 5, NULL), 0);
    RIG_UNTIL(&r, rig_stats(&r).in_pool == 5);
    PC_ASSERT_INT(pc_worker_resize(r.worker, 1, NULL), 0);
    PC_ASSERT(pc_worker_resize(r.worker, 0, &err) < 0 && err.code == PC_EDATA);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 8 && rig_is_idle(&r));
    finish(&r);
}

void
test_result_of_a_coroutine_is_stored_before_the_ack(void)
{
    rig r;

    rig_init(&r, "asyncio", 2);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "fail");
    rig_send(&r, 2, "task", "requeue");
    RIG_UNTIL(&r, r.settled >= 4 && rig_seen(&r, "ack:t1"));  // the second comes again and again
    PC_ASSERT(rig_before(&r, "stored:t1", "ack:t1"));
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), "t2 ");
    rig_free(&r);
}

void
test_limits_of_coroutines(void)
{
    rig r;
    pc_spec soft = rig_spec("soft"), hard = rig_spec("hard");

    rig_init(&r, "asyncio", 50);
    soft.acks_late = hard.acks_late = true;
    soft.soft_time_limit = hard.time_limit = 0.03;
    rig_add(&r, soft);
    rig_add(&r, hard);
    rig_start(&r);
    for (int i = 1; i <= 20; i += 2) {
        rig_send(&r, i, "soft", "sleep:4000");
        rig_send(&r, i + 1, "hard", i < 10 ? "sleep:4000" : "deaf:300");
    }
    RIG_UNTIL(&r, r.settled == 20);
    PC_ASSERT_INT(atomic_load(&r.shared->soft), 10);
    PC_ASSERT_INT(rig_seen(&r, "final:hard"), 10);
    PC_ASSERT(rig_seen(&r, "lost:t2") && rig_seen(&r, "ack:t1") && r.errors == 0);
    finish(&r);
}

/* The machine goes on meanwhile, and what keeps the loop can be ended. */
void
test_event_loop_that_does_not_turn(void)
{
    rig r;

    rig_init(&r, "asyncio", 5);
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "task", "block:6000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    rig_send(&r, 2, "task", "ok");
    rig_turns(&r, 60);
    PC_ASSERT_INT(rig_seen(&r, "accepted:t2"), 0);
    PC_ASSERT(rig_seen(&r, "received:t2"));
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, NULL) != NULL);
    RIG_UNTIL(&r, rig_seen(&r, "ack:t2") && rig_seen(&r, "lost:t1"));
    PC_ASSERT(rig_seen(&r, "final:terminated"));
    finish(&r);
}

void
test_soft_limit_of_what_keeps_the_event_loop(void)
{
    rig r;
    pc_spec spec = rig_spec("soft");

    rig_init(&r, "asyncio", 5);
    spec.soft_time_limit = 0.03;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "soft", "block:6000");
    rig_send(&r, 2, "soft", "sleep:6000");
    RIG_UNTIL(&r, rig_is_idle(&r) && r.settled == 2);
    PC_ASSERT_INT(atomic_load(&r.shared->soft), 2);
    finish(&r);
}

void
test_plain_functions_beside_coroutines(void)
{
    rig r;
    pc_err err = {0};

    rig_init(&r, "asyncio", 5);
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 10; i++) {
        rig_send(&r, i, "task", i % 2 ? "plain" : "sleep:10");
    }
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, &err) != NULL);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    RIG_UNTIL(&r, r.settled == 10);
    PC_ASSERT_INT(atomic_load(&r.shared->ended[1]), 1);
    finish(&r);
}

void
test_event_loop_that_fails_is_begun_again(void)
{
    rig r;

    rig_init(&r, "asyncio", 2);
    rig_task(&r, "task", true);
    rig_start(&r);
    atomic_store(&r.shared->loop_fails, 1);
    RIG_UNTIL(&r, atomic_load(&r.shared->loop_fails) == 0);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    finish(&r);
}

void
test_warm_stop_waits_for_coroutines(void)
{
    rig r;

    rig_init(&r, "asyncio", 2);
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

/* Of late-ack tasks nothing is lost. */
static void
stop_what_runs(pc_stop how, int ms)
{
    rig r;

    rig_init(&r, "asyncio", 3);
    rig_task(&r, "late", true);
    rig_task(&r, "early", false);
    rig_start(&r);
    rig_send(&r, 1, "late", "sleep:20000");
    rig_send(&r, 2, "early", "sleep:20000");
    rig_send(&r, 3, "late", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "ack:t2") && rig_seen(&r, "ack:t3"));
    PC_ASSERT_STR(rig_stop(&r, how, ms), "t1 ");
    PC_ASSERT(rig_seen(&r, "lost:t1") && rig_seen(&r, "lost:t2"));
    PC_ASSERT_INT(rig_seen(&r, "requeue:t1"), 1);
    rig_free(&r);
}

void
test_cold_stop_of_coroutines(void)
{
    stop_what_runs(PC_STOP_COLD, 4000);
}

void
test_deadline_of_coroutines(void)
{
    stop_what_runs(PC_STOP_WARM, 50);
}

/* What was taken and has not started is not acknowledged, whatever its task says, and goes back. */
void
test_coroutines_that_have_not_started(void)
{
    rig r;

    rig_init(&r, "asyncio", 3);
    rig_task(&r, "early", false);
    rig_start(&r);
    rig_send(&r, 1, "early", "waits");
    rig_send(&r, 2, "early", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t2") && atomic_load(&r.shared->total) == 2);
    rig_turns(&r, 20);
    PC_ASSERT(!rig_seen(&r, "ack:t1") && !rig_seen(&r, "accepted:t1"));
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_COLD, 4000), "t1 ");
    PC_ASSERT(rig_seen(&r, "lost:t2") && !rig_seen(&r, "lost:t1"));
    rig_free(&r);
}

/* A thread that does not come back in time, and a worker that is freed as it stands: who ends last frees. */
static void
leave_busy(const char *script, bool stop_first)
{
    static rig r;  // outlives the threads, which look into it
    long before = pc_mem_live();

    rig_init(&r, "asyncio", 3);
    rig_task(&r, "late", true);
    rig_start(&r);
    rig_send(&r, 1, "late", script);
    rig_send(&r, 2, "late", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    if (stop_first) {
        PC_ASSERT_INT(rig_stop(&r, PC_STOP_WARM, 20)[0], 't');
    }
    pc_worker_free(r.worker);
    world_teardown(&r.w);
    for (pc_mono end = in_ms(7000); pc_mem_live() != before; usleep(2000)) {
        PC_ASSERT(pc_mono_now().ns < end.ns, "%ld blocks left", pc_mem_live() - before);
    }
}

void
test_free_with_coroutines(void)
{
    leave_busy("sleep:20000", false);
}

void
test_free_with_a_plain_function(void)
{
    leave_busy("plain", false);
}

void
test_stop_with_an_event_loop_that_does_not_turn(void)
{
    leave_busy("block:3500", true);
}
