/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_resp.h"

#define NUMBER_MAX 20  // digits
#define FRAME_MAX (NUMBER_MAX + 5)

size_t
pc_redis_resp_room(size_t words, size_t bytes)
{
    return FRAME_MAX * (words + 1) + bytes;
}

static char *
put_number(char *to, char kind, size_t number)
{
    char digits[NUMBER_MAX];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    *to++ = kind;
    while (n > 0) {
        *to++ = digits[--n];
    }
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

char *
pc_redis_resp_begin(char *to, size_t words)
{
    return put_number(to, '*', words);
}

char *
pc_redis_resp_word(char *to, pc_slice word)
{
    to = put_number(to, '$', word.len);
    if (word.len > 0) {
        memcpy(to, word.ptr, word.len);
    }
    memcpy(to + word.len, "\r\n", 2);
    return to + word.len + 2;
}
