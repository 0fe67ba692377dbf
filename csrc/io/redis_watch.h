/* SPDX-License-Identifier: BSD-3-Clause */
/* One result a program is interested in: where its subscription stands and the documents it
 * has not read yet. Touched with the pump's lock held; in the map of results_redis.c under its
 * key. */
#ifndef PC_IO_REDIS_WATCH_H
#define PC_IO_REDIS_WATCH_H

#include "base/buf.h"
#include "base/list.h"

/* Unread documents kept for one result; the oldest go first. */
#define PC_REDIS_WATCH_MAX 1000

typedef struct pc_redis_doc {
    pc_link link;
    pc_slice text;  // the bytes behind
} pc_redis_doc;

typedef struct pc_redis_watch {
    pc_link leaving;      // in the list of those to be unsubscribed
    pc_slice key;         // and channel; the bytes behind
    unsigned waiters;     // threads inside wait()
    bool sent;            // SUBSCRIBE was sent on this connection
    bool confirmed;       // and answered: no message is missed from here on
    bool read;            // since then the stored document was read, or a message came
    bool reading;         // a thread does that now
    bool ended;           // a ready state was handed out, or interest ended
    // --
    pc_link docs;
    size_t ndocs;
    uint64_t handed;      // documents handed out so far
    pc_redis_doc *last;   // handed out last
} pc_redis_watch;

pc_redis_watch *pc_redis_watch_new(pc_slice prefix, pc_slice id, pc_err *err);
void pc_redis_watch_free(pc_redis_watch *watch);
/* Appends a document unless it equals the one before. */
int pc_redis_watch_put(pc_redis_watch *watch, pc_slice text, pc_err *err);
/* The next document for a waiter that came when `handed` were handed out: the oldest unread
 * one, or the last one when another waiter has taken it meanwhile; absent when there is none.
 * Lent until put, drop or clear. */
pc_slice pc_redis_watch_peek(const pc_redis_watch *watch, uint64_t handed);
/* The oldest unread document was handed out. */
void pc_redis_watch_drop(pc_redis_watch *watch);
bool pc_redis_watch_has(const pc_redis_watch *watch, uint64_t handed);
/* Drops all documents, also the memory of the last one. */
void pc_redis_watch_clear(pc_redis_watch *watch);

#endif
