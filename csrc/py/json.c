/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/json.h"

#include "py/args.h"
#include "py/builder.h"
#include "py/error.h"
#include "wire/json.h"
#include "wire/json_out.h"

/* Deeper documents, endless ones among them, are kombu's. Far below any C stack. */
#define MAX_DEPTH 200

/* UNUSUAL: kombu must write the document. FAILED: `err` of the writer is filled. */
typedef enum verdict { DONE = 0, FAILED = -1, UNUSUAL = 1 } verdict;

typedef struct writer {
    py_state *state;
    pc_buf *out;
    pc_err err;
    int depth;
} writer;

static verdict write_value(writer *w, PyObject *obj);

static verdict
write_str(writer *w, PyObject *text)
{
    return pc_json_put_ucs(w->out, PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text),
                           (int)PyUnicode_KIND(text), &w->err)
                   < 0
               ? FAILED
               : DONE;
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

static verdict
write_float(writer *w, PyObject *number)
{
    return pc_json_put_real(w->out, PyFloat_AS_DOUBLE(number), &w->err) < 0 ? FAILED : DONE;
}

static verdict
write_word(writer *w, const char *word)
{
    return pc_buf_put_str(w->out, word, &w->err) < 0 ? FAILED : DONE;
}

/* No Python code runs while a container is written, so it cannot change under us. */
static verdict
write_items(writer *w, PyObject *const *items, Py_ssize_t count)
{
    verdict rc = write_word(w, "[");
    for (Py_ssize_t i = 0; rc == DONE && i < count; i++) {
        if (i > 0) {
            rc = write_word(w, ", ");
        }
        if (rc == DONE) {
            rc = write_value(w, items[i]);
        }
    }
    return rc == DONE ? write_word(w, "]") : rc;
}

static verdict
write_pair(writer *w, PyObject *key, PyObject *value, bool first)
{
    if (!PyUnicode_CheckExact(key)) {
        return UNUSUAL;
    }
    verdict rc = first ? DONE : write_word(w, ", ");
    if (rc == DONE) {
        rc = write_str(w, key);
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
    verdict rc = write_word(w, "{");
    while (rc == DONE && PyDict_Next(dict, &at, &key, &value)) {
        rc = write_pair(w, key, value, first);
        first = false;
    }
    return rc == DONE ? write_word(w, "}") : rc;
}

/* A dict, or of a class that has the items of one, as signatures do. The lookup runs no Python code. */
static bool
is_dict(const writer *w, PyObject *obj)
{
    PyObject *name = w->state->str_items;
    return PyDict_CheckExact(obj)
           || (PyDict_Check(obj) && _PyType_Lookup(Py_TYPE(obj), name) == _PyType_Lookup(&PyDict_Type, name));
}

static verdict
write_container(writer *w, PyObject *obj)
{
    verdict rc = UNUSUAL;
    if (w->depth == MAX_DEPTH) {
        return UNUSUAL;
    }
    w->depth++;
    if (is_dict(w, obj)) {
        rc = write_dict(w, obj);
    } else if (PyList_CheckExact(obj) || PyTuple_CheckExact(obj)) {
        rc = write_items(w, PySequence_Fast_ITEMS(obj), PySequence_Fast_GET_SIZE(obj));
    }
    w->depth--;
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
        return write_word(w, "null");
    }
    if (PyBool_Check(obj)) {
        return write_word(w, obj == Py_True ? "true" : "false");
    }
    if (PyFloat_CheckExact(obj)) {
        return write_float(w, obj);
    }
    return write_container(w, obj);
}

int
py_json_encode_kombu(py_state *state, PyObject *obj, pc_buf *out)
{
    pc_err err;
    pc_slice text;
    PyObject *made = PyObject_CallOneArg(state->json_dumps, obj);
    int rc = made == NULL ? -1 : py_text(made, "the JSON text", &text);
    if (rc == 0 && pc_buf_put_slice(out, text, &err) < 0) {
        py_raise(state, &err);
        rc = -1;
    }
    Py_XDECREF(made);
    return rc;
}

int
py_json_encode(py_state *state, PyObject *obj, pc_buf *out)
{
    writer w = {.state = state, .out = out, .depth = 0};
    size_t before = pc_buf_len(out);
    verdict rc = write_value(&w, obj);
    if (rc == DONE) {
        return 0;
    }
    out->end = out->start + before;
    if (rc == UNUSUAL) {
        return py_json_encode_kombu(state, obj, out);
    }
    py_raise(state, &w.err);
    return -1;
}

/* `source` is what kombu is given when it must decide; NULL: bytes made from `text`. */
static PyObject *
decode_kombu(py_state *state, pc_slice text, PyObject *source)
{
    PyObject *data = source != NULL
                         ? Py_NewRef(source)
                         : PyBytes_FromStringAndSize(text.ptr, (Py_ssize_t)text.len);
    PyObject *made = data == NULL ? NULL : PyObject_CallOneArg(state->json_loads, data);
    Py_XDECREF(data);
    return made;
}

static PyObject *
decode(py_state *state, pc_slice text, PyObject *source)
{
    py_builder builder;
    pc_err err;
    PyObject *made = NULL;
    py_builder_init(&builder, state, true);
    if (pc_json_visit(text, &py_builder_visit, &builder, &err) == 0) {
        made = py_builder_take(&builder);
    } else if (err.code == PC_EFALLBACK || builder.undecodable) {
        made = decode_kombu(state, text, source);
    } else {
        py_raise(state, &err);
    }
    py_builder_fini(&builder);
    return made;
}

PyObject *
py_json_decode(py_state *state, pc_slice text)
{
    return decode(state, text, NULL);
}

static PyObject *
json_dumps(PyObject *module, PyObject *obj)
{
    pc_buf out;
    PyObject *made = NULL;
    pc_buf_init(&out);
    if (py_json_encode(py_state_of(module), obj, &out) == 0) {
        made = PyUnicode_DecodeASCII(pc_buf_ptr(&out), (Py_ssize_t)pc_buf_len(&out), NULL);
    }
    pc_buf_fini(&out);
    return made;
}

static bool
is_text_or_bytes(PyObject *obj)
{
    return PyUnicode_Check(obj) || PyBytes_Check(obj) || PyByteArray_Check(obj)
           || PyMemoryView_Check(obj);
}

/* What we cannot read, kombu can't either, or reads in its own way: a str with lone surrogates,
 * a memoryview with strides, an object of another type. */
static PyObject *
json_loads(PyObject *module, PyObject *data)
{
    py_state *state = py_state_of(module);
    Py_buffer view = {.obj = NULL};
    pc_slice text;
    if (!is_text_or_bytes(data)) {
        return PyObject_CallOneArg(state->json_loads, data);
    }
    if (py_bytes(data, &view, &text) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)
            && !PyErr_ExceptionMatches(PyExc_BufferError)) {
            return NULL;
        }
        PyErr_Clear();  // kombu decides
        return PyObject_CallOneArg(state->json_loads, data);
    }
    PyObject *made = decode(state, text, data);
    py_bytes_done(&view);
    return made;
}

static PyMethodDef methods[] = {
    {"json_dumps", json_dumps, METH_O, "The JSON text of an object, as kombu writes it."},
    {"json_loads", json_loads, METH_O, "The object of a JSON text, as kombu reads it."},
    {NULL, NULL, 0, NULL},
};

int
py_json_setup(PyObject *module)
{
    py_state *state = py_state_of(module);
    PyObject *kombu = PyImport_ImportModule("kombu.utils.json");
    if (kombu == NULL) {
        return -1;
    }
    state->json_dumps = PyObject_GetAttrString(kombu, "dumps");
    state->json_loads = PyObject_GetAttrString(kombu, "loads");
    state->json_hook = PyObject_GetAttrString(kombu, "object_hook");
    Py_DECREF(kombu);
    if (state->json_dumps == NULL || state->json_loads == NULL || state->json_hook == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, methods);
}
