/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/heap.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"

#define N 600

void
test_heap_empty(void)
{
    pc_heap heap;
    pc_heap_init(&heap);
    PC_ASSERT(pc_heap_peek(&heap) == NULL);
    PC_ASSERT(pc_heap_pop(&heap) == NULL);
    PC_ASSERT_INT(pc_heap_check(&heap), 0);
    pc_heap_fini(&heap);
    pc_heap_fini(NULL);
}

void
test_heap_pops_in_order(void)
{
    static const int64_t keys[] = {5, -3, INT64_MAX, 0, INT64_MIN, 5, 1};
    static const int64_t want[] = {INT64_MIN, -3, 0, 1, 5, 5, INT64_MAX};
    pc_heap_node nodes[7] = {{0}};
    pc_heap heap;
    pc_heap_init(&heap);
    for (int i = 0; i < 7; i++) {
        PC_ASSERT_INT(pc_heap_push(&heap, &nodes[i], keys[i], NULL), 0);
    }
    for (int i = 0; i < 7; i++) {
        PC_ASSERT_INT(pc_heap_peek(&heap)->key, want[i]);
        PC_ASSERT_INT(pc_heap_pop(&heap)->place, 0);
    }
    PC_ASSERT(pc_heap_pop(&heap) == NULL);
    pc_heap_fini(&heap);
}

void
test_heap_remove_of_an_outsider_does_nothing(void)
{
    pc_heap_node in = {0}, out = {0};
    pc_heap heap;
    pc_heap_init(&heap);
    PC_ASSERT_INT(pc_heap_push(&heap, &in, 1, NULL), 0);
    pc_heap_remove(&heap, &out);
    PC_ASSERT_INT(heap.len, 1);
    pc_heap_remove(&heap, &in);
    pc_heap_remove(&heap, &in);
    PC_ASSERT_INT(heap.len, 0);
    pc_heap_fini(&heap);
}

void
test_heap_fini_lets_nodes_go(void)
{
    pc_heap_node node = {0};
    pc_heap heap;
    pc_heap_init(&heap);
    PC_ASSERT_INT(pc_heap_push(&heap, &node, 1, NULL), 0);
    pc_heap_fini(&heap);
    PC_ASSERT_INT(node.place, 0);
    PC_ASSERT_INT(pc_heap_push(&heap, &node, 2, NULL), 0);
    pc_heap_fini(&heap);
}

void
test_heap_check_sees_damage(void)
{
    pc_heap_node a = {0}, b = {0};
    pc_heap heap;
    pc_heap_init(&heap);
    PC_ASSERT_INT(pc_heap_push(&heap, &a, 1, NULL), 0);
    PC_ASSERT_INT(pc_heap_push(&heap, &b, 2, NULL), 0);
    b.key = 0;
    PC_ASSERT_INT(pc_heap_check(&heap), -1);
    b.key = 2;
    b.place = 1;
    PC_ASSERT_INT(pc_heap_check(&heap), -1);
    b.place = 2;
    PC_ASSERT_INT(pc_heap_check(&heap), 0);
    pc_heap_fini(&heap);
}

/* The model: a flag and a key for each node, searched from end to end. */
typedef struct model {
    pc_heap_node nodes[N];
    int64_t keys[N];
    int in[N];
    uint32_t len;
} model;

static int64_t
model_least(const model *m)
{
    int64_t least = INT64_MAX;
    for (int i = 0; i < N; i++) {
        if (m->in[i] && m->keys[i] < least) {
            least = m->keys[i];
        }
    }
    return least;
}

static void
pop_both(model *m, pc_heap *heap)
{
    int64_t least = model_least(m);
    pc_heap_node *node = pc_heap_pop(heap);
    PC_ASSERT_INT(node != NULL, m->len > 0);
    if (node != NULL) {
        ptrdiff_t i = node - m->nodes;
        PC_ASSERT(m->in[i] && m->keys[i] == least);
        m->in[i] = 0;
        m->len--;
    }
}

/* One random step on node i: push, rekey or remove. */
static void
step(model *m, pc_heap *heap, int i, int64_t key, bool drop)
{
    if (!m->in[i]) {
        PC_ASSERT_INT(pc_heap_push(heap, &m->nodes[i], key, NULL), 0);
        m->len++;
    } else if (drop) {
        pc_heap_remove(heap, &m->nodes[i]);
        m->len--;
    } else {
        pc_heap_rekey(heap, &m->nodes[i], key);
    }
    m->in[i] = !(m->in[i] && drop);
    m->keys[i] = key;
}

void
test_heap_random_against_a_naive_model(void)
{
    static model m;
    unsigned seed = 4711;
    pc_heap heap;
    pc_heap_init(&heap);
    for (int round = 0; round < 20000; round++) {
        int i = rand_r(&seed) % N;
        int64_t key = rand_r(&seed) % (round % 3 ? 50 : 1000000) - 25;
        int what = rand_r(&seed) % 10;
        if (what == 0) {
            pop_both(&m, &heap);
        } else {
            step(&m, &heap, i, key, what < 4);
        }
        PC_ASSERT_INT(heap.len, m.len);
        PC_ASSERT_INT(pc_heap_check(&heap), 0);
        PC_ASSERT(m.len == 0 || pc_heap_peek(&heap)->key == model_least(&m));
    }
    while (m.len > 0) {
        pop_both(&m, &heap);
    }
    PC_ASSERT(pc_heap_pop(&heap) == NULL);
    pc_heap_fini(&heap);
}

static int
push_many(void *arg)
{
    (void)arg;
    pc_heap_node nodes[100] = {{0}};
    pc_err err = {0};
    pc_heap heap;
    pc_heap_init(&heap);
    int rc = 0;
    for (int i = 0; i < 100 && rc == 0; i++) {
        nodes[i].key = -1;
        rc = pc_heap_push(&heap, &nodes[i], 100 - i, &err);
        PC_ASSERT(rc == 0 || (nodes[i].place == 0 && nodes[i].key == -1));
        PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
        PC_ASSERT_INT(pc_heap_check(&heap), 0);
    }
    pc_heap_fini(&heap);
    return rc;
}

void
test_heap_survives_failing_allocations(void)
{
    PC_ASSERT(PC_OOM(push_many, NULL) >= 3);
}

/* 10 000 timers, each firing re-arms: what a busy worker does. */
void
bench_heap_rekey_the_first_of_10000(long n)
{
    pc_heap_node *nodes = pc_zalloc(10000 * sizeof *nodes);
    unsigned seed = 1;
    pc_heap heap;
    pc_heap_init(&heap);
    for (int i = 0; i < 10000; i++) {
        PC_ASSERT_INT(pc_heap_push(&heap, &nodes[i], rand_r(&seed), NULL), 0);
    }
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        pc_heap_node *node = pc_heap_peek(&heap);
        pc_heap_rekey(&heap, node, node->key + rand_r(&seed));
    }
    pc_heap_fini(&heap);
    pc_free(nodes);
}
