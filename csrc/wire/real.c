/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/real.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NUMBER_MAX 512

/* ------------------------------------------------------------ formatting */

typedef struct decimal {
    char digits[20];
    int count;
    int exponent;  // of the first digit
} decimal;

/* The decimal point that printf writes depends on the locale, digits and "e" do not. */
static void
round_to(double value, int count, decimal *out)
{
    char text[PC_REAL_MAX];
    snprintf(text, sizeof text, "%.*e", count - 1, value);
    const char *at = text;
    out->count = 0;
    for (; *at != 'e'; at++) {
        if (*at >= '0' && *at <= '9') {
            out->digits[out->count++] = *at;
        }
    }
    out->exponent = atoi(at + 1);
}

static bool
reads_back(const decimal *number, double value)
{
    char text[PC_REAL_MAX];
    snprintf(text, sizeof text, "%.*se%d", number->count, number->digits,
             number->exponent - (number->count - 1));
    return strtod(text, NULL) == value;
}

/* The next larger number of as many digits; false when it would get one more. */
static bool
step_up(decimal *number)
{
    for (int i = number->count - 1; i >= 0; i--) {
        if (number->digits[i] != '9') {
            number->digits[i]++;
            return true;
        }
        number->digits[i] = '0';
    }
    return false;
}

static bool
is_power_of_two(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & ((UINT64_C(1) << 52) - 1)) == 0;
}

/* The quick way for numbers with few decimals. A whole number below 2**52 over a power of ten that
 * is a double itself divides with one rounding, so when the quotient is the value, the text reads
 * back; and no other text of that many decimals does, since doubles are denser there. */
static bool
exactly(double value, decimal *out)
{
    static const double tens[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    const double limit = 4503599627370496.0;
    for (int places = 0; places < 10 && value * tens[places] < limit - 1; places++) {
        uint64_t whole = (uint64_t)(value * tens[places] + 0.5);
        if ((double)whole / tens[places] == value) {
            out->count = snprintf(out->digits, sizeof out->digits, "%" PRIu64, whole);
            out->exponent = out->count - 1 - places;
            return true;
        }
    }
    return false;
}

/* Tries lengths upwards. 15 digits identify every normal double that has so short a text. At a
 * power of two the doubles below are denser than those above, so the shortest text may
 * be the neighbour above of the nearest one. */
static void
find_shortest(double value, decimal *out)
{
    bool power_of_two = is_power_of_two(value);
    if (exactly(value, out)) {
        return;
    }
    for (int count = value < DBL_MIN ? 1 : 15; count <= 17; count++) {
        round_to(value, count, out);
        if (reads_back(out, value)) {
            break;
        }
        if (power_of_two && step_up(out) && reads_back(out, value)) {
            break;
        }
    }
}

static decimal
shortest(double value)
{
    decimal number = {.digits = "0", .count = 1};
    if (value > 0) {
        find_shortest(value, &number);
    }
    while (number.count > 1 && number.digits[number.count - 1] == '0') {
        number.count--;
    }
    return number;
}

/* Layout of repr(): plain from 1e-4 up to 1e16, else with an exponent of two digits or more. */
static char *
lay_out(char *to, const decimal *number)
{
    int whole = number->exponent + 1;  // digits before the point
    bool scientific = whole < -3 || whole > 16;
    if (scientific) {
        whole = 1;
    }
    if (whole <= 0) {
        *to++ = '0';
        *to++ = '.';
        memset(to, '0', (size_t)-whole);
        to += -whole;
    }
    for (int i = 0; i < number->count || i < whole; i++) {
        if (i > 0 && i == whole) {
            *to++ = '.';
        }
        *to++ = i < number->count ? number->digits[i] : '0';
    }
    if (scientific) {
        return to
               + sprintf(to, "e%c%02d", number->exponent < 0 ? '-' : '+', abs(number->exponent));
    }
    if (number->count <= whole) {
        *to++ = '.';
        *to++ = '0';
    }
    return to;
}

size_t
pc_real_format(double value, char out[PC_REAL_MAX])
{
    char *to = out;
    if (signbit(value) && !isnan(value)) {
        *to++ = '-';
        value = -value;
    }
    if (isnan(value) || isinf(value)) {
        memcpy(to, isnan(value) ? "nan" : "inf", 3);
        return (size_t)(to + 3 - out);
    }
    decimal number = shortest(value);
    return (size_t)(lay_out(to, &number) - out);
}

/* --------------------------------------------------------------- parsing */

/* The number after "e", cut to what is beyond any double anyway. */
static long
read_exponent(pc_slice text)
{
    bool negative = text.len > 0 && text.ptr[0] == '-';
    long value = 0;
    for (size_t i = 0; i < text.len && value < 1000000; i++) {
        if (text.ptr[i] >= '0' && text.ptr[i] <= '9') {
            value = value * 10 + (text.ptr[i] - '0');
        }
    }
    return negative ? -value : value;
}

/* Leaves the decimal point to the exponent, so that strtod's locale does not matter. */
double
pc_real_parse(pc_slice text)
{
    char plain[NUMBER_MAX + 32];
    size_t len = 0;
    long exponent = 0;
    bool fraction = false;
    bool significant = false;
    size_t i = 0;
    for (; i < text.len && text.ptr[i] != 'e' && text.ptr[i] != 'E'; i++) {
        char c = text.ptr[i];
        if (c == '.') {
            fraction = true;
            continue;
        }
        if (c == '-') {
            plain[len++] = c;
            continue;
        }
        significant = significant || c != '0';
        exponent -= fraction ? 1 : 0;
        if (significant && len < NUMBER_MAX) {
            plain[len++] = c;
        } else if (significant) {
            exponent++;
        }
    }
    if (!significant) {
        plain[len++] = '0';
    }
    if (i < text.len) {
        exponent += read_exponent(pc_slice_of(text.ptr + i + 1, text.len - i - 1));
    }
    snprintf(plain + len, sizeof plain - len, "e%ld", exponent);
    return strtod(plain, NULL);
}
