/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/guard.h"

#include "py/attach.h"
#include "py/control.h"
#include "py/emit.h"

static PyObject *
call(py_worker *self, PyObject *(*method)(py_worker *, PyObject *), PyObject *args)
{
    py_worker_hold(self);
    PyObject *result = method(self, args);
    if (self->worker != NULL && PyThread_get_thread_ident() != self->owner) {
        pc_loop_wake(pc_worker_loop(self->worker));
    }
    py_worker_let_go(self);
    return result;
}

PyObject *
py_guarded_add_reader(py_worker *self, PyObject *args)
{
    return call(self, py_worker_add_reader, args);
}

PyObject *
py_guarded_remove_reader(py_worker *self, PyObject *args)
{
    return call(self, py_worker_remove_reader, args);
}

PyObject *
py_guarded_call_later(py_worker *self, PyObject *args)
{
    return call(self, py_worker_call_later, args);
}

PyObject *
py_guarded_task(py_worker *self, PyObject *args)
{
    return call(self, py_worker_task, args);
}

PyObject *
py_guarded_add_queue(py_worker *self, PyObject *args)
{
    return call(self, py_worker_add_queue, args);
}

PyObject *
py_guarded_drop_queue(py_worker *self, PyObject *args)
{
    return call(self, py_worker_drop_queue, args);
}

PyObject *
py_guarded_revoke(py_worker *self, PyObject *args)
{
    return call(self, py_worker_revoke, args);
}

PyObject *
py_guarded_jobs(py_worker *self, PyObject *args)
{
    return call(self, py_worker_jobs, args);
}

PyObject *
py_guarded_stats(py_worker *self, PyObject *args)
{
    return call(self, py_worker_stats, args);
}

PyObject *
py_guarded_redirect(py_worker *self, PyObject *args)
{
    return call(self, py_worker_redirect, args);
}

PyObject *
py_guarded_prefetch(py_worker *self, PyObject *args)
{
    return call(self, py_worker_prefetch, args);
}

PyObject *
py_guarded_restart_pool(py_worker *self, PyObject *args)
{
    return call(self, py_worker_restart_pool, args);
}

PyObject *
py_guarded_resize(py_worker *self, PyObject *args)
{
    return call(self, py_worker_resize, args);
}

PyObject *
py_guarded_events_identity(py_worker *self, PyObject *args)
{
    return call(self, py_worker_events_identity, args);
}

PyObject *
py_guarded_events_on(py_worker *self, PyObject *args)
{
    return call(self, py_worker_events_on, args);
}

PyObject *
py_guarded_events_open(py_worker *self, PyObject *args)
{
    return call(self, py_worker_events_open, args);
}

PyObject *
py_guarded_events_close(py_worker *self, PyObject *args)
{
    return call(self, py_worker_events_close, args);
}

PyObject *
py_guarded_event(py_worker *self, PyObject *args)
{
    return call(self, py_worker_event, args);
}

PyObject *
py_guarded_http(py_worker *self, PyObject *args)
{
    return call(self, py_worker_http, args);
}

PyObject *
py_guarded_want(py_worker *self, PyObject *args)
{
    return call(self, py_worker_want, args);
}
