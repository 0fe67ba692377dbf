/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/base64.h"

#include <stdlib.h>

#include "golden.h"
#include "harness.h"

static const char *const pairs[][2] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xff\xfe\xfd", "//79"},
    {"\xfb\xef", "++8="},
};

void
test_base64_vectors(void)
{
    pc_buf out;
    pc_buf_init(&out);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT_INT(pc_base64_put(&out, pc_slice_str(pairs[i][0]), NULL), 0);
        PC_ASSERT_INT(pc_buf_len(&out), strlen(pairs[i][1]));
        PC_ASSERT_MEM(out.data, pairs[i][1], strlen(pairs[i][1]));
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT_INT(pc_base64_take(&out, pc_slice_str(pairs[i][1]), NULL), 0);
        PC_ASSERT_INT(pc_buf_len(&out), strlen(pairs[i][0]));
        PC_ASSERT_MEM(out.data, pairs[i][0], strlen(pairs[i][0]));
    }
    pc_buf_fini(&out);
}

void
test_base64_newlines(void)
{
    pc_buf out;
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_base64_take(&out, pc_slice_str("\nZm\r\n9v\nYg\n=\n=\n"), NULL), 0);
    PC_ASSERT_TEXT(pc_buf_slice(&out), "foob");
    pc_buf_fini(&out);
}

void
test_base64_refuses(void)
{
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",     "Zg===",    "=",
                                      "====", "Z===", "Zg=g",    "Zg==Zg==", "Zm9v Zg",
                                      "Zm9-", "Zm9_", "Zm9\x80", "Zm9v=",    "Z\xc3\xa9=="};
    pc_buf out;
    pc_buf_init(&out);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pc_err err = {0};
        PC_ASSERT_INT(pc_base64_take(&out, pc_slice_str(bad[i]), &err), -1);
        PC_ASSERT_INT(err.code, PC_EDATA);
    }
    pc_buf_fini(&out);
}

void
test_base64_all_lengths(void)
{
    unsigned char data[256];
    pc_buf text, back;
    pc_buf_init(&text);
    pc_buf_init(&back);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 167 + 13);
    }
    for (size_t len = 0; len <= sizeof data; len++) {
        pc_buf_reset(&text, 0);
        pc_buf_reset(&back, 0);
        PC_ASSERT_INT(pc_base64_put(&text, pc_slice_of((char *)data, len), NULL), 0);
        PC_ASSERT_INT(pc_base64_take(&back, pc_buf_slice(&text), NULL), 0);
        PC_ASSERT_INT(pc_buf_len(&back), len);
        PC_ASSERT_MEM(back.data, data, len);
    }
    pc_buf_fini(&text);
    pc_buf_fini(&back);
}

static int
both_ways(void *arg)
{
    pc_buf text, back;
    pc_err err = {0};
    (void)arg;
    pc_buf_init(&text);
    pc_buf_init(&back);
    int rc = pc_base64_put(&text,
                           pc_slice_str("some bytes that need room, more than a small "
                                        "buffer has at first, to be sure"),
                           &err);
    rc = rc < 0 ? rc : pc_base64_take(&back, pc_buf_slice(&text), &err);
    pc_buf_fini(&text);
    pc_buf_fini(&back);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
    return rc;
}

void
test_base64_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(both_ways, NULL) >= 2);
}

void
bench_base64_take_300(long n)
{
    char data[225];
    pc_buf text, out;
    memset(data, 'x', sizeof data);
    pc_buf_init(&text);
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_base64_put(&text, pc_slice_of(data, sizeof data), NULL), 0);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        pc_buf_reset(&out, SIZE_MAX);
        PC_ASSERT(pc_base64_take(&out, pc_buf_slice(&text), NULL) == 0);
    }
    pc_buf_fini(&text);
    pc_buf_fini(&out);
}
