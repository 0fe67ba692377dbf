/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/map.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"

#define N 800

/* Entries keep their keys inside, as the users of the map do. */
typedef struct item {
    char key[24];
    bool in;
} item;

static pc_slice
key_of(const item *it)
{
    return pc_slice_str(it->key);
}

static void
name_all(item *items, int n)
{
    for (int i = 0; i < n; i++) {
        snprintf(items[i].key, sizeof items[i].key, "celery-task-%d", i);
    }
}

/* The books of the map, recomputed from the slots. */
static void
check(const pc_map *map)
{
    size_t len = 0, used = 0;
    for (size_t i = 0; i < map->cap; i++) {
        len += map->slots[i].value != NULL;
        used += map->slots[i].value != NULL || map->slots[i].hash != 0;
    }
    PC_ASSERT_INT(map->len, len);
    PC_ASSERT_INT(map->used, used);
    PC_ASSERT(map->cap == 0 || map->used <= map->cap / 4 * 3);
    PC_ASSERT_INT(map->cap & (map->cap - 1), 0);
}

void
test_map_empty(void)
{
    pc_map map;
    size_t pos = 0;
    pc_map_init(&map);
    PC_ASSERT(pc_map_get(&map, pc_slice_str("a")) == NULL);
    PC_ASSERT(pc_map_take(&map, pc_slice_str("a")) == NULL);
    PC_ASSERT(pc_map_next(&map, &pos) == NULL);
    pc_map_fini(&map);
    pc_map_fini(NULL);
}

void
test_map_put_replaces_value_and_key(void)
{
    char first[] = "key", second[] = "key";
    int a = 1, b = 2;
    void *old = &a;
    pc_map map;
    pc_map_init(&map);
    PC_ASSERT_INT(pc_map_put(&map, pc_slice_str(first), &a, &old, NULL), 0);
    PC_ASSERT(old == NULL);
    PC_ASSERT_INT(pc_map_put(&map, pc_slice_str(second), &b, &old, NULL), 0);
    PC_ASSERT(old == &a && map.len == 1);
    memset(first, 'x', sizeof first);  // only the second key is still needed
    PC_ASSERT(pc_map_get(&map, pc_slice_str("key")) == &b);
    PC_ASSERT_INT(pc_map_put(&map, pc_slice_str(second), &a, NULL, NULL), 0);
    PC_ASSERT(pc_map_take(&map, pc_slice_str("key")) == &a);
    PC_ASSERT(pc_map_get(&map, pc_slice_str("key")) == NULL);
    PC_ASSERT_INT(map.len, 0);
    pc_map_fini(&map);
}

/* Keys of all lengths around the hash's word size, also empty and with NULs,
 * each a prefix of the next. */
void
test_map_keys_are_bytes(void)
{
    static const char zeros[70];
    int values[70];
    pc_map map;
    pc_map_init(&map);
    for (size_t len = 0; len < 70; len++) {
        pc_slice key = pc_slice_of(zeros, len);
        PC_ASSERT_INT(pc_map_put(&map, key, &values[len], NULL, NULL), 0);
    }
    PC_ASSERT_INT(map.len, 70);
    for (size_t len = 0; len < 70; len++) {
        PC_ASSERT(pc_map_get(&map, pc_slice_of(zeros, len)) == &values[len]);
    }
    PC_ASSERT(pc_map_get(&map, pc_slice_of(NULL, 0)) == &values[0]);
    pc_map_fini(&map);
}

/* Two maps give one key different hashes: a stranger cannot predict them. */
void
test_map_hash_is_seeded(void)
{
    int value = 0;
    pc_map maps[2];
    uint64_t hashes[2] = {0};
    for (int i = 0; i < 2; i++) {
        size_t pos = 0;
        pc_map_init(&maps[i]);
        PC_ASSERT_INT(
            pc_map_put(&maps[i], pc_slice_str("k"), &value, NULL, NULL), 0);
        PC_ASSERT(pc_map_next(&maps[i], &pos) == &value);
        hashes[i] = maps[i].slots[pos - 1].hash;
    }
    PC_ASSERT(maps[0].seed != maps[1].seed && hashes[0] != hashes[1]);
    pc_map_fini(&maps[0]);
    pc_map_fini(&maps[1]);
}

void
test_map_iteration_allows_removal(void)
{
    static item items[N];
    pc_map map;
    name_all(items, N);
    pc_map_init(&map);
    for (int i = 0; i < N; i++) {
        PC_ASSERT_INT(
            pc_map_put(&map, key_of(&items[i]), &items[i], NULL, NULL), 0);
    }
    size_t pos = 0, seen = 0;
    for (item *it; (it = pc_map_next(&map, &pos)) != NULL; seen++) {
        PC_ASSERT(!it->in, "%s came twice", it->key);
        it->in = true;
        if (seen % 3 != 0) {
            PC_ASSERT(pc_map_take(&map, key_of(it)) == it);
        }
    }
    PC_ASSERT_INT(seen, N);
    PC_ASSERT_INT(map.len, (N + 2) / 3);
    check(&map);
    pc_map_fini(&map);
}

/* Entries that come and go must not make the table grow. */
void
test_map_churn_stays_small(void)
{
    static item items[5000];
    pc_map map;
    name_all(items, 5000);
    pc_map_init(&map);
    for (int i = 0; i < 5000; i++) {
        PC_ASSERT_INT(
            pc_map_put(&map, key_of(&items[i]), &items[i], NULL, NULL), 0);
        if (i >= 10) {
            item *gone = &items[i - 10];
            PC_ASSERT(pc_map_take(&map, key_of(gone)) == gone);
        }
    }
    PC_ASSERT_INT(map.len, 10);
    PC_ASSERT(map.cap <= 64, "capacity %zu", map.cap);
    check(&map);
    pc_map_fini(&map);
}

static size_t
count_by_iterating(const pc_map *map)
{
    size_t pos = 0, n = 0;
    for (item *it; (it = pc_map_next(map, &pos)) != NULL; n++) {
        PC_ASSERT(it->in, "%s should be gone", it->key);
    }
    return n;
}

/* One random step on one item, the answer compared with its flag. */
static void
step(pc_map *map, item *it, int what)
{
    void *old = NULL;
    if (what < 4) {
        PC_ASSERT_INT(pc_map_put(map, key_of(it), it, &old, NULL), 0);
        PC_ASSERT(old == (it->in ? it : NULL));
        it->in = true;
    } else if (what < 8) {
        PC_ASSERT(pc_map_take(map, key_of(it)) == (it->in ? it : NULL));
        it->in = false;
    } else {
        PC_ASSERT(pc_map_get(map, key_of(it)) == (it->in ? it : NULL));
    }
}

void
test_map_random_against_flags(void)
{
    static item items[N];
    unsigned seed = 1971;
    pc_map map;
    name_all(items, N);
    pc_map_init(&map);
    for (int round = 0; round < 60000; round++) {
        // waves: a few items for a while, then all of them
        int range = round / 4000 % 2 ? N : 20;
        step(&map, &items[rand_r(&seed) % range], rand_r(&seed) % 10);
        if (round % 50 == 0) {
            PC_ASSERT_INT(count_by_iterating(&map), map.len);
            check(&map);
        }
    }
    for (int i = 0; i < N; i++) {
        PC_ASSERT(pc_map_get(&map, key_of(&items[i]))
                  == (items[i].in ? &items[i] : NULL));
    }
    pc_map_fini(&map);
}

/* Similar keys must spread: no run of neighbours much longer than chance. */
void
test_map_similar_keys_spread(void)
{
    static item items[N];
    pc_map map;
    name_all(items, N);
    pc_map_init(&map);
    for (int i = 0; i < N; i++) {
        PC_ASSERT_INT(
            pc_map_put(&map, key_of(&items[i]), &items[i], NULL, NULL), 0);
    }
    size_t run = 0, longest = 0;
    for (size_t i = 0; i < map.cap; i++) {
        run = map.slots[i].value != NULL ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    PC_ASSERT(longest < 100, "%zu of %zu in a row", longest, map.cap);
    pc_map_fini(&map);
}

static int
put_many(void *arg)
{
    item *items = arg;
    pc_err err = {0};
    pc_map map;
    pc_map_init(&map);
    int rc = 0;
    for (int i = 0; i < 100 && rc == 0; i++) {
        rc = pc_map_put(&map, key_of(&items[i]), &items[i], NULL, &err);
        PC_ASSERT(rc == 0 || err.code == PC_ENOMEM);
        PC_ASSERT_INT(map.len, rc == 0 ? i + 1 : i);
        PC_ASSERT(i == 0 || pc_map_get(&map, key_of(&items[0])) == items);
        check(&map);
    }
    pc_map_fini(&map);
    return rc;
}

void
test_map_survives_failing_allocations(void)
{
    static item items[100];
    name_all(items, 100);
    PC_ASSERT(PC_OOM(put_many, items) >= 4);
}

void
bench_map_get_36_byte_key_of_10000(long n)
{
    char (*keys)[40] = pc_zalloc(10000 * sizeof *keys);
    pc_map map;
    pc_map_init(&map);
    for (int i = 0; i < 10000; i++) {
        snprintf(keys[i], sizeof *keys, "4bd9d1f6-89bd-4d82-92f5-%012d", i);
        PC_ASSERT_INT(
            pc_map_put(&map, pc_slice_str(keys[i]), keys[i], NULL, NULL), 0);
    }
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        PC_ASSERT(pc_map_get(&map, pc_slice_of(keys[i % 10000], 36)) != NULL);
    }
    pc_map_fini(&map);
    pc_free(keys);
}
