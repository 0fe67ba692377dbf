/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_names.h"

#include <stdio.h>
#include <stdlib.h>

#define DEFAULT_STEPS "0,3,6,9"
#define SOCKET_TIMEOUT 15.0

static const char *
or_default(const char *text, const char *value)
{
    return text == NULL ? value : text;
}

// ---- configuration ----

static int
read_steps(pc_redis_names *names, const char *text, pc_err *err)
{
    const char *at = text;
    do {
        char *end = NULL;
        long step = strtol(at, &end, 10);
        bool bad = end == at || (*end != ',' && *end != '\0') || step < 0 || step > 255;
        if (bad || names->nsteps == PC_REDIS_STEPS_MAX
            || (names->nsteps > 0 && step <= names->steps[names->nsteps - 1])) {
            return pc_fail(err, PC_EDATA,
                           "priority_steps must be at most %d ascending numbers of 0 to 255, not %s",
                           PC_REDIS_STEPS_MAX, text);
        }
        names->steps[names->nsteps++] = (int)step;
        at = end + 1;
    } while (at[-1] == ',');
    return 0;
}

/* One text made of parts, in `memory`, which has room and so doesn't move. */
static pc_slice
join(pc_redis_names *names, const char *a, const char *b, const char *c)
{
    size_t before = pc_buf_len(&names->memory);
    (void)pc_buf_put_str(&names->memory, a, NULL);
    (void)pc_buf_put_str(&names->memory, b, NULL);
    (void)pc_buf_put_str(&names->memory, c, NULL);
    return pc_slice_of(pc_buf_ptr(&names->memory) + before, pc_buf_len(&names->memory) - before);
}

static void
make_names(pc_redis_names *names, const pc_broker_config *config, const char *prefix,
           const char *unacked)
{
    char db[24];
    snprintf(db, sizeof db, "/%d.", config->db);
    names->prefix = join(names, prefix, "", "");
    names->sep = join(names, or_default(config->sep, "\x06\x16"), "", "");
    names->unacked = join(names, prefix, unacked, "");
    names->index = join(names, prefix, or_default(config->unacked_index_key, "unacked_index"), "");
    names->mutex = join(names, prefix, or_default(config->unacked_mutex_key, "unacked_mutex"), "");
    names->workers = join(names, prefix, unacked, ".pyceleryc");
    names->dead = join(names, prefix, unacked, ".pyceleryc.dead");
    names->channels = join(names, prefix, or_default(config->fanout_prefix, db), "");
}

int
pc_redis_names_init(pc_redis_names *names, const pc_broker_config *config, pc_err *err)
{
    *names = (pc_redis_names){.fanout_plain = config->fanout_plain};
    pc_buf_init(&names->memory);
    const char *prefix = or_default(config->key_prefix, "");
    const char *unacked = or_default(config->unacked_key, "unacked");
    const char *texts[] = {config->sep, config->unacked_index_key, config->unacked_mutex_key,
                           config->fanout_prefix};
    size_t size = 8 * strlen(prefix) + 4 * strlen(unacked) + 256;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        size += texts[i] == NULL ? 0 : strlen(texts[i]);
    }
    if (read_steps(names, or_default(config->priority_steps, DEFAULT_STEPS), err) < 0) {
        return -1;
    }
    if (pc_buf_reserve(&names->memory, size, err) == NULL) {
        return -1;
    }
    make_names(names, config, prefix, unacked);
    return 0;
}

void
pc_redis_names_fini(pc_redis_names *names)
{
    if (names != NULL) {
        pc_buf_fini(&names->memory);
    }
}

pc_redis_config
pc_redis_broker_config(const pc_broker_config *config)
{
    return (pc_redis_config){
        .host = config->host,
        .port = config->port,
        .unix_path = config->unix_path,
        .sentinels = config->sentinels,
        .db = config->db,
        .user = config->user,
        .password = config->password,
        .tls = config->tls,
        .client_name = config->client_name,
        .connect_timeout = config->connect_timeout,
        .socket_timeout = config->socket_timeout > 0 ? config->socket_timeout : SOCKET_TIMEOUT,
    };
}

// ---- names ----

int
pc_redis_names_step(const pc_redis_names *names, int priority)
{
    int highest = names->steps[names->nsteps - 1];
    int wanted = priority < 0 ? 0 : priority > highest ? highest : priority;
    int step = names->steps[0];
    for (size_t i = 0; i < names->nsteps && names->steps[i] <= wanted; i++) {
        step = names->steps[i];
    }
    return step;
}

int
pc_redis_put_suffix(const pc_redis_names *names, int step, pc_buf *out, pc_err *err)
{
    if (step == 0) {
        return 0;
    }
    return pc_buf_put_slice(out, names->sep, err) < 0 ? -1 : pc_buf_printf(out, err, "%d", step);
}

int
pc_redis_put_list(const pc_redis_names *names, pc_slice queue, int step, pc_buf *out, pc_err *err)
{
    if (pc_buf_put_slice(out, names->prefix, err) < 0 || pc_buf_put_slice(out, queue, err) < 0) {
        return -1;
    }
    return pc_redis_put_suffix(names, step, out, err);
}

int
pc_redis_put_bindings(const pc_redis_names *names, pc_slice exchange, pc_buf *out, pc_err *err)
{
    if (pc_buf_put_slice(out, names->prefix, err) < 0
        || pc_buf_put_str(out, "_kombu.binding.", err) < 0) {
        return -1;
    }
    return pc_buf_put_slice(out, exchange, err);
}

/* The regular expression that kombu keeps beside the key of a topic binding. */
static int
put_pattern(const char *key, pc_buf *out, pc_err *err)
{
    int rc = pc_buf_put_u8(out, '^', err);
    for (; rc == 0 && *key != '\0'; key++) {
        switch (*key) {
        case '*':
            rc = pc_buf_put_str(out, ".*?[^\\.]", err);
            break;
        case '#':
            rc = pc_buf_put_str(out, ".*?", err);
            break;
        case '.':
            rc = pc_buf_put_str(out, "\\.", err);
            break;
        default:
            rc = pc_buf_put_u8(out, (uint8_t)*key, err);
            break;
        }
    }
    return rc < 0 ? -1 : pc_buf_put_u8(out, '$', err);
}

int
pc_redis_put_binding(const pc_redis_names *names, const pc_queue *queue, pc_buf *out, pc_err *err)
{
    const char *type = or_default(queue->exchange_type, "direct");
    const char *key = or_default(queue->routing_key, "");
    if (pc_buf_put_str(out, key, err) < 0 || pc_buf_put_slice(out, names->sep, err) < 0
        || (strcmp(type, "topic") == 0 && put_pattern(key, out, err) < 0)
        || pc_buf_put_slice(out, names->sep, err) < 0) {
        return -1;
    }
    return pc_buf_put_str(out, queue->name, err);
}

bool
pc_redis_is_fanout(const pc_queue *queue)
{
    return queue->exchange != NULL && queue->exchange[0] != '\0'
           && strcmp(or_default(queue->exchange_type, "direct"), "fanout") == 0;
}

int
pc_redis_put_channel(const pc_redis_names *names, pc_slice exchange, pc_slice key, pc_buf *out,
                     pc_err *err)
{
    if (pc_buf_put_slice(out, names->channels, err) < 0
        || pc_buf_put_slice(out, exchange, err) < 0) {
        return -1;
    }
    if (names->fanout_plain || key.len == 0) {
        return 0;
    }
    return pc_buf_put_u8(out, '/', err) < 0 ? -1 : pc_buf_put_slice(out, key, err);
}
