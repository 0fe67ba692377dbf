/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "harness.h"

void
test_err_fail_fills_the_slot(void)
{
    pc_err err = {.sys_errno = 7};
    PC_ASSERT_INT(pc_fail(&err, PC_EDATA, "field %s: %d", "eta", 3), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(err.sys_errno, 0);
    PC_ASSERT_STR(err.msg, "field eta: 3");
}

void
test_err_slot_may_be_null(void)
{
    PC_ASSERT_INT(pc_fail(NULL, PC_EIO, "x%d", 1), -1);
    PC_ASSERT_INT(pc_fail_errno(NULL, PC_EIO, "x%d", 1), -1);
    PC_ASSERT_INT(pc_fail_nomem(NULL), -1);
}

void
test_err_message_may_wrap_itself(void)
{
    pc_err err;
    pc_fail(&err, PC_EIO, "inner");
    pc_fail(&err, PC_ETIMEOUT, "outer: %s", err.msg);
    PC_ASSERT_STR(err.msg, "outer: inner");
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
}

void
test_err_errno_is_kept_and_explained(void)
{
    pc_err err;
    errno = ECONNREFUSED;
    PC_ASSERT_INT(pc_fail_errno(&err, PC_EIO, "connecting to %s", "h"), -1);
    PC_ASSERT_INT(err.sys_errno, ECONNREFUSED);
    PC_ASSERT_INT(errno, ECONNREFUSED);
    PC_ASSERT_STR(err.msg, "connecting to h: Connection refused");
}

void
test_err_long_messages_are_cut(void)
{
    char text[400];
    pc_err err;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    pc_fail(&err, PC_EIO, "%s", text);
    PC_ASSERT_INT(strlen(err.msg), sizeof err.msg - 1);
    errno = EPIPE;
    pc_fail_errno(&err, PC_EIO, "%s", text);
    PC_ASSERT_INT(strlen(err.msg), sizeof err.msg - 1);
    pc_fail_errno(&err, PC_EIO, "%s", text + 399 - 250);
    PC_ASSERT_STR(err.msg + 250, ": Bro");
}

void
test_err_every_code_has_a_name(void)
{
    for (int code = PC_OK; code <= PC_EFALLBACK; code++) {
        const char *name = pc_code_name((pc_code)code);
        PC_ASSERT(name != NULL && strcmp(name, "unknown error") != 0,
                  "code %d", code);
    }
    PC_ASSERT_STR(pc_code_name(PC_ENOMEM), "out of memory");
    PC_ASSERT_STR(pc_code_name(PC_EIO), "connection error");
    PC_ASSERT_STR(pc_code_name((pc_code)(PC_EFALLBACK + 1)), "unknown error");
    PC_ASSERT_STR(pc_code_name((pc_code)-1), "unknown error");
}
