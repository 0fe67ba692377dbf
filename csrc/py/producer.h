/* SPDX-License-Identifier: BSD-3-Clause */
/* Producer: a publisher of the program's side (io/broker.h) as a Python object. Any thread may
 * use it. The GIL is released around every call of the driver: drivers have locks, and an allocation
 * under a lock may ask for the GIL (tracemalloc), so nobody may wait for such a lock with it. */
#ifndef PC_PY_PRODUCER_H
#define PC_PY_PRODUCER_H

#include "py/state.h"

int py_producer_setup(PyObject *module);

#endif
