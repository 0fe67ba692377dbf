/* SPDX-License-Identifier: BSD-3-Clause */
/* The one door to the allocator. The Python glue routes it to PyMem_Raw*, so
 * that tracemalloc sees the core; tests make the n-th allocation fail.
 * The function table is the only process-wide state of the core: it is set once,
 * before any other call. Foreign libraries use their own malloc. */
#ifndef PC_BASE_MEM_H
#define PC_BASE_MEM_H

#include <stddef.h>

typedef struct pc_mem_funcs {
    void *(*alloc)(size_t size);
    void *(*realloc)(void *ptr, size_t size);
    void (*free)(void *ptr);
} pc_mem_funcs;

void pc_mem_set(const pc_mem_funcs *funcs);

/* NULL when memory is out; size 0 gives a unique pointer. */
void *pc_alloc(size_t size) __attribute__((warn_unused_result));
void *pc_zalloc(size_t size) __attribute__((warn_unused_result));
void *pc_realloc(void *ptr, size_t size) __attribute__((warn_unused_result));
void pc_free(void *ptr);
/* A NUL-terminated copy of `len` bytes. */
char *pc_strdup(const char *text, size_t len)
    __attribute__((warn_unused_result));

/* Live blocks of this process; exact only for tests on one thread. */
long pc_mem_live(void);
/* The n-th allocation from now fails, once; -1 turns it off. Tests only. */
void pc_mem_fail_after(long n);

#endif
