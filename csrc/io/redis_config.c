/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_config.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

#define DEFAULT_PORT 6379
#define SENTINEL_PORT 26379
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
keep_tls(pc_redis_place *place, pc_tls_config *to, const pc_tls_config *from, bool *failed)
{
    *to = *from;
    to->ca_file = keep(place, from->ca_file, failed);
    to->ca_path = keep(place, from->ca_path, failed);
    to->cert_file = keep(place, from->cert_file, failed);
    to->key_file = keep(place, from->key_file, failed);
    to->key_password = keep(place, from->key_password, failed);
    to->ciphers = keep(place, from->ciphers, failed);
    to->server_name = keep(place, from->server_name, failed);
}

static void
keep_sentinels(pc_redis_place *place, const pc_redis_sentinels *from, bool *failed)
{
    pc_redis_sentinels *to = &place->sentinels;
    to->hosts = keep(place, from->hosts, failed);
    to->master_name = keep(place, from->master_name, failed);
    to->user = keep(place, from->user, failed);
    to->password = keep(place, from->password, failed);
    if (from->tls != NULL) {
        keep_tls(place, &place->sentinel_tls, from->tls, failed);
        to->tls = &place->sentinel_tls;
    }
    place->config.sentinels = to;
}

static void
describe(pc_redis_place *place)
{
    const pc_redis_config *c = &place->config;
    const char *scheme = c->tls == NULL ? "redis" : "rediss";
    if (c->sentinels != NULL) {
        snprintf(place->where, sizeof place->where, "%s master %.120s/%d", scheme, place->sentinels.master_name,
                 c->db);
    } else if (c->unix_path != NULL) {
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

static int
fill(pc_redis_place *place, const pc_redis_config *config, pc_err *err)
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
    if (config->sentinels != NULL) {
        keep_sentinels(place, config->sentinels, &failed);
    }
    if (config->tls != NULL) {
        keep_tls(place, &place->tls, config->tls, &failed);
        c->tls = &place->tls;
    }
    if (failed) {
        return pc_fail_nomem(err);
    }
    if (c->sentinels != NULL && (place->sentinels.hosts == NULL || place->sentinels.master_name == NULL)) {
        return pc_fail(err, PC_EDATA, "Sentinel needs hosts and a master_name");
    }
    place->tls.server_name = place->tls.server_name == NULL ? c->host : place->tls.server_name;
    describe(place);
    configure(place);
    return 0;
}

pc_redis_place *
pc_redis_place_new(const pc_redis_config *config, pc_err *err)
{
    pc_redis_place *place = pc_zalloc(sizeof *place);
    if (place == NULL) {
        pc_fail_nomem(err);
    } else if (fill(place, config, err) < 0) {
        pc_redis_place_free(place);
        place = NULL;
    }
    return place;
}

// ---- Sentinel ----

size_t
pc_redis_place_sentinels(const pc_redis_place *place)
{
    size_t n = place->sentinels.hosts != NULL;
    for (const char *at = place->sentinels.hosts; at != NULL && *at != '\0'; at++) {
        n += *at == ';';
    }
    return n;
}

void
pc_redis_place_sentinel(pc_redis_place *place, size_t i)
{
    const char *at = place->sentinels.hosts;
    for (; i > 0 && strchr(at, ';') != NULL; i--) {
        at = strchr(at, ';') + 1;
    }
    int len = snprintf(place->sentinel_host, sizeof place->sentinel_host, "%.*s",
                       (int)strcspn(at, ";"), at);
    char *colon = len > 0 ? strrchr(place->sentinel_host, ':') : NULL;
    place->sentinel = place->endpoint;
    place->sentinel.port = colon == NULL ? SENTINEL_PORT : atoi(colon + 1);
    if (colon != NULL) {
        *colon = '\0';
    }
    place->sentinel.host = place->sentinel_host;
    place->sentinel.unix_path = NULL;
    place->sentinel.tls = place->sentinels.tls;
    if (place->sentinel_tls.server_name == NULL) {
        place->sentinel_tls.server_name = place->sentinel_host;  // whoever's it is then
    }
}

int
pc_redis_place_master(pc_redis_place *place, const pc_reply *answer)
{
    if (answer->type != PC_REPLY_ARRAY || answer->len != 2 || answer->children[0]->type != PC_REPLY_STRING
        || answer->children[1]->type != PC_REPLY_STRING) {
        return -1;
    }
    pc_slice host = answer->children[0]->text;
    int port = atoi(answer->children[1]->text.ptr);
    if (host.len >= sizeof place->master_host || port <= 0 || port > UINT16_MAX) {
        return -1;
    }
    if (place->tls.server_name == place->endpoint.host) {
        place->tls.server_name = place->master_host;
    }
    snprintf(place->master_host, sizeof place->master_host, "%.*s", (int)host.len, host.ptr);
    place->endpoint.host = place->master_host;
    place->endpoint.port = port;
    return 0;
}

void
pc_redis_place_free(pc_redis_place *place)
{
    for (size_t i = 0; place != NULL && i < place->nstrings; i++) {
        pc_free(place->strings[i]);
    }
    pc_free(place);
}
