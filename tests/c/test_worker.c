/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine between broker, pool and store: waiting, revoking, refusing, storing. */
#include <math.h>
#include <signal.h>
#include <stdio.h>

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

/* --- held tasks ---------------------------------------------------------- */

void
test_eta(void)
{
    rig r;

    begin(&r, 1);
    pc_mono sent = pc_mono_now();
    rig_send_with(&r, 1, "task", "ok", rig_eta(150));
    rig_send_with(&r, 2, "task", "ok", rig_eta(80));
    rig_send_with(&r, 3, "task", "ok", rig_eta(-5000));
    rig_send(&r, 4, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t4") && rig_seen(&r, "ack:t3"));
    PC_ASSERT_INT(rig_stats(&r).held, 2);
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t2"));
    PC_ASSERT(pc_mono_now().ns - sent.ns >= 79 * PC_NS_PER_MS);
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    PC_ASSERT(pc_mono_now().ns - sent.ns >= 149 * PC_NS_PER_MS);
    RIG_UNTIL(&r, r.settled == 4);
    finish(&r);
}

void
test_expiry_at_receipt_before_the_run_and_while_held(void)
{
    rig r;
    char both[200];

    begin(&r, 1);
    rig_send_with(&r, 1, "task", "ok", rig_expires(-10));
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    rig_send(&r, 2, "task", "gate");
    rig_send_with(&r, 3, "task", "ok", rig_expires(60));
    snprintf(both, sizeof both, "%s%s", rig_eta(5000), rig_expires(60));
    rig_send_with(&r, 4, "task", "ok", both);
    RIG_UNTIL(&r, rig_seen(&r, "ack:t4"));  // not before its expiry, and long before its ETA
    rig_turns(&r, 70);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 4);
    PC_ASSERT(rig_seen(&r, "expired:t1") && rig_seen(&r, "expired:t3") && rig_seen(&r, "expired:t4"));
    PC_ASSERT_INT(atomic_load(&r.shared->total), 1);
    finish(&r);
}

/* The wall clock is said to have been set: the ETAs follow it. The step is made in the message, since
 * the test can't set the machine's clock. */
void
test_wall_clock_step(void)
{
    rig r;

    begin(&r, 1);
    rig_send_with(&r, 1, "task", "ok", rig_eta(60000));
    rig_send_with(&r, 2, "task", "ok", rig_eta(120000));
    RIG_UNTIL(&r, rig_stats(&r).held == 2);
    for (pc_link *at = r.worker->held.next; at != &r.worker->held; at = at->next) {
        PC_CONTAINER_OF(at, pc_job, link)->eta.us -= 59900000;
    }
    r.worker->clock_offset_us -= 59900000;  // the step is noticed at the next turn
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1"));
    PC_ASSERT_INT(rig_stats(&r).held, 1);
    PC_ASSERT(strcmp(rig_stop(&r, PC_STOP_WARM, 1000), "t2 ") == 0);
    rig_free(&r);
}

static bool keeps_nothing;

static int
spy_park(pc_source *source, const pc_message *message, int64_t delay_ns, pc_err *err)
{
    PC_ASSERT(delay_ns > 10 * PC_NS_PER_SEC);
    return rig_number(message) == 2 ? pc_fail(err, PC_ENOTFOUND, "never")
           : keeps_nothing          ? pc_fail(err, PC_EIO, "not now")
                                    : source->ops->settle(source, message->tag, PC_ACK, err);
}

/* Held because the broker could not keep it just then: it goes back when the broker can. */
void
test_far_task_goes_back_when_the_broker_can_keep_it(void)
{
    rig r;

    keeps_nothing = true;
    rig_init(&r, "prefork", 1);
    r.config.park_after = 10;
    rig_task(&r, "task", true);
    rig_start(&r);
    r.source_spy.park = spy_park;
    rig_send_with(&r, 1, "task", "ok", rig_eta(60000));
    rig_send_with(&r, 2, "task", "ok", rig_eta(60000));
    rig_send_with(&r, 3, "task", "ok", rig_eta(9000));
    RIG_UNTIL(&r, rig_stats(&r).held == 3);
    keeps_nothing = false;
    PC_ASSERT_INT(r.worker->source->hooks.parking(r.worker->source->hooks.ctx, 0), 0);
    PC_ASSERT_INT(r.worker->source->hooks.parking(r.worker->source->hooks.ctx, 5), 1);
    RIG_UNTIL(&r, rig_seen(&r, "requeue:t1") && rig_seen(&r, "ack:t0"));  // kept before it was received
    PC_ASSERT_INT(rig_stats(&r).held, 2);
    PC_ASSERT(!rig_seen(&r, "requeue:t2") && !rig_seen(&r, "requeue:t3"));
    PC_ASSERT(strcmp(rig_stop(&r, PC_STOP_WARM, 1000), "t2 t3 ") == 0);
    rig_free(&r);
}

void
test_prefetch_grows_with_held_tasks(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 3;
    r.config.eta_limit = 8;
    rig_task(&r, "task", true);
    rig_start(&r);
    for (int i = 1; i <= 6; i++) {
        rig_send_with(&r, i, "task", "ok", rig_eta(20000));
    }
    RIG_UNTIL(&r, rig_stats(&r).held == 6);
    PC_ASSERT_INT(r.prefetch, 9);
    rig_send(&r, 7, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t7"));
    for (int i = 8; i <= 20; i++) {
        rig_send_with(&r, i, "task", "ok", rig_eta(20000));
    }
    rig_turns(&r, 30);
    PC_ASSERT_INT(rig_stats(&r).held, 11);  // limit and base
    PC_ASSERT_INT(r.prefetch, 11);
    // the new base counts at once
    PC_ASSERT_INT(pc_worker_prefetch(r.worker, 5, NULL), 0);
    PC_ASSERT_INT(r.prefetch, 13);
    // after a reconnect nothing is held: the source must not keep the raised number
    rig_break(&r);
    PC_ASSERT_INT(rig_stats(&r).held, 0);
    while (!rig_queue(&r)[0]) {
    }
    RIG_UNTIL(&r, r.ready == 2);
    PC_ASSERT_INT(r.prefetch, 5);
    finish(&r);
}

/* --- rate limits ---------------------------------------------------------- */

void
test_rate_limit(void)
{
    rig r;
    pc_spec spec = rig_spec("slow");

    rig_init(&r, "prefork", 2);
    spec.acks_late = true;
    spec.rate = 25;
    rig_add(&r, spec);
    rig_task(&r, "task", true);
    rig_start(&r);
    pc_mono sent = pc_mono_now();
    for (int i = 1; i <= 5; i++) {
        rig_send(&r, i, "slow", "ok");
    }
    rig_send(&r, 6, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t6"));
    PC_ASSERT(rig_stats(&r).limited >= 3);  // those do not stand in the way
    RIG_UNTIL(&r, r.settled == 6);
    PC_ASSERT(pc_mono_now().ns - sent.ns >= 155 * PC_NS_PER_MS);
    // a limit that is lifted lets all go
    spec.rate = 0.0001;
    rig_add(&r, spec);
    for (int i = 7; i <= 10; i++) {
        rig_send(&r, i, "slow", "ok");
    }
    RIG_UNTIL(&r, rig_stats(&r).limited == 3);
    spec.rate = 0;
    rig_add(&r, spec);
    RIG_UNTIL(&r, r.settled == 10);
    spec.rate = 1e-300;  // absurd, but no overflow
    rig_add(&r, spec);
    rig_send(&r, 11, "slow", "ok");
    rig_send(&r, 12, "slow", "ok");
    RIG_UNTIL(&r, rig_stats(&r).limited == 1 && r.settled == 11);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 3000), "t12 ");
    rig_free(&r);
}

/* --- revoking -------------------------------------------------------------- */

static pc_job *
cancel(rig *r, const char *id, bool terminate)
{
    pc_err err = {0};
    pc_job *job = pc_worker_revoke(r->worker, pc_slice_str(id), terminate, SIGTERM, &err);

    PC_ASSERT(err.code == PC_OK, "%s", err.msg);
    return job;
}

void
test_revoke_in_every_stage(void)
{
    rig r;
    pc_spec spec = rig_spec("slow");

    rig_init(&r, "prefork", 1);
    spec.rate = 0.0001;
    spec.acks_late = true;
    rig_add(&r, spec);
    rig_task(&r, "task", true);
    rig_start(&r);
    PC_ASSERT(cancel(&r, "t9", false) == NULL);  // before it comes
    PC_ASSERT(cancel(&r, "t9", false) == NULL);  // twice
    PC_ASSERT_INT(r.worker->revoked_len, 1);
    rig_send(&r, 1, "task", "sleep:8000");
    rig_send(&r, 2, "task", "ok");
    rig_send_with(&r, 3, "task", "ok", rig_eta(100));
    rig_send(&r, 4, "slow", "nodoc");
    rig_send(&r, 5, "slow", "ok");
    rig_send(&r, 9, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1") && rig_seen(&r, "revoked:t9"));
    PC_ASSERT(cancel(&r, "t2", true) != NULL && cancel(&r, "t3", false) != NULL);
    PC_ASSERT(cancel(&r, "t5", false) != NULL);
    PC_ASSERT_INT(cancel(&r, "t1", false)->stage, PC_JOB_RUNNING);  // only ends with terminate
    rig_turns(&r, 20);
    PC_ASSERT_INT(rig_seen(&r, "lost:t1"), 0);
    PC_ASSERT(cancel(&r, "t1", true) != NULL);
    RIG_UNTIL(&r, rig_seen(&r, "ack:t1") && rig_seen(&r, "ack:t2") && rig_seen(&r, "ack:t3"));
    PC_ASSERT(rig_seen(&r, "final:terminated") && rig_seen(&r, "revoked:t2") && rig_seen(&r, "revoked:t3"));
    spec.rate = 0;
    rig_add(&r, spec);
    RIG_UNTIL(&r, r.settled == 6);
    PC_ASSERT(rig_seen(&r, "revoked:t5") && atomic_load(&r.shared->runs[4]) == 1);
    PC_ASSERT_INT(atomic_load(&r.shared->total), 2);
    finish(&r);
}

/* In a child's socket, not started: it is fetched back. */
void
test_revoke_of_a_task_given_to_a_child(void)
{
    rig r;

    begin(&r, 1);
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    pc_worker_spec(r.worker, pc_slice_str("task"))->mean_ns = 20000;
    rig_send(&r, 2, "task", "sleep:300");
    rig_send(&r, 3, "task", "ok");
    rig_send(&r, 4, "task", "ok");
    for (pc_mono end = in_ms(4000); rig_stats(&r).in_pool < 3;) {
        PC_ASSERT(pc_mono_now().ns < end.ns && rig_turn(&r, 0) >= 0);
    }
    PC_ASSERT(cancel(&r, "t3", false) != NULL);
    RIG_UNTIL(&r, r.settled == 4);
    PC_ASSERT(rig_seen(&r, "revoked:t3") && atomic_load(&r.shared->runs[3]) == 0);
    PC_ASSERT_INT(atomic_load(&r.shared->runs[4]), 1);
    finish(&r);
}

void
test_revoked_ids_are_bounded(void)
{
    rig r;
    char id[16];

    begin(&r, 1);
    for (int i = 0; i < 50010; i++) {
        snprintf(id, sizeof id, "t%d", i);
        PC_ASSERT(cancel(&r, id, false) == NULL);
    }
    PC_ASSERT_INT(r.worker->revoked_len, 50000);
    PC_ASSERT(!pc_intake_revoked(r.worker, pc_slice_str("t9")));
    PC_ASSERT(pc_intake_revoked(r.worker, pc_slice_str("t10")));
    finish(&r);
}

/* --- what is no task -------------------------------------------------------- */

void
test_bad_messages(void)
{
    static const char *const accept[] = {"application/json", NULL};
    rig r;
    pc_message message;

    rig_init(&r, "prefork", 1);
    r.config.accept = accept;
    rig_task(&r, "task", true);
    rig_start(&r);
    rig_send(&r, 1, "unheard", "ok");
    rig_send_with(&r, 2, "task", "ok", ", \"eta\": \"never\"");
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"x\": 1}");
    message.body = pc_slice_str("?");
    PC_ASSERT_INT(pc_hub_publish(r.w.hub, &message, true, NULL), 0);
    message.headers = pc_slice_str("{\"task\": \"task\", \"id\": \"t3\"}");
    message.content_type = pc_slice_str("application/x-python-serialize");
    PC_ASSERT_INT(pc_hub_publish(r.w.hub, &message, true, NULL), 0);
    rig_send(&r, 4, "task", "ok");
    RIG_UNTIL(&r, r.settled == 5);
    PC_ASSERT(rig_seen(&r, "bad:unknown") && rig_seen(&r, "bad:headers") && rig_seen(&r, "bad:no_task"));
    PC_ASSERT(rig_seen(&r, "bad:refused") && rig_seen(&r, "ack:t4"));
    PC_ASSERT_INT(rig_seen(&r, "reject:t0"), 4);
    finish(&r);
}

void
test_old_messages(void)
{
    static const char *const bodies[] = {
        "{\"task\": \"task\", \"id\": \"t1\"}",
        "{\"task\": \"task\", \"id\": \"t2\", \"eta\": \"never\"}",
        "{\"id\": \"t3\"}",
    };
    rig r;
    pc_message message;

    rig_init(&r, "prefork", 1);
    rig_task(&r, "task", true);
    rig_start(&r);
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.content_type = pc_slice_str("application/json");
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        message.body = pc_slice_str(bodies[i]);
        PC_ASSERT_INT(pc_hub_publish(r.w.hub, &message, true, NULL), 0);
    }
    // no id in the headers: the rest is in the body
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"task\": \"task\"}");
    message.body = pc_slice_str("{\"task\": \"task\", \"id\": \"t4\"}");
    PC_ASSERT_INT(pc_hub_publish(r.w.hub, &message, true, NULL), 0);
    rig_send(&r, 5, "task", "ok");
    RIG_UNTIL(&r, r.settled == 5);
    PC_ASSERT(rig_seen(&r, "ack:t1") && rig_seen(&r, "ack:t4") && rig_seen(&r, "ack:t5"));
    PC_ASSERT_INT(rig_seen(&r, "bad:headers"), 1);
    PC_ASSERT_INT(rig_seen(&r, "bad:no_task"), 1);
    PC_ASSERT_INT(rig_seen(&r, "upgrade:"), 4);
    finish(&r);
}

/* --- the store --------------------------------------------------------------- */

void
test_ack_waits_for_the_store(void)
{
    rig r;

    begin(&r, 2);
    r.store_paused = true;
    for (int i = 1; i <= 5; i++) {
        rig_send(&r, i, "task", i == 3 ? "fail" : "ok");
    }
    RIG_UNTIL(&r, r.cookies_len == 5);
    rig_turns(&r, 30);
    PC_ASSERT_INT(r.settled, 0);
    PC_ASSERT_INT(rig_stats(&r).storing, 5);
    rig_release_store(&r);
    PC_ASSERT_INT(r.settled, 5);
    finish(&r);
}

void
test_store_that_fails(void)
{
    rig r;

    begin(&r, 1);
    r.store_refuses = true;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "unstored:t1") && rig_seen(&r, "ack:t1"));
    r.store_refuses = false;
    r.store_rejects = true;
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "unstored:t2") && rig_seen(&r, "ack:t2"));
    r.store_rejects = false;
    finish(&r);
}

/* There is a reserve for one result; if that does not help, a task that may run again does. */
void
test_no_memory_for_a_result(void)
{
    rig r;

    begin(&r, 1);
    rig_task(&r, "early", false);
    r.store_starves = 1;
    rig_send(&r, 1, "early", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t1"));
    PC_ASSERT(r.worker->reserve != NULL);
    r.store_starves = 2;
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "ack:t2"));
    PC_ASSERT(rig_before(&r, "unstored:t2", "requeue:t2") && rig_before(&r, "requeue:t2", "ack:t2"));
    PC_ASSERT(rig_seen(&r, "stored:t2") == 1 && atomic_load(&r.shared->runs[2]) == 2);
    r.store_starves = 2;
    rig_send(&r, 3, "early", "ok");
    RIG_UNTIL(&r, rig_seen(&r, "unstored:t3"));
    PC_ASSERT_INT(atomic_load(&r.shared->runs[3]), 1);
    finish(&r);
}

void
test_store_that_never_answers_ends_with_the_deadline(void)
{
    rig r;

    begin(&r, 1);
    r.store_paused = true;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.cookies_len == 1);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 100), "t1 ");
    PC_ASSERT_INT(r.settled, 0);
    rig_free(&r);
}

/* Too many results wait: nothing new starts until some are stored. */
void
test_back_pressure_of_the_store(void)
{
    rig r;

    begin(&r, 1);
    r.worker->storing_len += PC_STORING_MAX - 1;
    r.store_paused = true;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.cookies_len == 1);
    rig_send(&r, 2, "task", "ok");
    rig_turns(&r, 30);
    PC_ASSERT_INT(rig_stats(&r).ready, 1);
    rig_release_store(&r);
    RIG_UNTIL(&r, r.settled == 2);
    r.worker->storing_len -= PC_STORING_MAX - 1;
    finish(&r);
}
