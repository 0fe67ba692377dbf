/* SPDX-License-Identifier: BSD-3-Clause */
/* The harness itself: what it promises to a test that passes. tests/unit/test_tools.py looks
 * at tests that fail. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

typedef struct {
    int blocks;    // how many the work below needs
    int calls;     // how often it was called
    int optional;  // it goes on without this many of them
} work;

/* Allocates `blocks` times, frees all of them. */
static int
allocate(void *arg)
{
    work *w = arg;
    void *made[8] = {NULL};
    int missing = 0;
    w->calls++;
    for (int i = 0; i < w->blocks; i++) {
        made[i] = pc_alloc(16);
        missing += made[i] == NULL;
    }
    for (int i = 0; i < w->blocks; i++) {
        pc_free(made[i]);
    }
    return missing > w->optional ? -1 : 0;
}

void
test_assertions_accept_what_is_equal(void)
{
    unsigned char bytes[] = {0, 1, 255};
    PC_ASSERT(1 + 1 == 2);
    PC_ASSERT(sizeof bytes == 3, "size %zu", sizeof bytes);
    PC_ASSERT_INT(bytes[2], 255);
    PC_ASSERT_INT(-1L, -1);
    PC_ASSERT_STR("abc", "abc");
    PC_ASSERT_STR(NULL, NULL);
    PC_ASSERT_MEM(bytes, "\0\1\377", 3);
    PC_ASSERT_MEM(NULL, NULL, 0);
}

void
test_directory_is_empty_and_writable(void)
{
    char here[4096];
    PC_ASSERT(getcwd(here, sizeof here) && strstr(here, "/pc-ct-"), "in %s", here);
    PC_ASSERT_INT(access("left-by-a-test", F_OK), -1);
    FILE *file = fopen("left-by-a-test", "w");
    PC_ASSERT(file);
    PC_ASSERT_INT(fclose(file), 0);
}

void
test_directory_is_not_shared(void)
{
    test_directory_is_empty_and_writable();
}

void
test_oom_fails_every_allocation_once(void)
{
    work w = {.blocks = 5};
    PC_ASSERT_INT(PC_OOM(allocate, &w), 5);
    PC_ASSERT_INT(w.calls, 6);
}

void
test_oom_goes_on_after_a_failure_that_was_survived(void)
{
    work w = {.blocks = 5, .optional = 1};
    PC_ASSERT_INT(PC_OOM(allocate, &w), 5);
}

void
test_oom_without_allocations(void)
{
    work w = {.blocks = 0};
    PC_ASSERT_INT(PC_OOM(allocate, &w), 0);
    PC_ASSERT_INT(w.calls, 1);
}

void
bench_alloc_and_free(long n)
{
    for (long i = 0; i < n; i++) {
        pc_free(pc_alloc(64));
    }
}
