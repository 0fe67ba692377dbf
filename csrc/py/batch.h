/* SPDX-License-Identifier: BSD-3-Clause */
/* Batch: messages that Python collects and Producer.publish_batch() sends. */
#ifndef PC_PY_BATCH_H
#define PC_PY_BATCH_H

#include "io/batch.h"
#include "py/state.h"

/* Lends the messages until py_batch_return(); nothing can be added meanwhile. NULL with an
 * exception: no batch, one of another kind of broker, or lent already. */
pc_batch *py_batch_lend(PyObject *batch, py_state *state, pc_headers_kind kind);
void py_batch_return(PyObject *batch);

int py_batch_setup(PyObject *module);

#endif
