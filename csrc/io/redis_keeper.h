/* SPDX-License-Identifier: BSD-3-Clause */
/* What keeps a worker's messages its own, and brings back those of the dead.
 *
 * DESIGN. All on the loop's thread, over the source's command connection.
 * - A worker has a lease in the set of workers, renewed three times per `lease` seconds. When one has
 *   ended, whoever sees it first asks CLIENT LIST: of a worker whose connection is gone the messages
 *   return to where they came from. The kernel closes the connections of a killed process at once; of
 *   a host that lost its power the server finds out by tcp-keepalive. One that is connected and silent
 *   for a second lease, while somebody looks on (the server's clock may just have been set), hangs or was
 *   stopped (SIGSTOP), and its messages return, too. Where tasks run in the loop (the solo pool) a thread
 *   renews the lease while one does (redis_pulse.h): busy is not silent.
 *   Where CLIENT LIST is forbidden only the next rule remains.
 * - A worker that stood still for so long must not go on with what others have by now: it looks at the
 *   clock before anything else when its loop turns again, and is told when it renews a lease that
 *   somebody has ended. Either way its connection has failed, and what has not started is forgotten.
 * - Kombu's rule, for Celery's workers: older than visibility_timeout means abandoned. What we hold
 *   is made young again four times in that span, so that the rule never meets it (an ETA beyond
 *   the timeout runs once, also in a mixed fleet); and we do not apply it to workers with a lease, whose
 *   messages look old after the clock was set. */
#ifndef PC_IO_REDIS_KEEPER_H
#define PC_IO_REDIS_KEEPER_H

#include "base/log.h"
#include "base/uuid.h"
#include "io/redis_names.h"
#include "io/redis_pulse.h"
#include "io/redis_script.h"

#define PC_REDIS_ID_LEN 12
#define PC_REDIS_DEAD_MAX 16

typedef struct pc_redis_keeper_hooks {
    /* All that an earlier connection left in our name is back in its lists: may begin. */
    void (*ready)(void *ctx);
    /* drained(): all given back, the worker is unknown to the others. */
    void (*drained)(void *ctx);
    /* The command failed; the owner decides (NOSCRIPT: loads them again, else: reconnects). */
    void (*failed)(void *ctx, const pc_err *why);
    void *ctx;
} pc_redis_keeper_hooks;

/* A worker whose lease has ended. */
typedef struct pc_redis_suspect {
    char id[PC_REDIS_ID_LEN + 1];
    bool connected;  // has another lease's time
    pc_mono since;   // seen first, when it is connected
} pc_redis_suspect;

typedef struct pc_redis_keeper {
    char id[PC_REDIS_ID_LEN + 1];    // random
    char client[PC_REDIS_ID_LEN + 16];  // what the connection is called: "pyceleryc-<id>"
    // --
    pc_redis_keeper_hooks hooks;
    const pc_redis_names *names;
    const pc_redis_scripts *scripts;
    pc_redis *conn;
    const pc_log *log;
    pc_loop *loop;
    double lease;
    double visibility;
    bool running;
    bool draining;
    bool beating;     // an answer is awaited; so for the others
    bool touching;
    bool looking;
    bool blind;       // CLIENT LIST is forbidden
    pc_redis_pulse *pulse;  // NULL: no task runs in our loop
    bool enrolled;    // our lease has begun
    pc_mono turned;   // when the loop did so last
    size_t ndead;     // workers whose lease has ended
    int64_t nback;    // messages that the one at hand has given back
    pc_redis_suspect dead[PC_REDIS_DEAD_MAX];
    size_t nsilent;   // of them the connected ones, until they renew their lease
    pc_redis_suspect silent[PC_REDIS_DEAD_MAX];
    pc_timer beat;
    pc_timer touch;
    pc_timer look;
    pc_defer turn;
    pc_redis_args args;
} pc_redis_keeper;

int pc_redis_keeper_init(pc_redis_keeper *keeper, const pc_broker_config *config,
                         const pc_redis_names *names, pc_loop *loop,
                         const pc_redis_keeper_hooks *hooks, const pc_log *log, pc_err *err);
void pc_redis_keeper_fini(pc_redis_keeper *keeper);
/* The connection is up and the scripts are loaded: ready() follows. */
int pc_redis_keeper_start(pc_redis_keeper *keeper, pc_redis *conn, const pc_redis_scripts *scripts,
                          pc_err *err);
/* From now on at another server. */
int pc_redis_keeper_redirect(pc_redis_keeper *keeper, const pc_broker_config *config, pc_err *err);
/* In a forked child: as stop(). */
void pc_redis_keeper_abandon(pc_redis_keeper *keeper);
/* The connection is gone, or about to be. */
void pc_redis_keeper_stop(pc_redis_keeper *keeper);
/* Gives back all that is held; drained() follows. */
int pc_redis_keeper_drain(pc_redis_keeper *keeper, pc_err *err);
/* Adds the key of what a worker holds. */
void pc_redis_keeper_put_held(const pc_redis_names *names, const char *id, pc_redis_args *args);

#endif
