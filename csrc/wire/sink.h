/* SPDX-License-Identifier: BSD-3-Clause */
/* The writing side of visit.h: who builds a document calls these in order; behind
 * them is JSON text (json_out), an AMQP field table (table) or Python objects
 * (py/json). So the layout of a message is written once (proto2.c). A sink is
 * used by one thread, for one document. Every function returns 0 or -1 and fills `err`. */
#ifndef PC_WIRE_SINK_H
#define PC_WIRE_SINK_H

#include <stdint.h>

#include "base/buf.h"

typedef struct pc_sink pc_sink;

typedef struct pc_sink_ops {
    int (*null)(pc_sink *sink, pc_err *err);
    int (*boolean)(pc_sink *sink, int value, pc_err *err);
    int (*integer)(pc_sink *sink, int64_t value, pc_err *err);
    int (*real)(pc_sink *sink, double value, pc_err *err);
    int (*string)(pc_sink *sink, pc_slice utf8, pc_err *err);
    int (*map_start)(pc_sink *sink, pc_err *err);
    int (*key)(pc_sink *sink, pc_slice name, pc_err *err);
    int (*map_end)(pc_sink *sink, pc_err *err);
    int (*array_start)(pc_sink *sink, pc_err *err);
    int (*array_end)(pc_sink *sink, pc_err *err);
} pc_sink_ops;

struct pc_sink {
    const pc_sink_ops *ops;
};

/* string(), or null() for the absent slice */
static inline int
pc_sink_text(pc_sink *sink, pc_slice utf8, pc_err *err)
{
    return utf8.ptr == NULL ? sink->ops->null(sink, err) : sink->ops->string(sink, utf8, err);
}

#endif
