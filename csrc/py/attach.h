/* SPDX-License-Identifier: BSD-3-Clause */
/* Rare Python work on the worker's loop: callbacks for readable descriptors and after a time (remote control,
 * events, autoscale). All belong to the worker and end with it. */
#ifndef PC_PY_ATTACH_H
#define PC_PY_ATTACH_H

#include "py/worker.h"

/* Worker.add_reader(fd, callback), remove_reader(fd) */
PyObject *py_worker_add_reader(py_worker *self, PyObject *args);
PyObject *py_worker_remove_reader(py_worker *self, PyObject *fd);
/* Worker.call_later(seconds, callback): once */
PyObject *py_worker_call_later(py_worker *self, PyObject *args);

/* Ends them all; while the loop still exists. */
void py_attach_clear(py_worker *self);

#endif
