/* SPDX-License-Identifier: BSD-3-Clause */
/* A visitor that feeds a sink: turns a field table into JSON text, or JSON text into a table.
 * What the target has no word for is written as Celery's JSON types would be: timestamps,
 * decimals and bytes become {"__type__": ..., "__value__": ...}. */
#ifndef PC_WIRE_BRIDGE_H
#define PC_WIRE_BRIDGE_H

#include "wire/sink.h"
#include "wire/visit.h"

typedef struct pc_bridge {
    pc_sink *sink;  // borrowed
    pc_err *err;    // the one given to the visiting function
} pc_bridge;

/* The context is a pc_bridge. A whole number that does not fit int64: PC_EDATA. */
extern const pc_visit pc_bridge_visit;

#endif
