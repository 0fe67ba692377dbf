/* SPDX-License-Identifier: BSD-3-Clause */
/* A link of a chain is offered to the worker before it is sent (work/follow.c): its message is made as a producer makes it. */
#include "py/args.h"
#include "py/run.h"
#include "py/soft_limit.h"

static bool
offer_message(const pc_outcome *to, const pc_message *message)
{
    bool granted = false;
    pc_buf frame;

    pc_buf_init(&frame);
    Py_BEGIN_ALLOW_THREADS
    if (pc_message_pack(message, &frame, NULL) == 0) {
        granted = to->offer(to->offer_to, pc_buf_slice(&frame));
    }
    Py_END_ALLOW_THREADS
    pc_buf_fini(&frame);
    return granted;
}

/* The arguments are those of Producer.send(). What is wrong with them is said when the message is sent. */
PyObject *
py_tracer_offer(py_tracer *self, PyObject *const *args, Py_ssize_t nargs)
{
    const py_run *at = py_run_of(self->state, PyThread_get_thread_ident());
    py_order order;
    bool granted = false;

    if (py_arity("offer", nargs, PY_SEND_COUNT) < 0) {
        return NULL;
    }
    if (at == NULL || !at->offering) {
        Py_RETURN_FALSE;
    }
    py_scratch *scratch = py_scratch_take(&self->scratches);
    if (scratch == NULL) {
        return NULL;
    }
    if (py_order_make(&order, self->state, at->message->headers_kind, args, PY_SEND_COUNT, scratch) < 0) {
        PyErr_Clear();
    } else {
        granted = offer_message(at->outcome, &order.message);
    }
    py_scratch_give_back(&self->scratches, scratch);
    return PyBool_FromLong(granted);
}
