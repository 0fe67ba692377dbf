/* SPDX-License-Identifier: BSD-3-Clause */
/* The door from the core to somebody's logger. A sink is passed in, never global.
 * Nothing is formatted when the level is off. */
#ifndef PC_BASE_LOG_H
#define PC_BASE_LOG_H

#include <stddef.h>

typedef enum pc_level {  // Python's logging levels
    PC_DEBUG = 10,
    PC_INFO = 20,
    PC_WARNING = 30,
    PC_ERROR = 40,
    PC_CRITICAL = 50
} pc_level;

typedef struct pc_log {
    int level;  // messages below are dropped
    void (*write)(void *ctx, pc_level level, const char *msg, size_t len);
    void *ctx;
} pc_log;

/* `log` may be NULL. Messages are cut at 1 kB. */
void pc_log_write(const pc_log *log, pc_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
