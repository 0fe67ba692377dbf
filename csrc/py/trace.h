/* SPDX-License-Identifier: BSD-3-Clause */
/* Running a task: the one place where the core calls user code.
 *
 * An ordinary task costs one call into Python, its own. Whatever else may have to happen (signals, handlers,
 * links, another serializer, failures) is asked of the Python hooks, and only when a flag or the message says so. The
 * request context is pushed as a LazyRequest and built only if somebody looks at it. */
#ifndef PC_PY_TRACE_H
#define PC_PY_TRACE_H

#include "py/state.h"
#include "work/pool.h"

#define PY_TASK_ENTER 1u
#define PY_TASK_SUCCESS 2u
#define PY_TASK_LEAVE 4u
#define PY_TASK_LOG 8u
#define PY_TASK_IGNORE_RESULT 16u
#define PY_TASK_CUSTOM_CALL 32u
#define PY_TASK_COROUTINE 64u
#define PY_TASK_AROUND 128u
#define PY_TASK_LATE 256u
#define PY_TASK_ONCE 512u
/* Where one of these is set, Python sends the links. */
#define PY_TASK_GENERAL (PY_TASK_ENTER | PY_TASK_SUCCESS | PY_TASK_LEAVE | PY_TASK_AROUND)

/* With the GIL held. Runs a packed message; never fails: what goes wrong is an outcome. The document is kept in `memory`. */
void py_tracer_run(PyObject *tracer, pc_slice frame, pc_outcome *outcome, pc_buf *memory);

/* The owner calls pc_producer_ops.confirming of state->confirming between runs, and the second when all is confirmed: it reports
 * what the broker has refused. */
void py_tracer_confirm_later(PyObject *tracer);
void py_tracer_flush(PyObject *tracer);

/* Tracer, LazyRequest, TASK_* and OUT_* */
int py_trace_setup(PyObject *module);

#endif
