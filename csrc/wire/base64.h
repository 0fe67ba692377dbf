/* SPDX-License-Identifier: BSD-3-Clause */
/* Standard base64 with padding. */
#ifndef PC_WIRE_BASE64_H
#define PC_WIRE_BASE64_H

#include "base/buf.h"

int pc_base64_put(pc_buf *out, pc_slice data, pc_err *err);
/* Newlines are skipped; anything else outside the alphabet: PC_EDATA. */
int pc_base64_take(pc_buf *out, pc_slice text, pc_err *err);

#endif
