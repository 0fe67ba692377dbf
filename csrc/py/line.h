/* SPDX-License-Identifier: BSD-3-Clause */
/* The line of the pool asyncio (work/line.h) and the runs that come over it, as Python's event loop has them.
 *
 * DESIGN. A coroutine's run is the same as any other (run.h), in two steps with the event loop's work in between. Whoever calls
 * the line lets the GIL go first: the machine asks for the GIL while it holds the line's lock. */
#ifndef PC_PY_LINE_H
#define PC_PY_LINE_H

#include "py/state.h"
#include "work/line.h"

/* runner.turn and runner.strike; ctx is the py_worker. Without the GIL. */
void py_line_turn(void *ctx, pc_line *line);
bool py_line_strike(void *ctx, void *run, bool soft);

/* Line and Run */
int py_line_setup(PyObject *module);

#endif
