/* SPDX-License-Identifier: BSD-3-Clause */
/* argsrepr and kwargsrepr: a repr of bounded length and depth (FEATURES T-123). Plain arguments are
 * written here; anything else by pyceleryc.utils.saferepr. */
#ifndef PC_PY_SAFEREPR_H
#define PC_PY_SAFEREPR_H

#include "py/state.h"

#define PY_REPR_MAX 1024  // characters

/* Appends the repr of `obj` in UTF-8, of `limit` characters at most. */
int py_saferepr(py_state *state, PyObject *obj, int limit, pc_buf *out);

#endif
