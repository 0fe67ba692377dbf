/* SPDX-License-Identifier: BSD-3-Clause */
/* Hub: the in-memory broker and result store, shared by those whose configuration names it. */
#ifndef PC_PY_HUB_H
#define PC_PY_HUB_H

#include "io/broker.h"
#include "py/state.h"

/* Lent by the object; NULL with TypeError when it is no Hub. */
pc_hub *py_hub_get(py_state *state, PyObject *obj);

int py_hub_setup(PyObject *module);

#endif
