/* SPDX-License-Identifier: BSD-3-Clause */
/* Producer: a publisher of the program's side (io/broker.h) as a Python object. Any thread may
 * use it. The GIL is released around every call of the driver: drivers have locks, and an allocation
 * under a lock may ask for the GIL (tracemalloc), so nobody may wait for such a lock with it. */
#ifndef PC_PY_PRODUCER_H
#define PC_PY_PRODUCER_H

#include "py/state.h"
#include "io/broker.h"
#include "wire/message.h"

/* What the driver wants the headers of messages to be; `producer` is of the producer type. */
pc_headers_kind py_producer_kind(PyObject *producer);

/* The core's, borrowed; NULL with an exception when `producer` is none or closed. */
pc_producer *py_producer_core(py_state *state, PyObject *producer);

/* Is it an open producer that confirms while its owner waits for something else? */
bool py_producer_can_confirm(py_state *state, PyObject *producer);
/* pc_producer_ops.confirming; without the GIL. */
int py_producer_confirming(PyObject *producer);

int py_producer_setup(PyObject *module);

#endif
