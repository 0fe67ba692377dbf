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
    pc_mono start;
    uint64_t sent_before;  // state->published
    int pushed;            // how many of the two stacks
    bool apart;            // who called confirms what it has published (py_run_has_sent)
    // while it is open
    struct py_run *next;
    unsigned long thread;
    bool offering;  // it is sending its link
    bool interrupted;
} py_run;

/* What a message in pieces is kept in. It must not be moved. */
typedef struct py_letter {
    pc_message message;
    pc_head head;
    pc_buf scratch;
    PyObject *body;
} py_letter;

/* Of zeroed structs but for self, outcome and memory. 0: the task can run; -1: the outcome says why not. */
int py_run_read(py_run *at, py_letter *letter, pc_slice frame);
void py_run_forget(py_run *at, py_letter *letter);

/* Runs at->task with at->args: fills the outcome (and at->value), whatever happens. */
void py_run_task(py_run *at);
/* The same in two steps: what the body returned, maybe a coroutine, NULL with an exception; and, with at->value or an exception set,
 * the outcome. */
PyObject *py_run_begin(py_run *at);
void py_run_end(py_run *at);
/* Before it: an earlier delivery of the message did it all, or what is left of it is done now. The first: does that have to be found out? */
bool py_run_looks_back(const py_run *at);
bool py_run_is_over(py_run *at);
/* Something was published since it began, by whomever. */
bool py_run_has_sent(const py_run *at);
/* Will the end of this run, which has a value, neither call anybody's code nor wait for anything? */
bool py_run_ends_plainly(const py_run *at);
/* The run has a value: its outcome. -1 with an exception. */
int py_run_succeed(py_run *at);
/* Tracer.offer() (offer.c). */
PyObject *py_tracer_offer(py_tracer *self, PyObject *const *args, Py_ssize_t nargs);
/* The Context, as hooks are given it; new reference. */
PyObject *py_run_context(const py_run *at);
/* Takes over what a hook returned (NULL: it raised) and fills the outcome. */
int py_run_take_outcome(py_run *at, PyObject *result);
/* The exception that is set, with its traceback; it is cleared. */
PyObject *py_run_take_exception(void);

#endif
