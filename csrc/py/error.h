/* SPDX-License-Identifier: BSD-3-Clause */
/* From pc_err to exceptions: the one place where a code of the core becomes a class. Every
 * exception has `.code`, the number of the pc_code; the class has the one it usually stands for. */
#ifndef PC_PY_ERROR_H
#define PC_PY_ERROR_H

#include "base/err.h"
#include "py/state.h"

/* Raises what `err` says and returns NULL. An exception that is set already is kept: then a
 * callback from the core into Python failed, and it is the reason. */
PyObject *py_raise(py_state *state, const pc_err *err);

int py_error_setup(PyObject *module);

#endif
