/* SPDX-License-Identifier: BSD-3-Clause */
/* The C test harness.
 *
 * A test is a function `void test_<what>(void)`, a benchmark `void bench_<what>(long n)`, in a
 * file tests/c/test_<noun>.c. The build finds both by name (nm), nothing is registered by hand.
 *
 * Each test runs in a process of its own, in an empty directory that is its working directory
 * and is removed afterwards, for at most CT_TIMEOUT seconds (20). What it prints is shown only
 * when it fails. It fails when an assertion fails, when it dies, when it takes too long, and
 * when it ends with more live blocks (pc_mem_live) than it began with.
 *
 *     build/c/plain/run [-v] [-l] [-b] [-j N] [part of a name ...]
 *
 * -v names every test, -l lists them, -b runs the benchmarks, -j sets how many run at once (2).
 */
#ifndef PC_TESTS_HARNESS_H
#define PC_TESTS_HARNESS_H

#include <stddef.h>

/* One row of the generated table; the last row is all NULL. */
typedef struct {
    const char *file;    // "test_heap"
    const char *name;    // "test_push_keeps_order"
    void (*test)(void);  // NULL for a benchmark
    void (*bench)(long); // NULL for a test
} ct_case;

extern const ct_case ct_cases[];

/* The assertions end the test at the first failure. A message is optional and printf-like:
 * PC_ASSERT(n == 3), PC_ASSERT(n == 3, "n is %d after %s", n, step). */
#define PC_ASSERT(cond, ...) \
    ct_check(__FILE__, __LINE__, #cond, (cond) ? 1 : 0, " " __VA_ARGS__)

/* PC_ASSERT_INT(got, want): integers of any type, compared as long long. */
#define PC_ASSERT_INT(got, want) \
    ct_check_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))

/* PC_ASSERT_STR(got, want): C strings; NULL equals only NULL. */
#define PC_ASSERT_STR(got, want) ct_check_str(__FILE__, __LINE__, #got, (got), (want))

/* PC_ASSERT_MEM(got, want, len): `len` bytes at both addresses. */
#define PC_ASSERT_MEM(got, want, len) \
    ct_check_mem(__FILE__, __LINE__, #got, (got), (want), (size_t)(len))

/* PC_OOM(fn, arg): calls `int fn(void *arg)` with the first allocation failing, then the second,
 * and so on until it returns 0. The function returns -1 when it could not finish and frees all
 * that it made in either case; a block left over fails the test. Gives the number of failures
 * that were survived, so that a test may assert that there was one. */
#define PC_OOM(fn, arg) ct_oom(__FILE__, __LINE__, #fn, (fn), (arg))

/* Benchmarks: call this when the preparation is done and the measured part begins. */
void ct_reset_timer(void);

#define CT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

void ct_check(const char *file, int line, const char *text, int ok, const char *fmt, ...)
    CT_PRINTF(5, 6);
void ct_check_int(const char *file, int line, const char *text, long long got, long long want);
void ct_check_str(const char *file, int line, const char *text, const char *got,
                  const char *want);
void ct_check_mem(const char *file, int line, const char *text, const void *got,
                  const void *want, size_t len);
long ct_oom(const char *file, int line, const char *text, int (*fn)(void *), void *arg);

#endif
