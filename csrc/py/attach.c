/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/attach.h"

#include "base/mem.h"
#include "py/args.h"
#include "py/error.h"

/* One callback: waits for a descriptor, or for a moment (fd -1). */
struct py_attached {
    pc_link link;
    py_worker *self;
    PyObject *callback;
    pc_watch watch;
    pc_timer timer;
};

typedef struct py_attached attached;

static void
release(attached *at)
{
    pc_loop *loop = pc_worker_loop(at->self->worker);

    if (at->watch.slot != 0) {
        pc_loop_unwatch(loop, &at->watch);
    }
    pc_loop_clear_timer(loop, &at->timer);
    pc_link_remove(&at->link);
    Py_DECREF(at->callback);
    pc_free(at);
}

/* The callback may remove itself: it is held over the call. */
static void
call(py_worker *self, PyObject *callback)
{
    PyObject *done = PyObject_CallNoArgs(callback);

    if (done == NULL) {
        py_worker_report(self);
    }
    Py_XDECREF(done);
}

static void
readable(void *ctx, unsigned events)
{
    attached *at = ctx;
    py_worker *self = at->self;

    (void)events;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *callback = Py_NewRef(at->callback);
    call(self, callback);
    Py_DECREF(callback);
    PyGILState_Release(gil);
}

static void
due(void *ctx, pc_mono now)
{
    attached *at = ctx;
    py_worker *self = at->self;

    (void)now;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *callback = Py_NewRef(at->callback);
    release(at);
    call(self, callback);
    Py_DECREF(callback);
    PyGILState_Release(gil);
}

static attached *
attach(py_worker *self, int fd, PyObject *callback)
{
    attached *at = pc_zalloc(sizeof(*at));

    if (at == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    at->self = self;
    at->callback = Py_NewRef(callback);
    pc_watch_init(&at->watch, fd, readable, at);
    pc_timer_init(&at->timer, due, at);
    pc_list_put_back(&self->attached, &at->link);
    return at;
}

/* Ends the watch of a descriptor; false when there was none. */
static bool
remove_reader(py_worker *self, long fd)
{
    for (pc_link *link = self->attached.next; link != &self->attached; link = link->next) {
        attached *at = PC_CONTAINER_OF(link, attached, link);
        if (at->watch.slot != 0 && at->watch.fd == fd) {
            release(at);
            return true;
        }
    }
    return false;
}

/* A second callback for a descriptor takes the place of the first. */
PyObject *
py_worker_add_reader(py_worker *self, PyObject *args)
{
    int fd;
    PyObject *callback;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "iO:add_reader", &fd, &callback) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    (void)remove_reader(self, fd);
    attached *at = attach(self, fd, callback);
    if (at == NULL) {
        return NULL;
    }
    if (pc_loop_watch(pc_worker_loop(self->worker), &at->watch, PC_READ, &err) < 0) {
        release(at);
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_remove_reader(py_worker *self, PyObject *fd)
{
    long number = PyLong_AsLong(fd);

    if ((number == -1 && PyErr_Occurred()) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(remove_reader(self, number));
}

PyObject *
py_worker_call_later(py_worker *self, PyObject *args)
{
    double seconds;
    PyObject *callback;
    pc_mono when;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "dO:call_later", &seconds, &callback) || py_deadline_in(seconds, &when) < 0
        || py_worker_check_open(self) < 0) {
        return NULL;
    }
    attached *at = attach(self, -1, callback);
    if (at == NULL) {
        return NULL;
    }
    if (pc_loop_set_timer(pc_worker_loop(self->worker), &at->timer, when, &err) < 0) {
        release(at);
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

void
py_attach_clear(py_worker *self)
{
    while (!pc_list_empty(&self->attached)) {
        release(PC_CONTAINER_OF(self->attached.next, attached, link));
    }
}
