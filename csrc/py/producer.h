/* SPDX-License-Identifier: BSD-3-Clause */
/* Producer: a publisher of the program's side (io/broker.h) as a Python object. Any thread may
 * use it; the GIL is released while the core works. */
#ifndef PC_PY_PRODUCER_H
#define PC_PY_PRODUCER_H

#include "py/state.h"

int py_producer_setup(PyObject *module);

#endif
