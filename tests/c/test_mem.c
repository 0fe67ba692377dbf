/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static int alloc_calls, realloc_calls, free_calls;
static size_t last_size;

static void *
my_alloc(size_t size)
{
    alloc_calls++;
    last_size = size;
    return malloc(size);
}

static void *
my_realloc(void *ptr, size_t size)
{
    realloc_calls++;
    last_size = size;
    return realloc(ptr, size);
}

static void
my_free(void *ptr)
{
    free_calls++;
    free(ptr);
}

void
test_mem_goes_through_the_table(void)
{
    pc_mem_funcs mine = {my_alloc, my_realloc, my_free};
    pc_mem_funcs libc = {malloc, realloc, free};
    pc_mem_set(&mine);
    void *ptr = pc_alloc(10);
    ptr = pc_realloc(ptr, 20);
    pc_free(ptr);
    pc_free(NULL);
    pc_mem_set(&libc);
    PC_ASSERT_INT(alloc_calls, 1);
    PC_ASSERT_INT(realloc_calls, 1);
    PC_ASSERT_INT(free_calls, 1);
    PC_ASSERT_INT(last_size, 20);
}

void
test_mem_live_counts_blocks(void)
{
    long before = pc_mem_live();
    void *a = pc_alloc(1);
    void *b = pc_zalloc(1);
    void *c = pc_realloc(NULL, 1);
    PC_ASSERT_INT(pc_mem_live() - before, 3);
    c = pc_realloc(c, 1000);
    PC_ASSERT_INT(pc_mem_live() - before, 3);
    pc_free(a);
    pc_free(b);
    pc_free(c);
    PC_ASSERT_INT(pc_mem_live() - before, 0);
}

void
test_mem_size_zero_gives_a_unique_pointer(void)
{
    void *a = pc_alloc(0);
    void *b = pc_zalloc(0);
    PC_ASSERT(a != NULL && b != NULL && a != b);
    a = pc_realloc(a, 0);
    PC_ASSERT(a != NULL);
    pc_free(a);
    pc_free(b);
}

void
test_mem_zalloc_clears(void)
{
    unsigned char zeros[256] = {0};
    unsigned char *dirty = pc_alloc(sizeof zeros);
    PC_ASSERT(dirty);
    memset(dirty, 0xff, sizeof zeros);
    pc_free(dirty);
    void *ptr = pc_zalloc(sizeof zeros);
    PC_ASSERT_MEM(ptr, zeros, sizeof zeros);
    pc_free(ptr);
}

void
test_mem_strdup_copies_len_bytes(void)
{
    char *text = pc_strdup("abcdef", 3);
    PC_ASSERT_STR(text, "abc");
    pc_free(text);
    text = pc_strdup("a\0b", 3);
    PC_ASSERT_MEM(text, "a\0b", 4);
    pc_free(text);
    text = pc_strdup(NULL, 0);
    PC_ASSERT_STR(text, "");
    pc_free(text);
    PC_ASSERT(pc_strdup("a", SIZE_MAX) == NULL);
}

void
test_mem_nth_allocation_fails_once(void)
{
    pc_mem_fail_after(3);
    void *a = pc_alloc(1);
    void *b = pc_realloc(a, 50);
    PC_ASSERT(a != NULL && b != NULL);
    void *c = pc_realloc(b, 100);
    PC_ASSERT(c == NULL);  // and b is still ours
    c = pc_zalloc(1);
    PC_ASSERT(c != NULL);
    pc_free(b);
    pc_free(c);
}

void
test_mem_every_kind_of_allocation_can_fail(void)
{
    pc_mem_fail_after(1);
    PC_ASSERT(pc_alloc(1) == NULL);
    pc_mem_fail_after(1);
    PC_ASSERT(pc_zalloc(1) == NULL);
    pc_mem_fail_after(1);
    PC_ASSERT(pc_realloc(NULL, 1) == NULL);
    pc_mem_fail_after(0);
    PC_ASSERT(pc_strdup("a", 1) == NULL);
    pc_mem_fail_after(1);
    pc_mem_fail_after(-1);
    void *ptr = pc_alloc(1);
    PC_ASSERT(ptr != NULL);
    pc_free(ptr);
}
