/* SPDX-License-Identifier: BSD-3-Clause */
/* The next task of a chain, run without the broker: when it is, when it is not, and what can happen in between. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"
#include "work/slot.h"
#include "worker_world.h"

static int
runs(const rig *r, int number)
{
    return atomic_load(&r->shared->runs[number]);
}

static int
granted(const rig *r)
{
    return atomic_load(&r->shared->granted);
}

static int
refused(const rig *r)
{
    return atomic_load(&r->shared->refused);
}

static const char *const pools[] = {"prefork", "threads", "solo"};

static void
begin_in(rig *r, const char *pool, int size)
{
    printf("%s\n", pool);
    rig_init(r, pool, size);
    rig_task(r, "task", false);
}

static void
begin(rig *r, int size)
{
    begin_in(r, "prefork", size);
}

static void
finish(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

/* --- granted ------------------------------------------------------------ */

static void
check_behind(const char *pool)
{
    rig r;

    begin_in(&r, pool, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:1");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r));
    PC_ASSERT_INT(granted(&r), 1);
    PC_ASSERT_INT(r.settled, 1);  // t2 never was the broker's
    PC_ASSERT(rig_before(&r, "ack:t1", "received:t2") && rig_before(&r, "received:t2", "accepted:t2"), "%s", r.words);
    PC_ASSERT_INT(runs(&r, 2), 1);
    PC_ASSERT_INT((int)rig_stats(&r).received, 2);
    PC_ASSERT_INT((int)rig_stats(&r).done, 2);
    finish(&r);
}

static void
check_many(const char *pool)
{
    rig r;

    begin_in(&r, pool, 1);
    r.quiet = true;
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:500");
    RIG_UNTIL(&r, rig_stats(&r).done == 501 && rig_is_idle(&r));
    PC_ASSERT_INT(granted(&r), 500);
    for (int i = 1; i <= 501; i++) {
        PC_ASSERT(runs(&r, i) == 1 && atomic_load(&r.shared->first[i]) == i, "task %d", i);
    }
    finish(&r);
}

void
test_follow_runs_behind_its_predecessor(void)
{
    for (size_t i = 0; i < sizeof pools / sizeof pools[0]; i++) {
        check_behind(pools[i]);
        check_many(pools[i]);
    }
}

/* What received() has settled is over: nobody else is to have it. */
void
test_follow_one_that_is_revoked_on_receipt(void)
{
    rig r;

    begin(&r, 1);
    r.refuse = "t2";
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:1");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t1") && rig_is_idle(&r));
    PC_ASSERT_INT(granted(&r), 1);
    PC_ASSERT_INT(runs(&r, 2), 0);
    finish(&r);
}

void
test_follow_time_limit_of_the_next(void)
{
    rig r;

    begin(&r, 1);
    pc_spec spec = rig_spec("brief");
    spec.time_limit = 0.1;
    rig_add(&r, spec);
    r.next = (rig_next){.task = "brief", .script = "sleep:5000"};
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:1 sleep:3");  // its start is known before it ends
    RIG_UNTIL(&r, rig_seen(&r, "lost:t2") && rig_seen(&r, "final:hard"));
    PC_ASSERT_INT(granted(&r), 1);
    finish(&r);
}

/* --- refused ------------------------------------------------------------ */

static void
check_refused(rig *r, const char *task)
{
    rig_start(r);
    rig_send(r, 1, task, "chain:1");
    RIG_UNTIL(r, rig_seen(r, "stored:t1") && rig_is_idle(r));
    PC_ASSERT(refused(r) == 1 && granted(r) == 0 && runs(r, 2) == 0, "%s", r->words);
    PC_ASSERT_INT((int)rig_stats(r).received, 1);
    finish(r);
}

void
test_follow_not_for_these_messages(void)
{
    const rig_next nexts[] = {
        {.task = "late"}, {.task = "limited"}, {.task = "unknown"}, {.queue = "other"}, {.queue = ""}, {.exchange = "x"},
        {.content_type = "application/x-python-serialize"}, {.headers = ", \"eta\": \"2090-01-01T00:00:00\""},
        {.headers = ", \"expires\": \"2090-01-01T00:00:00\""}, {.headers = ", \"eta\": 7"},
    };
    static const char *const accept[] = {"application/json", NULL};

    for (size_t i = 0; i < sizeof nexts / sizeof nexts[0]; i++) {
        rig r;
        begin_in(&r, pools[i % 2 == 0 ? 0 : 2], 1);
        pc_spec limited = rig_spec("limited");
        limited.rate = 1;
        r.config.accept = accept;
        r.worker->config.accept = accept;
        rig_add(&r, limited);
        rig_task(&r, "late", true);
        r.next = nexts[i];
        printf("message %zu\n", i);
        check_refused(&r, "task");
    }
}

void
test_follow_not_for_large_messages_of_a_process(void)
{
    static char big[1 << 20];
    rig r;

    begin(&r, 1);
    r.next.big = pc_slice_of(big, sizeof big);
    check_refused(&r, "task");
}

void
test_follow_not_after_a_late_one(void)
{
    rig r;

    begin(&r, 1);
    rig_task(&r, "late", true);
    check_refused(&r, "late");
}

void
test_follow_not_without_prefetch_nor_beyond_the_tasks_of_a_child(void)
{
    for (int i = 0; i < 2; i++) {
        rig r;
        rig_init(&r, "prefork", 1);
        r.config.disable_prefetch = i == 0;
        r.config.pool_config.max_tasks = i;
        rig_task(&r, "task", false);
        check_refused(&r, "task");
    }
}

void
test_follow_not_what_is_revoked(void)
{
    rig r;

    begin(&r, 1);
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t2"), false, 0, NULL) == NULL);
    check_refused(&r, "task");
}

void
test_follow_not_what_received_sends_back(void)
{
    rig r;

    begin(&r, 1);
    r.refuse = "t2";
    r.refuse_how = PC_REQUEUE;
    check_refused(&r, "task");
}

static void
drop_queue(rig *r)  // that was added twice
{
    PC_ASSERT_INT(pc_worker_add_queue(r->worker, &(pc_queue){.name = "q"}, NULL), 0);
    PC_ASSERT_INT(pc_worker_drop_queue(r->worker, "q", NULL), 0);
}

static void
queue_cancelled(rig *r)
{
    r->worker->source->hooks.cancelled(r->worker->source->hooks.ctx, "q");
}

static void
another_waits(rig *r)
{
    rig_send(r, 9, "task", "ok");
    RIG_UNTIL(r, rig_stats(r).ready == 1);
}

static void
stop_warmly(rig *r)
{
    pc_worker_stop(r->worker, PC_STOP_WARM, in_ms(4000));
}

/* It happens while the task runs. */
void
test_follow_not_after(void)
{
    void (*const events[])(rig *r) = {drop_queue, queue_cancelled, another_waits, stop_warmly};

    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        rig r;
        begin(&r, 1);
        rig_start(&r);
        rig_send(&r, 1, "task", "gate chain:1");
        RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
        printf("event %zu\n", i);
        events[i](&r);
        atomic_store(&r.shared->open, 1);
        // the parent answers, so it has to turn; it may have stopped in between
        for (pc_mono end = in_ms(4000); refused(&r) == 0;) {
            PC_ASSERT(pc_mono_now().ns < end.ns && granted(&r) == 0 && rig_turn(&r, 5) >= 0, "%s", r.words);
        }
        if (events[i] == stop_warmly) {
            PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), "");
            rig_free(&r);
        } else {
            RIG_UNTIL(&r, rig_is_idle(&r) && rig_stats(&r).connected);
            PC_ASSERT_INT(runs(&r, 2), 0);
            finish(&r);
        }
    }
}

/* A loop that is busy: nobody waits for it for ever, and what was withdrawn does not run. */
static void
check_withdrawn(const char *pool)
{
    rig r;

    begin_in(&r, pool, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate chain:1 sleep:300");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    atomic_store(&r.shared->open, 1);
    for (pc_mono end = in_ms(4000); refused(&r) == 0; usleep(1000)) {
        PC_ASSERT(pc_mono_now().ns < end.ns);
    }
    RIG_UNTIL(&r, rig_is_idle(&r));
    PC_ASSERT(rig_seen(&r, "received:t2") == 0 && runs(&r, 2) == 0);
    finish(&r);
}

/* An offer that was withdrawn says nothing about the next one. */
static void
check_offered_again(const char *pool)
{
    rig r;

    begin_in(&r, pool, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate chain:1 chain:1");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    atomic_store(&r.shared->open, 1);
    for (pc_mono end = in_ms(4000); refused(&r) == 0; usleep(100)) {
        PC_ASSERT(pc_mono_now().ns < end.ns);
    }
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r));
    PC_ASSERT(granted(&r) == 1 && runs(&r, 2) == 1, "%d", runs(&r, 2));
    finish(&r);
}

void
test_follow_withdrawn(void)
{
    for (size_t i = 0; i < 2; i++) {
        check_withdrawn(pools[i]);
        check_offered_again(pools[i]);
    }
}

static int asked;
static bool (*real_follow)(void *ctx, const pc_job *job, pc_slice frame);

static bool
count_follow(void *ctx, const pc_job *job, pc_slice frame)
{
    asked++;
    return real_follow(ctx, job, frame);
}

/* A child whose offers are refused does not ask for each. */
void
test_follow_asks_less_when_refused(void)
{
    rig r;

    rig_init(&r, "prefork", 1);
    r.config.prefetch = 1;
    r.next.task = "unknown";
    rig_task(&r, "task", false);
    real_follow = r.worker->pool->hooks.follow;
    r.worker->pool->hooks.follow = count_follow;
    rig_start(&r);
    for (int i = 1; i <= 20; i++) {  // scripts have a hundred characters
        rig_send(&r, 10 * i, "task", "chain:1 chain:1 chain:1 chain:1 chain:1 chain:1 chain:1 chain:1 chain:1 chain:1");
    }
    RIG_UNTIL(&r, rig_seen(&r, "stored:t200") && rig_is_idle(&r));
    PC_ASSERT_INT(refused(&r), 200);
    // eight, less those that were withdrawn because this process was slow
    PC_ASSERT(asked >= 1 && asked <= 8, "%d", asked);
    finish(&r);
}

/* --- in between --------------------------------------------------------- */

/* The process ends when its next task stands behind it: that one runs elsewhere. */
void
test_follow_its_process_dies(void)
{
    rig r;

    begin(&r, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:1 raise:9");
    RIG_UNTIL(&r, rig_seen(&r, "lost:t1") && rig_seen(&r, "stored:t2") && rig_is_idle(&r));
    PC_ASSERT(granted(&r) == 1 && runs(&r, 2) == 1);
    finish(&r);
}

/* It is taken back from a task that turns out long, and given to another process. */
void
test_follow_taken_back(void)
{
    rig r;

    begin(&r, 2);
    rig_start(&r);
    rig_send(&r, 1, "task", "chain:1 gate");
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2"));
    PC_ASSERT_INT(rig_seen(&r, "stored:t1"), 0);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_is_idle(&r));
    PC_ASSERT_INT(runs(&r, 2), 1);
    finish(&r);
}

static void
stand_behind(rig *r, const char *script)
{
    begin(r, 1);
    rig_start(r);
    rig_send(r, 1, "task", script);
    RIG_UNTIL(r, rig_seen(r, "received:t2"));
}

void
test_follow_without_a_connection(void)
{
    rig r;

    begin(&r, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate chain:3");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    rig_break(&r);
    atomic_store(&r.shared->open, 1);
    while (runs(&r, 4) == 0) {
        PC_ASSERT(rig_turn(&r, 5) >= 0 && !rig_stats(&r).connected);
    }
    RIG_UNTIL(&r, rig_is_idle(&r) && rig_stats(&r).connected);
    PC_ASSERT_INT(granted(&r), 3);
    finish(&r);
}

void
test_follow_outlives_the_connection(void)
{
    rig r;

    stand_behind(&r, "chain:1 gate");
    rig_break(&r);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r) && rig_stats(&r).connected);
    PC_ASSERT(runs(&r, 1) == 1 && runs(&r, 2) == 1);
    finish(&r);
}

/* Waiting in the worker, not given to a process. */
void
test_follow_outlives_the_connection_in_the_worker(void)
{
    rig r;

    stand_behind(&r, "chain:1 gate");
    RIG_UNTIL(&r, rig_stats(&r).ready == 1);  // taken back: the task is long
    rig_break(&r);
    PC_ASSERT_INT((int)rig_stats(&r).ready, 1);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r) && rig_stats(&r).connected);
    PC_ASSERT_INT(runs(&r, 2), 1);
    finish(&r);
}

void
test_follow_warm_stop_runs_it(void)
{
    rig r;

    stand_behind(&r, "chain:1 sleep:200");
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), "");
    PC_ASSERT(runs(&r, 2) == 1 && rig_seen(&r, "stored:t2"), "%s", r.words);
    rig_free(&r);
}

void
test_follow_cold_stop_gives_it_up(void)
{
    rig r;

    stand_behind(&r, "chain:1 sleep:5000");
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_COLD, 1000), "");
    PC_ASSERT(rig_seen(&r, "lost:t1") && rig_seen(&r, "lost:t2") && rig_seen(&r, "final:terminated") == 2, "%s", r.words);
    PC_ASSERT_INT(runs(&r, 2), 0);
    rig_free(&r);
}

/* The second signal hurries what the first let run. */
void
test_follow_cold_after_warm(void)
{
    rig r;

    stand_behind(&r, "chain:1 sleep:5000");
    pc_worker_stop(r.worker, PC_STOP_WARM, in_ms(8000));
    rig_turns(&r, 50);
    PC_ASSERT_STR(rig_stop(&r, PC_STOP_COLD, 1000), "");
    PC_ASSERT(rig_seen(&r, "lost:t1") && rig_seen(&r, "lost:t2"), "%s", r.words);
    PC_ASSERT_INT(runs(&r, 2), 0);
    rig_free(&r);
}

/* In a thread or in the loop's own nothing is taken back; the next one stands behind the first all the same. */
void
test_follow_without_processes(void)
{
    for (size_t i = 1; i < sizeof pools / sizeof pools[0]; i++) {
        rig r;
        begin_in(&r, pools[i], 1);
        rig_start(&r);
        rig_send(&r, 1, "task", "chain:1 sleep:50");
        RIG_UNTIL(&r, rig_seen(&r, "received:t2"));
        rig_break(&r);
        RIG_UNTIL(&r, rig_seen(&r, "stored:t2") && rig_is_idle(&r) && rig_stats(&r).connected);
        rig_send(&r, 3, "task", "chain:1 sleep:50");
        RIG_UNTIL(&r, rig_seen(&r, "received:t4"));
        PC_ASSERT_STR(rig_stop(&r, PC_STOP_WARM, 4000), "");
        PC_ASSERT(runs(&r, 1) == 1 && runs(&r, 2) == 1 && runs(&r, 4) == 1 && rig_seen(&r, "stored:t4"), "%s", r.words);
        rig_free(&r);
    }
}

/* Several tasks of different threads ask at the same time. */
void
test_follow_from_many_threads(void)
{
    rig r;

    begin_in(&r, "threads", 8);
    r.quiet = true;
    rig_start(&r);
    for (int i = 0; i < 8; i++) {
        rig_send(&r, 1 + 1000 * i, "task", "chain:99");
    }
    // what is refused ends its chain
    RIG_UNTIL(&r, rig_is_idle(&r) && granted(&r) + refused(&r) > 0 && rig_stats(&r).done == (uint64_t)(8 + granted(&r)));
    for (int i = 0; i < 8; i++) {
        int len = 0;
        while (len < 100 && runs(&r, 1 + 1000 * i + len) == 1) {
            len++;
        }
        PC_ASSERT(len >= 1 && (len == 100 || runs(&r, 1 + 1000 * i + len) == 0), "chain %d, task %d", i, len);
    }
    PC_ASSERT(granted(&r) > 50, "%d", granted(&r));
    finish(&r);
}

void
test_follow_revoked_while_it_waits(void)
{
    rig r;

    stand_behind(&r, "chain:1 gate");
    PC_ASSERT(pc_worker_revoke(r.worker, pc_slice_str("t2"), false, 0, NULL) != NULL);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_seen(&r, "revoked:t2") && rig_is_idle(&r));
    PC_ASSERT_INT(runs(&r, 2), 0);
    finish(&r);
}

/* --- no memory ---------------------------------------------------------- */

static int
follow_and_forget(void *arg)
{
    rig *r = arg;
    pc_worker *worker = r->worker;
    pc_job *first = PC_CONTAINER_OF(worker->in_pool.next, pc_job, link);
    pc_slot *child = ((pc_place *)first->slot)->slot;
    pc_message message;
    pc_buf frame;

    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.content_type = pc_slice_str("application/json");
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"task\": \"task\", \"id\": \"t2\"}");
    message.body = pc_slice_str("ok");
    pc_buf_init(&frame);
    bool taken = pc_message_pack(&message, &frame, NULL) == 0;
    child->pool->chosen = child;
    taken = taken && pc_follow_offered(worker, first, pc_buf_slice(&frame));
    pc_buf_fini(&frame);
    PC_ASSERT_INT((int)rig_stats(r).in_pool, taken ? 2 : 1);
    if (taken) {
        worker->pool->ops->recall(worker->pool);
        pc_worker_forget(worker, &worker->ready);
    }
    return taken ? 0 : -1;
}

void
test_follow_without_memory(void)
{
    rig r;

    begin(&r, 1);
    rig_start(&r);
    rig_send(&r, 1, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t1"));
    r.quiet = true;
    PC_ASSERT_INT(follow_and_forget(&r), 0);  // makes what is kept
    PC_ASSERT(PC_OOM(follow_and_forget, &r) >= 3);
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, rig_is_idle(&r));
    PC_ASSERT_INT(runs(&r, 2), 0);
    finish(&r);
}
