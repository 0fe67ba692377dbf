/* SPDX-License-Identifier: BSD-3-Clause */
/* Result stores, in two roles: the worker's (asynchronous, pipelined, on the
 * worker's loop) and a program's (blocking, any thread). Documents are opaque bytes. */
#ifndef PC_IO_STORE_H
#define PC_IO_STORE_H

#include "io/broker.h"
#include "io/loop.h"
#include "wire/result.h"

typedef struct pc_store_config {
    const char *scheme;  // "redis", "rpc", "sqlite", "memory"
    // redis
    const char *host;
    int port;
    const char *unix_path;
    const struct pc_redis_sentinels *sentinels;  // who know host and port (redis_config.h); NULL: nobody
    int db;
    const char *user;
    const char *password;
    const pc_tls_config *tls;
    const char *key_prefix;    // global_keyprefix, "" when none
    double connect_timeout;
    double socket_timeout;     // seconds without an answer before the connection counts as dead
    double expires;            // seconds, 0: never
    // sqlite: path; rpc: the broker; redis, the worker's side: a broker of that kind if results are messages to reply queues
    const char *path;
    const pc_broker_config *broker;
    bool persistent;           // rpc: delivery_mode 2
    const char *reply_queue;   // rpc results: our queue's name
    struct pc_hub *hub;        // memory
} pc_store_config;

typedef struct pc_store_item {
    pc_slice id;
    pc_state state;            // PC_STATE_COUNT: custom
    pc_slice document;
    pc_slice content_type;     // rpc
    pc_slice content_encoding; // rpc
    pc_slice reply_to;         // rpc: nothing is sent when absent or empty
    pc_slice correlation_id;   // rpc
} pc_store_item;

/* --- the worker's side --- */
typedef struct pc_store_hooks {
    /* The item given with `cookie` is stored (why NULL), or can't ever be (too large, refused). Lost connections
     * are not reported here: the driver reconnects with backoff and writes again. */
    void (*stored)(void *ctx, void *cookie, const pc_err *why);
    /* For one log line each. */
    void (*down)(void *ctx, const pc_err *why);
    void (*up)(void *ctx);
    void *ctx;
} pc_store_hooks;

typedef struct pc_store pc_store;

typedef struct pc_store_ops {
    const char *scheme;
    pc_store *(*create)(const pc_store_config *config, pc_loop *loop,
                        const pc_store_hooks *hooks, const pc_log *log, pc_err *err);
    /* Copies the item; stored() follows later, in order of the puts, never from inside put(). A state other than SUCCESS never replaces SUCCESS. */
    int (*put)(pc_store *store, const pc_store_item *item, void *cookie, pc_err *err);
    /* Items not yet answered. */
    size_t (*pending)(const pc_store *store);
    void (*abandon)(pc_store *store);  // in a forked child
    void (*destroy)(pc_store *store);
} pc_store_ops;

struct pc_store {
    const pc_store_ops *ops;
    pc_store_hooks hooks;
    const pc_log *log;
};

/* --- a program's side: any thread, blocking --- */
typedef struct pc_results pc_results;

typedef struct pc_results_ops {
    const char *scheme;
    pc_results *(*create)(const pc_store_config *config, const pc_log *log, pc_err *err);
    /* Writes a document; as put(). */
    int (*set)(pc_results *results, const pc_store_item *item, pc_mono deadline, pc_err *err);
    /* Appends the document to `out`; *found tells. */
    int (*get)(pc_results *results, pc_slice id, pc_buf *out, bool *found, pc_mono deadline, pc_err *err);
    /* Announces interest in an id before its task is sent. Never waits for an answer; with no connection it still succeeds (wait() reads again). */
    int (*watch)(pc_results *results, pc_slice id, pc_err *err);
    /* Waits for the next document of a watched id (watches it if needed) that was published since the last call for
     * that id; the first call also reads what is stored. 0 with the document in `out`; -1 PC_ETIMEOUT at the deadline; -1 PC_ESTATE and *eintr when
     * a signal arrived (the caller runs its handlers and calls again). Survives reconnects: reads again. */
    int (*wait)(pc_results *results, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err);
    /* May be NULL. As watch() for each, with as few writes as possible. */
    int (*watch_many)(pc_results *results, const pc_slice *ids, size_t n, pc_err *err);
    /* May be NULL. Waits until anything has happened to any watched id since *seen (0 at first: returns at once),
     * and sets *seen. It tells neither what nor to which: then is the time to get() those of interest. Errors as wait(). */
    int (*news)(pc_results *results, uint64_t *seen, pc_mono deadline, bool *eintr, pc_err *err);
    /* Ends interest. */
    void (*unwatch)(pc_results *results, pc_slice id);
    int (*forget)(pc_results *results, pc_slice id, pc_mono deadline, pc_err *err);
    void (*abandon)(pc_results *results);
    void (*destroy)(pc_results *results);
} pc_results_ops;

struct pc_results {
    const pc_results_ops *ops;
    const pc_log *log;
};

const pc_store_ops *pc_store_find(const char *scheme);
const pc_results_ops *pc_results_find(const char *scheme);

extern const pc_store_ops pc_store_redis;
extern const pc_store_ops pc_store_rpc;
extern const pc_store_ops pc_store_sqlite;
extern const pc_store_ops pc_store_memory;
extern const pc_results_ops pc_results_redis;
extern const pc_results_ops pc_results_rpc;
extern const pc_results_ops pc_results_sqlite;
extern const pc_results_ops pc_results_memory;

#endif
