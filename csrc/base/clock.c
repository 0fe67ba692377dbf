/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/clock.h"

#include <time.h>

#define WAIT_MAX_MS 3600000
#define DAY_SEC 86400
#define EPOCH_DAY 719162  // days from 0001-01-01 to 1970-01-01
#define DAYS_PER_400Y 146097
#define QUOTE_MAX 40

/* The moments that have a four-digit year. */
#define WALL_MIN (-(int64_t)EPOCH_DAY * DAY_SEC * PC_US_PER_SEC)
#define WALL_MAX (INT64_C(253402300800) * PC_US_PER_SEC - 1)

static int64_t
add_sat(int64_t a, int64_t b)
{
    int64_t sum = 0;
    if (__builtin_add_overflow(a, b, &sum)) {
        return b < 0 ? INT64_MIN : INT64_MAX;
    }
    return sum;
}

static int64_t
sub_sat(int64_t a, int64_t b)
{
    int64_t diff = 0;
    if (__builtin_sub_overflow(a, b, &diff)) {
        return b < 0 ? INT64_MAX : INT64_MIN;
    }
    return diff;
}

static int64_t
mul_sat(int64_t a, int64_t positive)
{
    int64_t product = 0;
    if (__builtin_mul_overflow(a, positive, &product)) {
        return a < 0 ? INT64_MIN : INT64_MAX;
    }
    return product;
}

/* Both clocks exist on every Linux, so the calls cannot fail. */
pc_mono
pc_mono_now(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (pc_mono){now.tv_sec * PC_NS_PER_SEC + now.tv_nsec};
}

pc_wall
pc_wall_now(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (pc_wall){now.tv_sec * PC_US_PER_SEC + now.tv_nsec / 1000};
}

pc_mono
pc_mono_add(pc_mono when, int64_t ns)
{
    if (when.ns == PC_MONO_NEVER.ns) {
        return when;
    }
    return (pc_mono){add_sat(when.ns, ns)};
}

int
pc_mono_wait_ms(pc_mono now, pc_mono when)
{
    if (when.ns == PC_MONO_NEVER.ns) {
        return -1;
    }
    if (when.ns <= now.ns) {
        return 0;
    }
    int64_t left = sub_sat(when.ns, now.ns);
    int64_t ms = left / PC_NS_PER_MS + (left % PC_NS_PER_MS != 0);
    return ms > WAIT_MAX_MS ? WAIT_MAX_MS : (int)ms;
}

pc_mono
pc_mono_at_wall(pc_wall when, pc_wall wall_now, pc_mono mono_now)
{
    int64_t ahead = mul_sat(sub_sat(when.us, wall_now.us), 1000);
    return pc_mono_add(mono_now, ahead);
}

/* ------------------------------------------------------------ calendar */

static bool
is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int
month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30,
                               31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days from 0001-01-01 to the first of January of `year`. */
static int
year_start(int year)
{
    int past = year - 1;
    return past * 365 + past / 4 - past / 100 + past / 400;
}

typedef struct date {
    int year, month, day;
} date;

static int
day_of(date when)
{
    int day = year_start(when.year) + when.day - 1;
    for (int month = 1; month < when.month; month++) {
        day += month_days(when.year, month);
    }
    return day;
}

/* The guess by mean year length is at most one year off. */
static date
date_of(int day)
{
    int year = (int)((int64_t)day * 400 / DAYS_PER_400Y) + 1;
    while (year_start(year) > day) {
        year--;
    }
    while (year_start(year + 1) <= day) {
        year++;
    }
    date when = {year, 1, day - year_start(year) + 1};
    while (when.day > month_days(year, when.month)) {
        when.day -= month_days(year, when.month);
        when.month++;
    }
    return when;
}

/* ------------------------------------------------------------ parsing */

typedef struct reader {
    const char *at;
    const char *end;
    bool bad;  // sticks once something did not fit
} reader;

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Exactly `width` digits with a value in low..high. */
static int
number(reader *in, int width, int low, int high)
{
    int value = 0;
    for (int i = 0; i < width; i++) {
        if (in->at == in->end || !is_digit(*in->at)) {
            in->bad = true;
            return low;
        }
        value = value * 10 + (*in->at++ - '0');
    }
    if (value < low || value > high) {
        in->bad = true;
        return low;
    }
    return value;
}

static bool
accept(reader *in, char c)
{
    if (in->at == in->end || *in->at != c) {
        return false;
    }
    in->at++;
    return true;
}

static void
expect(reader *in, char c)
{
    if (!accept(in, c)) {
        in->bad = true;
    }
}

/* Up to nine digits; what is finer than a microsecond is cut. */
static int
fraction(reader *in)
{
    int us = 0;
    int digits = 0;
    for (; in->at < in->end && is_digit(*in->at); in->at++, digits++) {
        us = digits < 6 ? us * 10 + (*in->at - '0') : us;
    }
    in->bad = in->bad || digits < 1 || digits > 9;
    for (; digits < 6; digits++) {
        us *= 10;
    }
    return us;
}

static int
read_day(reader *in)
{
    date when = {0};
    when.year = number(in, 4, 1, 9999);
    expect(in, '-');
    when.month = number(in, 2, 1, 12);
    expect(in, '-');
    when.day = number(in, 2, 1, month_days(when.year, when.month));
    return day_of(when);
}

/* Microseconds since midnight. */
static int64_t
read_time(reader *in)
{
    int64_t sec = number(in, 2, 0, 23) * 3600;
    expect(in, ':');
    sec += number(in, 2, 0, 59) * 60;
    if (!accept(in, ':')) {
        return sec * PC_US_PER_SEC;
    }
    sec += number(in, 2, 0, 59);
    int us = accept(in, '.') ? fraction(in) : 0;
    return sec * PC_US_PER_SEC + us;
}

/* Minutes east of UTC. */
static int
read_offset(reader *in, bool *found)
{
    *found = in->at < in->end;
    if (!*found || accept(in, 'Z')) {
        return 0;
    }
    int sign = accept(in, '-') ? -1 : 1;
    if (sign > 0) {
        expect(in, '+');
    }
    int minutes = number(in, 2, 0, 23) * 60;
    if (in->at < in->end) {
        (void)accept(in, ':');
        minutes += number(in, 2, 0, 59);
    }
    return sign * minutes;
}

/* Only plain ASCII is quoted: the text may be anything. */
static int
refuse(pc_slice text, pc_err *err)
{
    char quote[QUOTE_MAX + 1];
    size_t len = text.len < QUOTE_MAX ? text.len : QUOTE_MAX;
    for (size_t i = 0; i < len; i++) {
        char c = text.ptr[i];
        quote[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    quote[len] = '\0';
    return pc_fail(err, PC_EDATA,
                   "not a date and time: \"%s\"%s; write it as in "
                   "2026-11-20T07:49:01.705409+00:00",
                   quote, len < text.len ? "..." : "");
}

int
pc_wall_parse(pc_slice text, pc_wall *out, bool *has_offset, pc_err *err)
{
    if (text.ptr == NULL) {
        return refuse(pc_slice_of("", 0), err);
    }
    reader in = {text.ptr, text.ptr + text.len, false};
    int64_t days = read_day(&in) - EPOCH_DAY;
    int64_t us = 0;
    int offset_min = 0;
    bool found = false;
    if (in.at < in.end) {
        if (!accept(&in, ' ')) {
            expect(&in, 'T');
        }
        us = read_time(&in);
        offset_min = read_offset(&in, &found);
    }
    if (in.bad || in.at != in.end) {
        return refuse(text, err);
    }
    out->us = (days * DAY_SEC - offset_min * 60) * PC_US_PER_SEC + us;
    if (has_offset != NULL) {
        *has_offset = found;
    }
    return 0;
}

/* ------------------------------------------------------------ formatting */

static char *
digits(char *to, int value, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        to[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return to + width;
}

static char *
write_date(char *to, date when)
{
    to = digits(to, when.year, 4);
    *to++ = '-';
    to = digits(to, when.month, 2);
    *to++ = '-';
    return digits(to, when.day, 2);
}

static char *
write_time(char *to, int sec, int us)
{
    to = digits(to, sec / 3600, 2);
    *to++ = ':';
    to = digits(to, sec / 60 % 60, 2);
    *to++ = ':';
    to = digits(to, sec % 60, 2);
    if (us != 0) {
        *to++ = '.';
        to = digits(to, us, 6);
    }
    return to;
}

static char *
write_offset(char *to, int offset_min)
{
    int minutes = offset_min < 0 ? -offset_min : offset_min;
    *to++ = offset_min < 0 ? '-' : '+';
    to = digits(to, minutes / 60, 2);
    *to++ = ':';
    return digits(to, minutes % 60, 2);
}

static int64_t
clamp(int64_t value, int64_t low, int64_t high)
{
    if (value < low) {
        return low;
    }
    return value > high ? high : value;
}

/* A moment outside the years 1 to 9999, or an offset of a day or more, is written
 * as the nearest that can be. */
int
pc_wall_format(pc_wall when, int offset_min, char out[PC_ISO_MAX])
{
    int offset = (int)clamp(offset_min, -1439, 1439);
    int64_t local = add_sat(when.us, offset * 60 * PC_US_PER_SEC);
    // from here on counted from 0001-01-01, so that nothing is negative
    int64_t us = clamp(local, WALL_MIN, WALL_MAX) - WALL_MIN;
    int64_t sec = us / PC_US_PER_SEC;
    char *to = write_date(out, date_of((int)(sec / DAY_SEC)));
    *to++ = 'T';
    to = write_time(to, (int)(sec % DAY_SEC), (int)(us % PC_US_PER_SEC));
    to = write_offset(to, offset);
    *to = '\0';
    return (int)(to - out);
}
