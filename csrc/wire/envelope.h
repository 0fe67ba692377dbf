/* SPDX-License-Identifier: BSD-3-Clause */
/* kombu's JSON envelope: how a message travels through Redis and the other
 * virtual transports (PROTOCOL §3.6.1). */
#ifndef PC_WIRE_ENVELOPE_H
#define PC_WIRE_ENVELOPE_H

#include "wire/message.h"

/* Appends the envelope, body in base64, headers written as JSON (they are JSON already, or a table
 * that is converted). `delivery_tag` is the uuid text that becomes properties.delivery_tag. */
int pc_envelope_write(const pc_message *message, pc_slice delivery_tag, pc_buf *out, pc_err *err);

/* Points `message` into `text` and `scratch` (decoded body and escaped strings; reset first).
 * `delivery_tag` receives properties.delivery_tag. headers become PC_HEADERS_JSON: the text of the
 * headers object inside `text`. PC_EDATA when it is no envelope. */
int pc_envelope_read(pc_slice text, pc_message *message, pc_slice *delivery_tag, pc_buf *scratch,
                     pc_err *err);

#endif
