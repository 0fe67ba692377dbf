/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/uuid.h"

#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static void
assert_uuid4(const char *text)
{
    PC_ASSERT_INT(strlen(text), PC_UUID_LEN);
    for (int i = 0; i < PC_UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        PC_ASSERT(dash ? text[i] == '-'
                       : strchr("0123456789abcdef", text[i]) != NULL,
                  "character %d of %s", i, text);
    }
    PC_ASSERT_INT(text[14], '4');
    PC_ASSERT(strchr("89ab", text[19]) != NULL, "variant in %s", text);
}

void
test_uuid_has_the_form_of_version_4(void)
{
    char text[PC_UUID_LEN + 1];
    for (int i = 0; i < 1000; i++) {
        PC_ASSERT_INT(pc_uuid4(text, NULL), 0);
        assert_uuid4(text);
    }
}

/* Every free hexadecimal digit takes every value, and two in a row differ. */
void
test_uuid_all_digits_vary(void)
{
    unsigned seen[PC_UUID_LEN] = {0};
    char text[2][PC_UUID_LEN + 1] = {{0}};
    for (int i = 0; i < 2000; i++) {
        char *now = text[i % 2];
        PC_ASSERT_INT(pc_uuid4(now, NULL), 0);
        PC_ASSERT(strcmp(text[0], text[1]) != 0);
        for (int k = 0; k < PC_UUID_LEN; k++) {
            seen[k] |= 1u << ((unsigned)now[k] % 32);
        }
    }
    for (int k = 0; k < PC_UUID_LEN; k++) {
        bool fixed = k == 8 || k == 13 || k == 18 || k == 23 || k == 14;
        int want = fixed ? 1 : k == 19 ? 4 : 16;
        PC_ASSERT_INT(__builtin_popcount(seen[k]), want);
    }
}

void
test_uuid_differs_after_fork(void)
{
    char here[PC_UUID_LEN + 1], there[PC_UUID_LEN + 1] = {0};
    int ends[2];
    PC_ASSERT_INT(pc_uuid4(here, NULL), 0);
    PC_ASSERT_INT(pipe(ends), 0);
    pid_t pid = fork();
    PC_ASSERT(pid >= 0);
    if (pid == 0) {
        int rc = pc_uuid4(there, NULL);
        _exit(rc < 0 || write(ends[1], there, sizeof there) < 0);
    }
    PC_ASSERT_INT(pc_uuid4(here, NULL), 0);
    PC_ASSERT_INT(read(ends[0], there, sizeof there), sizeof there);
    PC_ASSERT_INT(waitpid(pid, NULL, 0), pid);
    assert_uuid4(there);
    PC_ASSERT(strcmp(here, there) != 0);
    close(ends[0]);
    close(ends[1]);
}

/* More than the kernel gives in one uninterruptible piece (256). */
void
test_uuid_random_fills_all_bytes(void)
{
    unsigned char raw[5000] = {0};
    PC_ASSERT_INT(pc_random(raw, sizeof raw - 1, NULL), 0);
    int zeros = 0;
    for (size_t i = 0; i < sizeof raw - 1; i++) {
        zeros += raw[i] == 0;
    }
    PC_ASSERT(zeros < 60, "%d of 4999 bytes are 0", zeros);
    PC_ASSERT_INT(raw[sizeof raw - 1], 0);
    PC_ASSERT_INT(pc_random(raw, 0, NULL), 0);
}

void
test_uuid_random_reports_a_failure(void)
{
    pc_err err = {0};
    PC_ASSERT_INT(pc_random((void *)8, 16, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    PC_ASSERT(err.sys_errno != 0);
}

void
bench_uuid4(long n)
{
    char text[PC_UUID_LEN + 1];
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(pc_uuid4(text, NULL), 0);
    }
}

void
test_uuid_series_counts(void)
{
    pc_uuid_series series = {{0}, 0};
    char text[PC_UUID_LEN + 1], again[PC_UUID_LEN + 1], other[PC_UUID_LEN + 1];
    PC_ASSERT_INT(pc_uuid_next(&series, text, NULL), 0);
    assert_uuid4(text);
    series.last = 0xfffffffffffe;  // the last one comes before the first
    const char *const ends[] = {"fffffffffffe", "ffffffffffff", "000000000000", "000000000001"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        PC_ASSERT_INT(pc_uuid_next(&series, again, NULL), 0);
        assert_uuid4(again);
        PC_ASSERT(memcmp(again, text, 24) == 0 && strcmp(again + 24, ends[i]) == 0, "%s", again);
    }
    pc_uuid_series second = {{0}, 0};
    PC_ASSERT_INT(pc_uuid_next(&second, other, NULL), 0);
    PC_ASSERT(memcmp(other, text, 24) != 0);
}
