/* SPDX-License-Identifier: BSD-3-Clause */
/* The Lua scripts of the Redis broker. Each is atomic: a message is in its list, or in `unacked` with
 * its score, or settled, never in between, whoever is killed when. All take the time from the server.
 *
 * A tag in `unacked` is "<worker>:<n>", n ascending per worker. Not the delivery_tag of the envelope:
 * that one is the same for all queues a message was routed to, and again after it was restored, so
 * that one ack could settle somebody else's delivery. To kombu a tag is any text.
 *
 * What a script returns is said at its text in redis_script.c. */
#ifndef PC_IO_REDIS_SCRIPT_H
#define PC_IO_REDIS_SCRIPT_H

#include "io/redis_args.h"

typedef enum pc_script {
    PC_SCRIPT_CLAIM,
    PC_SCRIPT_SETTLE,
    PC_SCRIPT_RETIRE,
    PC_SCRIPT_TOUCH,
    PC_SCRIPT_BEAT,
    PC_SCRIPT_VISIBLE,
    PC_SCRIPT_COUNT
} pc_script;

typedef struct pc_redis_scripts {
    char sha[PC_SCRIPT_COUNT][41];
    // --
    pc_redis *conn;
    unsigned loading;  // answers to come
    pc_err err;
    void (*done)(void *ctx, const pc_err *why);
    void *ctx;
} pc_redis_scripts;

/* done() is told when all are loaded (why NULL) or one was refused; not when the connection is lost. */
void pc_redis_scripts_init(pc_redis_scripts *scripts, pc_redis *conn,
                           void (*done)(void *ctx, const pc_err *why), void *ctx);
/* Loads all; under way already: does nothing. */
int pc_redis_scripts_load(pc_redis_scripts *scripts, pc_err *err);
/* After a lost connection. */
void pc_redis_scripts_reset(pc_redis_scripts *scripts);
/* Begins a command: EVALSHA, its hash, the number of keys. */
void pc_redis_scripts_begin(const pc_redis_scripts *scripts, pc_script which, size_t keys,
                            pc_redis_args *args);

/* For those who run them seldom: EVAL, the text, the number of keys. */
typedef enum pc_question {
    PC_ASK_ROUTE,
    PC_ASK_SIZE,
    PC_ASK_PURGE,
    PC_ASK_GET,
    PC_ASK_PULSE,
    PC_ASK_COUNT
} pc_question;

const char *pc_redis_question_text(pc_question which);
void pc_redis_eval_begin(pc_question which, size_t keys, pc_redis_args *args);

#endif
