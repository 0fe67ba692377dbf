/* SPDX-License-Identifier: BSD-3-Clause */
/* AMQP 0-9-1 field tables as RabbitMQ and py-amqp use them (TECH: field table types), both ways.
 * The slice is the table's content without its 4-byte length. */
#ifndef PC_WIRE_TABLE_H
#define PC_WIRE_TABLE_H

#include "base/buf.h"
#include "wire/sink.h"
#include "wire/visit.h"

/* Walks all fields: key, value, key, value, … with map_start/map_end around the whole. Tags S x t
 * b B s u U I i l L f d D T V A F; s and U are signed, u unsigned 16 bits, l and L both signed 64.
 * Truncated, unknown tag: PC_EDATA. Deeper than PC_TABLE_MAX_DEPTH: PC_ELIMIT. Iterative: no C
 * recursion. */
int pc_table_visit(pc_slice table, const pc_visit *visit, void *ctx, pc_err *err);

/* Writes like py-amqp: str S, int I when it is within +-2147483647 else L, bool t, float d,
 * None V, list A, dict F. */
typedef struct pc_table_out {
    pc_sink sink;
    pc_buf *out;  // borrowed
    int depth;
    size_t length_at[128];  // offset from out->start of each open length field
    bool is_map[128];
} pc_table_out;

/* The document must be one map; its 4-byte length is written in front. Keys over 255 bytes:
 * PC_EDATA. */
void pc_table_out_init(pc_table_out *table, pc_buf *out);

#endif
