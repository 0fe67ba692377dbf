/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine's door to the Python hooks (pc_worker_hooks): rare events only. Every function is
 * entered without the GIL and takes it. */
#include <stdarg.h>

#include "py/worker.h"

void
py_worker_report(py_worker *self)
{
    if (!PyErr_Occurred()) {
        return;
    }
    if (self->child == NULL && !PyErr_ExceptionMatches(PyExc_Exception) && self->pending == NULL) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
        if (trace != NULL) {
            (void)PyException_SetTraceback(value, trace);
        }
        self->pending = value;
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return;
    }
    PyErr_WriteUnraisable(self->hooks);
}

/* Calls hooks.<name>(*args); reports what it raises. */
static PyObject *
apply(py_worker *self, const char *name, PyObject *args)
{
    if (self->hooks == NULL) {  // the collector took them; the machine is being freed
        return NULL;
    }
    PyObject *method = PyObject_GetAttrString(self->hooks, name);
    PyObject *result = method == NULL ? NULL : PyObject_Call(method, args, NULL);
    Py_XDECREF(method);
    if (result == NULL) {
        py_worker_report(self);
    }
    return result;
}

PyObject *
py_worker_call(py_worker *self, const char *name, const char *format, ...)
{
    va_list values;

    va_start(values, format);
    PyObject *args = Py_VaBuildValue(format, values);
    va_end(values);
    if (args == NULL) {
        py_worker_report(self);
        return NULL;
    }
    PyObject *result = apply(self, name, args);
    Py_DECREF(args);
    return result;
}
static PyObject *
text(const char *value)
{
    return value == NULL ? Py_NewRef(Py_None)
                         : PyUnicode_DecodeUTF8(value, (Py_ssize_t)strlen(value), "replace");
}

/* Takes over `argument`. */
static void
tell(py_worker *self, const char *name, PyObject *argument)
{
    if (argument == NULL) {
        py_worker_report(self);
        return;
    }
    Py_XDECREF(py_worker_call(self, name, "(N)", argument));
}

static void
ready(void *ctx)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    Py_XDECREF(py_worker_call(self, "ready", "()"));
    PyGILState_Release(gil);
}

static void
down(void *ctx, const pc_err *why, int attempt, double next_try)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    Py_XDECREF(py_worker_call(self, "down", "(Nsid)", text(why->msg), pc_code_name(why->code), attempt,
                              next_try));
    PyGILState_Release(gil);
}

/* Calls hooks.<name>(view, *extra). Takes over `extra`, a tuple (NULL: it could not be made). */
static void
tell_job(py_worker *self, const char *name, const pc_job *job, PyObject *extra)
{
    PyObject *view = extra == NULL ? NULL : py_job_new(self->state, job);
    PyObject *first = view == NULL ? NULL : PyTuple_Pack(1, view);
    PyObject *args = first == NULL ? NULL : PySequence_Concat(first, extra);

    if (args == NULL) {
        py_worker_report(self);
    } else {
        Py_XDECREF(apply(self, name, args));
    }
    if (view != NULL) {
        py_job_detach(view);
    }
    Py_XDECREF(args);
    Py_XDECREF(first);
    Py_XDECREF(view);
    Py_XDECREF(extra);
}

static void
received(void *ctx, pc_job *job)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "received", job, PyTuple_New(0));
    PyGILState_Release(gil);
}

static void
accepted(void *ctx, pc_job *job)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "accepted", job, PyTuple_New(0));
    PyGILState_Release(gil);
}

static pc_settle
bad(void *ctx, pc_bad why, const pc_message *message, const pc_err *err)
{
    static const char *const kinds[] = {"unknown_task", "no_task", "headers", "refused"};
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *view = py_job_of_message(self->state, message);
    PyObject *result = NULL;
    pc_settle how = PC_REJECT;

    if (view == NULL) {
        py_worker_report(self);
    } else {
        result = py_worker_call(self, "bad", "(sON)", kinds[why], view, text(err->msg));
        py_job_detach(view);
        Py_DECREF(view);
    }
    if (result != NULL && PyUnicode_Check(result)) {
        how = PyUnicode_CompareWithASCIIString(result, "ack") == 0 ? PC_ACK : PC_REJECT;
    }
    Py_XDECREF(result);
    PyGILState_Release(gil);
    return how;
}

static void
lost(void *ctx, pc_job *job, pc_lost why, const char *how, bool requeued)
{
    static const char *const kinds[] = {"died", "hard_limit", "terminated"};
    const char *kind = job->cancelled ? "cancelled" : kinds[why];
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "lost", job, Py_BuildValue("(ssO)", kind, how, requeued ? Py_True : Py_False));
    PyGILState_Release(gil);
}

static void
revoked(void *ctx, pc_job *job, pc_revoked why)
{
    static const char *const kinds[] = {"expired", "revoked", "terminated"};
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "revoked", job, Py_BuildValue("(s)", kinds[why]));
    PyGILState_Release(gil);
}

static void
soft_limit(void *ctx, pc_job *job, double seconds)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "soft_limit", job, Py_BuildValue("(d)", seconds));
    PyGILState_Release(gil);
}

static void
cancelled(void *ctx, const char *queue)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    tell(self, "cancelled", text(queue));
    PyGILState_Release(gil);
}

static void
store_failed(void *ctx, pc_job *job, const pc_err *why)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "store_failed", job, Py_BuildValue("(N)", text(why->msg)));
    PyGILState_Release(gil);
}

static void
store_down(void *ctx, const pc_err *why, bool up)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    tell(self, "store_down", text(up ? NULL : why->msg));
    PyGILState_Release(gil);
}

static void
child(void *ctx, int index, pid_t pid, bool up, const char *how)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    Py_XDECREF(py_worker_call(self, "child", "(iiON)", index, (int)pid, up ? Py_True : Py_False, text(how)));
    PyGILState_Release(gil);
}

void
py_events_fill(py_worker *self, pc_worker_hooks *hooks)
{
    *hooks = (pc_worker_hooks){
        .ready = ready,
        .down = down,
        .received = received,
        .accepted = accepted,
        .bad = bad,
        .lost = lost,
        .revoked = revoked,
        .soft_limit = soft_limit,
        .cancelled = cancelled,
        .store_failed = store_failed,
        .store_down = store_down,
        .child = child,
        .ctx = self,
    };
}
