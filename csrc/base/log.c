/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define MSG_MAX 1024

/* Leaves errno alone, so that one can log between a failed call and its report. */
void
pc_log_write(const pc_log *log, pc_level level, const char *fmt, ...)
{
    if (log == NULL || log->write == NULL || (int)level < log->level) {
        return;
    }
    int saved = errno;
    char msg[MSG_MAX];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(msg, sizeof msg, fmt, args);
    va_end(args);
    if (len >= 0) {
        size_t cut = (size_t)len < sizeof msg ? (size_t)len : sizeof msg - 1;
        log->write(log->ctx, level, msg, cut);
    }
    errno = saved;
}
