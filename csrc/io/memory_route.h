/* SPDX-License-Identifier: BSD-3-Clause */
/* Exchanges and bindings of the in-memory broker: direct, topic and fanout, with AMQP's meaning.
 * Targets are opaque. Not locked: part of the hub, used under its lock. */
#ifndef PC_IO_MEMORY_ROUTE_H
#define PC_IO_MEMORY_ROUTE_H

#include "base/map.h"

typedef struct pc_routes {
    pc_map exchanges;  // name -> exchange
} pc_routes;

void pc_routes_init(pc_routes *routes);
void pc_routes_fini(pc_routes *routes);
/* `type` NULL or "": direct. PC_EUNSUP for another type than ours, PC_ESTATE when it exists with
 * another type. */
int pc_routes_declare(pc_routes *routes, const char *name, const char *type, pc_err *err);
/* Binding twice is one. PC_ENOTFOUND: no such exchange. */
int pc_routes_bind(pc_routes *routes, const char *exchange, const char *key, void *target,
                   pc_err *err);
void pc_routes_unbind(pc_routes *routes, const void *target);
/* Calls found() for each binding that matches; a target bound twice may come twice. PC_ENOTFOUND:
 * no such exchange. */
int pc_routes_find(const pc_routes *routes, pc_slice exchange, pc_slice key,
                   void (*found)(void *ctx, void *target), void *ctx, pc_err *err);

/* Words are separated by dots; "*" is one word, "#" any number of them. */
bool pc_topic_match(pc_slice pattern, pc_slice key);

#endif
