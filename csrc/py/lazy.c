/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/lazy.h"

#include "py/args.h"
#include "py/json.h"
#include "py/message.h"

typedef struct lazy {
    PyObject ob_base;
    py_state *state;
    const pc_message *message;  // NULL when detached
    PyObject *args;
    PyObject *kwargs;
    PyObject *embed;
    pc_slice embed_text;
    PyObject *make_request;
    PyObject *hostname;
    PyObject *context;
} lazy;

PyObject *
py_lazy_new(py_state *state, const pc_message *message, PyObject *args, PyObject *kwargs, PyObject *embed,
            pc_slice embed_text, PyObject *make_request, PyObject *hostname)
{
    PyTypeObject *type = (PyTypeObject *)state->lazy_type;
    lazy *self = (lazy *)type->tp_alloc(type, 0);

    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->message = message;
    self->args = Py_NewRef(args);
    self->kwargs = Py_NewRef(kwargs);
    self->embed = Py_XNewRef(embed);
    self->embed_text = embed_text;
    self->make_request = Py_NewRef(make_request);
    self->hostname = Py_NewRef(hostname);
    return (PyObject *)self;
}

/* Takes over `value`. */
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

static int
read_embed(lazy *self)
{
    if (self->embed == NULL && self->embed_text.ptr != NULL) {
        self->embed = py_json_decode(self->state, self->embed_text);
        return self->embed == NULL ? -1 : 0;
    }
    return 0;
}

static PyObject *
request_dict(lazy *self)
{
    const pc_message *message = self->message;
    PyObject *dict = py_headers_to_dict(self->state, message);

    if (dict == NULL) {
        return NULL;
    }
    if (read_embed(self) < 0 || (self->embed != NULL && self->embed != Py_None && PyDict_Update(dict, self->embed) < 0)
        || put(dict, "args", Py_NewRef(self->args)) < 0
        || put(dict, "kwargs", Py_NewRef(self->kwargs)) < 0
        || put(dict, "hostname", Py_NewRef(self->hostname)) < 0
        || put(dict, "delivery_info", py_delivery_info(self->state, message)) < 0
        || put(dict, "properties", py_properties(self->state, message)) < 0
        || put(dict, "reply_to", py_str_or_none(message->reply_to)) < 0
        || put(dict, "correlation_id", py_str_or_none(message->correlation_id)) < 0
        || put(dict, "is_eager", Py_NewRef(Py_False)) < 0
        || put(dict, "called_directly", Py_NewRef(Py_False)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
py_lazy_context(PyObject *object)
{
    lazy *self = (lazy *)object;

    if (self->context != NULL) {
        return Py_NewRef(self->context);
    }
    if (self->message == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the task that this request belonged to has ended");
        return NULL;
    }
    PyObject *dict = request_dict(self);
    if (dict == NULL) {
        return NULL;
    }
    self->context = PyObject_CallOneArg(self->make_request, dict);
    Py_DECREF(dict);
    return Py_XNewRef(self->context);
}

bool
py_lazy_is_untouched(PyObject *object)
{
    return ((lazy *)object)->context == NULL;
}

bool
py_lazy_has_children(PyObject *object)
{
    lazy *self = (lazy *)object;

    if (self->context == NULL) {
        return false;
    }
    PyObject *children = PyObject_GetAttrString(self->context, "children");
    int any = children == NULL ? -1 : PyObject_IsTrue(children);
    Py_XDECREF(children);
    if (any < 0) {
        PyErr_Clear();  // a Context of somebody's own without children: then there are none
        return false;
    }
    return any == 1;
}

void
py_lazy_detach(PyObject *object)
{
    ((lazy *)object)->message = NULL;
}

static PyObject *
lazy_context(PyObject *self, PyObject *unused)
{
    (void)unused;
    return py_lazy_context(self);
}

static int
lazy_traverse(lazy *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->args);
    Py_VISIT(self->kwargs);
    Py_VISIT(self->embed);
    Py_VISIT(self->make_request);
    Py_VISIT(self->hostname);
    Py_VISIT(self->context);
    return 0;
}

static int
lazy_clear(lazy *self)
{
    Py_CLEAR(self->args);
    Py_CLEAR(self->kwargs);
    Py_CLEAR(self->embed);
    Py_CLEAR(self->make_request);
    Py_CLEAR(self->hostname);
    Py_CLEAR(self->context);
    return 0;
}

static void
lazy_dealloc(lazy *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)lazy_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef lazy_methods[] = {
    {"context", lazy_context, METH_NOARGS, "The Context of the running task."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lazy_slots[] = {
    {Py_tp_doc, "The request of the running task, not yet looked at."},
    {Py_tp_dealloc, lazy_dealloc},
    {Py_tp_traverse, lazy_traverse},
    {Py_tp_clear, lazy_clear},
    {Py_tp_methods, lazy_methods},
    {0, NULL},
};

static PyType_Spec lazy_spec = {
    .name = "pyceleryc._core.LazyRequest",
    .basicsize = sizeof(lazy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lazy_slots,
};

int
py_lazy_setup(PyObject *module)
{
    return py_type_add(module, &lazy_spec, &py_state_of(module)->lazy_type, true);
}
