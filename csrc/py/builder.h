/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes Python objects out of a walked document (pc_visit) or of a written one (pc_sink).
 * Values wait on one stack, with a NULL where a container opened; a container is made when it
 * closes, so it is never seen unfinished. A builder is a local variable; the GIL is held. */
#ifndef PC_PY_BUILDER_H
#define PC_PY_BUILDER_H

#include "py/state.h"
#include "wire/sink.h"
#include "wire/visit.h"

#define PY_BUILDER_INLINE 48

typedef struct py_builder {
    py_state *state;
    bool is_json;     // the source is JSON: typed values are decoded, text must be UTF-8
    bool undecodable; // stopped at text that is not UTF-8; no exception is set then
    size_t len;
    size_t cap;
    PyObject **values;  // owned, or NULL: a container opened here
    PyObject *few[PY_BUILDER_INLINE];
} py_builder;

void py_builder_init(py_builder *builder, py_state *state, bool is_json);
void py_builder_fini(py_builder *builder);
/* Hands the finished document over. */
PyObject *py_builder_take(py_builder *builder);

/* The context is a py_builder. When it stops a walk an exception is set, unless `undecodable`. */
extern const pc_visit py_builder_visit;

typedef struct py_sink {
    pc_sink sink;
    py_builder builder;
} py_sink;

/* On failure of the sink's functions a Python exception is set. */
void py_sink_init(py_sink *sink, py_state *state);
void py_sink_fini(py_sink *sink);
PyObject *py_sink_take(py_sink *sink);

/* Fetches what dates and decimals are made of. */
int py_builder_setup(PyObject *module);

#endif
