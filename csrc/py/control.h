/* SPDX-License-Identifier: BSD-3-Clause */
/* Methods of Worker that register things and ask for them. */
#ifndef PC_PY_CONTROL_H
#define PC_PY_CONTROL_H

#include "py/worker.h"

PyObject *py_worker_task(py_worker *self, PyObject *args);
PyObject *py_worker_add_queue(py_worker *self, PyObject *mapping);
PyObject *py_worker_drop_queue(py_worker *self, PyObject *name);
PyObject *py_worker_revoke(py_worker *self, PyObject *args);
PyObject *py_worker_jobs(py_worker *self, PyObject *which);
PyObject *py_worker_stats(py_worker *self, PyObject *unused);
PyObject *py_worker_redirect(py_worker *self, PyObject *mapping);
PyObject *py_worker_prefetch(py_worker *self, PyObject *count);
PyObject *py_worker_resize(py_worker *self, PyObject *size);
PyObject *py_worker_restart_pool(py_worker *self, PyObject *unused);
/* (host, port) -> port */
PyObject *py_worker_http(py_worker *self, PyObject *args);
PyObject *py_worker_want(py_worker *self, PyObject *args);
PyObject *py_worker_soft_due(py_worker *self, PyObject *unused);

#endif
