/* SPDX-License-Identifier: BSD-3-Clause */
/* Methods of Worker that look at the machine or change it, as any thread may call them: with the machine's lock. */
#ifndef PC_PY_GUARD_H
#define PC_PY_GUARD_H

#include "py/worker.h"

PyObject *py_guarded_add_reader(py_worker *self, PyObject *args);
PyObject *py_guarded_remove_reader(py_worker *self, PyObject *args);
PyObject *py_guarded_call_later(py_worker *self, PyObject *args);
PyObject *py_guarded_task(py_worker *self, PyObject *args);
PyObject *py_guarded_add_queue(py_worker *self, PyObject *args);
PyObject *py_guarded_drop_queue(py_worker *self, PyObject *args);
PyObject *py_guarded_revoke(py_worker *self, PyObject *args);
PyObject *py_guarded_jobs(py_worker *self, PyObject *args);
PyObject *py_guarded_stats(py_worker *self, PyObject *args);
PyObject *py_guarded_redirect(py_worker *self, PyObject *args);
PyObject *py_guarded_prefetch(py_worker *self, PyObject *args);
PyObject *py_guarded_restart_pool(py_worker *self, PyObject *args);
PyObject *py_guarded_resize(py_worker *self, PyObject *args);
PyObject *py_guarded_events_identity(py_worker *self, PyObject *args);
PyObject *py_guarded_events_on(py_worker *self, PyObject *args);
PyObject *py_guarded_events_open(py_worker *self, PyObject *args);
PyObject *py_guarded_events_close(py_worker *self, PyObject *args);
PyObject *py_guarded_event(py_worker *self, PyObject *args);
PyObject *py_guarded_http(py_worker *self, PyObject *args);
PyObject *py_guarded_want(py_worker *self, PyObject *args);

#endif
