/* SPDX-License-Identifier: BSD-3-Clause */
/* Methods of Worker: registration and control. */
#include "py/control.h"

#include <limits.h>
#include <math.h>

#include "py/args.h"
#include "py/config.h"
#include "py/error.h"
#include "py/settings.h"
#include "py/soft_limit.h"

PyObject *
py_worker_task(py_worker *self, PyObject *args)
{
    const char *name;
    PyObject *options;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "sO!:task", &name, &PyDict_Type, &options) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_spec spec = {
        .name = (char *)(uintptr_t)name,
        .acks_late = py_get_bool(options, "acks_late", false),
        .acks_on_failure = py_get_bool(options, "acks_on_failure", true),
        .acks_on_timeout = py_get_bool(options, "acks_on_timeout", true),
        .reject_on_worker_lost = py_get_bool(options, "reject_on_worker_lost", false),
        .ignore_result = py_get_bool(options, "ignore_result", false),
        .send_events = py_get_bool(options, "send_events", true),
        .watched = py_get_bool(options, "watched", false),
        .time_limit = py_get_double(options, "time_limit", NAN),
        .soft_time_limit = py_get_double(options, "soft_time_limit", NAN),
        .rate = py_get_double(options, "rate", 0),
    };
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (pc_worker_task(self->worker, &spec, &err) < 0) {
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_add_queue(py_worker *self, PyObject *mapping)
{
    py_config memory;
    pc_queue queue;
    pc_err err = {0};
    PyObject *result = NULL;

    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    py_config_init(&memory, self->state);
    if (py_config_queue(&memory, mapping, &queue) == 0) {
        if (pc_worker_add_queue(self->worker, &queue, &err) < 0) {
            py_raise(self->state, &err);
        } else {
            result = Py_NewRef(Py_None);
        }
    }
    py_config_fini(&memory);
    return result;
}

PyObject *
py_worker_drop_queue(py_worker *self, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    pc_err err = {0};

    if (text == NULL || py_worker_check_open(self) < 0) {
        return NULL;
    }
    if (pc_worker_drop_queue(self->worker, text, &err) < 0) {
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

/* The ids that are here; NULL with an exception, or with the first of the machine's errors in *err: the other ids are
 * revoked all the same. */
static PyObject *
revoke_each(py_worker *self, PyObject *ids, bool terminate, int signum, pc_err *err)
{
    PyObject *found = PyList_New(0);

    for (Py_ssize_t i = 0; found != NULL && i < PyTuple_GET_SIZE(ids); i++) {
        pc_err failed = {0};
        pc_slice id;
        bool here = py_text(PyTuple_GET_ITEM(ids, i), "id", &id) == 0
                    && pc_worker_revoke(self->worker, id, terminate, signum, &failed) != NULL;
        if (err->code == PC_OK) {
            *err = failed;
        }
        if (PyErr_Occurred() || (here && PyList_Append(found, PyTuple_GET_ITEM(ids, i)) < 0)) {
            Py_CLEAR(found);
        }
    }
    if (err->code != PC_OK) {
        Py_CLEAR(found);
    }
    return found;
}

PyObject *
py_worker_revoke(py_worker *self, PyObject *args)
{
    PyObject *ids;
    int terminate, signum;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "Opi:revoke", &ids, &terminate, &signum) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    PyObject *all = PySequence_Tuple(ids);
    if (all == NULL) {
        return NULL;
    }
    PyObject *found = revoke_each(self, all, terminate != 0, signum, &err);
    Py_DECREF(all);
    return found == NULL && err.code != PC_OK ? py_raise(self->state, &err) : found;
}

typedef struct collector {
    py_worker *self;
    PyObject *list;
    const char *which;
} collector;

static bool
wanted(const collector *at, const pc_job *job)
{
    if (strcmp(at->which, "active") == 0) {
        return job->stage == PC_JOB_RUNNING;
    }
    if (strcmp(at->which, "scheduled") == 0) {
        return job->stage == PC_JOB_HELD;
    }
    return job->stage != PC_JOB_RUNNING && job->stage != PC_JOB_STORING;
}

static void
collect(void *ctx, pc_job *job)
{
    collector *at = ctx;

    if (at->list == NULL || !wanted(at, job)) {
        return;
    }
    PyObject *view = py_job_new(at->self->state, job);
    PyObject *dict = view == NULL ? NULL : PyObject_CallMethod(at->self->hooks, "describe", "O", view);
    if (dict == NULL || PyList_Append(at->list, dict) < 0) {
        Py_CLEAR(at->list);
    }
    if (view != NULL) {
        py_job_detach(view);
    }
    Py_XDECREF(view);
    Py_XDECREF(dict);
}

PyObject *
py_worker_jobs(py_worker *self, PyObject *which)
{
    collector at = {self, NULL, PyUnicode_AsUTF8(which)};

    if (at.which == NULL || py_worker_check_open(self) < 0) {
        return NULL;
    }
    at.list = PyList_New(0);
    pc_worker_each_job(self->worker, collect, &at);
    return at.list;
}

static void
count_total(void *ctx, pc_spec *spec)
{
    collector *at = ctx;

    if (at->list == NULL || spec->total == 0) {
        return;
    }
    PyObject *total = PyLong_FromUnsignedLongLong(spec->total);
    if (total == NULL || PyDict_SetItemString(at->list, spec->name, total) < 0) {
        Py_CLEAR(at->list);
    }
    Py_XDECREF(total);
}

static PyObject *
pid_list(py_worker *self)
{
    pid_t pids[1024];
    int n = pc_worker_pids(self->worker, pids, 1024);
    PyObject *list = PyList_New(n);

    for (int i = 0; list != NULL && i < n; i++) {
        PyObject *pid = PyLong_FromLong((long)pids[i]);
        if (pid == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, pid);
    }
    return list;
}

PyObject *
py_worker_stats(py_worker *self, PyObject *unused)
{
    pc_worker_stats stats;
    collector at = {self, NULL, NULL};

    (void)unused;
    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_worker_get_stats(self->worker, &stats);
    at.list = PyDict_New();
    pc_worker_each_spec(self->worker, count_total, &at);
    PyObject *pids = at.list == NULL ? NULL : pid_list(self);
    if (pids == NULL) {
        Py_XDECREF(at.list);
        return NULL;
    }
    return Py_BuildValue("{sKsKsnsnsnsnsnsIsKsNsNsN}", "received", (unsigned long long)stats.received, "done",
                         (unsigned long long)stats.done, "held", (Py_ssize_t)stats.held, "limited",
                         (Py_ssize_t)stats.limited, "ready", (Py_ssize_t)stats.ready, "in_pool",
                         (Py_ssize_t)stats.in_pool, "storing", (Py_ssize_t)stats.storing, "prefetch",
                         stats.prefetch, "reconnects", (unsigned long long)stats.reconnects, "connected",
                         PyBool_FromLong(stats.connected), "total", at.list, "processes", pids);
}

PyObject *
py_worker_redirect(py_worker *self, PyObject *mapping)
{
    py_config config;
    pc_broker_config broker;
    pc_err err = {0};
    PyObject *done = NULL;

    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    py_config_init(&config, self->state);
    if (py_config_broker(&config, mapping, &broker) == 0) {
        done = pc_worker_redirect(self->worker, &broker, &err) < 0 ? py_raise(self->state, &err) : Py_NewRef(Py_None);
    }
    py_config_fini(&config);
    return done;
}

PyObject *
py_worker_prefetch(py_worker *self, PyObject *count)
{
    long number = PyLong_AsLong(count);
    pc_err err = {0};

    if ((number == -1 && PyErr_Occurred()) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    if (number < 0 || number > INT_MAX) {
        return PyErr_Format(PyExc_ValueError, "a prefetch count is 0 or more, not %ld", number);
    }
    if (pc_worker_prefetch(self->worker, (unsigned)number, &err) < 0) {
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_restart_pool(py_worker *self, PyObject *unused)
{
    (void)unused;
    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_worker_restart_pool(self->worker);
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_resize(py_worker *self, PyObject *size)
{
    long number = PyLong_AsLong(size);
    pc_err err = {0};
    int rc;

    if ((number == -1 && PyErr_Occurred()) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    if (number < 1 || number > INT_MAX) {
        return PyErr_Format(PyExc_ValueError, "a pool size is 1 or more, not %ld", number);
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pc_worker_resize(self->worker, (int)number, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? py_raise(self->state, &err) : Py_NewRef(Py_None);
}

PyObject *
py_worker_http(py_worker *self, PyObject *args)
{
    const char *host;
    int port;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "si:http", &host, &port) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    port = pc_worker_http(self->worker, host, port, &err);
    Py_END_ALLOW_THREADS
    return port < 0 ? py_raise(self->state, &err) : PyLong_FromLong(port);
}

PyObject *
py_worker_want(py_worker *self, PyObject *args)
{
    int received, accepted;

    if (!PyArg_ParseTuple(args, "pp:want", &received, &accepted) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_worker_want(self->worker, received != 0, accepted != 0);
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_soft_due(py_worker *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(self->child != NULL && pc_child_soft_due(self->child)
                           && py_run_is_open(self->state, PyThread_get_thread_ident()));
}
