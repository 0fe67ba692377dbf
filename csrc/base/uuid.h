/* SPDX-License-Identifier: BSD-3-Clause */
/* Random (version 4) UUID text. */
#ifndef PC_BASE_UUID_H
#define PC_BASE_UUID_H

#include <stddef.h>

#include "base/err.h"

#define PC_UUID_LEN 36

/* Fills n random bytes from the kernel. */
int pc_random(void *out, size_t n, pc_err *err);
/* Writes 36 characters and a NUL. */
int pc_uuid4(char out[PC_UUID_LEN + 1], pc_err *err);

#endif
