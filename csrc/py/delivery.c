/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/delivery.h"

#include "py/args.h"

static int
read_due(PyObject *obj, pc_outgoing *out)
{
    double seconds;
    if (py_real_or_none(obj, &seconds) < 0) {
        return -1;
    }
    out->has_due = obj != Py_None;
    if (out->has_due && !(seconds > -1e12 && seconds < 1e12)) {
        PyErr_SetString(PyExc_ValueError, "due is no moment");
        return -1;
    }
    out->due.us = out->has_due ? (int64_t)(seconds * (double)PC_US_PER_SEC) : 0;
    return 0;
}

int
py_delivery_read(py_delivery *it, py_state *state, pc_headers_kind kind, PyObject *const *args)
{
    pc_message *message = &it->out.message;
    *it = (py_delivery){.texts = {{NULL}}};
    pc_message_init(message);
    pc_buf_init(&it->headers);
    if (py_text(args[PY_PUBLISH_EXCHANGE], "exchange", &message->exchange) < 0
        || py_text(args[PY_PUBLISH_ROUTING_KEY], "routing_key", &message->routing_key) < 0
        || py_bytes(args[PY_PUBLISH_BODY], &it->body, &message->body) < 0
        || py_properties_fill(state, args[PY_PUBLISH_PROPERTIES], message, &it->texts) < 0
        || py_dict_pack(state, args[PY_PUBLISH_HEADERS], kind, &it->headers, &message->headers)
               < 0) {
        return -1;
    }
    message->headers_kind = kind;
    return py_flag(args[PY_PUBLISH_MANDATORY], &it->out.mandatory) < 0
                   || read_due(args[PY_PUBLISH_DUE], &it->out) < 0
               ? -1
               : 0;
}

void
py_delivery_done(py_delivery *it)
{
    py_texts_drop(&it->texts);
    py_bytes_done(&it->body);
    pc_buf_fini(&it->headers);
}
