/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>

#define COUNTED 12  // hexadecimal digits at the end

static const char hex[] = "0123456789abcdef";

int
pc_random(void *out, size_t n, pc_err *err)
{
    unsigned char *to = out;
    while (n > 0) {
        ssize_t got = getrandom(to, n, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return pc_fail_errno(err, PC_EIO,
                                 "reading random bytes from the kernel");
        }
        to += got;
        n -= (size_t)got;
    }
    return 0;
}

/* Kernel bytes on each call and no pool: a pool would be shared by parent and
 * child after fork, and both would hand out the same ids. */
int
pc_uuid4(char out[PC_UUID_LEN + 1], pc_err *err)
{
    unsigned char raw[16];
    if (pc_random(raw, sizeof raw, err) < 0) {
        return -1;
    }
    raw[6] = (unsigned char)((raw[6] & 0x0f) | 0x40);  // version 4
    raw[8] = (unsigned char)((raw[8] & 0x3f) | 0x80);  // RFC 9562 variant
    char *to = out;
    for (size_t i = 0; i < sizeof raw; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *to++ = '-';
        }
        *to++ = hex[raw[i] >> 4];
        *to++ = hex[raw[i] & 0x0f];
    }
    *to = '\0';
    return 0;
}

int
pc_uuid_next(pc_uuid_series *series, char out[PC_UUID_LEN + 1], pc_err *err)
{
    if (series->first[0] == '\0'
        && (pc_random(&series->last, sizeof series->last, err) < 0 || pc_uuid4(series->first, err) < 0)) {
        return -1;
    }
    uint64_t number = series->last++;
    memcpy(out, series->first, PC_UUID_LEN + 1);
    for (size_t i = 1; i <= COUNTED; i++) {
        out[PC_UUID_LEN - i] = hex[number & 0x0f];
        number >>= 4;
    }
    return 0;
}
