/* SPDX-License-Identifier: BSD-3-Clause */
/* One message from the arguments of publish(). */
#ifndef PC_PY_DELIVERY_H
#define PC_PY_DELIVERY_H

#include "io/broker.h"
#include "py/message.h"

/* Arguments of Producer.publish(); Batch.publish() has no timeout. */
enum {
    PY_PUBLISH_EXCHANGE,
    PY_PUBLISH_ROUTING_KEY,
    PY_PUBLISH_BODY,
    PY_PUBLISH_HEADERS,
    PY_PUBLISH_PROPERTIES,
    PY_PUBLISH_MANDATORY,
    PY_PUBLISH_DUE,
    PY_PUBLISH_TIMEOUT,
    PY_PUBLISH_COUNT
};

typedef struct py_delivery {
    pc_outgoing out;  // points into the arguments and the members below
    Py_buffer body;
    py_texts texts;
    pc_buf headers;
} py_delivery;

/* Give it to py_delivery_done() in any case. */
int py_delivery_read(py_delivery *delivery, py_state *state, pc_headers_kind kind,
                     PyObject *const *args);
void py_delivery_done(py_delivery *delivery);

#endif
