/* SPDX-License-Identifier: BSD-3-Clause */
/* What the Redis tests share: the common server (PYCELERYC_TEST_REDIS, redis://host:port, default
 * 127.0.0.1:6379, always database 9), private servers that may be killed, and commands on the side to
 * look at what was stored. Keys are unique per test process and deleted by redis_rig_clean.
 * Everything fails the test when it cannot be done. */
#ifndef PC_TESTS_REDIS_RIG_H
#define PC_TESTS_REDIS_RIG_H

#include <sys/types.h>

#include "base/clock.h"
#include "io/redis_client.h"
#include "io/store.h"

typedef struct redis_server {
    pid_t pid;
    int port;
    int out;  // its log
} redis_server;

int redis_rig_free_port(void);
/* Starts on a free port, or again on server->port when that is set, with `options`
 * (NULL-terminated, may be NULL) added, and returns when the log says `ready` (NULL: that it
 * accepts connections). It dies with the process group of the test. */
void redis_server_start(redis_server *server, const char *const *options, const char *ready);
void redis_server_signal(const redis_server *server, int signal);
/* kill -9 and wait. */
void redis_server_kill(redis_server *server);

/* The common server, or a private one; the prefix is unique. Strings live until
 * redis_rig_clean. */
pc_store_config redis_rig_config(const redis_server *server);

/* One command, words separated by blanks ("%s" and so on as in printf); the answer is the
 * caller's. */
pc_reply *redis_rig_do(const pc_store_config *config, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for an integer answer. */
long long redis_rig_int(const pc_store_config *config, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The stored document of a task equals `want`; NULL: there is none. */
void redis_rig_expect(const pc_store_config *config, const char *id, const char *want);

pc_mono redis_rig_in(double seconds);
/* Deletes the keys of the prefix, frees it. */
void redis_rig_clean(pc_store_config *config);

#endif
