/* SPDX-License-Identifier: BSD-3-Clause */
/* What follows a task that has returned: the next link of its chain, its document. Python is asked where it has a say. */
#include "base/clock.h"
#include "py/args.h"
#include "py/error.h"
#include "py/json.h"
#include "py/lazy.h"
#include "py/run.h"
#include "wire/result.h"

static bool
is_plain(PyObject *value)
{
    return value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value)
           || PyUnicode_CheckExact(value) || PyFloat_CheckExact(value) || PyList_CheckExact(value)
           || PyDict_CheckExact(value) || PyTuple_CheckExact(value);
}

static bool
has_links(PyObject *embed)
{
    static const char *const names[] = {"callbacks", "chain", "chord"};

    if (embed == NULL || embed == Py_None) {
        return false;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        PyObject *value = PyDict_GetItemString(embed, names[i]);  // borrowed
        if (value != NULL && value != Py_None) {
            return true;
        }
    }
    return false;
}

static int
date_done(py_run *at, char *out, size_t size, pc_slice *text)
{
    if (at->self->utc) {
        int len = pc_wall_format(pc_wall_now(), 0, out);
        *text = pc_slice_of(out, (size_t)len);
        return 0;
    }
    PyObject *iso = PyObject_CallMethod(at->self->hooks, "now_iso", NULL);
    if (iso == NULL) {
        return -1;
    }
    const char *utf8 = PyUnicode_AsUTF8(iso);
    int rc = utf8 == NULL || strlen(utf8) >= size ? -1 : 0;
    if (rc == 0) {
        strcpy(out, utf8);
        *text = pc_slice_str(out);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "hooks.now_iso() returned too long a text");
    }
    Py_DECREF(iso);
    return rc;
}

static PyObject *
rest_text(py_run *at)
{
    pc_buf text;
    pc_err err = {0};
    PyObject *made = NULL;

    pc_buf_init(&text);
    if (pc_embed_put_rest(&at->links, &text, &err) < 0) {
        py_raise(at->self->state, &err);
    } else {
        made = PyUnicode_DecodeUTF8(pc_buf_ptr(&text), (Py_ssize_t)pc_buf_len(&text), NULL);
    }
    pc_buf_fini(&text);
    return made;
}

/* The next link of a chain is sent. 1: it is, 0: the general path has to, -1: failed. Sets *children, a new reference, to the JSON
 * for the document. */
static int
hand_over(py_run *at, PyObject **children)
{
    pc_slice root = at->head->root_id.ptr != NULL ? at->head->root_id : at->head->id;
    PyObject *link = py_json_decode(at->self->state, at->links.next);
    PyObject *rest = link == NULL || !PyDict_Check(link) ? NULL : rest_text(at);

    if (rest == NULL) {
        Py_XDECREF(link);
        PyErr_Clear();  // what is wrong is said of the whole body
        return 0;
    }
    at->offering = at->outcome->offer != NULL && !(at->task->flags & PY_TASK_LATE);
    *children = PyObject_CallMethod(at->self->hooks, "hand_over", "OOOONNO", at->task->task, link, at->value, rest,
                                    py_str_or_none(root), py_str_or_none(at->head->id),
                                    at->offering ? (PyObject *)at->self : Py_None);
    at->offering = false;
    Py_DECREF(link);
    Py_DECREF(rest);
    if (*children == Py_None) {
        Py_CLEAR(*children);
        return 0;
    }
    return *children == NULL ? -1 : 1;
}

static int
write_document(py_run *at, pc_slice json, PyObject *children)
{
    char done[PC_ISO_MAX * 2];
    pc_err err = {0};
    pc_result result = {.status = pc_slice_str(pc_state_name(PC_SUCCESS)), .result = json};

    if ((children != NULL && py_text(children, "children", &result.children) < 0)
        || date_done(at, done, sizeof(done), &result.date_done) < 0) {
        return -1;
    }
    result.group_id = at->head->group;
    result.parent_id = at->head->parent_id;
    result.task_id = at->head->id;
    pc_buf_reset(at->memory, 1 << 20);
    if (pc_result_write(&result, at->memory, &err) < 0) {
        py_raise(at->self->state, &err);
        return -1;
    }
    at->outcome->document = pc_buf_slice(at->memory);
    at->outcome->flags |= PC_OUT_DOCUMENT;
    return 1;
}

/* The value is encoded before anything is sent: hooks.succeed makes a FAILURE of one that cannot be. */
static int
send_and_store(py_run *at, bool ignored)
{
    pc_buf json;
    PyObject *children = NULL;
    int rc = 0;

    pc_buf_init(&json);
    if (!ignored && (!is_plain(at->value) || py_json_encode(at->self->state, at->value, &json) < 0)) {
        PyErr_Clear();
    } else {
        rc = at->links.next.ptr == NULL ? 1 : hand_over(at, &children);
    }
    if (rc == 1 && !ignored) {
        rc = write_document(at, pc_buf_slice(&json), children);
    }
    Py_XDECREF(children);
    pc_buf_fini(&json);
    return rc;
}

/* Stamps are for Python to pass on; and who has looked at the request may look at its children, too. */
static bool
is_special(const py_run *at)
{
    if (at->links.next.ptr == NULL) {
        return has_links(at->embed) || py_lazy_has_children(at->request);
    }
    return at->head->has_stamps || !py_lazy_is_untouched(at->request);
}

bool
py_run_ends_plainly(const py_run *at)
{
    return at->message != NULL && at->links.next.ptr == NULL && !(at->task->flags & (PY_TASK_SUCCESS | PY_TASK_LEAVE))
           && !is_special(at);
}

/* 1: done without Python, 0: hooks.succeed has to, -1: failed. */
static int
succeed_plainly(py_run *at)
{
    if (at->message == NULL || (at->task->flags & PY_TASK_SUCCESS) || is_special(at)) {
        return 0;
    }
    at->outcome->state = PC_SUCCESS;
    return send_and_store(at, at->head->ignore_result >= 0 ? at->head->ignore_result == 1
                                                           : (at->task->flags & PY_TASK_IGNORE_RESULT) != 0);
}

int
py_run_succeed(py_run *at)
{
    int rc = succeed_plainly(at);

    if (rc != 0) {
        return rc < 0 ? -1 : 0;
    }
    PyObject *context = py_run_context(at);
    if (context == NULL) {
        return -1;
    }
    rc = py_run_take_outcome(at, PyObject_CallMethod(at->self->hooks, "succeed", "OOO", at->task->task,
                                              context, at->value));
    Py_DECREF(context);
    return rc;
}
