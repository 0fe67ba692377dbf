/* SPDX-License-Identifier: BSD-3-Clause */
/* A 4-ary min-heap of intrusive nodes, ordered by key, first in first out among
 * equal keys is not promised. A node knows its place, so removing and re-keying
 * cost O(log n). The heap never owns the nodes. */
#ifndef PC_BASE_HEAP_H
#define PC_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct pc_heap_node {
    int64_t key;
    uint32_t place;  // index + 1 in the heap, 0 when in none
} pc_heap_node;

typedef struct pc_heap {
    pc_heap_node **nodes;
    uint32_t len;
    uint32_t cap;
} pc_heap;

void pc_heap_init(pc_heap *heap);
void pc_heap_fini(pc_heap *heap);
/* Adds a node that is in no heap. On failure the node is untouched. */
int pc_heap_push(pc_heap *heap, pc_heap_node *node, int64_t key, pc_err *err);
/* The smallest, or NULL. It stays in the heap. */
pc_heap_node *pc_heap_peek(const pc_heap *heap);
pc_heap_node *pc_heap_pop(pc_heap *heap);
/* Does nothing when the node is in no heap. */
void pc_heap_remove(pc_heap *heap, pc_heap_node *node);
/* New key for a node that is in the heap; cannot fail. */
void pc_heap_rekey(pc_heap *heap, pc_heap_node *node, int64_t key);
/* Debug builds: 0 when the order and all places are right, else -1. */
int pc_heap_check(const pc_heap *heap);

#endif
