/* SPDX-License-Identifier: BSD-3-Clause */
/* Result documents of the in-memory store: id to newest document, with a version that counts
 * writes, and those who wait for a write. Not locked: part of the hub, used under its lock. */
#ifndef PC_IO_MEMORY_DOCS_H
#define PC_IO_MEMORY_DOCS_H

#include "base/clock.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "io/park.h"

typedef struct pc_doc {
    pc_buf text;
    bool found;        // false: never written, forgotten or expired
    bool success;      // final: nothing but another success replaces it
    uint64_t version;  // of the last write; 0: none yet
    // --
    unsigned refs;    // kept while somebody watches, written or not
    pc_link waiters;  // of pc_doc_waiter
    pc_heap_node expiry;
    size_t id_len;
    char id[];
} pc_doc;

/* On the stack of a thread that waits for the next write. */
typedef struct pc_doc_waiter {
    pc_link link;
    pc_park park;
} pc_doc_waiter;

typedef struct pc_docs {
    pc_map docs;
    pc_heap expiries;
} pc_docs;

void pc_docs_init(pc_docs *docs);
void pc_docs_fini(pc_docs *docs);
/* Writes and wakes the waiters; dropped silently when a success is there already. Also throws out
 * what has expired. `expires`: PC_MONO_NEVER to keep it for good. */
int pc_docs_put(pc_docs *docs, pc_slice id, pc_slice text, bool success, pc_mono expires,
                pc_mono now, pc_err *err);
/* NULL when there is none; lent until the next call. */
pc_doc *pc_docs_get(pc_docs *docs, pc_slice id, pc_mono now);
void pc_docs_forget(pc_docs *docs, pc_slice id);
/* The entry, made when there is none, kept until unref. */
pc_doc *pc_docs_ref(pc_docs *docs, pc_slice id, pc_err *err);
void pc_docs_unref(pc_docs *docs, pc_doc *doc);
/* Drops the text when its time has come. */
void pc_docs_expire(pc_docs *docs, pc_mono now);

#endif
