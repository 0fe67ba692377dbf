/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/heap.h"

#include <assert.h>

#include "base/mem.h"

#define ARITY 4  // children share a cache line: half the levels of a binary heap
#define MIN_CAP 16

/* Costs O(n), so it is asked for apart from NDEBUG. */
static void
verify(const pc_heap *heap)
{
#ifdef PC_CHECK
    assert(pc_heap_check(heap) == 0);
#else
    (void)heap;
#endif
}

void
pc_heap_init(pc_heap *heap)
{
    *heap = (pc_heap){0};
}

void
pc_heap_fini(pc_heap *heap)
{
    if (heap == NULL) {
        return;
    }
    for (uint32_t i = 0; i < heap->len; i++) {
        heap->nodes[i]->place = 0;
    }
    pc_free(heap->nodes);
    pc_heap_init(heap);
}

static void
set(pc_heap *heap, uint32_t index, pc_heap_node *node)
{
    heap->nodes[index] = node;
    node->place = index + 1;
}

static void
siftup(pc_heap *heap, uint32_t index, pc_heap_node *node)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / ARITY;
        if (heap->nodes[parent]->key <= node->key) {
            break;
        }
        set(heap, index, heap->nodes[parent]);
        index = parent;
    }
    set(heap, index, node);
}

/* Index of the smallest child, or len when there is none. 64 bits, because
 * ARITY * index can leave the 32. */
static uint32_t
least_child(const pc_heap *heap, uint32_t index)
{
    uint64_t first = (uint64_t)index * ARITY + 1;
    uint64_t stop = first + ARITY < heap->len ? first + ARITY : heap->len;
    uint32_t least = heap->len;
    for (uint64_t i = first; i < stop; i++) {
        if (least == heap->len
            || heap->nodes[i]->key < heap->nodes[least]->key) {
            least = (uint32_t)i;
        }
    }
    return least;
}

static void
siftdown(pc_heap *heap, uint32_t index, pc_heap_node *node)
{
    for (;;) {
        uint32_t child = least_child(heap, index);
        if (child == heap->len || heap->nodes[child]->key >= node->key) {
            break;
        }
        set(heap, index, heap->nodes[child]);
        index = child;
    }
    set(heap, index, node);
}

/* Puts a node into the hole at index and moves it to where it belongs. */
static void
settle(pc_heap *heap, uint32_t index, pc_heap_node *node)
{
    if (index > 0 && node->key < heap->nodes[(index - 1) / ARITY]->key) {
        siftup(heap, index, node);
    } else {
        siftdown(heap, index, node);
    }
}

static int
grow(pc_heap *heap, pc_err *err)
{
    if (heap->cap > UINT32_MAX / 2) {
        return pc_fail(err, PC_ELIMIT, "%u timers are pending: no room for more",
                       heap->len);
    }
    uint32_t cap = heap->cap == 0 ? MIN_CAP : heap->cap * 2;
    pc_heap_node **nodes = pc_realloc(heap->nodes, cap * sizeof *nodes);
    if (nodes == NULL) {
        return pc_fail_nomem(err);
    }
    heap->nodes = nodes;
    heap->cap = cap;
    return 0;
}

int
pc_heap_push(pc_heap *heap, pc_heap_node *node, int64_t key, pc_err *err)
{
    assert(node->place == 0);
    if (heap->len == heap->cap && grow(heap, err) < 0) {
        return -1;
    }
    node->key = key;
    siftup(heap, heap->len++, node);
    verify(heap);
    return 0;
}

pc_heap_node *
pc_heap_peek(const pc_heap *heap)
{
    return heap->len == 0 ? NULL : heap->nodes[0];
}

pc_heap_node *
pc_heap_pop(pc_heap *heap)
{
    pc_heap_node *node = pc_heap_peek(heap);
    if (node != NULL) {
        pc_heap_remove(heap, node);
    }
    return node;
}

void
pc_heap_remove(pc_heap *heap, pc_heap_node *node)
{
    if (node->place == 0) {
        return;
    }
    uint32_t index = node->place - 1;
    assert(index < heap->len && heap->nodes[index] == node);
    pc_heap_node *last = heap->nodes[--heap->len];
    node->place = 0;
    if (last != node) {
        settle(heap, index, last);
    }
    verify(heap);
}

void
pc_heap_rekey(pc_heap *heap, pc_heap_node *node, int64_t key)
{
    assert(node->place != 0 && node->place <= heap->len);
    node->key = key;
    settle(heap, node->place - 1, node);
    verify(heap);
}

int
pc_heap_check(const pc_heap *heap)
{
    if (heap->len > heap->cap) {
        return -1;
    }
    for (uint32_t i = 0; i < heap->len; i++) {
        const pc_heap_node *node = heap->nodes[i];
        if (node->place != i + 1
            || (i > 0 && heap->nodes[(i - 1) / ARITY]->key > node->key)) {
            return -1;
        }
    }
    return 0;
}
