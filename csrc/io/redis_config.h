/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a Redis server is and how to log in, and an owned copy of that. */
#ifndef PC_IO_REDIS_CONFIG_H
#define PC_IO_REDIS_CONFIG_H

#include "io/redis_reply.h"
#include "io/stream.h"

/* Servers that know where the master is, also after it has changed. */
typedef struct pc_redis_sentinels {
    const char *hosts;  // "host:port;host:port"
    const char *master_name;
    const char *user;   // of the Sentinels themselves
    const char *password;
    const pc_tls_config *tls;  // NULL: plain
} pc_redis_sentinels;

typedef struct pc_redis_config {
    const char *host;       // NULL: localhost
    int port;               // 0: 6379
    const char *unix_path;  // instead of host and port
    int db;
    const char *user;       // NULL: AUTH with the password alone
    const char *password;   // NULL: no AUTH
    const pc_tls_config *tls;
    const struct pc_redis_sentinels *sentinels;  // who know host and port; NULL: no Sentinel
    const char *client_name;  // shown by CLIENT LIST; NULL: none
    double connect_timeout;   // seconds
    double socket_timeout;    // seconds to wait for a due answer, then it is dead; 0: for ever
} pc_redis_config;

typedef struct pc_redis_place {
    pc_redis_config config;  // strings are ours, defaults are filled in
    char where[160];         // "redis host:port/db", for messages
    pc_endpoint endpoint;
    int64_t answer_ns;       // 0: an answer may take for ever
    int64_t greeting_ns;     // the same for the first answers, never 0
    pc_endpoint sentinel;    // see pc_redis_place_sentinel
    // --
    pc_tls_config tls;
    pc_redis_sentinels sentinels;
    pc_tls_config sentinel_tls;
    char sentinel_host[256];
    char master_host[256];
    char *strings[24];
    size_t nstrings;
} pc_redis_place;

/* Copies everything the configuration points to. */
pc_redis_place *pc_redis_place_new(const pc_redis_config *config, pc_err *err);
void pc_redis_place_free(pc_redis_place *place);
size_t pc_redis_place_sentinels(const pc_redis_place *place);
/* Makes `sentinel` that of number i. */
void pc_redis_place_sentinel(pc_redis_place *place, size_t i);
/* Makes `endpoint` the server that a Sentinel's answer names. -1: it names none. */
int pc_redis_place_master(pc_redis_place *place, const pc_reply *answer);

#endif
