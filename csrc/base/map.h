/* SPDX-License-Identifier: BSD-3-Clause */
/* Hash map from bytes to a pointer. Keys are borrowed: they must live and stay
 * unchanged as long as the entry does (usually they are inside the value). The
 * hash is seeded per map, since keys may come from strangers. Open addressing. */
#ifndef PC_BASE_MAP_H
#define PC_BASE_MAP_H

#include "base/buf.h"
#include "base/err.h"

typedef struct pc_map_entry {
    pc_slice key;
    uint64_t hash;
    void *value;  // NULL: free or deleted slot
} pc_map_entry;

typedef struct pc_map {
    pc_map_entry *slots;
    size_t cap;   // power of two, or 0
    size_t len;   // live entries
    size_t used;  // live and deleted
    uint64_t seed;
} pc_map;

void pc_map_init(pc_map *map);
void pc_map_fini(pc_map *map);
/* Sets key to value (not NULL); a present key keeps its old key bytes replaced by
 * the new ones. *old (may be NULL) receives the value that was there, or NULL. */
int pc_map_put(pc_map *map, pc_slice key, void *value, void **old,
               pc_err *err);
void *pc_map_get(const pc_map *map, pc_slice key);
/* Removes and returns the value, NULL when the key is unknown. */
void *pc_map_take(pc_map *map, pc_slice key);
/* Iterates: start with *pos = 0; NULL at the end. Removing the entry just
 * returned is allowed, adding is not. */
void *pc_map_next(const pc_map *map, size_t *pos);

#endif
