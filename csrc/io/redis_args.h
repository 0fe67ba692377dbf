/* SPDX-License-Identifier: BSD-3-Clause */
/* The words of one Redis command, put together piece by piece in one buffer. Errors are remembered
 * and reported by send, so that the calls between need no check. */
#ifndef PC_IO_REDIS_ARGS_H
#define PC_IO_REDIS_ARGS_H

#include "io/redis_conn.h"

typedef struct pc_redis_args {
    pc_buf text;  // the words, one behind the other
    pc_buf ends;  // size_t: where each ends
    bool failed;
    pc_err err;
} pc_redis_args;

void pc_redis_args_init(pc_redis_args *args);
void pc_redis_args_fini(pc_redis_args *args);
/* Forgets the words, keeps the memory. */
void pc_redis_args_reset(pc_redis_args *args);

void pc_redis_args_add(pc_redis_args *args, pc_slice word);
void pc_redis_args_str(pc_redis_args *args, const char *word);
void pc_redis_args_printf(pc_redis_args *args, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void pc_redis_args_number(pc_redis_args *args, uint64_t number);
/* With a decimal point, whatever LC_NUMERIC says. */
void pc_redis_args_real(pc_redis_args *args, double number);
/* "<owner>:<number>", as deliveries are called in `unacked`. */
void pc_redis_args_tag(pc_redis_args *args, const char *owner, uint64_t number);
/* What was appended to `text` since the last word becomes a word; rc < 0: appending failed. */
void pc_redis_args_end(pc_redis_args *args, int rc);
size_t pc_redis_args_len(const pc_redis_args *args);

/* Bytes of the command as it is sent, at most; writes it there and returns how many it were. */
size_t pc_redis_args_room(const pc_redis_args *args);
size_t pc_redis_args_write(const pc_redis_args *args, char *to);

/* As pc_redis_command. */
int pc_redis_args_send(pc_redis_args *args, pc_redis *conn, pc_redis_callback *callback, void *ctx,
                       pc_err *err);

#endif
