/* SPDX-License-Identifier: BSD-3-Clause */
/* One way to walk a document, be it JSON text or an AMQP field table: the decoder
 * calls one function per value. A callback returns 0 to go on or -1 to stop (the
 * decoder then returns -1 with PC_ESTATE unless the callback filled `err` itself through its
 * context). NULL callbacks are skipped: the value is ignored. Strings are lent: they live until
 * the callback returns, except that a slice inside the input text stays valid as long as the input
 * does (a decoder never copies a string without escapes). */
#ifndef PC_WIRE_VISIT_H
#define PC_WIRE_VISIT_H

#include <stdint.h>

#include "base/buf.h"

/* Deeper documents are refused with PC_EFALLBACK (JSON: Python may still try) or PC_ELIMIT
 * (tables). */
#define PC_JSON_MAX_DEPTH 900
#define PC_TABLE_MAX_DEPTH 100

typedef struct pc_visit {
    int (*null)(void *ctx);
    int (*boolean)(void *ctx, int value);
    int (*integer)(void *ctx, int64_t value);
    /* JSON number text that is a fraction, has an exponent or does not fit int64 */
    int (*number)(void *ctx, pc_slice text);
    int (*real)(void *ctx, double value);                     // tables only
    int (*string)(void *ctx, pc_slice text);                  // tables: bytes, usually UTF-8
    int (*bytes)(void *ctx, pc_slice data);                   // tables only: type 'x'
    int (*timestamp)(void *ctx, int64_t seconds);             // tables only: type 'T'
    int (*decimal)(void *ctx, uint8_t scale, int32_t value);  // tables only
    int (*map_start)(void *ctx);
    int (*key)(void *ctx, pc_slice name);
    int (*map_end)(void *ctx);
    int (*array_start)(void *ctx);
    int (*array_end)(void *ctx);
} pc_visit;

#endif
