/* SPDX-License-Identifier: BSD-3-Clause */
/* The quick way through JSON text of the usual kind: no escapes in strings, no white space but
 * blanks. That is what json.dumps() makes of nearly every message's headers, and it is walked
 * several times for each task; yajl needs five times as long. Everything else is json.c's. */
#ifndef PC_WIRE_JSON_PLAIN_H
#define PC_WIRE_JSON_PLAIN_H

#include "wire/visit.h"

/* Whether the text has neither backslashes nor control characters. */
bool pc_json_is_plain(pc_slice text);
/* Walks it. PC_OK, PC_ESTATE when a callback stopped, PC_EFALLBACK when it is no JSON or too deep. */
pc_code pc_json_plain_walk(pc_slice text, const pc_visit *visit, void *ctx);

/* Hands out the text of a number: as an integer if it is one and fits. Returns what the callback does. */
int pc_json_number(const pc_visit *visit, void *ctx, pc_slice text);

#endif
