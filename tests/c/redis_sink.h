/* SPDX-License-Identifier: BSD-3-Clause */
/* A consumer and a producer on a Redis broker, for tests: all keys have the unique prefix of redis_rig.h,
 * so that redis_rig_clean leaves nothing. */
#ifndef PC_TESTS_REDIS_SINK_H
#define PC_TESTS_REDIS_SINK_H

#include "io/broker.h"
#include "redis_rig.h"

#define REDIS_SINK_MAX 5000

typedef struct redis_sink {
    pc_loop *loop;
    pc_source *source;
    int ups;
    int downs;
    int count;
    int redelivered;
    int logged;  // lines of a warning or worse
    char log[300];  // the last
    bool hold;   // else acknowledged at once
    pc_err why;
    int depths;  // how often look() was answered
    uint64_t depth;  // the last answer
    uint64_t tags[REDIS_SINK_MAX];
    char bodies[REDIS_SINK_MAX][24];
    pc_log door;
} redis_sink;

pc_broker_config redis_sink_config(const pc_store_config *rig);
redis_sink *redis_sink_new(const pc_broker_config *config);
void redis_sink_connect(redis_sink *sink);
/* Consumes one queue; returns when connected. */
void redis_sink_start(redis_sink *sink, const char *queue, unsigned prefetch);
void redis_sink_add(redis_sink *sink, const char *queue);
void redis_sink_settle(redis_sink *sink, int i, pc_settle how);
/* Closes in order, or as a crash does. */
void redis_sink_end(redis_sink *sink);
void redis_sink_crash(redis_sink *sink);
/* Turns the loop until *value >= want; fails the test after ten seconds. */
void redis_sink_until(redis_sink *sink, const int *value, int want);
void redis_sink_for(redis_sink *sink, double seconds);

/* A server with a producer on it. */
typedef struct redis_world {
    redis_server server;  // pid 0: the common one
    pc_store_config rig;
    pc_broker_config config;
    pc_producer *producer;
} redis_world;

redis_world redis_world_make(bool private);
void redis_world_end(redis_world *world);
/* The answer of a command to one of its keys. */
long long redis_world_int(const redis_world *world, const char *command, const char *key);
/* No key is left. */
void redis_world_expect_empty(const redis_world *world);

pc_producer *redis_sink_producer(const pc_broker_config *config);
/* Bodies "0", "1", … to the list of the queue. */
void redis_sink_publish(pc_producer *producer, const char *exchange, const char *key, int priority,
                        int first, int n);
long redis_sink_size(pc_producer *producer, const char *queue);

#endif
