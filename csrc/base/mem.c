/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static pc_mem_funcs table = {malloc, realloc, free};
static atomic_long live;
static atomic_long countdown;  // to the failing allocation; <= 0 is off

void
pc_mem_set(const pc_mem_funcs *funcs)
{
    table = *funcs;
}

/* Two threads may both see 1 and take the counter below 0, which is off too;
 * only one of them gets the 1 back. */
static bool
must_fail(void)
{
    if (atomic_load_explicit(&countdown, memory_order_relaxed) <= 0) {
        return false;
    }
    return atomic_fetch_sub_explicit(&countdown, 1, memory_order_relaxed) == 1;
}

static void *
count(void *ptr)
{
    if (ptr != NULL) {
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    }
    return ptr;
}

void *
pc_alloc(size_t size)
{
    if (must_fail()) {
        return NULL;
    }
    return count(table.alloc(size == 0 ? 1 : size));
}

void *
pc_zalloc(size_t size)
{
    void *ptr = pc_alloc(size);
    if (ptr != NULL) {
        memset(ptr, 0, size);
    }
    return ptr;
}

void *
pc_realloc(void *ptr, size_t size)
{
    if (ptr == NULL) {
        return pc_alloc(size);
    }
    if (must_fail()) {
        return NULL;
    }
    // size 0 would free the block with some allocators
    return table.realloc(ptr, size == 0 ? 1 : size);
}

void
pc_free(void *ptr)
{
    if (ptr != NULL) {
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
        table.free(ptr);
    }
}

char *
pc_strdup(const char *text, size_t len)
{
    char *copy = len == SIZE_MAX ? NULL : pc_alloc(len + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (len > 0) {
        memcpy(copy, text, len);
    }
    copy[len] = '\0';
    return copy;
}

long
pc_mem_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

/* 0 means the same as 1: the next one fails. */
void
pc_mem_fail_after(long n)
{
    atomic_store_explicit(&countdown, n == 0 ? 1 : n, memory_order_relaxed);
}
