/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands as Redis reads them: an array of bulk strings. Written by hand because a command is copied
 * once that way, straight to where it is kept or sent from. */
#ifndef PC_IO_REDIS_RESP_H
#define PC_IO_REDIS_RESP_H

#include "base/buf.h"

/* Bytes that a command of so many words, of so many bytes together, needs at most. */
size_t pc_redis_resp_room(size_t words, size_t bytes);
/* How it begins, and each of its words; they return where the text ends. */
char *pc_redis_resp_begin(char *to, size_t words);
char *pc_redis_resp_word(char *to, pc_slice word);

#endif
