/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"

#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"

static void
assert_text(const pc_buf *buf, const char *want)
{
    PC_ASSERT_INT(pc_buf_len(buf), strlen(want));
    PC_ASSERT_MEM(pc_buf_ptr(buf), want, strlen(want));
}

void
test_buf_slices_compare_by_content(void)
{
    PC_ASSERT(pc_slice_eq(pc_slice_of("abc", 2), pc_slice_str("ab")));
    PC_ASSERT(!pc_slice_eq(pc_slice_str("ab"), pc_slice_str("abc")));
    PC_ASSERT(!pc_slice_eq(pc_slice_str("ab"), pc_slice_str("ac")));
    PC_ASSERT(pc_slice_eq(pc_slice_str(NULL), pc_slice_str("")));
    PC_ASSERT(pc_slice_is(pc_slice_str("x"), "x"));
    PC_ASSERT(pc_slice_str(NULL).ptr == NULL && pc_slice_str("").ptr != NULL);
}

void
test_buf_puts_and_consumes_in_order(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT_INT(pc_buf_put_str(&buf, "hello ", NULL), 0);
    PC_ASSERT_INT(pc_buf_put(&buf, "world", 5, NULL), 0);
    PC_ASSERT_INT(pc_buf_put_slice(&buf, pc_slice_str("!"), NULL), 0);
    PC_ASSERT_INT(pc_buf_put_slice(&buf, pc_slice_str(NULL), NULL), 0);
    assert_text(&buf, "hello world!");
    pc_buf_consume(&buf, 6);
    assert_text(&buf, "world!");
    PC_ASSERT(pc_slice_is(pc_buf_slice(&buf), "world!"));
    pc_buf_consume(&buf, 6);
    PC_ASSERT_INT(pc_buf_len(&buf), 0);
    PC_ASSERT_INT(buf.start, 0);
    pc_buf_fini(&buf);
    pc_buf_fini(&buf);
    pc_buf_fini(NULL);
}

void
test_buf_numbers_are_big_endian(void)
{
    static const unsigned char want[] = {0x01, 0x02, 0x03, 0x84, 0x05, 0x06, 0x07,
                                         0x88, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
                                         0xff};
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT_INT(pc_buf_put_u8(&buf, 0x01, NULL), 0);
    PC_ASSERT_INT(pc_buf_put_u16(&buf, 0x0203, NULL), 0);
    PC_ASSERT_INT(pc_buf_put_u32(&buf, 0x84050607, NULL), 0);
    PC_ASSERT_INT(pc_buf_put_u64(&buf, 0x88090a0b0c0d0eff, NULL), 0);
    PC_ASSERT_INT(pc_buf_len(&buf), sizeof want);
    PC_ASSERT_MEM(pc_buf_ptr(&buf), want, sizeof want);
    PC_ASSERT(pc_get_u16(want + 1) == 0x0203);
    PC_ASSERT(pc_get_u32(want + 3) == 0x84050607);
    PC_ASSERT(pc_get_u64(want + 7) == 0x88090a0b0c0d0eff);
    pc_buf_fini(&buf);
}

void
test_buf_set_and_get_are_inverse(void)
{
    unsigned char raw[9];
    pc_set_u32(raw + 1, 0xfedcba98);
    PC_ASSERT(pc_get_u32(raw + 1) == 0xfedcba98);
    pc_set_u64(raw + 1, UINT64_MAX - 1);
    PC_ASSERT(pc_get_u64(raw + 1) == UINT64_MAX - 1);
    PC_ASSERT_INT(pc_get_u16(raw + 1), 0xffff);
}

void
test_buf_reserve_of_nothing_is_not_null(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT(pc_buf_reserve(&buf, 0, NULL) != NULL);
    pc_buf_fini(&buf);
}

void
test_buf_reserve_then_commit(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    char *to = pc_buf_reserve(&buf, 1000, NULL);
    PC_ASSERT(to != NULL);
    memset(to, 'x', 1000);
    pc_buf_commit(&buf, 3);
    assert_text(&buf, "xxx");
    pc_buf_fini(&buf);
}

void
test_buf_printf_short_and_long(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT_INT(pc_buf_printf(&buf, NULL, "%s=%d;", "a", 5), 0);
    assert_text(&buf, "a=5;");
    PC_ASSERT_INT(pc_buf_printf(&buf, NULL, "%5000d", 7), 0);
    PC_ASSERT_INT(pc_buf_len(&buf), 5004);
    PC_ASSERT_INT(pc_buf_ptr(&buf)[5003], '7');
    PC_ASSERT_INT(pc_buf_printf(&buf, NULL, "%s", ""), 0);
    PC_ASSERT_INT(pc_buf_len(&buf), 5004);
    pc_buf_fini(&buf);
}

void
test_buf_reset_keeps_small_memory(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT_INT(pc_buf_put_str(&buf, "abc", NULL), 0);
    pc_buf_reset(&buf, 4096);
    PC_ASSERT(pc_buf_len(&buf) == 0 && buf.data != NULL);
    PC_ASSERT(pc_buf_reserve(&buf, 10000, NULL) != NULL);
    pc_buf_reset(&buf, 4096);
    PC_ASSERT(buf.data == NULL && buf.cap == 0);
    pc_buf_fini(&buf);
}

void
test_buf_impossible_sizes_are_refused(void)
{
    pc_err err = {0};
    pc_buf buf;
    pc_buf_init(&buf);
    PC_ASSERT_INT(pc_buf_put_str(&buf, "abc", NULL), 0);
    PC_ASSERT(pc_buf_reserve(&buf, SIZE_MAX - 2, &err) == NULL);
    PC_ASSERT_INT(err.code, PC_ENOMEM);
    assert_text(&buf, "abc");
    pc_buf_fini(&buf);
}

/* A pipe that always holds a little must not grow with what went through it. */
void
test_buf_a_stream_stays_small(void)
{
    pc_buf buf;
    pc_buf_init(&buf);
    unsigned char in = 0, out = 0;
    for (int round = 0; round < 20000; round++) {
        for (int i = 0; i < 50; i++) {
            PC_ASSERT_INT(pc_buf_put_u8(&buf, in++, NULL), 0);
        }
        for (int i = 0; i < 50 - (round < 2); i++) {
            PC_ASSERT_INT((unsigned char)*pc_buf_ptr(&buf), out++);
            pc_buf_consume(&buf, 1);
        }
    }
    PC_ASSERT_INT(pc_buf_len(&buf), 2);
    PC_ASSERT(buf.cap <= 256, "capacity %zu", buf.cap);
    pc_buf_fini(&buf);
}

/* Random puts and consumes; byte number n of the stream is a function of n. */
void
test_buf_random_against_a_counter(void)
{
    unsigned seed = 20240607;
    pc_buf buf;
    pc_buf_init(&buf);
    size_t in = 0, out = 0;
    for (int round = 0; round < 5000; round++) {
        size_t n = (size_t)rand_r(&seed) % 300;
        char *to = pc_buf_reserve(&buf, n, NULL);
        PC_ASSERT(to != NULL);
        for (size_t i = 0; i < n; i++, in++) {
            to[i] = (char)(in * 7 + in / 256);
        }
        pc_buf_commit(&buf, n);
        size_t drop = (size_t)rand_r(&seed) % 320;
        drop = drop < pc_buf_len(&buf) ? drop : pc_buf_len(&buf);
        for (size_t i = 0; i < drop; i++, out++) {
            PC_ASSERT_INT(pc_buf_ptr(&buf)[i], (char)(out * 7 + out / 256));
        }
        pc_buf_consume(&buf, drop);
        PC_ASSERT_INT(pc_buf_len(&buf), in - out);
    }
    pc_buf_fini(&buf);
}

static int
fill_some(void *arg)
{
    (void)arg;
    pc_err err = {0};
    pc_buf buf;
    pc_buf_init(&buf);
    int rc = 0;
    for (uint64_t i = 0; i < 50 && rc == 0; i++) {
        size_t before = pc_buf_len(&buf);
        rc = i % 2 ? pc_buf_put_u64(&buf, i, &err)
                   : pc_buf_printf(&buf, &err, "%100d", (int)i);
        PC_ASSERT(rc == 0 || pc_buf_len(&buf) == before);
        PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    }
    pc_buf_fini(&buf);
    return rc;
}

void
test_buf_survives_failing_allocations(void)
{
    PC_ASSERT(PC_OOM(fill_some, NULL) >= 3);
}

void
bench_buf_put_and_consume_40_bytes(long n)
{
    static const char text[40] = "0123456789012345678901234567890123456789";
    pc_buf buf;
    pc_buf_init(&buf);
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(pc_buf_put(&buf, text, sizeof text, NULL), 0);
        pc_buf_consume(&buf, sizeof text - (i < 100));
    }
    pc_buf_fini(&buf);
}
