/* SPDX-License-Identifier: BSD-3-Clause */
/* A growing byte buffer, and a borrowed view of bytes. A buffer belongs to one
 * owner. Bytes are appended at the end and consumed from the front. */
#ifndef PC_BASE_BUF_H
#define PC_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

typedef struct pc_slice {
    const char *ptr;  // NULL means "absent", not "empty"
    size_t len;
} pc_slice;

static inline pc_slice
pc_slice_of(const char *ptr, size_t len)
{
    return (pc_slice){ptr, len};
}

/* A slice of a NUL-terminated string; NULL gives the absent slice. */
static inline pc_slice
pc_slice_str(const char *text)
{
    return (pc_slice){text, text == NULL ? 0 : strlen(text)};
}

static inline bool
pc_slice_eq(pc_slice a, pc_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool
pc_slice_is(pc_slice a, const char *text)
{
    return pc_slice_eq(a, pc_slice_str(text));
}

typedef struct pc_buf {
    char *data;
    size_t start;  // consumed bytes at the front
    size_t end;    // first free byte
    size_t cap;
} pc_buf;

void pc_buf_init(pc_buf *buf);
void pc_buf_fini(pc_buf *buf);

static inline size_t
pc_buf_len(const pc_buf *buf)
{
    return buf->end - buf->start;
}

static inline char *
pc_buf_ptr(const pc_buf *buf)
{
    return buf->data + buf->start;
}

static inline pc_slice
pc_buf_slice(const pc_buf *buf)
{
    return (pc_slice){buf->data + buf->start, buf->end - buf->start};
}

/* Room for n more bytes at the end; NULL when memory is out. The pointer lives
 * until the next call that can grow the buffer. */
char *pc_buf_reserve(pc_buf *buf, size_t n, pc_err *err);
/* Declares n reserved bytes as written. */
void pc_buf_commit(pc_buf *buf, size_t n);

int pc_buf_put(pc_buf *buf, const void *data, size_t len, pc_err *err);
int pc_buf_put_slice(pc_buf *buf, pc_slice data, pc_err *err);
int pc_buf_put_str(pc_buf *buf, const char *text, pc_err *err);
int pc_buf_put_u8(pc_buf *buf, uint8_t value, pc_err *err);
/* big-endian, as AMQP and our pipe frames want them */
int pc_buf_put_u16(pc_buf *buf, uint16_t value, pc_err *err);
int pc_buf_put_u32(pc_buf *buf, uint32_t value, pc_err *err);
int pc_buf_put_u64(pc_buf *buf, uint64_t value, pc_err *err);
int pc_buf_printf(pc_buf *buf, pc_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Drops n bytes from the front. */
void pc_buf_consume(pc_buf *buf, size_t n);
/* Drops everything, keeps the memory unless it exceeds `keep` bytes. */
void pc_buf_reset(pc_buf *buf, size_t keep);

uint16_t pc_get_u16(const void *from);
uint32_t pc_get_u32(const void *from);
uint64_t pc_get_u64(const void *from);
void pc_set_u32(void *to, uint32_t value);
void pc_set_u64(void *to, uint64_t value);

#endif
