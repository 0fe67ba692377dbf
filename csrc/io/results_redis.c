/* SPDX-License-Identifier: BSD-3-Clause */
/* A program's side of the Redis result store: a client for commands and an inbox for waiting,
 * both of which any thread may use. */
#include "base/list.h"
#include "base/mem.h"
#include "io/redis_client.h"
#include "io/redis_inbox.h"
#include "io/redis_meta.h"

typedef struct redis_results {
    pc_results base;
    pc_redis_client *client;
    pc_redis_inbox *inbox;
    pc_buf prefix;
    char ttl_text[PC_REDIS_TTL_MAX];
    pc_slice ttl;
} redis_results;

static redis_results *
results_of(pc_results *base)
{
    return PC_CONTAINER_OF(base, redis_results, base);
}

static int
make_key(const redis_results *results, pc_slice id, pc_buf *key, pc_err *err)
{
    if (pc_buf_put_slice(key, pc_buf_slice(&results->prefix), err) < 0) {
        return -1;
    }
    return pc_buf_put_slice(key, id, err);
}

static int
results_watch(pc_results *base, pc_slice id, pc_err *err)
{
    return pc_redis_inbox_watch(results_of(base)->inbox, id, err);
}

static int
results_watch_many(pc_results *base, const pc_slice *ids, size_t n, pc_err *err)
{
    return pc_redis_inbox_watch_many(results_of(base)->inbox, ids, n, err);
}

static int
results_news(pc_results *base, uint64_t *seen, pc_mono deadline, bool *eintr, pc_err *err)
{
    return pc_redis_inbox_news(results_of(base)->inbox, seen, deadline, eintr, err);
}

static int
results_wait(pc_results *base, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr,
             pc_err *err)
{
    return pc_redis_inbox_wait(results_of(base)->inbox, id, out, deadline, eintr, err);
}

static void
results_unwatch(pc_results *base, pc_slice id)
{
    pc_redis_inbox_unwatch(results_of(base)->inbox, id);
}

static int
results_set(pc_results *base, const pc_store_item *item, pc_mono deadline, pc_err *err)
{
    redis_results *results = results_of(base);
    pc_redis_meta_put put;
    pc_redis_cmd eval = {PC_REDIS_META_ARGS, put.argv};
    pc_buf key;
    pc_buf_init(&key);
    int rc = pc_redis_meta_check_size(item->document, err);
    if (rc == 0) {
        rc = make_key(results, item->id, &key, err);
    }
    if (rc == 0) {
        pc_redis_meta_put_init(&put, false, pc_buf_slice(&key), item->document, results->ttl);
        rc = pc_redis_client_run(results->client, &eval, 1, 0, NULL, deadline, NULL, err);
    }
    pc_buf_fini(&key);
    return rc;
}

static int
results_get(pc_results *base, pc_slice id, pc_buf *out, bool *found, pc_mono deadline,
            pc_err *err)
{
    redis_results *results = results_of(base);
    pc_reply *answer = NULL;
    pc_buf key;
    pc_buf_init(&key);
    *found = false;
    int rc = make_key(results, id, &key, err);
    if (rc == 0) {
        rc = pc_redis_client_get(results->client, pc_buf_slice(&key), &answer, deadline, NULL, err);
    }
    if (rc == 0 && answer->children[0]->type == PC_REPLY_STRING) {
        *found = true;
        rc = pc_buf_put_slice(out, answer->children[0]->text, err);
    }
    pc_reply_free(answer);
    pc_buf_fini(&key);
    return rc;
}

static int
results_forget(pc_results *base, pc_slice id, pc_mono deadline, pc_err *err)
{
    redis_results *results = results_of(base);
    pc_buf key;
    pc_buf_init(&key);
    results_unwatch(base, id);
    int rc = make_key(results, id, &key, err);
    if (rc == 0) {
        pc_slice argv[] = {pc_slice_str("DEL"), pc_buf_slice(&key)};
        pc_redis_cmd del = {2, argv};
        rc = pc_redis_client_run(results->client, &del, 1, 0, NULL, deadline, NULL, err);
    }
    pc_buf_fini(&key);
    return rc;
}

static void
results_abandon(pc_results *base)
{
    redis_results *results = results_of(base);
    pc_redis_inbox_abandon(results->inbox);
    pc_redis_client_abandon(results->client);
}

static void
free_results(redis_results *results)
{
    if (results != NULL) {
        pc_redis_inbox_free(results->inbox);
        pc_redis_client_free(results->client);
        pc_buf_fini(&results->prefix);
        pc_free(results);
    }
}

static void
results_destroy(pc_results *base)
{
    if (base != NULL) {
        free_results(results_of(base));
    }
}

static int
prepare(redis_results *results, const pc_store_config *config, pc_err *err)
{
    pc_redis_config redis = pc_redis_meta_config(config);
    results->ttl = pc_redis_meta_ttl(config->expires, results->ttl_text);
    if (pc_redis_meta_prefix(config->key_prefix, &results->prefix, err) < 0) {
        return -1;
    }
    results->client = pc_redis_client_new(&redis, err);
    if (results->client == NULL) {
        return -1;
    }
    results->inbox =
        pc_redis_inbox_new(&redis, results->client, pc_buf_slice(&results->prefix), err);
    return results->inbox == NULL ? -1 : 0;
}

static pc_results *
results_create(const pc_store_config *config, const pc_log *log, pc_err *err)
{
    redis_results *results = pc_zalloc(sizeof *results);
    if (results == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    results->base = (pc_results){.ops = &pc_results_redis, .log = log};
    if (prepare(results, config, err) < 0) {
        free_results(results);
        return NULL;
    }
    return &results->base;
}

const pc_results_ops pc_results_redis = {
    .scheme = "redis",
    .create = results_create,
    .set = results_set,
    .get = results_get,
    .watch = results_watch,
    .watch_many = results_watch_many,
    .news = results_news,
    .wait = results_wait,
    .unwatch = results_unwatch,
    .forget = results_forget,
    .abandon = results_abandon,
    .destroy = results_destroy,
};
