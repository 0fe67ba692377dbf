/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/hub.h"

#include "io/memory_hub.h"
#include "py/args.h"
#include "py/error.h"

typedef struct py_hub {
    PyObject_HEAD
    pc_hub *hub;
} py_hub;

static PyObject *
hub_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pc_err err;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Hub() takes no keyword arguments");
        return NULL;
    }
    if (py_arity("Hub", PyTuple_GET_SIZE(args), 0) < 0) {
        return NULL;
    }
    py_hub *self = (py_hub *)(void *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->hub = pc_hub_new(&err);
    if (self->hub == NULL) {
        Py_DECREF(self);
        return py_raise(py_state_of_type(type), &err);
    }
    return (PyObject *)self;
}

static void
hub_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    pc_hub_free(((py_hub *)(void *)obj)->hub);
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *
hub_abandon(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    pc_hub_abandon(((py_hub *)(void *)obj)->hub);
    return Py_NewRef(Py_None);
}

static PyObject *
hub_seal(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    pc_hub_seal(((py_hub *)(void *)obj)->hub);
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"abandon", hub_abandon, METH_NOARGS, "In a forked child: empty, and of use."},
    {"seal", hub_seal, METH_NOARGS, "Lets nothing be published or declared any more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, hub_new},
    {Py_tp_methods, methods},
    {Py_tp_dealloc, hub_dealloc},
    {Py_tp_doc, "The in-memory broker and result store of those who share it."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Hub",
    .basicsize = sizeof(py_hub),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

pc_hub *
py_hub_get(py_state *state, PyObject *obj)
{
    if (!Py_IS_TYPE(obj, (PyTypeObject *)state->hub_type)) {
        PyErr_Format(PyExc_TypeError, "hub must be a Hub, not %.100s", Py_TYPE(obj)->tp_name);
        return NULL;
    }
    return ((py_hub *)(void *)obj)->hub;
}

int
py_hub_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->hub_type, true);
}
