/* SPDX-License-Identifier: BSD-3-Clause */
/* The two sides of a message broker, as the worker machine (source) and a publishing program (producer) see
 * them. Implementations export one const table each and have no header of their own; the scheme table is broker.c. */
#ifndef PC_IO_BROKER_H
#define PC_IO_BROKER_H

#include "base/log.h"
#include "io/loop.h"
#include "io/minder.h"
#include "io/tls.h"
#include "wire/message.h"

/* A queue as kombu's Queue describes it, with the exchange it is bound to. Tables are AMQP tables without length; absent: empty.
 * Drivers without such a notion ignore what does not apply. */
typedef struct pc_queue {
    const char *name;           // "": declare() declares the exchange alone
    const char *exchange;       // "" or NULL: default exchange, nothing declared or bound
    const char *exchange_type;  // direct, topic, fanout, headers
    const char *routing_key;
    bool durable;
    bool exclusive;
    bool auto_delete;
    bool no_ack;
    bool no_declare;
    bool exchange_durable;
    bool exchange_auto_delete;
    bool passive;
    pc_slice queue_arguments;
    pc_slice exchange_arguments;
    pc_slice binding_arguments;
    pc_slice consumer_arguments;
} pc_queue;

/* Where and how to connect. Strings are copied by new(). */
typedef struct pc_broker_config {
    const char *scheme;  // "amqp", "redis", "sqlite", "memory"
    const char *host;
    int port;
    const char *vhost;   // sqlite: path of the database file
    const char *user;
    const char *password;
    const char *login_method;  // PLAIN, AMQPLAIN, EXTERNAL; NULL: PLAIN
    const pc_tls_config *tls;  // NULL: plain; deep-copied
    double heartbeat;          // seconds asked for, 0: off
    double connect_timeout;    // seconds
    const char *client_name;   // shown by the broker's management
    // producers
    double publish_timeout;    // seconds a publish may wait for room, for the connection or a confirm
    int window;                // most unconfirmed messages, 0: default
    int confirm;               // 0 fire and forget, 1 pipelined confirms, 2 wait for each
    // sqlite
    int synchronous;           // 0 OFF, 1 NORMAL, 2 FULL
    // redis; what is NULL or 0 has kombu's default
    const char *unix_path;       // instead of host and port
    const struct pc_redis_sentinels *sentinels;  // who know host and port (redis_config.h); NULL: nobody
    int db;
    double socket_timeout;       // seconds to wait for a due answer
    double visibility_timeout;   // seconds after which what a dead Celery worker took comes back
    double lease;                // seconds a worker of ours may be silent before others ask for it
    bool stalls;                 // tasks run in the loop's thread (solo): it may be silent for long
    const char *key_prefix;      // global_keyprefix
    const char *sep;             // between queue and priority, and in bindings
    const char *priority_steps;  // "0,3,6,9"
    const char *queue_order;     // round_robin, priority, sorted
    const char *unacked_key;
    const char *unacked_index_key;
    const char *unacked_mutex_key;
    const char *fanout_prefix;   // of channels: "/{db}.", "" for none
    bool fanout_plain;           // channels without the routing key
    // producers
    /* Asked when a signal arrives while a producer waits, and now and then, without its locks; may take long, and may call the
     * same producer. Not 0: the wait ends with PC_ESTATE. NULL: nobody is asked. */
    int (*interrupted)(void);
    // memory
    struct pc_hub *hub;        // the process's in-memory broker; borrowed
    // a source that the owner brings along, instead of the scheme's driver
    const struct pc_source_ops *source;
    void *source_ctx;          // borrowed
} pc_broker_config;

/* --- source: the worker's side, everything on one loop --- */

typedef enum pc_settle { PC_ACK, PC_REJECT, PC_REQUEUE } pc_settle;

typedef struct pc_source_hooks {
    /* A delivery; the message is lent. It must be settled (or be void after down()). */
    void (*message)(void *ctx, const pc_message *message);
    /* Connected, declared, consuming. */
    void (*up)(void *ctx);
    /* The connection is lost or was refused: all tags are void. The owner decides whether and when to call connect() again. */
    void (*down)(void *ctx, const pc_err *why);
    /* The broker stopped this consumer (queue deleted, failover). The owner may add the queue again. */
    void (*cancelled)(void *ctx, const char *queue);
    void *ctx;
    /* What look() has found out. NULL: look() is not called. */
    void (*depth)(void *ctx, const char *queue, uint64_t messages);
    /* So much of what park() refused for now would be taken: it may be given back. Returns how many messages were; if
     * all, it is asked again. NULL: nobody is told. */
    size_t (*parking)(void *ctx, size_t most);
    /* A queue that was added while others were consumed is refused by the broker, and forgotten; if that cost the others their
     * connection, down() follows. NULL: nobody is told. */
    void (*refused)(void *ctx, const char *queue, const pc_err *why);
} pc_source_hooks;

typedef struct pc_source pc_source;  // implementations embed it as their first member

typedef struct pc_source_ops {
    const char *scheme;
    pc_source *(*create)(const pc_broker_config *config, pc_loop *loop,
                         const pc_source_hooks *hooks, const pc_log *log,
                         pc_err *err);
    /* From the next connect() on, another broker of the same kind; or NULL: this driver cannot. */
    int (*redirect)(pc_source *source, const pc_broker_config *config, pc_err *err);
    /* Starts to connect; up() or down() follows (maybe from inside the call's turn, never from inside the call). */
    int (*connect)(pc_source *source, pc_err *err);
    /* Consume this queue: declared and bound first. Kept over reconnects. Before connect() or while up. */
    int (*add_queue)(pc_source *source, const pc_queue *queue, pc_err *err);
    int (*drop_queue)(pc_source *source, const char *name, pc_err *err);
    /* Most unsettled deliveries wanted from now on, 0: no limit. May be called at any time, cheap. */
    int (*prefetch)(pc_source *source, unsigned count, pc_err *err);
    /* Settles one delivery; leaves at the end of the turn, adjoining acks as one. With a tag of a lost connection PC_REQUEUE does
     * nothing, others at most this: a driver that can sees to it that the message does not come to us again. */
    int (*settle)(pc_source *source, uint64_t tag, pc_settle how, pc_err *err);
    /* Only from inside message(), and may be NULL: the broker keeps the message and delivers it again when most of
     * the delay has passed; the driver settles it. -1: it can't (PC_ENOTFOUND), or not now. */
    int (*park)(pc_source *source, const pc_message *message, int64_t delay_ns, pc_err *err);
    /* Asks how many messages wait in each queue that is consumed; depth() is told soon, or not at all. NULL: this
     * driver cannot say. While up. */
    void (*look)(pc_source *source);
    /* No more deliveries from now on (basic.cancel); settling goes on. */
    int (*pause)(pc_source *source, pc_err *err);
    /* Settled things flushed, unsettled ones given back, connection closed in order; at most until `deadline`
     * (turns the loop itself if it must). */
    int (*close)(pc_source *source, pc_mono deadline, pc_err *err);
    /* In a forked child: closes descriptors, speaks no protocol. */
    void (*abandon)(pc_source *source);
    void (*destroy)(pc_source *source);
} pc_source_ops;

struct pc_source {
    const pc_source_ops *ops;
    pc_source_hooks hooks;
    const pc_log *log;
    bool global_qos;   // prefetch can be changed while consuming
    unsigned busy;     // counts as unsettled: tasks that run, their messages settled; redis, sqlite
    int version_major; // broker's, 0 when unknown
    bool refused;      // the connection was lost because the broker refuses a queue of ours; amqp
};

/* --- producer: a publishing program's side; every function may be called from any thread and blocks at most until its deadline --- */

typedef struct pc_producer pc_producer;

/* One message of many. */
typedef struct pc_outgoing {
    pc_message message;
    bool mandatory;
    bool has_due;
    pc_wall due;
} pc_outgoing;

typedef struct pc_producer_ops {
    const char *scheme;
    pc_headers_kind headers_kind;  // what publish() wants message->headers to be
    pc_producer *(*create)(const pc_broker_config *config, const pc_log *log,
                           pc_err *err);
    /* Connects if needed. PC_EIO, PC_EAUTH, PC_ETIMEOUT. */
    int (*connect)(pc_producer *producer, pc_mono deadline, pc_err *err);
    /* Takes the message over (copies) and returns as `confirm` says. When it returned 0 and confirm >= 1 the message is
     * sent again after a reconnect until the broker confirms it. PC_EFULL/PC_ETIMEOUT: window full or broker blocked until
     * the deadline; PC_EIO: no connection until the deadline; the message was not and will not be sent then.
     * `due`: not to be delivered before (drivers that can; others leave it to the worker). */
    int (*publish)(pc_producer *producer, const pc_message *message, bool mandatory,
                   pc_wall due, bool has_due, pc_mono deadline, pc_err *err);
    /* May be NULL; pc_publish_many() serves all drivers. As publish() for each in order, with as few writes
     * or transactions as the driver can. *done, also after a failure: so many from the front were taken over; the
     * others were not and will not be sent. */
    int (*publish_many)(pc_producer *producer, const pc_outgoing *messages, size_t n, pc_mono deadline,
                        size_t *done, pc_err *err);
    /* All confirmed, or -1. */
    int (*flush)(pc_producer *producer, pc_mono deadline, pc_err *err);
    size_t (*unconfirmed)(pc_producer *producer);
    /* May be NULL. Takes what the broker has answered, without waiting: -1 when nothing is unconfirmed (any more), else a
     * descriptor for poll(): readable when there may be more. A lost connection wants a call ten times a second, too. */
    int (*confirming)(pc_producer *producer);
    /* Declares exchange, queue and binding; remembered, so that a second call for the same queue on the same connection costs nothing. */
    int (*declare)(pc_producer *producer, const pc_queue *queue, pc_mono deadline, pc_err *err);
    /* Messages ready in the queue, and consumers. PC_ENOTFOUND. */
    int (*size)(pc_producer *producer, const char *queue, uint64_t *messages, uint64_t *consumers, pc_mono deadline, pc_err *err);
    int (*purge)(pc_producer *producer, const char *queue, uint64_t *messages, pc_mono deadline, pc_err *err);
    int (*remove)(pc_producer *producer, const char *queue, pc_mono deadline, pc_err *err);
    /* Takes one message, acknowledged. *found = false when empty. `message` points into `memory` (reset first). */
    int (*get)(pc_producer *producer, const char *queue, bool *found, pc_message *message, pc_buf *memory, pc_mono deadline, pc_err *err);
    /* Flushes until the deadline, closes. */
    int (*close)(pc_producer *producer, pc_mono deadline, pc_err *err);
    /* May be NULL. Sends again what is not confirmed while nobody is inside a call; to be stopped before a fork, and forgotten by abandon(). */
    pc_minder *(*minder)(pc_producer *producer);
    void (*abandon)(pc_producer *producer);  // in a forked child
    void (*destroy)(pc_producer *producer);
} pc_producer_ops;

struct pc_producer {
    const pc_producer_ops *ops;
    const pc_log *log;
};

/* NULL when the scheme has no C driver. */
const pc_source_ops *pc_source_find(const char *scheme);
const pc_producer_ops *pc_producer_find(const char *scheme);

extern const pc_source_ops pc_source_amqp;
extern const pc_source_ops pc_source_redis;
extern const pc_source_ops pc_source_sqlite;
extern const pc_source_ops pc_source_memory;
extern const pc_producer_ops pc_producer_amqp;
extern const pc_producer_ops pc_producer_redis;
extern const pc_producer_ops pc_producer_sqlite;
extern const pc_producer_ops pc_producer_memory;

/* The in-memory broker and result store of one process, shared by its threads. */
typedef struct pc_hub pc_hub;
pc_hub *pc_hub_new(pc_err *err);
void pc_hub_free(pc_hub *hub);

#endif
