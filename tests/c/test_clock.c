/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

#define YEAR_1 (INT64_C(-62135596800) * PC_US_PER_SEC)
#define YEAR_9999_END (INT64_C(253402300800) * PC_US_PER_SEC - 1)

void
test_clock_now_is_now_and_moves(void)
{
    pc_mono a = pc_mono_now();
    struct timespec ms = {0, 2000000};
    PC_ASSERT_INT(nanosleep(&ms, NULL), 0);
    PC_ASSERT(pc_mono_now().ns - a.ns >= 2000000);
    int64_t off = pc_wall_now().us / PC_US_PER_SEC - (int64_t)time(NULL);
    PC_ASSERT(off >= -1 && off <= 1, "off by %lld s", (long long)off);
}

void
test_clock_add_saturates(void)
{
    PC_ASSERT_INT(pc_mono_add((pc_mono){5}, -7).ns, -2);
    PC_ASSERT_INT(pc_mono_add((pc_mono){INT64_MAX - 1}, 5).ns, INT64_MAX);
    PC_ASSERT_INT(pc_mono_add((pc_mono){INT64_MIN + 1}, -5).ns, INT64_MIN);
    PC_ASSERT_INT(pc_mono_add(PC_MONO_NEVER, -5).ns, INT64_MAX);
}

void
test_clock_wait_rounds_up_and_caps(void)
{
    pc_mono now = {1000};
    PC_ASSERT_INT(pc_mono_wait_ms(now, PC_MONO_NEVER), -1);
    PC_ASSERT_INT(pc_mono_wait_ms(now, now), 0);
    PC_ASSERT_INT(pc_mono_wait_ms(now, (pc_mono){-5}), 0);
    PC_ASSERT_INT(pc_mono_wait_ms(now, (pc_mono){1001}), 1);
    PC_ASSERT_INT(pc_mono_wait_ms(now, (pc_mono){1001000}), 1);
    PC_ASSERT_INT(pc_mono_wait_ms(now, (pc_mono){1001001}), 2);
    PC_ASSERT_INT(pc_mono_wait_ms(now, (pc_mono){INT64_MAX - 1}), 3600000);
    pc_mono lowest = {INT64_MIN};
    PC_ASSERT_INT(pc_mono_wait_ms(lowest, (pc_mono){INT64_MAX - 1}), 3600000);
}

void
test_clock_wall_maps_to_mono(void)
{
    pc_mono now = {1000};
    pc_wall wall = {7000000};
    PC_ASSERT_INT(pc_mono_at_wall(wall, wall, now).ns, 1000);
    PC_ASSERT_INT(pc_mono_at_wall((pc_wall){7000003}, wall, now).ns, 4000);
    PC_ASSERT_INT(pc_mono_at_wall((pc_wall){6999999}, wall, now).ns, 0);
    PC_ASSERT_INT(pc_mono_at_wall((pc_wall){INT64_MAX}, wall, now).ns,
                  INT64_MAX);
    PC_ASSERT_INT(pc_mono_at_wall((pc_wall){INT64_MIN}, wall, (pc_mono){-1}).ns,
                  INT64_MIN);
}

typedef struct good {
    const char *text;
    int64_t us;
    bool has_offset;
} good;

static const good goods[] = {
    {"1970-01-01", 0, false},
    {"1970-01-01T00:00", 0, false},
    {"1970-01-01 00:00:01", 1000000, false},
    {"1969-12-31T23:59:59.999999Z", -1, true},
    {"1970-01-01T00:00:00.5Z", 500000, true},
    {"1970-01-01T00:00:00.000001999Z", 1, true},
    {"1970-01-01T02:00+02:00", 0, true},
    {"1970-01-01T02:00+0200", 0, true},
    {"1970-01-01T02:00+02", 0, true},
    {"1969-12-31T18:30:00-05:30", 0, true},
    {"1970-01-01T00:00:00-00:00", 0, true},
    {"2026-11-20T07:49:01.705409+00:00", 1795160941705409, true},
    {"2000-02-29T12:00:00Z", 951825600000000, true},
    {"1900-03-01T00:00:00Z", -2203891200000000, true},
    {"0001-01-01T00:00:00Z", YEAR_1, true},
    {"0001-01-01T00:00:00+01:00", YEAR_1 - 3600 * PC_US_PER_SEC, true},
    {"9999-12-31T23:59:59.999999Z", YEAR_9999_END, true},
};

void
test_clock_parses_iso_8601(void)
{
    for (size_t i = 0; i < sizeof goods / sizeof goods[0]; i++) {
        pc_wall got = {1};
        bool has = !goods[i].has_offset;
        pc_err err = {.msg = ""};
        int rc = pc_wall_parse(pc_slice_str(goods[i].text), &got, &has, &err);
        PC_ASSERT(rc == 0, "%s: %s", goods[i].text, err.msg);
        PC_ASSERT(got.us == goods[i].us, "%s gives %lld", goods[i].text,
                  (long long)got.us);
        PC_ASSERT(has == goods[i].has_offset, "%s", goods[i].text);
        PC_ASSERT_INT(
            pc_wall_parse(pc_slice_str(goods[i].text), &got, NULL, NULL), 0);
    }
}

static const char *const bads[] = {
    "", " ", "x", "1970", "1970-01", "1970-1-01", "1970-01-1", "19700101",
    "0000-01-01", "-001-01-01", "+970-01-01", "10000-01-01", "1970-00-01",
    "1970-13-01", "1970-01-00", "1970-01-32", "1970-04-31", "2023-02-29",
    "1900-02-29", "2100-02-29", " 1970-01-01", "1970-01-01 ", "1970-01-01T",
    "1970-01-01Z", "1970-01-01+00:00", "1970-01-01T00", "1970-01-01T00:0",
    "1970-01-01t00:00", "1970-01-01_00:00", "1970-01-01T24:00",
    "1970-01-01T00:60", "1970-01-01T00:00:60", "1970-01-01T00:00:0",
    "1970-01-01T00:00:", "1970-01-01T00:00:00.", "1970-01-01T00:00:00.Z",
    "1970-01-01T00:00:00.1234567890", "1970-01-01T00:00.5",
    "1970-01-01T00:00:00,5", "1970-01-01T00:00:00z", "1970-01-01T00:00:00ZZ",
    "1970-01-01T00:00:00+", "1970-01-01T00:00:00+1", "1970-01-01T00:00:00+123",
    "1970-01-01T00:00:00+24:00", "1970-01-01T00:00:00+00:60",
    "1970-01-01T00:00:00+00:", "1970-01-01T00:00:00+00:00:00",
    "1970-01-01T00:00:00 +00:00", "1970-01-01T00:00:00+00:00x",
    "1970-01-01T00:00:00*00:00", "1970-01-01  00:00", "1970/01/01T00:00",
    "1970-01-01T-1:00", "1970-01-01T00: 1", "tomorrow",
};

void
test_clock_refuses_malformed_text(void)
{
    for (size_t i = 0; i < sizeof bads / sizeof bads[0]; i++) {
        pc_wall got = {42};
        bool has = true;
        pc_err err = {0};
        int rc = pc_wall_parse(pc_slice_str(bads[i]), &got, &has, &err);
        PC_ASSERT(rc == -1, "\"%s\" gives %lld", bads[i], (long long)got.us);
        PC_ASSERT_INT(err.code, PC_EDATA);
        PC_ASSERT(strstr(err.msg, bads[i]) != NULL, "%s", err.msg);
        PC_ASSERT(got.us == 42 && has);
    }
    pc_wall got;
    PC_ASSERT_INT(pc_wall_parse(pc_slice_str(NULL), &got, NULL, NULL), -1);
    PC_ASSERT_INT(pc_wall_parse(pc_slice_of("1970-01-01\0", 11), &got, NULL,
                                NULL), -1);
}

/* Every proper prefix of a full text, in a block of exactly its size, so that
 * ASan sees a read behind its end. */
void
test_clock_reads_no_further_than_the_slice(void)
{
    static const char full[] = "2026-11-20T07:49:01.705409+05:30";
    for (size_t len = 0; len < sizeof full; len++) {
        char *copy = malloc(len + 1);
        PC_ASSERT(copy != NULL);
        char *text = copy + 1;
        memcpy(text, full, len);
        pc_wall got;
        int rc = pc_wall_parse(pc_slice_of(text, len), &got, NULL, NULL);
        bool whole = len == 10 || len == 16 || len == 19
                     || (len >= 21 && len <= 26) || len == 29 || len == 32;
        PC_ASSERT(rc == (whole ? 0 : -1), "length %zu", len);
        free(copy);
    }
}

void
test_clock_message_quotes_little_and_only_ascii(void)
{
    char text[500];
    pc_wall got;
    pc_err err;
    memset(text, 'q', sizeof text);
    memcpy(text, "a\n\0\xff\x1b", 5);
    PC_ASSERT_INT(
        pc_wall_parse(pc_slice_of(text, sizeof text), &got, NULL, &err), -1);
    int quoted = 0;
    for (const char *p = err.msg; *p != '\0'; p++) {
        PC_ASSERT(*p >= ' ' && *p <= '~');
        quoted += *p == 'q';
    }
    PC_ASSERT_INT(quoted, 35);
    PC_ASSERT(strstr(err.msg, "\"a????qqq") && strstr(err.msg, "q\"...;"));
}

static void
assert_format(int64_t us, int offset_min, const char *want)
{
    char text[PC_ISO_MAX];
    int len = pc_wall_format((pc_wall){us}, offset_min, text);
    PC_ASSERT_STR(text, want);
    PC_ASSERT_INT(len, strlen(want));
}

void
test_clock_formats_as_isoformat_does(void)
{
    assert_format(0, 0, "1970-01-01T00:00:00+00:00");
    assert_format(1, 0, "1970-01-01T00:00:00.000001+00:00");
    assert_format(-1, 0, "1969-12-31T23:59:59.999999+00:00");
    assert_format(-PC_US_PER_SEC, 0, "1969-12-31T23:59:59+00:00");
    assert_format(0, 330, "1970-01-01T05:30:00+05:30");
    assert_format(0, -330, "1969-12-31T18:30:00-05:30");
    assert_format(0, -30, "1969-12-31T23:30:00-00:30");
    assert_format(951782400000000, 0, "2000-02-29T00:00:00+00:00");
    assert_format(1795160941705409, 0, "2026-11-20T07:49:01.705409+00:00");
}

void
test_clock_format_saturates(void)
{
    assert_format(YEAR_1, 0, "0001-01-01T00:00:00+00:00");
    assert_format(YEAR_1 - 1, 0, "0001-01-01T00:00:00+00:00");
    assert_format(YEAR_1, -60, "0001-01-01T00:00:00-01:00");
    assert_format(INT64_MIN, -1439, "0001-01-01T00:00:00-23:59");
    assert_format(YEAR_9999_END, 0, "9999-12-31T23:59:59.999999+00:00");
    assert_format(YEAR_9999_END + 1, 0, "9999-12-31T23:59:59.999999+00:00");
    assert_format(INT64_MAX, 1439, "9999-12-31T23:59:59.999999+23:59");
    assert_format(0, 100000, "1970-01-01T23:59:00+23:59");
    assert_format(0, -100000, "1969-12-31T00:01:00-23:59");
}

/* Every day from 0001-01-01 to 9999-12-31, by a calendar that only counts on. */
void
test_clock_every_day_of_9999_years(void)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t us = YEAR_1;
    for (int year = 1; year <= 9999; year++) {
        bool leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
        for (int month = 1; month <= 12; month++) {
            int last = days[month - 1] + (leap && month == 2);
            for (int day = 1; day <= last; day++) {
                char want[80], text[PC_ISO_MAX];
                pc_wall got;
                snprintf(want, sizeof want, "%04d-%02d-%02dT00:00:00+00:00",
                         year, month, day);
                pc_wall_format((pc_wall){us}, 0, text);
                PC_ASSERT_STR(text, want);
                PC_ASSERT_INT(
                    pc_wall_parse(pc_slice_of(text, 10), &got, NULL, NULL), 0);
                PC_ASSERT_INT(got.us, us);
                us += 86400 * PC_US_PER_SEC;
            }
        }
    }
    PC_ASSERT_INT(us, YEAR_9999_END + 1);
}

/* Random moments against the C library, there and back. */
void
test_clock_random_against_gmtime(void)
{
    unsigned seed = 86400;
    for (int round = 0; round < 20000; round++) {
        int64_t sec = ((int64_t)rand_r(&seed) << 31 | rand_r(&seed))
                          % INT64_C(315537724800) + YEAR_1 / PC_US_PER_SEC
                      + 86400;
        int us = round % 4 ? rand_r(&seed) % 1000000 : 0;
        int offset = rand_r(&seed) % 2879 - 1439;
        time_t local = (time_t)(sec + offset * 60);
        struct tm tm;
        PC_ASSERT(gmtime_r(&local, &tm) != NULL);
        char want[160], fraction[24] = "", text[PC_ISO_MAX];
        if (us != 0) {
            snprintf(fraction, sizeof fraction, ".%06d", us);
        }
        snprintf(want, sizeof want, "%04d-%02d-%02dT%02d:%02d:%02d%s%c%02d:%02d",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                 tm.tm_min, tm.tm_sec, fraction, offset < 0 ? '-' : '+',
                 abs(offset) / 60, abs(offset) % 60);
        pc_wall when = {sec * PC_US_PER_SEC + us}, back;
        pc_wall_format(when, offset, text);
        PC_ASSERT_STR(text, want);
        PC_ASSERT_INT(
            pc_wall_parse(pc_slice_str(text), &back, NULL, NULL), 0);
        PC_ASSERT_INT(back.us, when.us);
    }
}

void
bench_clock_parse(long n)
{
    pc_slice text = pc_slice_str("2026-11-20T07:49:01.705409+00:00");
    pc_wall got;
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(pc_wall_parse(text, &got, NULL, NULL), 0);
    }
}

void
bench_clock_format(long n)
{
    char text[PC_ISO_MAX];
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(
            pc_wall_format((pc_wall){1795160941705409}, (int)(i % 600), text), 32);
    }
}
