/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

#define MIN_CAP 64

void
pc_buf_init(pc_buf *buf)
{
    *buf = (pc_buf){0};
}

void
pc_buf_fini(pc_buf *buf)
{
    if (buf != NULL) {
        pc_free(buf->data);
        pc_buf_init(buf);
    }
}

static void
compact(pc_buf *buf)
{
    size_t len = pc_buf_len(buf);
    memmove(buf->data, buf->data + buf->start, len);
    buf->start = 0;
    buf->end = len;
}

/* Doubling keeps appends amortised; on failure the buffer is as before. */
static int
grow(pc_buf *buf, size_t n, pc_err *err)
{
    if (n > SIZE_MAX - buf->end) {
        return pc_fail_nomem(err);
    }
    size_t need = buf->end + n;
    size_t cap = buf->cap < MIN_CAP ? MIN_CAP : buf->cap;
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    char *data = pc_realloc(buf->data, cap);
    if (data == NULL) {
        return pc_fail_nomem(err);
    }
    buf->data = data;
    buf->cap = cap;
    return 0;
}

/* Moving only when the gap is at least as long as the content makes every byte
 * moved at most once per byte consumed. */
char *
pc_buf_reserve(pc_buf *buf, size_t n, pc_err *err)
{
    if (n > buf->cap - buf->end && buf->start > 0
        && buf->start >= pc_buf_len(buf)) {
        compact(buf);
    }
    if ((buf->data == NULL || n > buf->cap - buf->end)
        && grow(buf, n, err) < 0) {
        return NULL;
    }
    return buf->data + buf->end;
}

void
pc_buf_commit(pc_buf *buf, size_t n)
{
    assert(n <= buf->cap - buf->end);
    buf->end += n;
}

int
pc_buf_put(pc_buf *buf, const void *data, size_t len, pc_err *err)
{
    if (len == 0) {
        return 0;
    }
    char *to = pc_buf_reserve(buf, len, err);
    if (to == NULL) {
        return -1;
    }
    memcpy(to, data, len);
    pc_buf_commit(buf, len);
    return 0;
}

int
pc_buf_put_slice(pc_buf *buf, pc_slice data, pc_err *err)
{
    return pc_buf_put(buf, data.ptr, data.len, err);
}

int
pc_buf_put_str(pc_buf *buf, const char *text, pc_err *err)
{
    return pc_buf_put_slice(buf, pc_slice_str(text), err);
}

int
pc_buf_put_u8(pc_buf *buf, uint8_t value, pc_err *err)
{
    return pc_buf_put(buf, &value, 1, err);
}

int
pc_buf_put_u16(pc_buf *buf, uint16_t value, pc_err *err)
{
    unsigned char bytes[2] = {(unsigned char)(value >> 8),
                              (unsigned char)value};
    return pc_buf_put(buf, bytes, sizeof bytes, err);
}

int
pc_buf_put_u32(pc_buf *buf, uint32_t value, pc_err *err)
{
    unsigned char bytes[4];
    pc_set_u32(bytes, value);
    return pc_buf_put(buf, bytes, sizeof bytes, err);
}

int
pc_buf_put_u64(pc_buf *buf, uint64_t value, pc_err *err)
{
    unsigned char bytes[8];
    pc_set_u64(bytes, value);
    return pc_buf_put(buf, bytes, sizeof bytes, err);
}

/* Appends when text and NUL fit into the reserved `room`. Returns the length of
 * the text either way, -1 when it cannot be formatted. */
static int
format(pc_buf *buf, size_t room, const char *fmt, va_list args)
{
    int len = vsnprintf(buf->data + buf->end, room, fmt, args);
    if (len >= 0 && (size_t)len < room) {
        pc_buf_commit(buf, (size_t)len);
    }
    return len;
}

int
pc_buf_printf(pc_buf *buf, pc_err *err, const char *fmt, ...)
{
    size_t room = MIN_CAP;
    int len = 0;
    do {
        if (pc_buf_reserve(buf, room, err) == NULL) {
            return -1;
        }
        room = buf->cap - buf->end;
        va_list args;
        va_start(args, fmt);
        len = format(buf, room, fmt, args);
        va_end(args);
        if (len < 0) {
            return pc_fail_errno(err, PC_EDATA, "formatting a text");
        }
        if ((size_t)len < room) {
            return 0;
        }
        room = (size_t)len + 1;
    } while (true);
}

void
pc_buf_consume(pc_buf *buf, size_t n)
{
    assert(n <= pc_buf_len(buf));
    buf->start += n;
    if (buf->start >= buf->end) {
        buf->start = 0;
        buf->end = 0;
    }
}

void
pc_buf_reset(pc_buf *buf, size_t keep)
{
    if (buf->cap > keep) {
        pc_buf_fini(buf);
        return;
    }
    buf->start = 0;
    buf->end = 0;
}

uint16_t
pc_get_u16(const void *from)
{
    const unsigned char *p = from;
    return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t
pc_get_u32(const void *from)
{
    const unsigned char *p = from;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8
           | (uint32_t)p[3];
}

uint64_t
pc_get_u64(const void *from)
{
    const unsigned char *p = from;
    return (uint64_t)pc_get_u32(p) << 32 | pc_get_u32(p + 4);
}

void
pc_set_u32(void *to, uint32_t value)
{
    unsigned char *p = to;
    p[0] = (unsigned char)(value >> 24);
    p[1] = (unsigned char)(value >> 16);
    p[2] = (unsigned char)(value >> 8);
    p[3] = (unsigned char)value;
}

void
pc_set_u64(void *to, uint64_t value)
{
    unsigned char *p = to;
    pc_set_u32(p, (uint32_t)(value >> 32));
    pc_set_u32(p + 4, (uint32_t)value);
}
