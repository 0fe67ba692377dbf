/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON of Python objects, byte for byte and error for error as kombu.utils.json makes it. Plain
 * documents are handled here; anything unusual goes to kombu as a whole. */
#ifndef PC_PY_JSON_H
#define PC_PY_JSON_H

#include "py/state.h"

/* Appends the JSON text of `obj`; on failure `out` is as before and kombu's exception is set. */
int py_json_encode(py_state *state, PyObject *obj, pc_buf *out);
/* The same, always through kombu. */
int py_json_encode_kombu(py_state *state, PyObject *obj, pc_buf *out);

/* Values that kombu wrote as {"__type__": …, "__value__": …} come back as what they were. */
PyObject *py_json_decode(py_state *state, pc_slice text);

/* json_dumps(), json_loads() */
int py_json_setup(PyObject *module);

#endif
