/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON text out, byte for byte what Python's json.dumps writes with its defaults: ", " and ": ",
 * everything outside 0x20..0x7e as \uXXXX in lower case (0x7f too: "\u007f"), floats as repr().
 * Either through the sink, or piecewise with the put functions (py/json uses them). */
#ifndef PC_WIRE_JSON_OUT_H
#define PC_WIRE_JSON_OUT_H

#include "base/buf.h"
#include "wire/sink.h"

#define PC_SINK_MAX_DEPTH 128

typedef struct pc_json_out {
    pc_sink sink;
    pc_buf *out;  // borrowed
    int depth;
    bool first[PC_SINK_MAX_DEPTH];  // nothing written yet at this level
    bool after_key;
} pc_json_out;

/* Appends one document to `out`. Levels deeper than PC_SINK_MAX_DEPTH: PC_ELIMIT. */
void pc_json_out_init(pc_json_out *json, pc_buf *out);

/* A quoted string from UTF-8. Invalid UTF-8: PC_EDATA; surrogates encoded as UTF-8
 * ("surrogatepass") are written as \udXXX like Python does. */
int pc_json_put_string(pc_buf *out, pc_slice utf8, pc_err *err);
/* A quoted string from Latin-1, UCS-2 or UCS-4 code points (kind 1, 2, 4),
 * lone surrogates included. */
int pc_json_put_ucs(pc_buf *out, const void *data, size_t len, int kind, pc_err *err);
int pc_json_put_integer(pc_buf *out, int64_t value, pc_err *err);
/* repr(float): shortest text that reads back the same; NaN, Infinity, -Infinity. */
int pc_json_put_real(pc_buf *out, double value, pc_err *err);

#endif
