/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/soft_limit.h"

void
py_run_open(py_run *at)
{
    at->thread = PyThread_get_thread_ident();
    at->next = at->self->state->open;
    at->self->state->open = at;
}

void
py_run_close(py_run *at)
{
    py_run **link = &at->self->state->open;

    while (*link != NULL && *link != at) {
        link = &(*link)->next;
    }
    if (*link == at) {
        *link = at->next;
    }
    if (at->interrupted) {
        at->interrupted = false;
        (void)PyThreadState_SetAsyncExc(at->thread, NULL);  // it may not have been raised yet
    }
}

py_run *
py_run_of(const py_state *state, unsigned long thread)
{
    py_run *at = state->open;

    while (at != NULL && at->thread != thread) {
        at = at->next;
    }
    return at;
}

bool
py_run_is_open(const py_state *state, unsigned long thread)
{
    return py_run_of(state, thread) != NULL;
}

int
py_run_interrupt(py_state *state, unsigned long thread, PyObject *exception)
{
    py_run *at = py_run_of(state, thread);

    if (at == NULL) {
        return 0;
    }
    at->interrupted = true;
    return PyThreadState_SetAsyncExc(thread, exception) == 1 ? 0 : -1;
}
