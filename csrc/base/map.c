/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/map.h"

#include <assert.h>

#include "base/mem.h"
#include "base/uuid.h"

#define MIN_CAP 16
#define NONE SIZE_MAX

/* What entry.hash tells when entry.value is NULL. A zeroed slot is free. */
enum { FREE = 0, DELETED = 1 };

/* SipHash-1-3: a keyed hash, since a stranger who can choose task ids and can
 * predict the hash could make every lookup linear. */
typedef struct sip {
    uint64_t a, b, c, d;
} sip;

static uint64_t
rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void
sip_round(sip *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = rotl(s->b, 13) ^ s->a;
    s->d = rotl(s->d, 16) ^ s->c;
    s->a = rotl(s->a, 32) + s->d;
    s->c += s->b;
    s->d = rotl(s->d, 21) ^ s->a;
    s->b = rotl(s->b, 17) ^ s->c;
    s->c = rotl(s->c, 32);
}

static void
sip_word(sip *s, uint64_t word)
{
    s->d ^= word;
    sip_round(s);
    s->a ^= word;
}

/* The second half of the key comes from the one 64-bit seed by an odd
 * multiplication; byte order of the words is the machine's, as hashes never
 * leave the process. */
static uint64_t
hash_of(uint64_t seed, pc_slice key)
{
    uint64_t seed2 = rotl(seed, 29) * UINT64_C(0x9e3779b97f4a7c15);
    sip s = {seed ^ UINT64_C(0x736f6d6570736575),
             seed2 ^ UINT64_C(0x646f72616e646f6d),
             seed ^ UINT64_C(0x6c7967656e657261),
             seed2 ^ UINT64_C(0x7465646279746573)};
    uint64_t word = 0;
    size_t at = 0;
    for (; key.len - at >= sizeof word; at += sizeof word) {
        memcpy(&word, key.ptr + at, sizeof word);
        sip_word(&s, word);
    }
    word = 0;
    if (at < key.len) {
        memcpy(&word, key.ptr + at, key.len - at);
    }
    sip_word(&s, word);
    sip_word(&s, key.len);  // apart from the tail: no zero padding ambiguity
    s.c ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}

void
pc_map_init(pc_map *map)
{
    *map = (pc_map){0};
}

void
pc_map_fini(pc_map *map)
{
    if (map != NULL) {
        pc_free(map->slots);
        pc_map_init(map);
    }
}

static bool
is_free(const pc_map_entry *slot)
{
    return slot->value == NULL && slot->hash == FREE;
}

/* Index of the key's slot, or NONE. There is always a free slot to stop at. */
static size_t
find(const pc_map *map, pc_slice key, uint64_t hash)
{
    size_t mask = map->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        const pc_map_entry *slot = &map->slots[i];
        if (is_free(slot)) {
            return NONE;
        }
        if (slot->value != NULL && slot->hash == hash
            && pc_slice_eq(slot->key, key)) {
            return i;
        }
    }
}

/* Puts an entry whose key is not in the map into the first empty slot. */
static void
insert(pc_map *map, pc_map_entry entry)
{
    size_t mask = map->cap - 1;
    size_t i = entry.hash & mask;
    while (map->slots[i].value != NULL) {
        i = (i + 1) & mask;
    }
    map->used += is_free(&map->slots[i]);
    map->len++;
    map->slots[i] = entry;
}

/* A new table at most half full, without the deleted slots. It may be smaller. */
static int
rehash(pc_map *map, pc_err *err)
{
    size_t cap = MIN_CAP;
    while (cap / 2 <= map->len) {
        cap *= 2;
    }
    pc_map next = {.cap = cap, .seed = map->seed};
    if (cap <= SIZE_MAX / sizeof *next.slots) {
        next.slots = pc_zalloc(cap * sizeof *next.slots);
    }
    if (next.slots == NULL) {
        return pc_fail_nomem(err);
    }
    for (size_t i = 0; i < map->cap; i++) {
        if (map->slots[i].value != NULL) {
            insert(&next, map->slots[i]);
        }
    }
    pc_free(map->slots);
    *map = next;
    return 0;
}

/* Room for one more entry, with a quarter of the slots left free. */
static int
make_room(pc_map *map, pc_err *err)
{
    return map->used < map->cap / 4 * 3 ? 0 : rehash(map, err);
}

int
pc_map_put(pc_map *map, pc_slice key, void *value, void **old, pc_err *err)
{
    assert(value != NULL);
    if (old != NULL) {
        *old = NULL;
    }
    if (map->slots == NULL
        && pc_random(&map->seed, sizeof map->seed, err) < 0) {
        return -1;
    }
    uint64_t hash = hash_of(map->seed, key);
    size_t i = map->len == 0 ? NONE : find(map, key, hash);
    if (i != NONE) {
        if (old != NULL) {
            *old = map->slots[i].value;
        }
        map->slots[i].key = key;
        map->slots[i].value = value;
        return 0;
    }
    if (make_room(map, err) < 0) {
        return -1;
    }
    insert(map, (pc_map_entry){key, hash, value});
    return 0;
}

void *
pc_map_get(const pc_map *map, pc_slice key)
{
    if (map->len == 0) {
        return NULL;
    }
    size_t i = find(map, key, hash_of(map->seed, key));
    return i == NONE ? NULL : map->slots[i].value;
}

/* In front of a free slot no deleted mark is needed, nor in the run of marks that
 * ends here: tables where entries come and go seldom need a rehash. */
static void
clear(pc_map *map, size_t i)
{
    size_t mask = map->cap - 1;
    map->slots[i] = (pc_map_entry){.hash = DELETED};
    map->len--;
    if (!is_free(&map->slots[(i + 1) & mask])) {
        return;
    }
    while (map->slots[i].value == NULL && map->slots[i].hash == DELETED) {
        map->slots[i].hash = FREE;
        map->used--;
        i = (i - 1) & mask;
    }
}

void *
pc_map_take(pc_map *map, pc_slice key)
{
    if (map->len == 0) {
        return NULL;
    }
    size_t i = find(map, key, hash_of(map->seed, key));
    if (i == NONE) {
        return NULL;
    }
    void *value = map->slots[i].value;
    clear(map, i);
    return value;
}

void *
pc_map_next(const pc_map *map, size_t *pos)
{
    while (*pos < map->cap) {
        void *value = map->slots[(*pos)++].value;
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}
