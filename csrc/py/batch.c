/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/batch.h"

#include "py/args.h"
#include "py/delivery.h"
#include "py/error.h"
#include "py/order.h"
#include "py/producer.h"

typedef struct py_batch {
    PyObject_HEAD
    py_state *state;
    pc_headers_kind kind;
    pc_batch batch;
    py_scratch *spare;  // NULL: in use, or none yet
    bool lent;
} py_batch;

static py_batch *
of(PyObject *obj)
{
    return (py_batch *)(void *)obj;
}

static PyObject *
batch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    py_state *state = py_state_of_type(type);
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Batch() takes no keyword arguments");
        return NULL;
    }
    if (py_arity("Batch", PyTuple_GET_SIZE(args), 1) < 0) {
        return NULL;
    }
    PyObject *producer = PyTuple_GET_ITEM(args, 0);
    if (!Py_IS_TYPE(producer, (PyTypeObject *)state->producer_type)) {
        PyErr_SetString(PyExc_TypeError, "Batch() needs a Producer");
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        of(self)->state = state;
        of(self)->kind = py_producer_kind(producer);
        pc_batch_init(&of(self)->batch);
    }
    return self;
}

static void
batch_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    pc_batch_fini(&of(obj)->batch);
    py_scratch_free(of(obj)->spare);
    type->tp_free(obj);
    Py_DECREF(type);
}

static int
refuse_if_lent(const py_batch *self)
{
    if (self->lent) {
        PyErr_SetString(PyExc_RuntimeError, "the batch is being published by another thread");
        return -1;
    }
    return 0;
}

/* No Python code runs in here. */
static int
add(py_batch *self, const pc_outgoing *message)
{
    pc_err err;
    if (refuse_if_lent(self) < 0) {
        return -1;
    }
    if (pc_batch_add(&self->batch, message, &err) < 0) {
        py_raise(self->state, &err);
        return -1;
    }
    return 0;
}

static PyObject *
send_with(py_batch *self, PyObject *const *args, py_scratch *scratch)
{
    py_order order;
    if (py_order_make(&order, self->state, self->kind, args, PY_SEND_MEMBER_COUNT, scratch) < 0) {
        return NULL;
    }
    pc_outgoing out = {.message = order.message, .has_due = order.has_due, .due = order.due};
    return add(self, &out) < 0 ? NULL : py_order_id(&order, args);
}

static PyObject *
batch_send(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_batch *self = of(obj);
    if (py_arity("send", nargs, PY_SEND_MEMBER_COUNT) < 0) {
        return NULL;
    }
    // Encoding may run Python code that sends to this batch, too.
    py_scratch *scratch = self->spare != NULL ? self->spare : py_scratch_new();
    self->spare = NULL;
    if (scratch == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *id = send_with(self, args, scratch);
    py_scratch_free(self->spare);
    self->spare = scratch;
    return id;
}

static PyObject *
batch_publish(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_batch *self = of(obj);
    py_delivery it;
    if (py_arity("publish", nargs, PY_PUBLISH_TIMEOUT) < 0) {
        return NULL;
    }
    int rc = py_delivery_read(&it, self->state, self->kind, args);
    if (rc == 0) {
        rc = add(self, &it.out);
    }
    py_delivery_done(&it);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
batch_unsent(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromSize_t(of(obj)->batch.len - of(obj)->batch.sent);
}

static PyObject *
batch_truncate(PyObject *obj, PyObject *length)
{
    int64_t len;
    if (py_integer(length, &len) < 0 || refuse_if_lent(of(obj)) < 0) {
        return NULL;
    }
    pc_batch_truncate(&of(obj)->batch, len < 0 ? 0 : (size_t)len);
    return Py_NewRef(Py_None);
}

static Py_ssize_t
batch_length(PyObject *obj)
{
    return (Py_ssize_t)of(obj)->batch.len;
}

pc_batch *
py_batch_lend(PyObject *obj, py_state *state, pc_headers_kind kind)
{
    if (!Py_IS_TYPE(obj, (PyTypeObject *)state->batch_type)) {
        PyErr_SetString(PyExc_TypeError, "publish_batch() needs a Batch");
        return NULL;
    }
    if (of(obj)->kind != kind) {
        PyErr_SetString(state->unsupported,
                        "the batch was made for another kind of broker than it is published to");
        return NULL;
    }
    if (refuse_if_lent(of(obj)) < 0) {
        return NULL;
    }
    of(obj)->lent = true;
    Py_INCREF(obj);
    return &of(obj)->batch;
}

void
py_batch_return(PyObject *obj)
{
    of(obj)->lent = false;
    Py_DECREF(obj);
}

#define FAST(name, doc) {#name, (PyCFunction)(void (*)(void))batch_##name, METH_FASTCALL, doc}

static PyMethodDef methods[] = {
    FAST(send, "Collects a task; returns its id."),
    FAST(publish, "Collects one message."),
    {"truncate", batch_truncate, METH_O, "Forgets all messages but the first ones."},
    {"unsent", batch_unsent, METH_NOARGS, "Messages not published yet."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, batch_new},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_methods, methods},
    {Py_sq_length, batch_length},
    {Py_tp_doc, "Messages to be published together."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Batch",
    .basicsize = sizeof(py_batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int
py_batch_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->batch_type, true);
}
