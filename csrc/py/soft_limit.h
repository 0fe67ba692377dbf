/* SPDX-License-Identifier: BSD-3-Clause */
/* When the exception of a soft time limit may be raised: until the outcome of a run is decided. Later it would make a failure of a
 * success, or leave the request on its stack. Everything with the GIL held. */
#ifndef PC_PY_SOFT_LIMIT_H
#define PC_PY_SOFT_LIMIT_H

#include "py/run.h"

/* It may strike in between. Closing twice is all right. */
void py_run_open(py_run *at);
void py_run_close(py_run *at);
/* The newest open run of that thread; NULL: there is none. */
py_run *py_run_of(const py_state *state, unsigned long thread);
bool py_run_is_open(const py_state *state, unsigned long thread);
/* Raises the exception in that thread, if its run is open. -1: there is no such thread. */
int py_run_interrupt(py_state *state, unsigned long thread, PyObject *exception);

#endif
