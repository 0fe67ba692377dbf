/* SPDX-License-Identifier: BSD-3-Clause */
/* A job as the hooks see it. It points at the machine's job and is detached when the hook is over. */
#include "py/error.h"
#include "py/message.h"
#include "py/worker.h"

#include <math.h>
#include <structmember.h>

typedef struct view {
    PyObject ob_base;
    py_state *state;
    const pc_job *job;          // NULL: a message that is no job, or detached
    const pc_message *message;  // NULL: detached, or read from the job
    PyObject *id;
    PyObject *name;
} view;

static PyObject *
new_view(py_state *state)
{
    PyTypeObject *type = (PyTypeObject *)state->job_type;
    view *self = (view *)type->tp_alloc(type, 0);

    if (self != NULL) {
        self->state = state;
    }
    return (PyObject *)self;
}

PyObject *
py_job_new(py_state *state, const pc_job *job)
{
    view *self = (view *)new_view(state);
    pc_slice id = pc_job_id(job);

    if (self == NULL) {
        return NULL;
    }
    self->job = job;
    self->id = PyUnicode_DecodeUTF8(id.ptr, (Py_ssize_t)id.len, "replace");
    self->name = PyUnicode_FromString(job->spec->name);
    if (self->id == NULL || self->name == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

PyObject *
py_job_of_message(py_state *state, const pc_message *message)
{
    view *self = (view *)new_view(state);

    if (self != NULL) {
        self->message = message;
        self->id = Py_NewRef(Py_None);
        self->name = Py_NewRef(Py_None);
    }
    return (PyObject *)self;
}

void
py_job_detach(PyObject *job)
{
    ((view *)job)->job = NULL;
    ((view *)job)->message = NULL;
}

static int
get_message(view *self, pc_message *message)
{
    pc_err err = {0};

    if (self->message != NULL) {
        *message = *self->message;
        return 0;
    }
    if (self->job == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this job is only readable while its hook runs");
        return -1;
    }
    if (pc_job_message(self->job, message, &err) < 0) {
        py_raise(self->state, &err);
        return -1;
    }
    return 0;
}

static PyObject *
view_headers(view *self, PyObject *unused)
{
    pc_message message;

    (void)unused;
    return get_message(self, &message) < 0 ? NULL : py_headers_to_dict(self->state, &message);
}

static PyObject *
view_properties(view *self, PyObject *unused)
{
    pc_message message;

    (void)unused;
    return get_message(self, &message) < 0 ? NULL : py_properties(self->state, &message);
}

static PyObject *
view_delivery_info(view *self, PyObject *unused)
{
    pc_message message;

    (void)unused;
    return get_message(self, &message) < 0 ? NULL : py_delivery_info(self->state, &message);
}

static PyObject *
view_body(view *self, PyObject *unused)
{
    pc_message message;

    (void)unused;
    if (get_message(self, &message) < 0) {
        return NULL;
    }
    return Py_BuildValue("(y#z#z#)", message.body.ptr, (Py_ssize_t)message.body.len,
                         message.content_type.ptr, (Py_ssize_t)message.content_type.len,
                         message.content_encoding.ptr, (Py_ssize_t)message.content_encoding.len);
}

static int
put(PyObject *dict, const char *name, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int rc = PyDict_SetItemString(dict, name, value);
    Py_DECREF(value);
    return rc;
}

static PyObject *
view_request(view *self, PyObject *unused)
{
    pc_message message;

    (void)unused;
    if (get_message(self, &message) < 0) {
        return NULL;
    }
    PyObject *dict = py_headers_to_dict(self->state, &message);
    if (dict != NULL
        && (put(dict, "delivery_info", py_delivery_info(self->state, &message)) < 0
            || put(dict, "properties", py_properties(self->state, &message)) < 0
            || put(dict, "reply_to", Py_BuildValue("z#", message.reply_to.ptr, (Py_ssize_t)message.reply_to.len)) < 0
            || put(dict, "correlation_id",
                   Py_BuildValue("z#", message.correlation_id.ptr, (Py_ssize_t)message.correlation_id.len)) < 0)) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *
seconds_or_none(bool present, pc_wall when)
{
    return present ? PyFloat_FromDouble((double)when.us / 1e6) : Py_NewRef(Py_None);
}

static PyObject *
get_eta(view *self, void *unused)
{
    (void)unused;
    return self->job == NULL ? Py_NewRef(Py_None) : seconds_or_none(self->job->has_eta, self->job->eta);
}

static PyObject *
get_expires(view *self, void *unused)
{
    (void)unused;
    return self->job == NULL ? Py_NewRef(Py_None)
                             : seconds_or_none(self->job->has_expires, self->job->expires);
}

static PyObject *
get_worker_pid(view *self, void *unused)
{
    (void)unused;
    if (self->job == NULL || self->job->pid == 0) {
        return Py_NewRef(Py_None);
    }
    return PyLong_FromLong(self->job->pid);
}

static PyObject *
get_time_start(view *self, void *unused)
{
    (void)unused;
    return self->job == NULL ? Py_NewRef(Py_None)
                             : seconds_or_none(self->job->started.us != 0, self->job->started);
}

static PyObject *
get_acknowledged(view *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->job != NULL && self->job->settled);
}

static PyObject *
get_limits(view *self, void *unused)
{
    (void)unused;
    if (self->job == NULL) {
        return Py_BuildValue("(OO)", Py_None, Py_None);
    }
    double hard, soft;
    pc_job_limits(self->job, &hard, &soft);
    PyObject *a = isnan(hard) ? Py_NewRef(Py_None) : PyFloat_FromDouble(hard);
    PyObject *b = isnan(soft) ? Py_NewRef(Py_None) : PyFloat_FromDouble(soft);
    return Py_BuildValue("(NN)", a, b);
}

static int
view_traverse(view *self, visitproc visit, void *arg)
{
    (void)visit;
    (void)arg;
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
view_dealloc(view *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->id);
    Py_CLEAR(self->name);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef view_methods[] = {
    {"headers", (PyCFunction)view_headers, METH_NOARGS, "The message headers."},
    {"properties", (PyCFunction)view_properties, METH_NOARGS, "The message properties."},
    {"delivery_info", (PyCFunction)view_delivery_info, METH_NOARGS, "How it was delivered."},
    {"body", (PyCFunction)view_body, METH_NOARGS, "(raw body, content type, content encoding)"},
    {"request", (PyCFunction)view_request, METH_NOARGS, "Headers merged with properties."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef view_members[] = {
    {"id", T_OBJECT, offsetof(view, id), READONLY, "task id"},
    {"name", T_OBJECT, offsetof(view, name), READONLY, "task name"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef view_getset[] = {
    {"eta", (getter)get_eta, NULL, "unix time or None", NULL},
    {"expires", (getter)get_expires, NULL, "unix time or None", NULL},
    {"worker_pid", (getter)get_worker_pid, NULL, "process that runs it, or None", NULL},
    {"time_start", (getter)get_time_start, NULL, "unix time of the start, or None", NULL},
    {"acknowledged", (getter)get_acknowledged, NULL, "was the message settled", NULL},
    {"limits", (getter)get_limits, NULL, "(hard, soft) in seconds or None, as they apply", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "A message in the worker's hands; readable while its hook runs."},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_traverse, view_traverse},
    {Py_tp_methods, view_methods},
    {Py_tp_members, view_members},
    {Py_tp_getset, view_getset},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "pyceleryc._core.Job",
    .basicsize = sizeof(view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

int
py_job_setup(PyObject *module)
{
    return py_type_add(module, &view_spec, &py_state_of(module)->job_type, true);
}
