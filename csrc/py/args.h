/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments of our functions, from Python to C. All return 0, or -1 with an exception. Texts are
 * lent by the str object: they live as long as the caller holds it, also without the GIL. */
#ifndef PC_PY_ARGS_H
#define PC_PY_ARGS_H

#include "base/clock.h"
#include "py/state.h"

/* TypeError unless `given` positional arguments are `wanted`. */
int py_arity(const char *function, Py_ssize_t given, Py_ssize_t wanted);

/* A str. `name` is for the message of the TypeError. */
int py_text(PyObject *obj, const char *name, pc_slice *out);
/* A str, or None for the absent slice. */
int py_text_or_none(PyObject *obj, const char *name, pc_slice *out);
/* A str without NUL characters. */
int py_cstring(PyObject *obj, const char *name, const char **out);
/* The way back: a str, bytes that are not UTF-8 replaced, or None for the absent slice. New reference. */
PyObject *py_str_or_none(pc_slice text);
/* A number, or None for NaN. */
int py_real_or_none(PyObject *obj, double *out);
int py_integer(PyObject *obj, int64_t *out);
int py_flag(PyObject *obj, bool *out);
/* A C int of exactly that range. */
int py_int(PyObject *obj, int *out);

/* A mapping as a dict: itself, or a copy; new reference. */
PyObject *py_mapping(PyObject *obj, const char *name);

/* Seconds from now, or None for `configured` seconds; infinity is never. */
int py_deadline(PyObject *timeout, double configured, pc_mono *out);
int py_deadline_in(double seconds, pc_mono *out);

/* bytes of a str (as UTF-8) or of any object with a buffer. `view` must be given back with
 * py_bytes_done, which may be called after a failure too. */
int py_bytes(PyObject *obj, Py_buffer *view, pc_slice *out);
void py_bytes_done(Py_buffer *view);

#endif
