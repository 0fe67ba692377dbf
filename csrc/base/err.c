/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Formats aside first: an argument may be err->msg itself, as in
 * pc_fail(err, err->code, "reading %s: %s", name, err->msg). */
static void
fill(pc_err *err, pc_code code, int sys_errno, const char *fmt, va_list args)
{
    char msg[sizeof err->msg];
    if (vsnprintf(msg, sizeof msg, fmt, args) < 0) {
        msg[0] = '\0';
    }
    err->code = code;
    err->sys_errno = sys_errno;
    memcpy(err->msg, msg, sizeof msg);
}

static void
append(pc_err *err, const char *text)
{
    size_t used = strlen(err->msg);
    size_t room = sizeof err->msg - 1 - used;
    size_t len = strlen(text);
    if (len > room) {
        len = room;
    }
    memcpy(err->msg + used, text, len);
    err->msg[used + len] = '\0';
}

int
pc_fail(pc_err *err, pc_code code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        fill(err, code, 0, fmt, args);
        va_end(args);
    }
    return -1;
}

int
pc_fail_errno(pc_err *err, pc_code code, const char *fmt, ...)
{
    int sys_errno = errno;
    if (err != NULL) {
        char text[128];
        va_list args;
        va_start(args, fmt);
        fill(err, code, sys_errno, fmt, args);
        va_end(args);
        append(err, ": ");
        append(err, strerror_r(sys_errno, text, sizeof text));
        errno = sys_errno;
    }
    return -1;
}

int
pc_fail_nomem(pc_err *err)
{
    return pc_fail(err, PC_ENOMEM, "out of memory");
}

const char *
pc_code_name(pc_code code)
{
    static const char *const names[] = {
        [PC_OK] = "no error",
        [PC_ENOMEM] = "out of memory",
        [PC_EIO] = "connection error",
        [PC_ETIMEOUT] = "timeout",
        [PC_EPROTO] = "protocol error",
        [PC_EDATA] = "bad data",
        [PC_ELIMIT] = "limit exceeded",
        [PC_EAUTH] = "access refused",
        [PC_ENOTFOUND] = "not found",
        [PC_EFULL] = "full",
        [PC_ESTATE] = "wrong state",
        [PC_EUNSUP] = "not supported",
        [PC_EFALLBACK] = "fallback needed",
    };
    size_t index = (size_t)code;
    if (index >= sizeof names / sizeof names[0]) {
        return "unknown error";
    }
    return names[index];
}
