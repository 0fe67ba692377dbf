/* SPDX-License-Identifier: BSD-3-Clause */
/* Random (version 4) UUID text. */
#ifndef PC_BASE_UUID_H
#define PC_BASE_UUID_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PC_UUID_LEN 36

/* Fills n random bytes from the kernel. */
int pc_random(void *out, size_t n, pc_err *err);
/* Writes 36 characters and a NUL. */
int pc_uuid4(char out[PC_UUID_LEN + 1], pc_err *err);

/* Ids that are random to begin with, then counted: the kernel is not asked for each. Zeroed to begin with;
 * a forked child must begin anew. */
typedef struct pc_uuid_series {
    char first[PC_UUID_LEN + 1];
    uint64_t last;
} pc_uuid_series;

/* As pc_uuid4. */
int pc_uuid_next(pc_uuid_series *series, char out[PC_UUID_LEN + 1], pc_err *err);

#endif
