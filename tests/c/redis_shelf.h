/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of a result store on Redis, with what it has answered. */
#ifndef PC_TESTS_REDIS_SHELF_H
#define PC_TESTS_REDIS_SHELF_H

#include "io/broker.h"
#include "redis_rig.h"

typedef struct redis_shelf {
    pc_store_config config;  // of redis_rig_config(), before open()
    pc_broker_config broker; // for the test's use
    pc_loop *loop;
    pc_store *store;
    size_t put;
    size_t stored;  // answers, which come in the order of the puts
    size_t refused;
    pc_err why;   // of the last refused
    int downs;
    int ups;
    pc_err down;  // why, the last time
} redis_shelf;

pc_store_hooks redis_shelf_hooks(redis_shelf *shelf);
void redis_shelf_open(redis_shelf *shelf);
void redis_shelf_close(redis_shelf *shelf);
int redis_shelf_put(redis_shelf *shelf, const pc_store_item *item, pc_err *err);
/* Turns the loop until all are answered. */
void redis_shelf_settle(redis_shelf *shelf, double seconds);

#endif
