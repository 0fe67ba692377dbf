/* SPDX-License-Identifier: BSD-3-Clause */
/* One error slot. Every fallible function takes a `pc_err *` last, which may be
 * NULL, and returns 0 or -1 (or a pointer or NULL). The message names what was
 * tried and what to do; it never holds message bodies or passwords. */
#ifndef PC_BASE_ERR_H
#define PC_BASE_ERR_H

typedef enum pc_code {
    PC_OK = 0,
    PC_ENOMEM,     // an allocation failed
    PC_EIO,        // a connection or file failed: may be tried again
    PC_ETIMEOUT,   // the deadline passed
    PC_EPROTO,     // the peer broke its protocol
    PC_EDATA,      // bad input: the message or document at hand is at fault
    PC_ELIMIT,     // input too deep or too large
    PC_EAUTH,      // refused: credentials, virtual host, permissions
    PC_ENOTFOUND,  // no such queue, key, id
    PC_EFULL,      // window full, connection blocked by the broker
    PC_ESTATE,     // called in a state where it makes no sense
    PC_EUNSUP,     // valid, but this driver cannot do it
    PC_EFALLBACK   // unusual input: the caller's general path must handle it
} pc_code;

typedef struct pc_err {
    pc_code code;
    int sys_errno;  // errno of the failed call, 0 if none
    char msg[256];  // always NUL-terminated
} pc_err;

/* Fills `err` (when not NULL) and returns -1, so that callers write
 * `return pc_fail(err, PC_EDATA, "...")`. */
int pc_fail(pc_err *err, pc_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, with ": strerror(errno)" appended and sys_errno kept. */
int pc_fail_errno(pc_err *err, pc_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* PC_ENOMEM with a standard text. */
int pc_fail_nomem(pc_err *err);

/* "out of memory", "connection error", …: a short name for logs. */
const char *pc_code_name(pc_code code);

#endif
