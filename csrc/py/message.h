/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages between Python and the core: headers, properties and delivery info as dicts, and back. */
#ifndef PC_PY_MESSAGE_H
#define PC_PY_MESSAGE_H

#include "py/state.h"
#include "wire/json_out.h"
#include "wire/message.h"
#include "wire/proto2.h"
#include "wire/sink.h"
#include "wire/table.h"

/* The headers, {} when there are none. */
PyObject *py_headers_to_dict(py_state *state, const pc_message *message);
/* A new dict of the properties that are present. */
PyObject *py_properties(py_state *state, const pc_message *message);
/* {"exchange", "routing_key", "priority", "redelivered"} (FEATURES T-072) */
PyObject *py_delivery_info(py_state *state, const pc_message *message);

/* Writes a mapping as one map of the sink. Values that are not plain are written as kombu's JSON has them;
 * bytes go into a field table (kind) as they are. */
int py_dict_to_sink(py_state *state, PyObject *mapping, pc_headers_kind kind, pc_sink *sink);
/* The same into `out`; *packed receives the headers as pc_message wants them. */
int py_dict_pack(py_state *state, PyObject *mapping, pc_headers_kind kind, pc_buf *out,
                 pc_slice *packed);

/* Writes headers of either kind into a buffer. */
typedef struct py_packer {
    pc_headers_kind kind;
    pc_buf *out;    // borrowed, empty at first
    pc_sink *sink;  // points into this struct
    union {
        pc_table_out table;
        pc_json_out json;
    } as;
} py_packer;

void py_packer_init(py_packer *packer, pc_headers_kind kind, pc_buf *out);
/* What was written, as pc_message wants it; lent by the buffer. */
pc_slice py_packer_slice(const py_packer *packer);

/* One map with the protocol-2 headers. */
int py_fields_write(const pc_task_fields *fields, pc_sink *sink, pc_err *err);

#define PY_PROPERTY_TEXTS 10

/* Keeps the texts of a message alive while the GIL is released. */
typedef struct py_texts {
    PyObject *held[PY_PROPERTY_TEXTS];  // owned or NULL
} py_texts;

/* Sets the properties that a mapping has (None: absent). `texts` must be zeroed; give it to
 * py_texts_drop in any case. */
int py_properties_fill(py_state *state, PyObject *properties, pc_message *message,
                       py_texts *texts);
void py_texts_drop(py_texts *texts);

/* task_headers(), iso_to_timestamp(), STATES */
int py_message_setup(PyObject *module);

#endif
