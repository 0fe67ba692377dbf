/* SPDX-License-Identifier: BSD-3-Clause */
/* The reaction table (PROTOCOL §3.2), as functions and as the broker and the store see it. */
#include <math.h>
#include <signal.h>
#include <stdio.h>

#include "harness.h"
#include "worker_world.h"

static pc_settle
after(pc_state state, unsigned flags, bool acks_on_failure)
{
    pc_spec spec = {.acks_on_failure = acks_on_failure};
    pc_outcome outcome = {.state = state, .flags = flags};

    return pc_flight_after_outcome(&spec, &outcome);
}

void
test_outcomes(void)
{
    PC_ASSERT_INT(after(PC_SUCCESS, 0, false), PC_ACK);
    PC_ASSERT_INT(after(PC_SUCCESS, PC_OUT_DOCUMENT, true), PC_ACK);
    PC_ASSERT_INT(after(PC_RETRY, 0, false), PC_ACK);
    PC_ASSERT_INT(after(PC_IGNORED, 0, false), PC_ACK);
    PC_ASSERT_INT(after(PC_FAILURE, 0, true), PC_ACK);
    PC_ASSERT_INT(after(PC_FAILURE, 0, false), PC_REJECT);
    PC_ASSERT_INT(after(PC_REJECTED, 0, true), PC_REJECT);
    PC_ASSERT_INT(after(PC_REJECTED, PC_OUT_REQUEUE, true), PC_REQUEUE);
    PC_ASSERT_INT(after(PC_FAILURE, PC_OUT_REFUSED, true), PC_REJECT);
    PC_ASSERT_INT(after(PC_FAILURE, PC_OUT_UNDECODABLE, false), PC_ACK);
}

void
test_losses(void)
{
    for (int bits = 0; bits < 8; bits++) {
        pc_spec spec = {.acks_on_timeout = bits & 1, .reject_on_worker_lost = bits & 2};
        pc_job job = {.cancelled = bits & 4};
        bool cancelled = bits & 4;

        PC_ASSERT_INT(pc_flight_after_loss(&spec, &job, PC_LOST_HARD),
                      cancelled || !(bits & 1) ? PC_REQUEUE : PC_ACK);
        PC_ASSERT_INT(pc_flight_after_loss(&spec, &job, PC_LOST_DIED),
                      cancelled || (bits & 2) ? PC_REQUEUE : PC_ACK);
        PC_ASSERT_INT(pc_flight_after_loss(&spec, &job, PC_LOST_TERMINATED),
                      cancelled ? PC_REQUEUE : PC_ACK);
    }
}

/* script, options, then the words wanted in this order; "-" none of the kind */
typedef struct row {
    const char *script;
    bool late;
    bool acks_on_failure;
    bool acks_on_timeout;
    bool reject_on_lost;
    double hard;
    double soft;
    const char *wanted[5];
} row;

static const row rows[] = {
    {"ok", false, 1, 1, 0, NAN, NAN, {"ack:t1", "accepted:t1", "stored:t1"}},
    {"ok", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "stored:t1", "ack:t1"}},
    {"ok nodoc", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "ack:t1"}},
    {"fail", false, 0, 1, 0, NAN, NAN, {"ack:t1", "accepted:t1", "stored:t1"}},
    {"fail", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "stored:t1", "ack:t1"}},
    {"fail", true, 0, 1, 0, NAN, NAN, {"accepted:t1", "stored:t1", "reject:t1"}},
    {"retry", true, 0, 1, 0, NAN, NAN, {"accepted:t1", "stored:t1", "ack:t1"}},
    {"ignore", true, 0, 1, 0, NAN, NAN, {"accepted:t1", "ack:t1"}},
    {"reject", false, 1, 1, 0, NAN, NAN, {"ack:t1", "accepted:t1"}},
    {"reject", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "reject:t1"}},
    {"requeue", false, 1, 1, 0, NAN, NAN, {"ack:t1", "accepted:t1"}},
    {"refuse", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "reject:t1"}},
    {"undecodable", true, 0, 1, 0, NAN, NAN, {"accepted:t1", "ack:t1"}},
    {"big:300", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "stored:t1", "ack:t1"}},
    {"raise:9", false, 1, 1, 0, NAN, NAN, {"ack:t1", "lost:t1", "final:died"}},
    {"raise:9", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "lost:t1", "final:died", "ack:t1"}},
    {"exit:3", true, 1, 1, 0, NAN, NAN, {"accepted:t1", "lost:t1", "final:died", "ack:t1"}},
    {"raise:11", false, 1, 1, 1, NAN, NAN, {"ack:t1", "lost:t1", "final:died"}},
    {"sleep:3000", false, 1, 0, 0, 0.06, NAN, {"ack:t1", "lost:t1", "final:hard"}},
    {"sleep:3000", true, 1, 1, 0, 0.06, NAN, {"accepted:t1", "lost:t1", "final:hard", "ack:t1"}},
    {"deaf sleep:3000", true, 1, 1, 0, 0.06, NAN, {"accepted:t1", "lost:t1", "final:hard", "ack:t1"}},
    {"sleep:3000", true, 1, 1, 0, 3, 0.05, {"accepted:t1", "soft:t1", "stored:t1", "ack:t1"}},
    {"sleep:3000", true, 0, 1, 0, NAN, 0.05, {"accepted:t1", "soft:t1", "stored:t1", "reject:t1"}},
    {"deaf sleep:40 ok", true, 1, 1, 0, 0.5, 0.2, {"accepted:t1", "stored:t1", "ack:t1"}},
};

static void
check_row(const char *pool, const row *want, int index)
{
    rig r;
    pc_spec spec = rig_spec("task");

    rig_init(&r, pool, 1);
    spec.acks_late = want->late;
    spec.acks_on_failure = want->acks_on_failure;
    spec.acks_on_timeout = want->acks_on_timeout;
    spec.reject_on_worker_lost = want->reject_on_lost;
    spec.time_limit = want->hard;
    spec.soft_time_limit = want->soft;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "task", want->script);
    RIG_UNTIL(&r, rig_seen(&r, "received:t1") && rig_is_idle(&r));
    const char *last = "received:t1";
    for (int i = 0; i < 5 && want->wanted[i] != NULL; i++) {
        PC_ASSERT(rig_before(&r, last, want->wanted[i]), "row %d: %s", index, r.words);
        last = want->wanted[i];
    }
    PC_ASSERT(r.settled == 1, "row %d: %s", index, r.words);
    bool stored = rig_seen(&r, "stored:t1") == 1;
    bool wanted = false;
    for (int i = 0; i < 5 && want->wanted[i] != NULL; i++) {
        wanted = wanted || strcmp(want->wanted[i], "stored:t1") == 0;
    }
    PC_ASSERT(stored == wanted, "row %d: %s", index, r.words);
    PC_ASSERT_INT(r.errors, 0);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 3000), "");
    rig_free(&r);
}

void
test_reaction_table_prefork(void)
{
    for (int i = 0; i < (int)(sizeof rows / sizeof rows[0]); i++) {
        check_row("prefork", &rows[i], i);
    }
}

static bool
needs_process(const row *at)
{
    return strstr(at->script, "raise") || strstr(at->script, "exit") || !isnan(at->hard);
}

void
test_reaction_table_threads_and_solo(void)
{
    for (int i = 0; i < (int)(sizeof rows / sizeof rows[0]); i++) {
        if (!needs_process(&rows[i])) {
            check_row("threads", &rows[i], i);
            if (isnan(rows[i].soft)) {
                check_row("solo", &rows[i], i);
            }
        }
    }
}

/* Those that go back come again, as redelivered. */
static void
check_requeue(const char *script, pc_spec spec)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 1;
    spec.acks_late = true;
    rig_add(&r, spec);
    rig_start(&r);
    rig_send(&r, 1, "task", script);
    RIG_UNTIL(&r, rig_seen(&r, "requeue:t1") >= 2);
    PC_ASSERT(rig_seen(&r, "received:t1") >= 2 && rig_seen(&r, "stored:t1") == 0);
    PC_ASSERT(rig_seen(&r, "ack:t1") == 0);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_COLD, 3000), "t1 ");
    rig_free(&r);
}

void
test_requeued_messages_come_again(void)
{
    pc_spec spec = rig_spec("task");

    check_requeue("requeue", spec);
    spec.reject_on_worker_lost = true;
    check_requeue("raise:9", spec);
    spec.acks_on_timeout = false;
    spec.time_limit = 0.03;
    check_requeue("sleep:3000", spec);
}
