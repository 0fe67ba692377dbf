/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/run.h"

#include "base/clock.h"
#include "py/error.h"
#include "py/lazy.h"
#include "py/producer.h"
#include "py/saferepr.h"
#include "py/soft_limit.h"
#include "py/trace.h"
#include "wire/json_out.h"

PyObject *
py_run_context(const py_run *at)
{
    if (at->message == NULL) {
        return Py_NewRef(at->request);
    }
    return py_lazy_context(at->request);
}

/* --- outcomes ---------------------------------------------------------- */

/* (state, document or None, flags) as a hook returned it. */
static int
read_outcome(PyObject *result, pc_outcome *outcome, pc_buf *memory, py_state *state)
{
    int code;
    PyObject *document;
    unsigned flags;
    char *data;
    Py_ssize_t len;
    pc_err err = {0};

    if (!PyArg_ParseTuple(result, "iOI", &code, &document, &flags)) {
        return -1;
    }
    if (code < 0 || code >= PC_STATE_COUNT) {
        PyErr_Format(PyExc_ValueError, "outcome with unknown state %d", code);
        return -1;
    }
    outcome->state = (pc_state)code;
    outcome->flags = flags & ~PC_OUT_DOCUMENT;
    if (document == Py_None) {
        return 0;
    }
    if (PyBytes_AsStringAndSize(document, &data, &len) < 0) {
        return -1;
    }
    pc_buf_reset(memory, 1 << 20);
    if (pc_buf_put(memory, data, (size_t)len, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    outcome->document = pc_buf_slice(memory);
    outcome->flags |= PC_OUT_DOCUMENT;
    return 0;
}

/* Takes over `result` (NULL: the hook raised). */
int
py_run_take_outcome(py_run *at, PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    int rc = read_outcome(result, at->outcome, at->memory, at->self->state);
    Py_DECREF(result);
    return rc;
}

PyObject *
py_run_take_exception(void)
{
    PyObject *type, *value, *trace;

    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL) {
        PyException_SetTraceback(value, trace);
    }
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
}

/* A hook itself failed: hooks.internal_error makes an outcome of it; if even that is not possible, a bare FAILURE. */
static void
internal_error(py_run *at)
{
    PyObject *error = py_run_take_exception();
    PyObject *context = py_run_context(at);

    if (context == NULL) {
        PyErr_Clear();  // the first error is the one to report
        context = Py_NewRef(Py_None);
    }
    PyObject *result = PyObject_CallMethod(at->self->hooks, "internal_error", "OOO",
                                           at->task == NULL ? Py_None : at->task->task, context, error);
    at->outcome->state = PC_FAILURE;
    at->outcome->flags = 0;
    if (py_run_take_outcome(at, result) < 0) {
        PyErr_WriteUnraisable(at->self->hooks);
    }
    Py_DECREF(context);
    Py_XSETREF(at->value, error);
}

/* --- success ----------------------------------------------------------- */

static int
log_success(py_run *at)
{
    PyObject *context = py_run_context(at);

    if (context == NULL) {
        return -1;
    }
    PyObject *done = PyObject_CallMethod(at->self->hooks, "log_success", "OOOd", at->task->task, context,
                                         at->value, (double)at->outcome->run_ns / 1e9);
    Py_DECREF(context);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* --- failure ----------------------------------------------------------- */

/* An exception is set. */
static int
fail(py_run *at)
{
    PyObject *error = py_run_take_exception();
    PyObject *context = py_run_context(at);
    int rc = -1;

    if (context != NULL) {
        rc = py_run_take_outcome(at, PyObject_CallMethod(at->self->hooks, "fail", "OOO", at->task->task,
                                                  context, error));
    }
    Py_XDECREF(context);
    Py_XSETREF(at->value, error);
    return rc;
}

/* --- notes for events --------------------------------------------------- */

/* "name": "text", with `text` a str, or None for null. */
static int
put_note(pc_buf *out, const char *name, PyObject *text, pc_err *err)
{
    Py_ssize_t len = 0;
    const char *utf8 = text == Py_None ? NULL : PyUnicode_AsUTF8AndSize(text, &len);

    if (pc_buf_printf(out, err, "\"%s\": ", name) < 0) {
        return -1;
    }
    if (utf8 == NULL) {
        PyErr_Clear();  // surrogates cannot be told
        return pc_buf_put_str(out, "null", err);
    }
    return pc_json_put_string(out, pc_slice_of(utf8, (size_t)len), err);
}

static int
note_success(py_run *at, pc_buf *out)
{
    pc_buf text;
    pc_err err = {0};

    pc_buf_init(&text);
    int rc = py_saferepr(at->self->state, at->value, at->task->repr_max, &text);
    if (rc == 0 && (pc_buf_put_str(out, "\"result\": ", &err) < 0
                    || pc_json_put_string(out, pc_buf_slice(&text), &err) < 0)) {
        py_raise(at->self->state, &err);
        rc = -1;
    }
    pc_buf_fini(&text);
    return rc;
}

static int
note_exception(py_run *at, pc_buf *out)
{
    PyObject *exception, *traceback;
    pc_err err = {0};
    PyObject *pair = PyObject_CallMethod(at->self->hooks, "describe", "sO", pc_state_name(at->outcome->state), at->value);

    if (pair == NULL || !PyArg_ParseTuple(pair, "OO:describe", &exception, &traceback)) {
        Py_XDECREF(pair);
        return -1;
    }
    int rc = put_note(out, "exception", exception, &err);
    if (rc == 0 && (rc = pc_buf_put_str(out, ", ", &err)) == 0) {
        rc = put_note(out, "traceback", traceback, &err);
    }
    if (rc < 0) {
        py_raise(at->self->state, &err);
    }
    Py_DECREF(pair);
    return rc;
}

/* Behind the document, in the same memory. Without notes the event is sent all the same, with nulls. */
static void
note(py_run *at)
{
    pc_outcome *outcome = at->outcome;
    size_t document = outcome->flags & PC_OUT_DOCUMENT ? pc_buf_len(at->memory) : 0;

    if (at->value == NULL || outcome->state == PC_IGNORED) {
        return;
    }
    if (document == 0) {
        pc_buf_reset(at->memory, 1 << 20);
    }
    int rc = outcome->state == PC_SUCCESS ? note_success(at, at->memory) : note_exception(at, at->memory);
    if (rc < 0) {
        PyErr_WriteUnraisable(at->self->hooks);
        at->memory->end = at->memory->start + document;
    } else {
        outcome->notes = pc_slice_of(pc_buf_ptr(at->memory) + document, pc_buf_len(at->memory) - document);
    }
    if (outcome->flags & PC_OUT_DOCUMENT) {
        outcome->document = pc_slice_of(pc_buf_ptr(at->memory), document);
    }
}

/* --- the run ----------------------------------------------------------- */

static int
push(PyObject *method, PyObject *value)
{
    PyObject *done = PyObject_CallOneArg(method, value);

    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static void
pop(PyObject *method)
{
    PyObject *done = PyObject_CallNoArgs(method);

    if (done == NULL) {
        PyErr_WriteUnraisable(method);
    }
    Py_XDECREF(done);
}

static int
enter(py_run *at)
{
    if (!(at->task->flags & PY_TASK_ENTER)) {
        return 0;
    }
    PyObject *context = py_run_context(at);
    if (context == NULL) {
        return -1;
    }
    PyObject *done = PyObject_CallMethod(at->self->hooks, "enter", "OO", at->task->task, context);
    Py_DECREF(context);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
call(py_run *at)
{
    PyObject *callee = at->task->flags & PY_TASK_CUSTOM_CALL ? at->task->task : at->task->run;
    PyObject *args = PySequence_Tuple(at->args);

    if (args == NULL) {
        return NULL;
    }
    PyObject *kwargs = PyDict_GET_SIZE(at->kwargs) > 0 ? PyDict_Copy(at->kwargs) : NULL;
    if (kwargs == NULL && PyErr_Occurred()) {
        Py_DECREF(args);
        return NULL;
    }
    PyObject *value = PyObject_Call(callee, args, kwargs);
    Py_DECREF(args);
    Py_XDECREF(kwargs);
    return value;
}

static void
leave(py_run *at)
{
    if (!(at->task->flags & PY_TASK_LEAVE)) {
        return;
    }
    PyObject *context = py_run_context(at);
    PyObject *done = NULL;
    if (context != NULL) {
        done = PyObject_CallMethod(at->self->hooks, "leave", "OOOs", at->task->task, context,
                                   at->value == NULL ? Py_None : at->value,
                                   pc_state_name(at->outcome->state));
    }
    if (done == NULL) {
        PyErr_WriteUnraisable(at->self->hooks);
    }
    Py_XDECREF(context);
    Py_XDECREF(done);
}

void
py_tracer_confirm_later(PyObject *tracer)
{
    ((py_tracer *)(void *)tracer)->confirms_later = true;
}

void
py_tracer_flush(PyObject *tracer)
{
    py_tracer *self = (py_tracer *)(void *)tracer;
    PyObject *done = PyObject_CallMethod(self->hooks, "flush", NULL);

    if (done == NULL) {
        PyErr_WriteUnraisable(self->hooks);
    }
    Py_XDECREF(done);
}

bool
py_run_has_sent(const py_run *at)
{
    return at->self->state->published != at->sent_before;
}

/* A message that is acknowledged after the run must not be before all that the run has published is safe. Early ones
 * promise nothing, and the next link of a chain need not wait for the confirm of the last. */
static void
flush_sent(py_run *at)
{
    py_tracer *self = at->self;
    if (!py_run_has_sent(at)) {
        return;
    }
    bool later = self->confirms_later && !(at->task->flags & PY_TASK_LATE);
    PyObject *done = PyObject_CallMethod(self->hooks, later ? "publisher" : "flush", NULL);
    if (later && done != NULL && py_producer_can_confirm(self->state, done)) {
        Py_XSETREF(self->state->confirming, Py_NewRef(done));
    } else if (later && done != NULL) {
        Py_SETREF(done, PyObject_CallMethod(self->hooks, "flush", NULL));
    }
    if (done == NULL) {
        PyErr_WriteUnraisable(at->self->hooks);
    }
    Py_XDECREF(done);
}

/* The whole run is the hook's: it calls a tracer of its own in the end. */
static void
run_around(py_run *at)
{
    pc_mono start = pc_mono_now();
    PyObject *context = py_run_context(at);
    int rc = -1;

    PyObject *pair = context == NULL ? NULL : PyObject_CallMethod(at->self->hooks, "around", "OO", at->task->task, context);
    PyObject *outcome, *value;
    if (pair != NULL && PyArg_ParseTuple(pair, "OO:around", &outcome, &value)) {
        at->value = Py_NewRef(value);
        rc = py_run_take_outcome(at, Py_NewRef(outcome));
    }
    Py_XDECREF(pair);
    Py_XDECREF(context);
    at->outcome->run_ns = pc_mono_now().ns - start.ns;
    if (rc < 0) {
        internal_error(at);
    }
    if (at->outcome->want_notes) {
        note(at);
    }
}

/* Task and request go where user code finds them. -1 with an exception. */
static int
push_stacks(py_run *at)
{
    if (push(at->self->push, at->task->task) < 0) {
        return -1;
    }
    at->pushed = 1;
    if (push(at->task->push, at->request) < 0) {
        return -1;
    }
    at->pushed = 2;
    return 0;
}

static void
pop_stacks(py_run *at)
{
    if (at->pushed > 1) {
        pop(at->task->pop);
    }
    if (at->pushed > 0) {
        pop(at->self->pop);
    }
    at->pushed = 0;
}

PyObject *
py_run_begin(py_run *at)
{
    at->sent_before = at->self->state->published;
    at->start = pc_mono_now();
    if (push_stacks(at) < 0 || enter(at) < 0) {
        return NULL;
    }
    at->start = pc_mono_now();
    return call(at);
}

static void
end_sent(py_run *at)
{
    if (!at->apart) {
        flush_sent(at);
    }
}

void
py_run_end(py_run *at)
{
    bool returned = at->value != NULL;

    at->outcome->run_ns = pc_mono_now().ns - at->start.ns;
    int rc = returned ? py_run_succeed(at) : fail(at);
    py_run_close(at);
    if (rc == 0 && returned && at->outcome->state == PC_SUCCESS && (at->task->flags & PY_TASK_LOG)) {
        rc = log_success(at);
    }
    if (rc < 0) {
        internal_error(at);
    }
    if (at->outcome->want_notes) {
        note(at);
    }
    leave(at);
    end_sent(at);
    pop_stacks(at);
}

/* Asks whether the task has succeeded when its message came before; then only what that run did not get to is done. */
static void
look_back(py_run *at)
{
    PyObject *context = py_run_context(at);
    PyObject *result = context == NULL ? NULL : PyObject_CallMethod(at->self->hooks, "done_before", "OO", at->task->task, context);

    Py_XDECREF(context);
    if (result == Py_None) {
        Py_DECREF(result);
        return;
    }
    at->over = true;
    if ((result == NULL ? fail(at) : py_run_take_outcome(at, result)) < 0) {
        internal_error(at);
    }
    if (at->outcome->want_notes) {
        note(at);
    }
    end_sent(at);
}

bool
py_run_looks_back(const py_run *at)
{
    return at->task->flags & PY_TASK_ONCE && at->message != NULL && at->message->redelivered;
}

bool
py_run_is_over(py_run *at)
{
    if (!py_run_looks_back(at)) {
        return false;
    }
    at->sent_before = at->self->state->published;
    if (push_stacks(at) < 0) {
        at->over = true;
        internal_error(at);
    } else {
        look_back(at);
    }
    pop_stacks(at);
    return at->over;
}

void
py_run_task(py_run *at)
{
    if (py_run_is_over(at)) {
        return;
    }
    if (at->task->flags & PY_TASK_AROUND) {
        run_around(at);
        return;
    }
    at->value = py_run_begin(at);
    if (at->value != NULL && (at->task->flags & PY_TASK_COROUTINE)) {
        Py_SETREF(at->value, PyObject_CallMethod(at->self->hooks, "run_coroutine", "O", at->value));
    }
    py_run_end(at);
}
