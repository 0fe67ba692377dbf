/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON text in. The only file that knows yajl is json.c.
 *
 * The parser is as strict as Python's json for what it accepts; for what it can't decide
 * the way Python would (NaN, Infinity, lone surrogates, depth over PC_JSON_MAX_DEPTH, any syntax
 * error) it returns -1 with PC_EFALLBACK, and the caller lets Python's json have the whole
 * document, so values and error texts are always Python's. */
#ifndef PC_WIRE_JSON_H
#define PC_WIRE_JSON_H

#include "base/buf.h"
#include "wire/visit.h"

/* Walks one document. Text must be UTF-8; string callbacks receive bytes that were not
 * validated (Python's decoder does it). -1: PC_EFALLBACK as above, PC_ENOMEM,
 * or PC_ESTATE when a callback stopped the walk. */
int pc_json_visit(pc_slice text, const pc_visit *visit, void *ctx, pc_err *err);

/* For a reader who knows only a part of a document: appends a copy in which the constants NaN and Infinity, which JSON does not
 * have, are other numbers, and halves of surrogate pairs U+FFFD. What stands at an offset stands there in the copy, too. */
int pc_json_tame(pc_slice text, pc_buf *out, pc_err *err);

#endif
