/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/args.h"

#include <limits.h>
#include <math.h>

int
py_arity(const char *function, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes %zd positional arguments, not %zd", function,
                 wanted, given);
    return -1;
}

int
py_text(PyObject *obj, const char *name, pc_slice *out)
{
    Py_ssize_t len;
    if (!PyUnicode_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", name,
                     Py_TYPE(obj)->tp_name);
        return -1;
    }
    out->ptr = PyUnicode_AsUTF8AndSize(obj, &len);
    out->len = out->ptr == NULL ? 0 : (size_t)len;
    return out->ptr == NULL ? -1 : 0;
}

int
py_text_or_none(PyObject *obj, const char *name, pc_slice *out)
{
    if (obj == Py_None) {
        *out = pc_slice_of(NULL, 0);
        return 0;
    }
    return py_text(obj, name, out);
}

PyObject *
py_str_or_none(pc_slice text)
{
    if (text.ptr == NULL) {
        return Py_NewRef(Py_None);
    }
    return PyUnicode_DecodeUTF8(text.ptr, (Py_ssize_t)text.len, "replace");
}

int
py_cstring(PyObject *obj, const char *name, const char **out)
{
    pc_slice text;
    if (py_text(obj, name, &text) < 0) {
        return -1;
    }
    if (strlen(text.ptr) != text.len) {
        PyErr_Format(PyExc_ValueError, "%s contains a NUL character", name);
        return -1;
    }
    *out = text.ptr;
    return 0;
}

int
py_real_or_none(PyObject *obj, double *out)
{
    *out = NAN;
    if (obj != Py_None) {
        *out = PyFloat_AsDouble(obj);
    }
    return *out == -1.0 && PyErr_Occurred() ? -1 : 0;
}

int
py_integer(PyObject *obj, int64_t *out)
{
    *out = PyLong_AsLongLong(obj);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

int
py_int(PyObject *obj, int *out)
{
    int64_t value;
    if (py_integer(obj, &value) < 0) {
        return -1;
    }
    if (value < INT_MIN || value > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the number does not fit 32 bits");
        return -1;
    }
    *out = (int)value;
    return 0;
}

int
py_flag(PyObject *obj, bool *out)
{
    int truth = PyObject_IsTrue(obj);
    *out = truth == 1;
    return truth < 0 ? -1 : 0;
}

PyObject *
py_mapping(PyObject *obj, const char *name)
{
    if (PyDict_Check(obj)) {
        return Py_NewRef(obj);
    }
    if (!PyObject_HasAttrString(obj, "keys")) {
        return PyErr_Format(PyExc_TypeError, "%s must be a mapping, not %.100s", name,
                            Py_TYPE(obj)->tp_name);
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL && PyDict_Update(dict, obj) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

int
py_deadline(PyObject *timeout, double configured, pc_mono *out)
{
    double seconds = configured;
    if (timeout != Py_None && py_real_or_none(timeout, &seconds) < 0) {
        return -1;
    }
    return py_deadline_in(seconds, out);
}

int
py_deadline_in(double seconds, pc_mono *out)
{
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "the timeout is not a number");
        return -1;
    }
    if (seconds > 1e9) {
        *out = PC_MONO_NEVER;
        return 0;
    }
    int64_t ns = seconds <= 0 ? 0 : (int64_t)(seconds * (double)PC_NS_PER_SEC);
    *out = pc_mono_add(pc_mono_now(), ns);
    return 0;
}

int
py_bytes(PyObject *obj, Py_buffer *view, pc_slice *out)
{
    view->obj = NULL;
    if (PyUnicode_Check(obj)) {
        return py_text(obj, "data", out);
    }
    if (PyObject_GetBuffer(obj, view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    *out = pc_slice_of(view->len == 0 ? "" : view->buf, (size_t)view->len);
    return 0;
}

void
py_bytes_done(Py_buffer *view)
{
    if (view->obj != NULL) {
        PyBuffer_Release(view);
    }
}
