/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool's door to the interpreter (pc_runner): how tasks are run, processes forked and
 * threads started. Every function is entered without the GIL and takes it. */
#include <errno.h>
#include <unistd.h>

#include "py/line.h"
#include "py/producer.h"
#include "py/soft_limit.h"
#include "py/worker.h"

/* An offer of the solo pool: the machine, which others may use while the task runs, has to be taken back for it. */
typedef struct loop_offer {
    py_worker *self;
    bool (*offer)(void *offer_to, pc_slice frame);
    void *offer_to;
} loop_offer;

static bool
offer_in_loop(void *to, pc_slice frame)
{
    loop_offer *what = to;

    py_worker_sleeping(what->self, false);
    bool granted = what->offer(what->offer_to, frame);
    py_worker_sleeping(what->self, true);
    return granted;
}

static void
run_in_loop(py_worker *self, pc_slice frame, pc_outcome *outcome, pc_buf *memory)
{
    loop_offer what = {self, outcome->offer, outcome->offer_to};

    if (what.offer != NULL) {
        outcome->offer = offer_in_loop;
        outcome->offer_to = &what;
    }
    py_worker_sleeping(self, true);
    PyGILState_STATE gil = PyGILState_Ensure();
    py_tracer_run(self->tracer, frame, outcome, memory);
    PyGILState_Release(gil);
    py_worker_sleeping(self, false);
}

static void
run(void *ctx, pc_slice frame, pc_outcome *outcome, pc_buf *memory)
{
    py_worker *self = ctx;

    if (!self->chain_shortcut) {
        outcome->offer = NULL;
    }
    if (self->child == NULL && PyThread_get_thread_ident() == self->owner) {  // the solo pool
        run_in_loop(self, frame, outcome, memory);
        return;
    }
    PyGILState_STATE gil = PyGILState_Ensure();
    py_tracer_run(self->tracer, frame, outcome, memory);
    PyGILState_Release(gil);
}

static pid_t
fork_child(void *ctx)
{
    (void)ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    pid_t pid = fork();
    int saved = errno;
    if (pid == 0) {
        PyOS_AfterFork_Child();
    } else {
        PyOS_AfterFork_Parent();
    }
    PyGILState_Release(gil);
    errno = saved;
    return pid;
}

static int
call_for_code(py_worker *self, const char *name, int value, int failed)
{
    PyObject *result = py_worker_call(self, name, "(i)", value);

    if (result == NULL) {
        return failed;
    }
    long code = result == Py_None ? 0 : PyLong_AsLong(result);
    Py_DECREF(result);
    if (code == -1 && PyErr_Occurred()) {
        py_worker_report(self);
        return failed;
    }
    return (int)code;
}

static int
child_start(void *ctx, int index, const pc_child *child)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    self->child = child;
    self->owner = PyThread_get_thread_ident();
    pc_worker_abandon(self->worker);
    self->state->open = NULL;  // those of the parent's threads
    py_tracer_confirm_later(self->tracer);
    int code = call_for_code(self, "child_start", index, 1);
    PyGILState_Release(gil);
    return code;
}

static int
child_stop(void *ctx, int code)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    int result = call_for_code(self, "child_stop", code, code);

    PyGILState_Release(gil);
    return result;
}

static void
child_exit(void *ctx, int code)
{
    (void)ctx;
    _exit(code);
}

static int
child_signals(void *ctx)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    int leave = 0;

    if (PyErr_CheckSignals() < 0) {
        leave = !PyErr_ExceptionMatches(PyExc_Exception);
        py_worker_report(self);
    }
    PyGILState_Release(gil);
    return leave;
}

/* Only this thread runs tasks here, so nobody else changes state->confirming. */
static int
confirming(void *ctx)
{
    py_worker *self = ctx;
    PyObject *producer = self->state->confirming;

    int fd = producer == NULL ? -1 : py_producer_confirming(producer);
    if (producer != NULL && fd < 0) {
        PyGILState_STATE gil = PyGILState_Ensure();
        Py_CLEAR(self->state->confirming);
        py_tracer_flush(self->tracer);  // tells what was refused
        PyGILState_Release(gil);
    }
    return fd;
}

/* What a pool thread is to do, handed through Python's threading. A thread may outlive the machine, when its
 * task does, so it keeps the runner alive. */
typedef struct errand {
    py_worker *owner;
    void (*main)(void *arg);
    void *arg;
} errand;

static void
free_errand(PyObject *capsule)
{
    errand *what = PyCapsule_GetPointer(capsule, NULL);

    Py_DECREF(what->owner);
    PyMem_RawFree(what);
}

static PyObject *
run_errand(PyObject *capsule, PyObject *unused)
{
    errand *what = PyCapsule_GetPointer(capsule, NULL);

    (void)unused;
    if (what == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    what->main(what->arg);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

static PyMethodDef errand_def = {"pool_thread", run_errand, METH_NOARGS, "The life of a pool thread."};

static PyObject *
errand_function(py_worker *self, void (*main)(void *arg), void *arg)
{
    errand *what = PyMem_RawMalloc(sizeof(*what));

    if (what == NULL) {
        return PyErr_NoMemory();
    }
    *what = (errand){(py_worker *)Py_NewRef(self), main, arg};
    PyObject *capsule = PyCapsule_New(what, NULL, free_errand);
    if (capsule == NULL) {
        Py_DECREF(self);
        PyMem_RawFree(what);
        return NULL;
    }
    PyObject *function = PyCFunction_New(&errand_def, capsule);
    Py_DECREF(capsule);
    return function;
}

static int
start_thread(void *ctx, void (*main)(void *arg), void *arg, int index, pc_err *err)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *function = errand_function(self, main, arg);
    PyObject *done = NULL;

    if (function == NULL) {
        py_worker_report(self);
    } else {
        done = py_worker_call(self, "start_thread", "(Oi)", function, index);
    }
    Py_XDECREF(function);
    Py_XDECREF(done);
    PyGILState_Release(gil);
    return done == NULL ? pc_fail(err, PC_EIO, "cannot start a thread") : 0;
}

/* A coroutine that waits gets the exception from its event loop. */
static bool
is_told(py_worker *self, unsigned long thread_id)
{
    if (!py_run_is_open(self->state, thread_id)) {
        return true;
    }
    PyObject *told = py_worker_call(self, "strike", "(k)", thread_id);
    bool yes = told == Py_True;

    Py_XDECREF(told);
    return yes;
}

static int
interrupt(void *ctx, unsigned long thread_id)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (is_told(self, thread_id)) {
        PyGILState_Release(gil);
        return 0;
    }
    PyObject *exception = PyObject_GetAttrString(self->hooks, "soft_limit_exception");
    int rc = -1;

    if (exception == NULL) {
        py_worker_report(self);
    } else {
        rc = py_run_interrupt(self->state, thread_id, exception);
        Py_DECREF(exception);
    }
    PyGILState_Release(gil);
    return rc;
}

static unsigned long
thread_id(void *ctx)
{
    (void)ctx;
    return PyThread_get_thread_ident();
}

void
py_runner_fill(py_worker *self, pc_runner *runner)
{
    *runner = (pc_runner){
        .run = run,
        .fork = fork_child,
        .child_start = child_start,
        .child_stop = child_stop,
        .child_exit = child_exit,
        .child_signals = child_signals,
        .confirming = confirming,
        .thread = start_thread,
        .interrupt = interrupt,
        .thread_id = thread_id,
        .turn = py_line_turn,
        .strike = py_line_strike,
        .ctx = self,
    };
}
