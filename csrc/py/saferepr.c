/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/saferepr.h"

#include "py/error.h"
#include "wire/json_out.h"

#define MAX_LEVELS 3

typedef enum verdict { DONE = 0, FAILED = -1, UNUSUAL = 1 } verdict;

typedef struct writer {
    pc_buf *out;
    Py_ssize_t extra;  // bytes that are not the first of their character
    int level;
    pc_err err;
} writer;

static verdict write_value(writer *w, PyObject *obj);

static verdict
write_bytes(writer *w, const char *text, size_t len)
{
    return pc_buf_put(w->out, text, len, &w->err) < 0 ? FAILED : DONE;
}

static verdict
write_word(writer *w, const char *word)
{
    return write_bytes(w, word, strlen(word));
}

static bool
needs_escape(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f || c == '\'') {
            return true;
        }
    }
    return false;
}

/* Only what stands for itself; backslashes do, in this kind of repr. */
static verdict
write_str(writer *w, PyObject *str)
{
    Py_ssize_t len;
    if (PyUnicode_GET_LENGTH(str) > PY_REPR_MAX) {
        return UNUSUAL;
    }
    const char *text = PyUnicode_AsUTF8AndSize(str, &len);
    if (text == NULL) {
        PyErr_Clear();  // surrogates; if it was memory, the general way will notice too
        return UNUSUAL;
    }
    if (needs_escape(text, (size_t)len)) {
        return UNUSUAL;
    }
    w->extra += len - PyUnicode_GET_LENGTH(str);
    verdict rc = write_word(w, "'");
    if (rc == DONE) {
        rc = write_bytes(w, text, (size_t)len);
    }
    return rc == DONE ? write_word(w, "'") : rc;
}

static verdict
write_int(writer *w, PyObject *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0) {
        return UNUSUAL;
    }
    return pc_json_put_integer(w->out, value, &w->err) < 0 ? FAILED : DONE;
}

/* As JSON, but for the names of what is not finite. */
static verdict
write_float(writer *w, PyObject *number)
{
    double value = PyFloat_AS_DOUBLE(number);
    if (!(value - value == 0)) {
        return UNUSUAL;
    }
    return pc_json_put_real(w->out, value, &w->err) < 0 ? FAILED : DONE;
}

static verdict
write_items(writer *w, PyObject *seq, const char *opening, const char *closing)
{
    PyObject *const *items = PySequence_Fast_ITEMS(seq);
    Py_ssize_t count = PySequence_Fast_GET_SIZE(seq);
    verdict rc = count > PY_REPR_MAX / 3 + 1 ? UNUSUAL : write_word(w, opening);
    for (Py_ssize_t i = 0; rc == DONE && i < count; i++) {
        if (i > 0) {
            rc = write_word(w, ", ");
        }
        if (rc == DONE) {
            rc = write_value(w, items[i]);
        }
    }
    if (rc == DONE && count == 1 && PyTuple_CheckExact(seq)) {
        rc = write_word(w, ",");
    }
    return rc == DONE ? write_word(w, closing) : rc;
}

static verdict
write_pair(writer *w, PyObject *key, PyObject *value, bool first)
{
    verdict rc = first ? DONE : write_word(w, ", ");
    if (rc == DONE) {
        rc = write_value(w, key);
    }
    if (rc == DONE) {
        rc = write_word(w, ": ");
    }
    return rc == DONE ? write_value(w, value) : rc;
}

static verdict
write_dict(writer *w, PyObject *dict)
{
    PyObject *key;    // borrowed
    PyObject *value;  // borrowed
    Py_ssize_t at = 0;
    bool first = true;
    verdict rc = PyDict_GET_SIZE(dict) > PY_REPR_MAX / 6 + 1 ? UNUSUAL : write_word(w, "{");
    while (rc == DONE && PyDict_Next(dict, &at, &key, &value)) {
        rc = write_pair(w, key, value, first);
        first = false;
    }
    return rc == DONE ? write_word(w, "}") : rc;
}

/* Empty ones are written at any depth, others only MAX_LEVELS deep; so cycles end too. */
static verdict
write_container(writer *w, PyObject *obj)
{
    bool is_list = PyList_CheckExact(obj);
    bool is_dict = PyDict_CheckExact(obj);
    if (!is_list && !is_dict && !PyTuple_CheckExact(obj)) {
        return UNUSUAL;
    }
    if (w->level == MAX_LEVELS && PyObject_Size(obj) > 0) {
        return UNUSUAL;
    }
    w->level++;
    verdict rc = is_dict   ? write_dict(w, obj)
                 : is_list ? write_items(w, obj, "[", "]")
                           : write_items(w, obj, "(", ")");
    w->level--;
    return rc;
}

static verdict
write_value(writer *w, PyObject *obj)
{
    if (PyUnicode_CheckExact(obj)) {
        return write_str(w, obj);
    }
    if (PyLong_CheckExact(obj)) {
        return write_int(w, obj);
    }
    if (obj == Py_None) {
        return write_word(w, "None");
    }
    if (PyBool_Check(obj)) {
        return write_word(w, obj == Py_True ? "True" : "False");
    }
    return PyFloat_CheckExact(obj) ? write_float(w, obj) : write_container(w, obj);
}

/* Not imported with this module, because the package imports this module first. */
static int
find_saferepr(py_state *state)
{
    if (state->saferepr != NULL) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("pyceleryc.utils.saferepr");
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, "saferepr");
    Py_XDECREF(module);
    Py_XSETREF(state->saferepr, found);
    return found == NULL ? -1 : 0;
}

static int
write_general(py_state *state, PyObject *obj, int limit, pc_buf *out)
{
    pc_err err;
    PyObject *utf8 = NULL;
    PyObject *text = find_saferepr(state) < 0
                         ? NULL
                         : PyObject_CallFunction(state->saferepr, "Oi", obj, limit);
    if (text != NULL) {
        utf8 = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    }
    int rc = utf8 == NULL ? -1 : 0;
    if (rc == 0
        && pc_buf_put(out, PyBytes_AS_STRING(utf8), (size_t)PyBytes_GET_SIZE(utf8), &err) < 0) {
        py_raise(state, &err);
        rc = -1;
    }
    Py_XDECREF(text);
    Py_XDECREF(utf8);
    return rc;
}

int
py_saferepr(py_state *state, PyObject *obj, int limit, pc_buf *out)
{
    writer w = {.out = out};
    size_t before = pc_buf_len(out);
    verdict rc = write_value(&w, obj);
    if (rc == FAILED) {
        py_raise(state, &w.err);
        return -1;
    }
    Py_ssize_t chars = (Py_ssize_t)(pc_buf_len(out) - before) - w.extra;
    if (rc == DONE && chars <= limit) {
        return 0;
    }
    out->end = out->start + before;
    return write_general(state, obj, limit, out);
}
