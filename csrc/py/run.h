/* SPDX-License-Identifier: BSD-3-Clause */
/* One run of one task, from its push on the stacks to its outcome. */
#ifndef PC_PY_RUN_H
#define PC_PY_RUN_H

#include "py/order.h"
#include "py/trace.h"
#include "wire/embed.h"
#include "wire/proto2.h"

/* What the tracer knows of a task. */
typedef struct py_record {
    PyObject ob_base;
    PyObject *task;
    PyObject *run;
    PyObject *push;  // bound methods of the task's request stack
    PyObject *pop;
    unsigned flags;
    int repr_max;    // characters of its results in events
} py_record;

typedef struct py_tracer {
    PyObject ob_base;
    py_state *state;
    PyObject *hooks;
    PyObject *make_request;
    PyObject *hostname;
    PyObject *push;  // bound methods of the stack of current tasks
    PyObject *pop;
    PyObject *records;  // name -> record
    bool utc;
    bool (*offer)(void *ctx, pc_slice frame);  // NULL: nobody takes offers
    void *offer_ctx;
    const pc_message *offering;  // the message whose run is sending its link; NULL: none
    py_scratches scratches;
    bool confirms_later;  // who called confirms what early-ack tasks have published (py_tracer_confirming)
} py_tracer;

/* One run. */
typedef struct py_run {
    py_tracer *self;
    py_record *task;
    PyObject *request;  // LazyRequest, or the Context of an eager run
    PyObject *args;
    PyObject *kwargs;
    PyObject *embed;    // may be NULL
    pc_links links;     // of a chain, in place of `embed`; else all absent
    const pc_message *message;  // NULL when eager
    const pc_head *head;
    PyObject *value;    // return value or exception
    bool over;          // nothing is left to do: an earlier delivery of the message did it
    pc_outcome *outcome;
    pc_buf *memory;
    // while it is open
    struct py_run *next;
    unsigned long thread;
    bool interrupted;
} py_run;

/* Runs at->task with at->args: fills the outcome (and at->value), whatever happens. */
void py_run_task(py_run *at);
/* The run has a value: its outcome. -1 with an exception. */
int py_run_succeed(py_run *at);
/* Tracer.offer() and py_tracer_offer_to() (offer.c). */
PyObject *py_tracer_offer(py_tracer *self, PyObject *const *args, Py_ssize_t nargs);
/* The Context, as hooks are given it; new reference. */
PyObject *py_run_context(const py_run *at);
/* Takes over what a hook returned (NULL: it raised) and fills the outcome. */
int py_run_take_outcome(py_run *at, PyObject *result);
/* The exception that is set, with its traceback; it is cleared. */
PyObject *py_run_take_exception(void);

#endif
