/* SPDX-License-Identifier: BSD-3-Clause */
/* Events of a machine: which tasks tell what and in which order, batches, and what is done while nothing leaves. */
#include <stdio.h>

#include "harness.h"
#include "worker_world.h"

typedef struct line {
    bool cut;     // nothing leaves
    int batches;
    char text[400000];
    char key[64];
} line;

static bool
take(void *ctx, pc_slice routing_key, pc_slice body)
{
    line *l = ctx;
    size_t have = strlen(l->text);

    if (l->cut) {
        return false;
    }
    PC_ASSERT(have + body.len + 2 < sizeof l->text && routing_key.len < sizeof l->key);
    memcpy(l->text + have, body.ptr, body.len);
    l->text[have + body.len] = '\n';
    memcpy(l->key, routing_key.ptr, routing_key.len);
    l->key[routing_key.len] = '\0';
    l->batches++;
    return true;
}

static int
count(const char *text, const char *what)
{
    int n = 0;

    for (; (text = strstr(text, what)) != NULL; text++) {
        n++;
    }
    return n;
}

static void
begin(rig *r, line *l, const char *pool)
{
    pc_events_hooks hooks = {take, l};

    memset(l, 0, sizeof *l);
    rig_init(r, pool, 1);
    pc_spec quiet = rig_spec("quiet");
    pc_spec loud = rig_spec("task");
    loud.acks_late = true;
    loud.send_events = true;
    quiet.acks_late = true;
    rig_add(r, loud);
    rig_add(r, quiet);
    pc_events *events = pc_worker_events(r->worker);
    PC_ASSERT_INT(pc_events_identity(events, pc_slice_str("w@h"), 0, 7, pc_slice_str("celeryev"), NULL, NULL), 0);
    PC_ASSERT_INT(pc_events_open(events, NULL, &hooks, NULL), 0);
    events->tasks = true;
    rig_start(r);
}

static void
end(rig *r)
{
    PC_ASSERT_STR(rig_stop(r, PC_STOP_WARM, 4000), "");
    rig_free(r);
}

static void
check_order(const char *pool)
{
    static line l;
    rig r;

    begin(&r, &l, pool);
    rig_send_with(&r, 1, "task", "ok", ", \"argsrepr\": \"(1,)\", \"eta\": \"2020-01-01T00:00:00+00:00\"");
    rig_send(&r, 2, "quiet", "ok");
    rig_send(&r, 3, "task", "fail");
    rig_send(&r, 4, "task", "retry");
    rig_send(&r, 5, "task", "reject");
    rig_send(&r, 6, "task", "ignore");
    RIG_UNTIL(&r, r.settled == 6);
    rig_turns(&r, 20);
    const char *at = l.text;
    static const char *const order[] = {"task-received", "task-started", "\"result\": null", "task-succeeded"};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        const char *next = strstr(at, order[i]);
        PC_ASSERT(next != NULL, "%s is not in: %s", order[i], at);
        at = next;
    }
    PC_ASSERT(strstr(l.text, "\"args\": \"(1,)\", \"kwargs\": null,") != NULL, "%s", l.text);
    PC_ASSERT(strstr(l.text, "\"eta\": \"2020-01-01T00:00:00+00:00\", \"expires\": null,") != NULL, "%s", l.text);
    PC_ASSERT_INT(count(l.text, "\"task-received\""), 5);
    PC_ASSERT_INT(count(l.text, "\"task-started\""), 5);
    PC_ASSERT_INT(count(l.text, "\"task-failed\""), 2);
    PC_ASSERT_INT(count(l.text, "\"task-retried\""), 1);
    PC_ASSERT_INT(count(l.text, "\"task-rejected\""), 1);
    PC_ASSERT_INT(count(l.text, "\"t2\""), 0);
    PC_ASSERT_STR(l.key, "task.multi");
    end(&r);
}

void
test_order_prefork(void)
{
    check_order("prefork");
}

void
test_order_threads(void)
{
    check_order("threads");
}

void
test_order_solo(void)
{
    check_order("solo");
}

void
test_batches_are_full_or_a_moment_old(void)
{
    static line l;
    rig r;

    begin(&r, &l, "solo");
    r.quiet = true;
    for (int i = 1; i <= 160; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, r.settled == 160);
    rig_turns(&r, 20);
    PC_ASSERT_INT(count(l.text, "\"type\""), 480);
    PC_ASSERT(l.batches >= 480 / PC_EVENTS_BATCH && l.batches <= 480 / PC_EVENTS_BATCH + 160, "%d", l.batches);
    PC_ASSERT_INT(count(l.text, "\"clock\": 480,"), 1);
    end(&r);
}

/* Tasks run on; the oldest events are kept, the rest is counted; all that is kept leaves in the end. */
void
test_while_nothing_leaves(void)
{
    static line l;
    rig r;

    begin(&r, &l, "solo");
    r.quiet = true;
    l.cut = true;
    for (int i = 1; i <= 400; i++) {
        rig_send(&r, i, "task", "ok");
    }
    RIG_UNTIL(&r, r.settled == 400);
    PC_ASSERT_INT(l.batches, 0);
    pc_events *events = pc_worker_events(r.worker);
    PC_ASSERT_INT(events->count, PC_EVENTS_KEPT);
    PC_ASSERT_INT(events->lost, 200);
    l.cut = false;
    RIG_UNTIL(&r, events->count == 0);
    PC_ASSERT_INT(count(l.text, "\"type\""), PC_EVENTS_KEPT);
    PC_ASSERT_INT(l.batches, 1);
    end(&r);
}

void
test_switched_off_and_on(void)
{
    static line l;
    rig r;

    begin(&r, &l, "solo");
    pc_events *events = pc_worker_events(r.worker);
    events->tasks = false;
    rig_send(&r, 1, "task", "ok");
    RIG_UNTIL(&r, r.settled == 1);
    rig_turns(&r, 20);
    PC_ASSERT_STR(l.text, "");
    events->tasks = true;
    rig_send(&r, 2, "task", "ok");
    RIG_UNTIL(&r, r.settled == 2);
    PC_ASSERT_INT(pc_events_send(events, pc_slice_str("worker-heartbeat"), pc_slice_str("worker.heartbeat"),
                                 pc_slice_str("\"freq\": 2.0"), pc_wall_now()), 0);
    PC_ASSERT_INT(count(l.text, "\"type\""), 4);
    PC_ASSERT(strstr(l.text, "\n{\"hostname\": \"w@h\"") != NULL, "alone, behind the batch: %s", l.text);
    PC_ASSERT_STR(l.key, "worker.heartbeat");
    end(&r);
}
