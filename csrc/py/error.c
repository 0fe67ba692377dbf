/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/error.h"

#include <stddef.h>

typedef struct kind {
    const char *name;
    const char *doc;
    size_t slot;  // in py_state
    pc_code code;
} kind;

static const kind kinds[] = {
    {"pyceleryc._core.CoreError", "Something failed in the C core; .code says what.",
     offsetof(py_state, core_error), PC_OK},
    {"pyceleryc._core.ConnectionLost", "The connection failed or the peer broke its protocol.",
     offsetof(py_state, connection_lost), PC_EIO},
    {"pyceleryc._core.AccessRefused", "The server refused the credentials or permissions.",
     offsetof(py_state, access_refused), PC_EAUTH},
    {"pyceleryc._core.Timeout", "The deadline passed.", offsetof(py_state, timeout),
     PC_ETIMEOUT},
    {"pyceleryc._core.WindowFull", "Too many unconfirmed messages, or the broker blocks.",
     offsetof(py_state, window_full), PC_EFULL},
    {"pyceleryc._core.NotFound", "No such queue, key or id.", offsetof(py_state, not_found),
     PC_ENOTFOUND},
    {"pyceleryc._core.BadData", "The message or document at hand is at fault.",
     offsetof(py_state, bad_data), PC_EDATA},
    {"pyceleryc._core.Unsupported", "This driver cannot do it, or not in this state.",
     offsetof(py_state, unsupported), PC_EUNSUP},
};

/* The builtin that a kind is as well, borrowed, or NULL. */
static PyObject *
builtin_of(pc_code code)
{
    switch (code) {
    case PC_EIO:
        return PyExc_ConnectionError;
    case PC_ETIMEOUT:
        return PyExc_TimeoutError;
    case PC_EDATA:
        return PyExc_ValueError;
    default:
        return NULL;
    }
}

static PyObject *
bases_of(py_state *state, pc_code code)
{
    PyObject *builtin = builtin_of(code);
    if (state->core_error == NULL) {
        return Py_NewRef(PyExc_Exception);
    }
    return builtin == NULL ? Py_NewRef(state->core_error)
                           : PyTuple_Pack(2, state->core_error, builtin);
}

static int
add_kind(PyObject *module, const kind *it)
{
    py_state *state = py_state_of(module);
    PyObject *bases = bases_of(state, it->code);
    PyObject *dict = Py_BuildValue("{s:i}", "code", (int)it->code);
    PyObject *made = NULL;
    if (bases != NULL && dict != NULL) {
        made = PyErr_NewExceptionWithDoc(it->name, it->doc, bases, dict);
    }
    Py_XDECREF(bases);
    Py_XDECREF(dict);
    if (made == NULL) {
        return -1;
    }
    PyObject **slot = (PyObject **)(void *)((char *)state + it->slot);
    Py_XSETREF(*slot, made);
    return PyModule_AddObjectRef(module, strrchr(it->name, '.') + 1, made);
}

int
py_error_setup(PyObject *module)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (add_kind(module, &kinds[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* borrowed */
static PyObject *
class_of(py_state *state, pc_code code)
{
    switch (code) {
    case PC_EIO:
    case PC_EPROTO:
        return state->connection_lost;
    case PC_ETIMEOUT:
        return state->timeout;
    case PC_EDATA:
    case PC_ELIMIT:
        return state->bad_data;
    case PC_EAUTH:
        return state->access_refused;
    case PC_ENOTFOUND:
        return state->not_found;
    case PC_EFULL:
        return state->window_full;
    case PC_ESTATE:
    case PC_EUNSUP:
        return state->unsupported;
    case PC_OK:
    case PC_ENOMEM:
    case PC_EFALLBACK:
        break;
    }
    return state->core_error;
}

static int
set_number(PyObject *exc, const char *name, int value)
{
    PyObject *number = PyLong_FromLong(value);
    int rc = number == NULL ? -1 : PyObject_SetAttrString(exc, name, number);
    Py_XDECREF(number);
    return rc;
}

static PyObject *
make(PyObject *cls, const pc_err *err)
{
    const char *text = err->msg[0] == '\0' ? pc_code_name(err->code) : err->msg;
    PyObject *msg = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    PyObject *exc = msg == NULL ? NULL : PyObject_CallOneArg(cls, msg);
    Py_XDECREF(msg);
    if (exc == NULL || set_number(exc, "code", (int)err->code) < 0) {
        goto fail;
    }
    if (err->sys_errno != 0 && set_number(exc, "errno", err->sys_errno) < 0) {
        goto fail;
    }
    return exc;
fail:
    Py_XDECREF(exc);
    return NULL;
}

PyObject *
py_raise(py_state *state, const pc_err *err)
{
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (err->code == PC_ENOMEM) {
        return PyErr_NoMemory();
    }
    PyObject *cls = class_of(state, err->code);  // borrowed
    PyObject *exc = make(cls, err);
    if (exc != NULL) {
        PyErr_SetObject(cls, exc);
        Py_DECREF(exc);
    }
    return NULL;
}
