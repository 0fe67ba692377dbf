/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_args.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"
#include "io/redis_resp.h"
#include "wire/real.h"

#define KEEP ((size_t)64 * 1024)
#define ON_STACK 64
#define DIGITS_MAX 20

void
pc_redis_args_init(pc_redis_args *args)
{
    *args = (pc_redis_args){.failed = false};
    pc_buf_init(&args->text);
    pc_buf_init(&args->ends);
}

void
pc_redis_args_fini(pc_redis_args *args)
{
    if (args != NULL) {
        pc_buf_fini(&args->text);
        pc_buf_fini(&args->ends);
    }
}

void
pc_redis_args_reset(pc_redis_args *args)
{
    pc_buf_reset(&args->text, KEEP);
    pc_buf_reset(&args->ends, KEEP);
    args->failed = false;
}

void
pc_redis_args_end(pc_redis_args *args, int rc)
{
    size_t end = pc_buf_len(&args->text);
    if (args->failed) {
        return;
    }
    if (rc < 0 || pc_buf_put(&args->ends, &end, sizeof end, &args->err) < 0) {
        args->failed = true;
    }
}

void
pc_redis_args_add(pc_redis_args *args, pc_slice word)
{
    pc_redis_args_end(args, pc_buf_put_slice(&args->text, word, &args->err));
}

void
pc_redis_args_str(pc_redis_args *args, const char *word)
{
    pc_redis_args_add(args, pc_slice_str(word));
}

void
pc_redis_args_printf(pc_redis_args *args, const char *fmt, ...)
{
    char word[64];
    va_list list;
    va_start(list, fmt);
    int len = vsnprintf(word, sizeof word, fmt, list);
    va_end(list);
    pc_redis_args_add(args, pc_slice_of(word, len < 0 ? 0 : (size_t)len % sizeof word));
}

void
pc_redis_args_real(pc_redis_args *args, double number)
{
    char word[PC_REAL_MAX];

    pc_redis_args_add(args, pc_slice_of(word, pc_real_format(number, word)));
}

/* By hand: each settled message has one, and printf takes longer for it than all else. */
static int
put_digits(pc_buf *out, uint64_t number, pc_err *err)
{
    char digits[DIGITS_MAX];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return pc_buf_put(out, digits + at, sizeof digits - at, err);
}

void
pc_redis_args_number(pc_redis_args *args, uint64_t number)
{
    pc_redis_args_end(args, put_digits(&args->text, number, &args->err));
}

void
pc_redis_args_tag(pc_redis_args *args, const char *owner, uint64_t number)
{
    int rc = pc_buf_put_str(&args->text, owner, &args->err);
    rc = rc < 0 ? rc : pc_buf_put_u8(&args->text, ':', &args->err);
    pc_redis_args_end(args, rc < 0 ? rc : put_digits(&args->text, number, &args->err));
}

size_t
pc_redis_args_len(const pc_redis_args *args)
{
    return pc_buf_len(&args->ends) / sizeof(size_t);
}

/* Word number i begins where the one before it, at *start, ended. */
static pc_slice
next_word(const pc_redis_args *args, size_t i, size_t *start)
{
    size_t end;
    memcpy(&end, pc_buf_ptr(&args->ends) + i * sizeof end, sizeof end);
    pc_slice word = pc_slice_of(pc_buf_ptr(&args->text) + *start, end - *start);
    *start = end;
    return word;
}

size_t
pc_redis_args_room(const pc_redis_args *args)
{
    return pc_redis_resp_room(pc_redis_args_len(args), pc_buf_len(&args->text));
}

size_t
pc_redis_args_write(const pc_redis_args *args, char *to)
{
    size_t n = pc_redis_args_len(args);
    size_t start = 0;
    char *at = pc_redis_resp_begin(to, n);
    for (size_t i = 0; i < n; i++) {
        at = pc_redis_resp_word(at, next_word(args, i, &start));
    }
    return (size_t)(at - to);
}

int
pc_redis_args_send(pc_redis_args *args, pc_redis *conn, pc_redis_callback *callback, void *ctx,
                   pc_err *err)
{
    pc_slice few[ON_STACK] = {{NULL, 0}};
    size_t n = pc_redis_args_len(args);
    if (args->failed) {
        return pc_fail(err, args->err.code, "%s", args->err.msg);
    }
    pc_slice *words = n <= ON_STACK ? few : pc_alloc(n * sizeof *words);
    if (words == NULL) {
        return pc_fail_nomem(err);
    }
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        words[i] = next_word(args, i, &start);
    }
    int rc = pc_redis_command(conn, n, words, callback, ctx, err);
    if (words != few) {
        pc_free(words);
    }
    return rc;
}
