/* SPDX-License-Identifier: BSD-3-Clause */
/* Methods of Worker that are about monitoring events. In the loop's thread only. */
#ifndef PC_PY_EMIT_H
#define PC_PY_EMIT_H

#include "py/worker.h"

/* (hostname, utcoffset, pid, exchange, clock: a writable buffer of 8 bytes) */
PyObject *py_worker_events_identity(py_worker *self, PyObject *args);
PyObject *py_worker_events_on(py_worker *self, PyObject *yes);
/* A Producer, or None: hooks.send_events(routing_key, body) -> bool */
PyObject *py_worker_events_open(py_worker *self, PyObject *producer);
PyObject *py_worker_events_close(py_worker *self, PyObject *unused);
/* (type, routing key or None for the batch, fields) */
PyObject *py_worker_event(py_worker *self, PyObject *args);

#endif
