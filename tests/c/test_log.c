/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/log.h"

#include <errno.h>
#include <string.h>

#include "harness.h"

typedef struct sink {
    int calls;
    pc_level level;
    size_t len;
    char msg[2048];
} sink;

static void
keep(void *ctx, pc_level level, const char *msg, size_t len)
{
    sink *to = ctx;
    to->calls++;
    to->level = level;
    to->len = len;
    memcpy(to->msg, msg, len + 1);
    errno = EBADF;
}

void
test_log_writes_at_and_above_the_level(void)
{
    sink to = {0};
    pc_log log = {PC_WARNING, keep, &to};
    pc_log_write(&log, PC_INFO, "no %d", 1);
    PC_ASSERT_INT(to.calls, 0);
    pc_log_write(&log, PC_WARNING, "lost %s after %d s", "broker", 3);
    PC_ASSERT_INT(to.calls, 1);
    PC_ASSERT_INT(to.level, PC_WARNING);
    PC_ASSERT_STR(to.msg, "lost broker after 3 s");
    PC_ASSERT_INT(to.len, strlen(to.msg));
    pc_log_write(&log, PC_CRITICAL, "x");
    PC_ASSERT_INT(to.calls, 2);
}

void
test_log_nobody_listens(void)
{
    pc_log log = {PC_DEBUG, NULL, NULL};
    pc_log_write(NULL, PC_ERROR, "x");
    pc_log_write(&log, PC_ERROR, "x");
    PC_ASSERT_INT(log.level, PC_DEBUG);
}

void
test_log_cuts_long_messages(void)
{
    sink to = {0};
    pc_log log = {PC_DEBUG, keep, &to};
    pc_log_write(&log, PC_DEBUG, "%3000d", 1);
    PC_ASSERT_INT(to.len, 1023);
    PC_ASSERT_INT(strlen(to.msg), 1023);
}

void
test_log_leaves_errno_alone(void)
{
    sink to = {0};
    pc_log log = {PC_DEBUG, keep, &to};
    errno = EPIPE;
    pc_log_write(&log, PC_ERROR, "x");
    PC_ASSERT_INT(errno, EPIPE);
}
