/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a Redis server is and how to log in, and an owned copy of that. */
#ifndef PC_IO_REDIS_CONFIG_H
#define PC_IO_REDIS_CONFIG_H

#include "io/stream.h"

typedef struct pc_redis_config {
    const char *host;       // NULL: localhost
    int port;               // 0: 6379
    const char *unix_path;  // instead of host and port
    int db;
    const char *user;       // NULL: AUTH with the password alone
    const char *password;   // NULL: no AUTH
    const pc_tls_config *tls;
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
    // --
    pc_tls_config tls;
    char *strings[12];
    size_t nstrings;
} pc_redis_place;

/* Copies everything the configuration points to. */
int pc_redis_place_init(pc_redis_place *place, const pc_redis_config *config, pc_err *err);
void pc_redis_place_fini(pc_redis_place *place);

#endif
