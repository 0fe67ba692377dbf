/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_config.h"

#include <stdio.h>

#include "base/mem.h"

#define DEFAULT_PORT 6379
#define GREETING_TIMEOUT 10.0        // when the configuration sets no timeout at all

static const char *
keep(pc_redis_place *place, const char *text, bool *failed)
{
    if (text == NULL) {
        return NULL;
    }
    char *copy = pc_strdup(text, strlen(text));
    *failed = *failed || copy == NULL;
    place->strings[place->nstrings++] = copy;
    return copy;
}

static void
keep_tls(pc_redis_place *place, const pc_tls_config *from, bool *failed)
{
    pc_tls_config *to = &place->tls;
    *to = *from;
    to->ca_file = keep(place, from->ca_file, failed);
    to->ca_path = keep(place, from->ca_path, failed);
    to->cert_file = keep(place, from->cert_file, failed);
    to->key_file = keep(place, from->key_file, failed);
    to->key_password = keep(place, from->key_password, failed);
    to->ciphers = keep(place, from->ciphers, failed);
    to->server_name = from->server_name == NULL ? place->config.host
                                                : keep(place, from->server_name, failed);
    place->config.tls = to;
}

static void
describe(pc_redis_place *place)
{
    const pc_redis_config *c = &place->config;
    const char *scheme = c->tls == NULL ? "redis" : "rediss";
    if (c->unix_path != NULL) {
        snprintf(place->where, sizeof place->where, "%s %.120s/%d", scheme, c->unix_path, c->db);
    } else {
        snprintf(place->where, sizeof place->where, "%s %.120s:%d/%d", scheme, c->host, c->port,
                 c->db);
    }
}

static int64_t
ns_of(double seconds)
{
    return seconds > 0 && seconds < 1e9 ? (int64_t)(seconds * (double)PC_NS_PER_SEC) : 0;
}

static void
configure(pc_redis_place *place)
{
    const pc_redis_config *config = &place->config;
    double timeout = config->socket_timeout;
    int64_t connect_ns = ns_of(config->connect_timeout);
    place->answer_ns = ns_of(timeout);
    place->greeting_ns = place->answer_ns > 0 ? place->answer_ns
                        : connect_ns > 0    ? connect_ns
                                            : ns_of(GREETING_TIMEOUT);
    place->endpoint = (pc_endpoint){
        .host = config->host,
        .port = config->port,
        .unix_path = config->unix_path,
        .tls = config->tls,
        .connect_timeout_ns = connect_ns,
        .user_timeout_ms = timeout > 0 && timeout < 1e6 ? (int)(timeout * 1000.0) : 0,
    };
}

int
pc_redis_place_init(pc_redis_place *place, const pc_redis_config *config, pc_err *err)
{
    bool failed = false;
    *place = (pc_redis_place){.config = *config};
    pc_redis_config *c = &place->config;
    const char *host = config->host == NULL ? "localhost" : config->host;
    c->unix_path = keep(place, config->unix_path, &failed);
    c->host = keep(place, config->unix_path == NULL ? host : NULL, &failed);
    c->port = config->port == 0 ? DEFAULT_PORT : config->port;
    c->user = keep(place, config->user, &failed);
    c->password = keep(place, config->password, &failed);
    c->client_name = keep(place, config->client_name, &failed);
    if (config->tls != NULL) {
        keep_tls(place, config->tls, &failed);
    }
    if (failed) {
        return pc_fail_nomem(err);
    }
    describe(place);
    configure(place);
    return 0;
}

void
pc_redis_place_fini(pc_redis_place *place)
{
    for (size_t i = 0; i < place->nstrings; i++) {
        pc_free(place->strings[i]);
    }
    place->nstrings = 0;
}
