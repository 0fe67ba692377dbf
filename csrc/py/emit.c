/* SPDX-License-Identifier: BSD-3-Clause */
/* Methods of Worker that are about events: who sends them, through what, and those that Python has to tell. */
#include "py/emit.h"

#include <stdalign.h>

#include "py/args.h"
#include "py/error.h"
#include "py/json.h"
#include "py/producer.h"

/* Through Python: another serializer than JSON, or a transport without a driver of ours. */
static bool
send_by_python(void *ctx, pc_slice routing_key, pc_slice body)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *done = py_worker_call(self, "send_events", "(s#y#)", routing_key.ptr, (Py_ssize_t)routing_key.len,
                                    body.ptr, (Py_ssize_t)body.len);
    bool sent = done != NULL && PyObject_IsTrue(done) == 1;

    Py_XDECREF(done);
    PyGILState_Release(gil);
    return sent;
}

static _Atomic uint64_t *
clock_cell(py_worker *self, PyObject *obj)
{
    if (self->clock.obj != NULL) {
        PyBuffer_Release(&self->clock);
    }
    if (PyObject_GetBuffer(obj, &self->clock, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (self->clock.len < (Py_ssize_t)sizeof(uint64_t) || (uintptr_t)self->clock.buf % alignof(_Atomic uint64_t) != 0) {
        PyBuffer_Release(&self->clock);
        PyErr_SetString(PyExc_ValueError, "the clock must be an aligned buffer of 8 bytes");
        return NULL;
    }
    return self->clock.buf;
}

PyObject *
py_worker_events_identity(py_worker *self, PyObject *args)
{
    const char *hostname, *exchange;
    int utcoffset, pid;
    PyObject *clock;
    pc_err err = {0};

    if (!PyArg_ParseTuple(args, "siisO:events_identity", &hostname, &utcoffset, &pid, &exchange, &clock)
        || py_worker_check_open(self) < 0) {
        return NULL;
    }
    _Atomic uint64_t *cell = clock_cell(self, clock);
    if (cell == NULL) {
        return NULL;
    }
    if (pc_events_identity(pc_worker_events(self->worker), pc_slice_str(hostname), utcoffset, pid,
                           pc_slice_str(exchange), cell, &err) < 0) {
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_events_on(py_worker *self, PyObject *yes)
{
    int on = PyObject_IsTrue(yes);

    if (on < 0 || py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_worker_events(self->worker)->tasks = on == 1;
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_events_open(py_worker *self, PyObject *producer)
{
    pc_events_hooks hooks = {send_by_python, self};
    pc_producer *found = NULL;
    pc_err err = {0};

    if (py_worker_check_open(self) < 0
        || (producer != Py_None && (found = py_producer_core(self->state, producer)) == NULL)) {
        return NULL;
    }
    if (pc_events_open(pc_worker_events(self->worker), found, &hooks, &err) < 0) {
        return py_raise(self->state, &err);
    }
    Py_XSETREF(self->event_producer, Py_NewRef(producer));
    return Py_NewRef(Py_None);
}

PyObject *
py_worker_events_close(py_worker *self, PyObject *unused)
{
    (void)unused;
    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_events_flush(pc_worker_events(self->worker));
    pc_events_close(pc_worker_events(self->worker));
    Py_CLEAR(self->event_producer);
    return Py_NewRef(Py_None);
}

/* What is inside the braces of a JSON object; absent for an empty one. */
static pc_slice
inside(const pc_buf *json)
{
    pc_slice all = pc_buf_slice(json);

    return all.len <= 2 ? pc_slice_of(NULL, 0) : pc_slice_of(all.ptr + 1, all.len - 2);
}

static void
put_in_batch(pc_events *events, pc_slice type, pc_slice members, pc_wall now)
{
    pc_event event;

    if (pc_events_begin(events, &event)) {
        pc_event_members(&event, members);
        pc_events_end(events, &event, type, now);
    }
}

PyObject *
py_worker_event(py_worker *self, PyObject *args)
{
    PyObject *fields;
    pc_slice type, key;
    Py_ssize_t type_len, key_len;
    pc_buf json;
    int sent = 0;

    if (!PyArg_ParseTuple(args, "s#z#O!:event", &type.ptr, &type_len, &key.ptr, &key_len, &PyDict_Type, &fields)
        || py_worker_check_open(self) < 0) {
        return NULL;
    }
    type.len = (size_t)type_len;
    key.len = (size_t)key_len;
    pc_buf_init(&json);
    int rc = py_json_encode(self->state, fields, &json);
    if (rc == 0 && key.ptr == NULL) {
        put_in_batch(pc_worker_events(self->worker), type, inside(&json), pc_wall_now());
    } else if (rc == 0) {
        pc_events *events = pc_worker_events(self->worker);
        Py_BEGIN_ALLOW_THREADS
        sent = pc_events_send(events, type, key, inside(&json), pc_wall_now());
        Py_END_ALLOW_THREADS
    }
    pc_buf_fini(&json);
    return rc < 0 ? NULL : PyBool_FromLong(sent == 0);
}
