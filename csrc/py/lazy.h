/* SPDX-License-Identifier: BSD-3-Clause */
/* The request of the running task as long as nobody has looked at it: it points at the message and makes the Context when asked. */
#ifndef PC_PY_LAZY_H
#define PC_PY_LAZY_H

#include "py/state.h"
#include "wire/message.h"

/* The message is lent until py_lazy_detach, and so is `embed_text`: JSON that is read when somebody looks, for a NULL `embed`. */
PyObject *py_lazy_new(py_state *state, const pc_message *message, PyObject *args, PyObject *kwargs, PyObject *embed,
                      pc_slice embed_text, PyObject *make_request, PyObject *hostname);
/* The Context (new reference), made at the first call. */
PyObject *py_lazy_context(PyObject *lazy);
/* Nobody has looked. */
bool py_lazy_is_untouched(PyObject *lazy);
/* Somebody looked, and the Context has children (tasks sent from here). */
bool py_lazy_has_children(PyObject *lazy);
/* The run is over: the message may go. A Context that nobody asked for can't be made any more. */
void py_lazy_detach(PyObject *lazy);

int py_lazy_setup(PyObject *module);

#endif
