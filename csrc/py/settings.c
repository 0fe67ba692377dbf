/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/settings.h"

/* A borrowed value, NULL when missing or None. */
PyObject *
py_get(PyObject *mapping, const char *name)
{
    PyObject *value = PyDict_GetItemString(mapping, name);

    return value == Py_None ? NULL : value;
}

long
py_get_long(PyObject *mapping, const char *name, long missing)
{
    PyObject *value = py_get(mapping, name);

    return value == NULL ? missing : PyLong_AsLong(value);
}

double
py_get_double(PyObject *mapping, const char *name, double missing)
{
    PyObject *value = py_get(mapping, name);

    return value == NULL ? missing : PyFloat_AsDouble(value);
}

bool
py_get_bool(PyObject *mapping, const char *name, bool missing)
{
    PyObject *value = py_get(mapping, name);

    return value == NULL ? missing : PyObject_IsTrue(value) == 1;
}

const char *
py_get_text(PyObject *mapping, const char *name, const char *missing)
{
    PyObject *value = py_get(mapping, name);

    return value == NULL ? missing : PyUnicode_AsUTF8(value);
}

static int
read_accept(PyObject *mapping, py_settings *out)
{
    PyObject *list = py_get(mapping, "accept");

    if (list == NULL) {
        return 0;
    }
    if (!PyList_Check(list) || PyList_GET_SIZE(list) > PY_ACCEPT_MAX) {
        PyErr_Format(PyExc_ValueError, "accept must be a list of at most %d content types", PY_ACCEPT_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        out->accept[i] = PyUnicode_AsUTF8(PyList_GET_ITEM(list, i));
        if (out->accept[i] == NULL) {
            return -1;
        }
    }
    out->worker.accept = out->accept;
    return 0;
}

static int
read_parts(PyObject *mapping, py_config *config, py_settings *out)
{
    PyObject *broker = py_get(mapping, "broker");
    PyObject *store = py_get(mapping, "store");

    if (broker == NULL) {
        PyErr_SetString(PyExc_ValueError, "the worker configuration has no broker");
        return -1;
    }
    if (py_config_broker(config, broker, &out->broker) < 0
        || (store != NULL && py_config_store(config, store, &out->store) < 0)) {
        return -1;
    }
    out->worker.broker = &out->broker;
    out->worker.store = store == NULL ? NULL : &out->store;
    return 0;
}

int
py_settings_read(PyObject *mapping, py_config *config, py_settings *out)
{
    *out = (py_settings){0};
    if (read_parts(mapping, config, out) < 0 || read_accept(mapping, out) < 0) {
        return -1;
    }
    out->worker.pool = py_get_text(mapping, "pool", "prefork");
    out->worker.pool_config = (pc_pool_config){
        .size = (int)py_get_long(mapping, "concurrency", 1),
        .max_tasks = py_get_long(mapping, "max_tasks_per_child", 0),
        .max_rss_kib = py_get_long(mapping, "max_memory_per_child", 0),
        .fair = py_get_bool(mapping, "fair", true),
        .start_timeout = py_get_double(mapping, "start_timeout", 0),
    };
    out->worker.prefetch = (unsigned)py_get_long(mapping, "prefetch", 0);
    out->worker.retry = py_get_bool(mapping, "retry", true);
    out->worker.retry_on_startup = py_get_bool(mapping, "retry_on_startup", true);
    out->worker.end_if_refused = py_get_bool(mapping, "end_if_refused", false);
    out->worker.max_retries = (int)py_get_long(mapping, "max_retries", -1);
    out->worker.eta_limit = (unsigned)py_get_long(mapping, "eta_task_limit", 0);
    out->worker.park_after = py_get_double(mapping, "park_after", 0);
    out->worker.disable_rate_limits = py_get_bool(mapping, "disable_rate_limits", false);
    out->worker.disable_prefetch = py_get_bool(mapping, "disable_prefetch", false);
    out->worker.cancel_on_loss = py_get_bool(mapping, "cancel_on_loss", false);
    out->worker.want_received = py_get_bool(mapping, "want_received", false);
    out->worker.want_accepted = py_get_bool(mapping, "want_accepted", false);
    out->worker.result_content_type = py_get_text(mapping, "result_content_type", "application/json");
    out->worker.result_content_encoding = py_get_text(mapping, "result_content_encoding", "utf-8");
    return PyErr_Occurred() ? -1 : 0;
}
