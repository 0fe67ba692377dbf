/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine's door to the Python hooks (pc_worker_hooks): rare events only. Every function is
 * entered without the GIL and takes it. */
#include <stdarg.h>

#include "py/args.h"
#include "py/error.h"
#include "py/message.h"
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

/* Returns hooks.<name>(view, *extra), NULL when it raised. Takes over `extra`, a tuple (NULL: it could not be made). */
static PyObject *
ask_job(py_worker *self, const char *name, const pc_job *job, PyObject *extra)
{
    PyObject *view = extra == NULL ? NULL : py_job_new(self->state, job);
    PyObject *first = view == NULL ? NULL : PyTuple_Pack(1, view);
    PyObject *args = first == NULL ? NULL : PySequence_Concat(first, extra);
    PyObject *answer = NULL;

    if (args == NULL) {
        py_worker_report(self);
    } else {
        answer = apply(self, name, args);
    }
    if (view != NULL) {
        py_job_detach(view);
    }
    Py_XDECREF(args);
    Py_XDECREF(first);
    Py_XDECREF(view);
    Py_XDECREF(extra);
    return answer;
}

static void
tell_job(py_worker *self, const char *name, const pc_job *job, PyObject *extra)
{
    Py_XDECREF(ask_job(self, name, job, extra));
}

/* The answer is None or what becomes of the message; "stop": it goes back, and the worker takes no more. */
static bool
received(void *ctx, pc_job *job, pc_settle *how)
{
    static const char *const fates[] = {"ack", "reject", "requeue", "stop"};
    static const pc_settle settles[] = {PC_ACK, PC_REJECT, PC_REQUEUE, PC_REQUEUE};
    bool settle = false, stop = false;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *answer = ask_job(ctx, "received", job, PyTuple_New(0));

    for (size_t i = 0; answer != NULL && PyUnicode_Check(answer) && i < 4; i++) {
        if (PyUnicode_CompareWithASCIIString(answer, fates[i]) == 0) {
            *how = settles[i];
            settle = true;
            stop = i == 3;
        }
    }
    Py_XDECREF(answer);
    PyGILState_Release(gil);
    if (stop) {
        pc_worker_stop(((py_worker *)ctx)->worker, PC_STOP_WARM, PC_MONO_NEVER);
    }
    return settle;
}

static void
accepted(void *ctx, pc_job *job)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    tell_job(ctx, "accepted", job, PyTuple_New(0));
    PyGILState_Release(gil);
}

/* `made` is (headers, body, content type, content encoding). */
static int
pack_upgraded(py_state *state, const pc_message *message, PyObject *made, pc_buf *frame)
{
    PyObject *headers, *body;
    const char *type, *encoding;
    Py_ssize_t type_len, encoding_len;
    pc_message copy = *message;
    Py_buffer view = {0};
    pc_buf packed;
    pc_err err;
    int rc = -1;

    pc_buf_init(&packed);
    if (PyArg_ParseTuple(made, "OOs#s#", &headers, &body, &type, &type_len, &encoding, &encoding_len)
        && py_bytes(body, &view, &copy.body) == 0
        && py_dict_pack(state, headers, PC_HEADERS_JSON, &packed, &copy.headers) == 0) {
        copy.headers_kind = PC_HEADERS_JSON;
        copy.content_type = pc_slice_of(type, (size_t)type_len);
        copy.content_encoding = pc_slice_of(encoding, (size_t)encoding_len);
        rc = pc_message_pack(&copy, frame, &err);
        if (rc < 0) {
            py_raise(state, &err);
        }
    }
    py_bytes_done(&view);
    pc_buf_fini(&packed);
    return rc;
}

static bool
upgrade(void *ctx, const pc_message *message, pc_buf *frame)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *view = py_job_of_message(self->state, message);
    PyObject *made = NULL;
    bool done = false;

    if (view == NULL) {
        py_worker_report(self);
    } else {
        made = py_worker_call(self, "upgrade", "(O)", view);
        py_job_detach(view);
        Py_DECREF(view);
    }
    if (made != NULL && made != Py_None) {
        done = pack_upgraded(self->state, message, made, frame) == 0;
        if (!done) {
            py_worker_report(self);
        }
    }
    Py_XDECREF(made);
    PyGILState_Release(gil);
    return done;
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
    const char *kind = !job->cancelled ? kinds[why] : job->stale ? "cut_off" : "cancelled";
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
refused(void *ctx, const char *queue, const pc_err *why)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();

    Py_XDECREF(py_worker_call(self, "refused", "(NN)", text(queue), text(why->msg)));
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
        .upgrade = upgrade,
        .bad = bad,
        .lost = lost,
        .revoked = revoked,
        .soft_limit = soft_limit,
        .cancelled = cancelled,
        .refused = refused,
        .store_failed = store_failed,
        .store_down = store_down,
        .child = child,
        .ctx = self,
    };
}
