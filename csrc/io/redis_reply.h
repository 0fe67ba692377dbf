/* SPDX-License-Identifier: BSD-3-Clause */
/* A reply of Redis as a tree that owns all its parts, and what error texts mean. */
#ifndef PC_IO_REDIS_REPLY_H
#define PC_IO_REDIS_REPLY_H

#include "base/buf.h"

typedef enum pc_reply_type {
    PC_REPLY_NIL,
    PC_REPLY_STATUS,
    PC_REPLY_ERROR,
    PC_REPLY_STRING,
    PC_REPLY_INTEGER,
    PC_REPLY_ARRAY
} pc_reply_type;

typedef struct pc_reply {
    pc_reply_type type;
    int64_t integer;
    pc_slice text;  // status, error, string; a NUL follows it
    size_t len;     // children of an array
    struct pc_reply **children;
} pc_reply;

/* A reply with `extra` bytes behind it, otherwise zero. NULL: memory is out. */
pc_reply *pc_reply_new(pc_reply_type type, size_t extra);
/* An array of `len` empty places; freed with its children. */
pc_reply *pc_reply_array(size_t len);
void pc_reply_free(pc_reply *reply);
/* The code an error text of Redis stands for: PC_EIO may be tried again (LOADING, READONLY,
 * …), PC_EFULL is OOM, PC_EAUTH a refusal, PC_ENOTFOUND is NOSCRIPT, PC_EDATA the command's
 * own fault (WRONGTYPE, syntax). */
pc_code pc_redis_code(pc_slice text);

#endif
