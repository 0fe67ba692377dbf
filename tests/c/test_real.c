/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/real.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "comma.h"
#include "golden.h"
#include "harness.h"

static void
expect_real(double value, const char *want)
{
    char text[PC_REAL_MAX];
    size_t len = pc_real_format(value, text);
    PC_ASSERT_SLICE(pc_slice_of(text, len), pc_slice_str(want));
}

/* The right side is what CPython's repr() says. */
static void
expect_reals(void)
{
    expect_real(0.0, "0.0");
    expect_real(-0.0, "-0.0");
    expect_real(1.0, "1.0");
    expect_real(-2.5, "-2.5");
    expect_real(0.1, "0.1");
    expect_real(1.0 / 3, "0.3333333333333333");
    expect_real(0.1 + 0.2, "0.30000000000000004");
    expect_real(100.0, "100.0");
    expect_real(0.0001, "0.0001");
    expect_real(0.00001, "1e-05");
    expect_real(1234567890123456.0, "1234567890123456.0");
    expect_real(9999999999999998.0, "9999999999999998.0");
    expect_real(1e16, "1e+16");
    expect_real(12345678901234567.0, "1.2345678901234568e+16");
    expect_real(1e22, "1e+22");
    expect_real(1e23, "1e+23");
    expect_real(1.5e300, "1.5e+300");
    expect_real(DBL_MAX, "1.7976931348623157e+308");
    expect_real(DBL_MIN, "2.2250738585072014e-308");
    expect_real(5e-324, "5e-324");
    expect_real(0x1p-44, "5.684341886080802e-14");  // nearest 16 digits do not read back
    expect_real(0x1p-1074, "5e-324");
    expect_real(0x1p-24, "5.960464477539063e-08");
    expect_real(0x1p60, "1.152921504606847e+18");
    expect_real(123456.789, "123456.789");
    expect_real(123456789012345.6, "123456789012345.6");
    expect_real(1e15, "1000000000000000.0");
    expect_real((double)NAN, "nan");
    expect_real((double)INFINITY, "inf");
    expect_real(-(double)INFINITY, "-inf");
}

void
test_real_format(void)
{
    expect_reals();
}

void
test_real_ignore_locale(void)
{
    comma_locale();
    expect_reals();
}

static uint64_t
next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

/* Whatever the bits, the text reads back to the same double. */
void
test_real_read_back(void)
{
    uint64_t state = 88172645463325252;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = i < 2046 ? (uint64_t)i << 52 : next_random(&state);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isnan(value) || isinf(value)) {
            continue;
        }
        char text[PC_REAL_MAX + 1];
        size_t len = pc_real_format(value, text);
        PC_ASSERT(len < 27);
        text[len] = '\0';
        PC_ASSERT(strtod(text, NULL) == value, "%s", text);
        PC_ASSERT(pc_real_parse(pc_slice_of(text, len)) == value, "%s", text);
    }
}

void
test_real_parse_ignores_locale(void)
{
    static const char *const texts[] = {"1.5",
                                        "-0.125",
                                        "0.1",
                                        "1e-7",
                                        "1.7976931348623157e308",
                                        "5e-324",
                                        "123456789.123456789",
                                        "0.00001e5",
                                        "1e400"};
    double want[sizeof texts / sizeof texts[0]];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        want[i] = strtod(texts[i], NULL);
    }
    comma_locale();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        PC_ASSERT(pc_real_parse(pc_slice_str(texts[i])) == want[i], "%s", texts[i]);
    }
}

void
test_real_parse_long(void)
{
    char text[2048];
    memset(text, '0', sizeof text);
    text[1] = '.';
    text[1500] = '7';
    PC_ASSERT(pc_real_parse(pc_slice_of(text, sizeof text)) == 0.0);
    memcpy(text + sizeof text - 5, "e1500", 5);
    PC_ASSERT(pc_real_parse(pc_slice_of(text, sizeof text)) == 70.0);
    memset(text, '1', sizeof text);
    PC_ASSERT(isinf(pc_real_parse(pc_slice_of(text, sizeof text))));
    memcpy(text + sizeof text - 6, "e-2041", 6);
    PC_ASSERT(pc_real_parse(pc_slice_of(text, sizeof text)) == 1.1111111111111112);
    PC_ASSERT(pc_real_parse(pc_slice_str("-0.0")) == 0
              && signbit(pc_real_parse(pc_slice_str("-0.0"))));
}

void
bench_real_format_short(long n)
{
    char text[PC_REAL_MAX];
    for (long i = 0; i < n; i++) {
        PC_ASSERT(pc_real_format((double)(i % 100000) / 100, text) > 0);
    }
}

void
bench_real_format_long(long n)
{
    char text[PC_REAL_MAX];
    for (long i = 0; i < n; i++) {
        PC_ASSERT(pc_real_format((double)i / 7, text) > 0);
    }
}
