/* SPDX-License-Identifier: BSD-3-Clause */
/* Events, byte for byte as a worker of Celery 5.6 sent them (PROTOCOL §3.7), and what is done with texts that are none. */
#include "wire/event.h"

#include <stdio.h>

#include "harness.h"

static pc_slice
prefix(pc_buf *memory)
{
    pc_buf_init(memory);
    PC_ASSERT_INT(pc_event_put_prefix(pc_slice_str("w1@vm"), 0, 11982, memory, NULL), 0);
    return pc_buf_slice(memory);
}

static void
expect(pc_buf *out, const char *text)
{
    PC_ASSERT(pc_buf_put_u8(out, 0, NULL) == 0);
    PC_ASSERT_STR(pc_buf_ptr(out), text);
    pc_buf_fini(out);
}

void
test_as_celery_wrote_it(void)
{
    pc_buf memory, out;
    pc_event event;
    pc_slice start = prefix(&memory);

    pc_buf_init(&out);
    pc_event_begin(&event, &out, start, 6);
    pc_event_text(&event, "uuid", pc_slice_str("t-ok"));
    pc_event_text(&event, "result", pc_slice_str("4"));
    pc_event_seconds(&event, "runtime", 5400000);
    PC_ASSERT_INT(pc_event_end(&event, pc_slice_str("task-succeeded"), (pc_wall){1795160941710000}), 0);
    expect(&out, "{\"hostname\": \"w1@vm\", \"utcoffset\": 0, \"pid\": 11982, \"clock\": 6, \"uuid\": \"t-ok\", "
                 "\"result\": \"4\", \"runtime\": 0.0054, \"timestamp\": 1795160941.71, \"type\": \"task-succeeded\"}");
    pc_buf_fini(&memory);
}

void
test_all_kinds_of_members(void)
{
    pc_buf memory, out;
    pc_event event;
    pc_slice start = prefix(&memory);

    pc_buf_init(&out);
    pc_event_begin(&event, &out, start, UINT64_C(1) << 40);
    pc_event_text(&event, "none", pc_slice_of(NULL, 0));
    pc_event_text(&event, "empty", pc_slice_of("", 0));
    pc_event_text(&event, "odd", pc_slice_str("\"\\\n\xc3\xa4"));
    pc_event_text(&event, "broken", pc_slice_str("ab\xff"));
    pc_event_integer(&event, "n", -3);
    pc_event_boolean(&event, "yes", true);
    pc_event_boolean(&event, "no", false);
    pc_event_seconds(&event, "zero", 0);
    pc_event_seconds(&event, "back", -1);
    pc_event_seconds(&event, "long", 3600000000001);
    pc_event_members(&event, pc_slice_str("\"a\": 1"));
    pc_event_members(&event, pc_slice_of(NULL, 0));
    PC_ASSERT_INT(pc_event_end(&event, pc_slice_str("task-x"), (pc_wall){1000000}), 0);
    expect(&out, "{\"hostname\": \"w1@vm\", \"utcoffset\": 0, \"pid\": 11982, \"clock\": 1099511627776, \"none\": null, "
                 "\"empty\": \"\", \"odd\": \"\\\"\\\\\\n\\u00e4\", \"broken\": null, \"n\": -3, \"yes\": true, \"no\": false, "
                 "\"zero\": 0.0, \"back\": 0.0, \"long\": 3600.000000001, \"a\": 1, \"timestamp\": 1.0, \"type\": \"task-x\"}");
    pc_buf_fini(&memory);
}

typedef struct job {
    pc_slice prefix;
    pc_buf out;
} job;

static int
try_event(void *arg)
{
    job *j = arg;
    pc_event event;

    pc_buf_init(&j->out);
    pc_event_begin(&event, &j->out, j->prefix, 1);
    pc_event_text(&event, "uuid", pc_slice_str("some text that does not fit into what there is already, by no means"));
    int rc = pc_event_end(&event, pc_slice_str("task-x"), (pc_wall){1});
    PC_ASSERT(rc == 0 || pc_buf_len(&j->out) == 0);  // all or nothing
    pc_buf_fini(&j->out);
    return rc;
}

void
test_events_without_memory(void)
{
    pc_buf memory;
    job j = {.prefix = prefix(&memory)};

    PC_ASSERT(PC_OOM(try_event, &j) > 0);
    pc_buf_fini(&memory);
}

/* The three events of a task: instructions and time per event are what users pay for -E. */
void
bench_three_events(long n)
{
    pc_buf memory, out;
    pc_event event;
    pc_slice start = prefix(&memory);
    pc_slice id = pc_slice_str("2f1a0d4e-9a6f-4d0b-9d75-0d6a6c1c5a11");

    pc_buf_init(&out);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        pc_wall now = pc_wall_now();
        pc_buf_reset(&out, SIZE_MAX);
        pc_event_begin(&event, &out, start, (uint64_t)i);
        pc_event_text(&event, "uuid", id);
        pc_event_text(&event, "name", pc_slice_str("proj.tasks.add"));
        pc_event_text(&event, "args", pc_slice_str("(2, 2)"));
        pc_event_text(&event, "kwargs", pc_slice_str("{}"));
        pc_event_text(&event, "root_id", id);
        pc_event_text(&event, "parent_id", pc_slice_of(NULL, 0));
        pc_event_integer(&event, "retries", 0);
        pc_event_text(&event, "eta", pc_slice_of(NULL, 0));
        pc_event_text(&event, "expires", pc_slice_of(NULL, 0));
        (void)pc_event_end(&event, pc_slice_str("task-received"), now);
        pc_event_begin(&event, &out, start, (uint64_t)i);
        pc_event_text(&event, "uuid", id);
        (void)pc_event_end(&event, pc_slice_str("task-started"), now);
        pc_event_begin(&event, &out, start, (uint64_t)i);
        pc_event_text(&event, "uuid", id);
        pc_event_members(&event, pc_slice_str("\"result\": \"4\""));
        pc_event_seconds(&event, "runtime", 123456);
        (void)pc_event_end(&event, pc_slice_str("task-succeeded"), now);
    }
    pc_buf_fini(&out);
    pc_buf_fini(&memory);
}
