/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine's life: losing its connection, stopping at every stage, running out of memory. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "io/memory_hub.h"
#include "worker_world.h"

static void
finish(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

static void
begin(rig *r, int size)
{
    rig_init(r, "prefork", size);
    rig_task(r, "task", true);
    rig_start(r);
}

/* --- the connection ------------------------------------------------------------ */

void
test_connection_lost_while_tasks_run(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    r.config.prefetch = 6;
    rig_task(&r, "task", true);
    rig_task(&r, "early", false);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate");
    rig_send(&r, 2, "early", "gate");
    rig_send(&r, 3, "task", "ok");
    rig_send_with(&r, 4, "task", "ok", rig_eta(20000));
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "accepted:t2") && rig_stats(&r).held == 1);
    rig_turns(&r, 10);
    rig_break(&r);
    PC_ASSERT_INT(r.down, 1);
    PC_ASSERT(!rig_stats(&r).connected && rig_stats(&r).held == 0 && rig_stats(&r).ready == 0);
    PC_ASSERT_INT(r.worker->stale_len, 2);
    RIG_UNTIL(&r, r.ready == 2);
    PC_ASSERT_INT(rig_stats(&r).reconnects, 1);
    // t1 was not acknowledged: it comes again; two less are wanted while two run on
    RIG_UNTIL(&r, rig_seen(&r, "received:t1") == 2 && rig_stats(&r).held == 1);
    PC_ASSERT_INT(r.prefetch, 6 - 2 + 1);
    // once more, with the same two still running
    rig_break(&r);
    PC_ASSERT_INT(r.worker->stale_len, 2);
    RIG_UNTIL(&r, r.ready == 3 && rig_seen(&r, "received:t1") == 3);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.worker->stale_len == 0 && rig_seen(&r, "ack:t3") && rig_seen(&r, "ack:t1"));
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 2);  // at least once
    PC_ASSERT_INT(atomic_load(&r.shared->runs[2]), 1);
    PC_ASSERT_INT(rig_seen(&r, "ack:t1"), 2);  // of the stale one, too: a source may remember it
    PC_ASSERT_INT(r.prefetch, 7);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 3000), "t4 ");
    rig_free(&r);
}

/* Jobs that are lost, storing or recalled while the connection is away all count. */
void
test_stale_jobs_are_counted_once(void)
{
    rig r;

    begin(&r, 3);
    RIG_UNTIL(&r, r.ups == 3);
    r.store_paused = true;
    rig_send(&r, 1, "task", "ok");
    rig_send(&r, 2, "task", "gate raise:9");
    rig_send(&r, 3, "task", "gate fail");
    RIG_UNTIL(&r, r.cookies_len == 1 && rig_seen(&r, "accepted:t2") && rig_seen(&r, "accepted:t3"));
    rig_break(&r);
    PC_ASSERT_INT(r.worker->stale_len, 3);
    PC_ASSERT_STR(rig_queue(&r), "t1 t2 t3 ");
    atomic_store(&r.shared->open, 1);
    rig_release_store(&r);
    RIG_UNTIL(&r, r.worker->stale_len == 0 && rig_is_idle(&r));
    PC_ASSERT_INT(rig_seen(&r, "lost:t2"), 1);
    PC_ASSERT_INT(r.settled, 3);  // for a source that remembers
    RIG_UNTIL(&r, r.ready == 2);
    PC_ASSERT_INT(rig_stats(&r).prefetch, 16);
    rig_send(&r, 4, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t4"));
    finish(&r);
}

/* The broker gave a running task out again: both copies run, and a revoke that terminates means both. */
void
test_revoke_ends_every_copy(void)
{
    rig r;

    begin(&r, 3);
    RIG_UNTIL(&r, r.ups == 3);
    rig_send(&r, 1, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") == 1);
    rig_break(&r);
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") == 2);
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, NULL) != NULL);
    RIG_UNTIL(&r, rig_seen(&r, "lost:t1") == 2 && rig_is_idle(&r));
    PC_ASSERT_INT(rig_seen(&r, "final:terminated"), 2);
    PC_ASSERT_INT(atomic_load(&r.shared->ended[1]), 0);
    finish(&r);
}

/* The same while the result of one copy is on its way to the store. */
void
test_revoke_ends_the_copy_that_runs(void)
{
    rig r;

    begin(&r, 2);
    RIG_UNTIL(&r, r.ups == 2);
    r.store_paused = true;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.cookies_len == 1);
    rig_send(&r, 1, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") == 2);
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t1"), true, SIGTERM, NULL) != NULL);
    RIG_UNTIL(&r, rig_seen(&r, "lost:t1") == 1);
    rig_release_store(&r);
    RIG_UNTIL(&r, rig_is_idle(&r));
    finish(&r);
}

static void
stop_when_down(rig *r, const char *word)
{
    if (strncmp(word, "down", 4) == 0) {
        pc_worker_stop(r->worker, PC_STOP_WARM, in_ms(1000));
    }
}

void
test_stop_from_inside_the_down_hook(void)
{
    rig r;
    int rc;

    begin(&r, 1);
    r.on_hook = stop_when_down;
    rig_break(&r);
    while ((rc = rig_turn(&r, 10)) == 1) {
    }
    PC_ASSERT_INT(rc, 0);
    PC_ASSERT(r.worker->reconnect.node.place == 0);
    rig_free(&r);
}

void
test_connection_lost_for_good(void)
{
    rig r;
    int rc;

    rig_init(&r, "prefork", 1);
    r.config.retry = false;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_task(&r, "early", false);
    rig_send(&r, 1, "early", "sleep:300");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    rig_break(&r);
    while ((rc = rig_turn(&r, 10)) == 1) {
    }
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT_INT(r.gave_up, 1);
    // it was acknowledged when it began: nobody else would run it
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 1);
    rig_free(&r);
}

/* The store is gone with the broker: its answer is not waited for for ever. */
void
test_connection_and_store_lost_for_good(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.retry = false;
    rig_task(&r, "task", true);
    rig_start(&r);
    r.store_paused = true;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.cookies_len == 1);
    rig_break(&r);
    rig_turns(&r, 20);
    int64_t left = r.worker->stop_deadline.ns - pc_mono_now().ns;
    PC_ASSERT(left > 0 && left < 60 * PC_NS_PER_SEC);
    r.worker->stop_deadline = pc_mono_now();
    int rc;
    while ((rc = rig_turn(&r, 10)) == 1) {
    }
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT_INT(r.errors, 1);  // the log says that there is no result
    rig_free(&r);
}

void
test_stop_while_connecting(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    PC_ASSERT_INT(pc_worker_start(r.worker, NULL), 0);
    rig_send(&r, 1, "task", "ok");
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 1000), "t1 ");
    PC_ASSERT_INT(atomic_load(&r.shared->total), 0);
    rig_free(&r);
}

void
test_queue_deleted_and_added_again(void)
{
    rig r;
    pc_queue queue = {.name = "q"};

    begin(&r, 1);
    PC_ASSERT_INT(pc_hub_remove(r.w.hub, "q", NULL), 0);
    RIG_UNTIL(&r, rig_seen(&r, "cancelled:q"));
    PC_ASSERT_INT(pc_worker_add_queue(r.worker, &queue, NULL), 0);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    PC_ASSERT_INT(pc_worker_drop_queue(r.worker, "q", NULL), 0);
    rig_send(&r, 2, "task", "ok");
    rig_turns(&r, 20);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 1000), "t2 ");
    rig_free(&r);
}

/* --- stopping -------------------------------------------------------------------- */

/* One of each stage: running, given but not started, ready, limited, held. */
static void
fill_stages(rig *r)
{
    pc_spec spec = rig_spec("slow");

    rig_init(r, "prefork", 1);
    r->config.prefetch = 40;
    spec.rate = 0.0001;
    spec.acks_late = true;
    rig_add(r, spec);
    rig_task(r, "task", true);
    rig_task(r, "early", false);
    rig_start(r);
    rig_send(r, 1, "slow", "ok");
    RIG_UNTIL(r, r->settled == 1);
    pc_worker_spec(r->worker, pc_slice_str("task"))->mean_ns = 300000;  // three in a child
    rig_send(r, 2, "task", "sleep:1500");  // longer than all this takes
    for (int i = 3; i <= 14; i++) {
        rig_send_with(r, i, i % 3 == 1 ? "slow" : "task", "ok", i % 3 == 2 ? rig_eta(20000) : "");
    }
    RIG_UNTIL(r, rig_seen(r, "accepted:t2") && rig_seen(r, "received:t14"));
    PC_ASSERT_INT(rig_stats(r).held, 4);
    PC_ASSERT_INT(rig_stats(r).limited, 4);
}

#define GIVEN_BACK "t3 t4 t5 t6 t7 t8 t9 t10 t11 t12 t13 t14 "

void
test_warm_stop(void)
{
    rig r;

    fill_stages(&r);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), GIVEN_BACK);
    PC_ASSERT(rig_before(&r, "stored:t2", "ack:t2"));
    PC_ASSERT_INT(atomic_load(&r.shared->total), 2);
    PC_ASSERT_INT(atomic_load(&r.shared->child_stops), 1);
    PC_ASSERT(rig_is_idle(&r));
    rig_free(&r);
}

void
test_cold_stop(void)
{
    rig r;

    fill_stages(&r);
    pc_mono began = pc_mono_now();
    const char *left = rig_stop(&r, PC_STOP_COLD, 4000);
    PC_ASSERT(pc_mono_now().ns - began.ns < 1200 * PC_NS_PER_MS);
    // what ran goes back as well; it was settled last and so stands first
    PC_ASSERT_STR(left, "t2 " GIVEN_BACK);
    PC_ASSERT(rig_seen(&r, "requeued:terminated") && rig_is_idle(&r));
    rig_free(&r);
}

void
test_cold_stop_of_an_early_task(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "early", false);
    rig_start(&r);
    rig_send(&r, 1, "early", "deaf sleep:5000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_COLD, 4000), "");
    PC_ASSERT_INT(rig_seen(&r, "final:terminated"), 1);
    rig_free(&r);
}

/* Warm at first, then in a hurry. */
void
test_warm_then_cold(void)
{
    rig r;

    begin(&r, 2);
    rig_send(&r, 1, "task", "sleep:5000");
    rig_send(&r, 2, "task", "deaf sleep:5000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "accepted:t2"));
    pc_worker_stop(r.worker, PC_STOP_WARM, PC_MONO_NEVER);
    rig_send(&r, 3, "task", "ok");
    rig_turns(&r, 60);
    PC_ASSERT_INT(rig_stats(&r).in_pool, 2);
    PC_ASSERT_INT(rig_seen(&r, "received:t3"), 0);
    const char *left = rig_stop(&r, PC_STOP_COLD, 3000);
    PC_ASSERT(strstr(left, "t1 ") && strstr(left, "t2 ") && strstr(left, "t3 "), "%s", left);
    rig_free(&r);
}

/* What does not end by the deadline of a warm stop is cut off like in a cold one. */
void
test_warm_stop_meets_its_deadline(void)
{
    rig r;

    begin(&r, 1);
    rig_send(&r, 1, "task", "deaf sleep:9000");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 150), "t1 ");
    PC_ASSERT(rig_seen(&r, "requeue:t1") && rig_seen(&r, "ack:t1") == 0);
    rig_free(&r);
}

static void
stop_when_received(rig *r, const char *word)
{
    if (strcmp(word, "received:t2 ") == 0) {
        pc_worker_stop(r->worker, PC_STOP_WARM, in_ms(2000));
    }
}

void
test_stop_from_inside_the_received_hook(void)
{
    rig r;

    begin(&r, 1);
    r.on_hook = stop_when_received;
    rig_send(&r, 1, "task", "ok");
    rig_send_with(&r, 2, "task", "ok", rig_eta(9000));
    rig_send(&r, 3, "task", "ok");
    while (rig_turn(&r, 10) == 1) {
    }
    PC_ASSERT(rig_is_idle(&r));
    const char *left = rig_queue(&r);
    PC_ASSERT(strstr(left, "t2 t3 ") != NULL, "%s", left);
    rig_free(&r);
}

void
test_the_received_hook_may_settle(void)
{
    rig r;

    begin(&r, 1);
    r.refuse = "t1";
    r.refuse_how = PC_REJECT;
    rig_send(&r, 1, "task", "ok");
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r));
    PC_ASSERT(rig_seen(&r, "received:t1") == 1 && rig_seen(&r, "accepted:t1") == 0);
    PC_ASSERT(strcmp(rig_queue(&r), "") == 0, "%s", rig_queue(&r));
    rig_free(&r);
}

void
test_a_watched_task_asks_though_nobody_wants_to_know(void)
{
    rig r;

    begin(&r, 1);
    pc_worker_want(r.worker, false, false);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t1"));
    PC_ASSERT(rig_seen(&r, "received:t1") == 0);
    pc_spec watched = *pc_worker_spec(r.worker, pc_slice_str("task"));
    watched.watched = true;
    PC_ASSERT(pc_worker_task(r.worker, &watched, NULL) == 0);
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2"));
    PC_ASSERT(rig_seen(&r, "received:t2") == 1);
    rig_free(&r);
}

static void
stop_when_accepted(rig *r, const char *word)
{
    if (strcmp(word, "accepted:t2 ") == 0) {
        pc_worker_stop(r->worker, PC_STOP_COLD, in_ms(2000));
    }
}

static void
check_stop_in_accepted(const char *script)
{
    rig r;
    int rc;

    begin(&r, 2);
    RIG_UNTIL(&r, r.ups == 2);
    r.on_hook = stop_when_accepted;
    rig_send(&r, 1, "task", "sleep:3000");
    rig_send(&r, 2, "task", script);
    for (int i = 3; i <= 6; i++) {
        rig_send(&r, i, "task", "ok");
    }
    while ((rc = rig_turn(&r, 10)) == 1) {
    }
    PC_ASSERT_INT(rc, 0);
    PC_ASSERT(rig_is_idle(&r));
    const char *left = rig_queue(&r);
    PC_ASSERT(strstr(left, "t3 t4 t5 t6 ") != NULL && strstr(left, "t1 ") != NULL, "%s", left);
    rig_free(&r);
}

/* Reported by the look, with its outcome, and with its death. */
void
test_cold_stop_from_inside_the_accepted_hook(void)
{
    check_stop_in_accepted("sleep:3000");
    check_stop_in_accepted("ok");
    check_stop_in_accepted("raise:9");
}

void
test_stop_before_start(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    rig_make(&r);
    PC_ASSERT(pc_worker_turn(r.worker, soon, NULL) < 0);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 100), "");
    PC_ASSERT(pc_worker_start(r.worker, NULL) < 0);
    rig_free(&r);
}

/* --- failing allocations ----------------------------------------------------------- */

static int
make_worker(void *arg)
{
    rig *r = arg;
    pc_err err = {0};
    pc_spec spec = rig_spec("task");
    pc_worker *worker = pc_worker_new(&r->config, &r->runner, &r->hooks, NULL, &err);
    int rc = -1;

    if (worker != NULL && pc_worker_task(worker, &spec, &err) == 0) {
        spec.rate = 3;
        rc = pc_worker_task(worker, &spec, &err);
    }
    if (rc == 0 && pc_worker_revoke(worker, pc_slice_str("one"), false, 0, &err) == NULL && err.code != PC_OK) {
        rc = -1;
    }
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    pc_worker_free(worker);
    return rc;
}

void
test_out_of_memory_when_made(void)
{
    static const char *const pools[] = {"solo", "threads", "prefork"};

    for (int i = 0; i < 3; i++) {
        rig r;
        rig_init(&r, pools[i], 1);
        PC_ASSERT(PC_OOM(make_worker, &r) >= 8);
        rig_free(&r);
    }
}

/* Allocation number n fails somewhere between delivery and ack: the task still runs, once or, when
 * it had to go back to its queue, again; it is never lost. */
static void
run_with_failure(const char *pool, long n)
{
    rig r;

    rig_init(&r, pool, 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    RIG_UNTIL(&r, r.ups >= 1);
    rig_send(&r, 1, "task", "ok");
    rig_send_with(&r, 2, "task", "ok", rig_eta(4));
    rig_send(&r, 3, "task", "ok");
    pc_mem_fail_after(n);
    for (pc_mono end = in_ms(5000); !(rig_seen(&r, "ack:t1") && rig_seen(&r, "ack:t2") && rig_seen(&r, "ack:t3"));) {
        PC_ASSERT(pc_mono_now().ns < end.ns, "allocation %ld: %s", n, r.words);
        PC_ASSERT(rig_turn(&r, 20) >= 0);
    }
    pc_mem_fail_after(-1);
    PC_ASSERT(strstr(r.words, "bad") == NULL, "allocation %ld: %s", n, r.words);
    PC_ASSERT(strstr(r.words, "reject") == NULL, "allocation %ld: %s", n, r.words);
    PC_ASSERT(strstr(r.words, "unstored") == NULL, "allocation %ld: %s", n, r.words);
    for (int i = 1; i <= 3; i++) {
        PC_ASSERT(atomic_load(&r.shared->runs[i]) >= 1);
    }
    finish(&r);
}

void
test_out_of_memory_at_work(void)
{
    for (long n = 1; n <= 40; n++) {
        run_with_failure("threads", n);
        run_with_failure("solo", n);
    }
}

/* In the parent only: a child's own failure is its death. */
void
test_out_of_memory_at_work_prefork(void)
{
    for (long n = 1; n <= 30; n++) {
        run_with_failure("prefork", n);
    }
}
