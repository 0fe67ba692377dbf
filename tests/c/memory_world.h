/* SPDX-License-Identifier: BSD-3-Clause */
/* A hub with a producer, and readers (a source on its own loop that notes what it gets), for the
 * tests of the in-memory broker. */
#ifndef PC_TESTS_MEMORY_WORLD_H
#define PC_TESTS_MEMORY_WORLD_H

#include <stdatomic.h>

#include "io/broker.h"

#define MOST 64

typedef struct reader {
    pc_loop *loop;
    pc_source *source;
    int up;
    int got;
    char bodies[MOST][16];
    uint64_t tags[MOST];
    bool again[MOST];
    bool settle;  // from inside message()
    pc_settle how;
    char cancelled[32];
    atomic_int *total;  // instead of remembering
} reader;

typedef struct world {
    pc_hub *hub;
    pc_producer *producer;
    pc_broker_config config;
} world;

static const pc_mono soon = {0};  // a deadline that has passed

pc_mono in_ms(int ms);
void world_setup(world *w);
void world_teardown(world *w);
pc_source_hooks reader_hooks(reader *r);
void reader_start(reader *r, const world *w, const char *const *queues);
void reader_stop(reader *r);
void reader_turn(reader *r);
int world_publish(const world *w, const char *exchange, const char *key, const char *body,
                  int priority, bool mandatory);
void world_send_each(const world *w, const char *queue, const char *letters);
const char *reader_got(const reader *r);
void reader_settle(const reader *r, int index, pc_settle how);
uint64_t world_ready(const world *w, const char *queue);
void world_declare(const world *w, const char *name, const char *exchange, const char *type,
                   const char *key);

#endif
