/* SPDX-License-Identifier: BSD-3-Clause */
/* Results: a program's client of a result store (io/store.h) as a Python object. Any thread may
 * use it; the GIL is released around every call of the driver (producer.h says why). */
#ifndef PC_PY_RESULTS_H
#define PC_PY_RESULTS_H

#include "py/state.h"

int py_results_setup(PyObject *module);

#endif
