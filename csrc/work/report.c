/* SPDX-License-Identifier: BSD-3-Clause */
/* What the machine reports about its tasks in events. Called for tasks whose events are wanted only. */
#include "work/machine.h"

#define TYPE(text) (pc_slice){(text), sizeof(text) - 1}

void
pc_report_received(pc_worker *worker, const pc_job *job, const pc_head *head)
{
    pc_event event;

    if (!pc_events_begin(&worker->events, &event)) {
        return;
    }
    pc_event_text(&event, "uuid", pc_job_id(job));
    pc_event_text(&event, "name", head->task);
    pc_event_text(&event, "args", head->argsrepr);
    pc_event_text(&event, "kwargs", head->kwargsrepr);
    pc_event_text(&event, "root_id", head->root_id);
    pc_event_text(&event, "parent_id", head->parent_id);
    pc_event_integer(&event, "retries", head->retries);
    pc_event_text(&event, "eta", head->eta_text);
    pc_event_text(&event, "expires", head->expires_text);
    pc_events_end(&worker->events, &event, TYPE("task-received"), pc_wall_now());
}

void
pc_report_started(pc_worker *worker, const pc_job *job)
{
    pc_event event;

    if (pc_events_begin(&worker->events, &event)) {
        pc_event_text(&event, "uuid", pc_job_id(job));
        pc_events_end(&worker->events, &event, TYPE("task-started"), job->started);
    }
}

/* `type` with the members that the pool noted: "exception": …, "traceback": … */
static void
report_noted(pc_worker *worker, const pc_job *job, pc_slice type, pc_slice notes)
{
    pc_event event;

    if (pc_events_begin(&worker->events, &event)) {
        pc_event_text(&event, "uuid", pc_job_id(job));
        pc_event_members(&event, notes.len > 0 ? notes : pc_slice_str("\"exception\": null, \"traceback\": null"));
        pc_events_end(&worker->events, &event, type, pc_wall_now());
    }
}

static void
report_success(pc_worker *worker, const pc_job *job, const pc_outcome *outcome)
{
    pc_event event;

    if (pc_events_begin(&worker->events, &event)) {
        pc_event_text(&event, "uuid", pc_job_id(job));
        pc_event_members(&event, outcome->notes.len > 0 ? outcome->notes : pc_slice_str("\"result\": null"));
        pc_event_seconds(&event, "runtime", outcome->run_ns);
        pc_events_end(&worker->events, &event, TYPE("task-succeeded"), pc_wall_now());
    }
}

static void
report_rejection(pc_worker *worker, const pc_job *job, const pc_outcome *outcome)
{
    bool requeue = (outcome->flags & PC_OUT_REQUEUE) != 0;
    pc_event event;

    if (pc_events_begin(&worker->events, &event)) {
        pc_event_text(&event, "uuid", pc_job_id(job));
        pc_event_boolean(&event, "requeue", requeue);
        pc_events_end(&worker->events, &event, TYPE("task-rejected"), pc_wall_now());
    }
    if (!requeue) {  // a failure is stored for it
        report_noted(worker, job, TYPE("task-failed"), outcome->notes);
    }
}

void
pc_report_done(pc_worker *worker, const pc_job *job, const pc_outcome *outcome)
{
    if (outcome->flags & PC_OUT_UNDECODABLE) {
        return;  // it never was a run
    }
    if (outcome->state == PC_SUCCESS) {
        report_success(worker, job, outcome);
    } else if (outcome->state == PC_FAILURE) {
        report_noted(worker, job, TYPE("task-failed"), outcome->notes);
    } else if (outcome->state == PC_RETRY) {
        report_noted(worker, job, TYPE("task-retried"), outcome->notes);
    } else if (outcome->state == PC_REJECTED) {
        report_rejection(worker, job, outcome);
    }
}
