/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/memory_route.h"

#include "base/list.h"
#include "base/mem.h"

typedef bool matcher(pc_slice pattern, pc_slice key);

typedef struct exchange {
    matcher *matches;
    pc_link bindings;
    char name[];
} exchange;

typedef struct binding {
    pc_link link;
    void *target;
    size_t key_len;
    char key[];
} binding;

/* --- what matches --- */

static bool
match_any(pc_slice pattern, pc_slice key)
{
    (void)pattern;
    (void)key;
    return true;
}

/* Takes the first word off; a text without a dot is its last word, after which `rest` is absent. */
static pc_slice
first_word(pc_slice text, pc_slice *rest)
{
    const char *dot = memchr(text.ptr, '.', text.len);
    if (dot == NULL) {
        *rest = (pc_slice){NULL, 0};
        return text;
    }
    size_t len = (size_t)(dot - text.ptr);
    *rest = pc_slice_of(dot + 1, text.len - len - 1);
    return pc_slice_of(text.ptr, len);
}

/* Absent means no words left; an empty text is one empty word. Recursion is as deep as the pattern
 * has "#". */
static bool
match_words(pc_slice pattern, pc_slice key)
{
    while (pattern.ptr != NULL) {
        pc_slice word = first_word(pattern, &pattern);
        if (pc_slice_is(word, "#")) {
            while (!match_words(pattern, key)) {
                if (key.ptr == NULL) {
                    return false;
                }
                (void)first_word(key, &key);
            }
            return true;
        }
        if (key.ptr == NULL) {
            return false;
        }
        pc_slice have = first_word(key, &key);
        if (!pc_slice_is(word, "*") && !pc_slice_eq(word, have)) {
            return false;
        }
    }
    return key.ptr == NULL;
}

bool
pc_topic_match(pc_slice pattern, pc_slice key)
{
    // An empty routing key has no words.
    return match_words(pattern.len == 0 ? (pc_slice){NULL, 0} : pattern,
                       key.len == 0 ? (pc_slice){NULL, 0} : key);
}

static matcher *
matcher_of(const char *type)
{
    static const struct {
        const char *type;
        matcher *matches;
    } types[] = {
        {"direct", pc_slice_eq},
        {"topic", pc_topic_match},
        {"fanout", match_any},
    };
    if (type == NULL || type[0] == '\0') {
        return pc_slice_eq;
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].type, type) == 0) {
            return types[i].matches;
        }
    }
    return NULL;
}

/* --- the table --- */

void
pc_routes_init(pc_routes *routes)
{
    pc_map_init(&routes->exchanges);
}

static void
free_exchange(exchange *x)
{
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&x->bindings)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, binding, link));
    }
    pc_free(x);
}

void
pc_routes_fini(pc_routes *routes)
{
    size_t pos = 0;
    exchange *x = NULL;
    while ((x = pc_map_next(&routes->exchanges, &pos)) != NULL) {
        free_exchange(x);
    }
    pc_map_fini(&routes->exchanges);
}

int
pc_routes_declare(pc_routes *routes, const char *name, const char *type, pc_err *err)
{
    matcher *matches = matcher_of(type);
    if (matches == NULL) {
        return pc_fail(err, PC_EUNSUP,
                       "the memory broker has no exchanges of type %s (of "
                       "exchange %s): use direct, topic or fanout",
                       type, name);
    }
    size_t len = strlen(name);
    const exchange *there = pc_map_get(&routes->exchanges, pc_slice_of(name, len));
    if (there != NULL) {
        return there->matches == matches
                   ? 0
                   : pc_fail(err, PC_ESTATE, "exchange %s exists with another type than %s", name,
                             type);
    }
    exchange *x = pc_alloc(sizeof *x + len + 1);
    if (x == NULL) {
        return pc_fail_nomem(err);
    }
    x->matches = matches;
    pc_link_init(&x->bindings);
    memcpy(x->name, name, len + 1);
    if (pc_map_put(&routes->exchanges, pc_slice_of(x->name, len), x, NULL, err) != 0) {
        pc_free(x);
        return -1;
    }
    return 0;
}

static exchange *
find_exchange(const pc_routes *routes, pc_slice name, pc_err *err)
{
    exchange *x = pc_map_get(&routes->exchanges, name);
    if (x == NULL) {
        pc_fail(err, PC_ENOTFOUND, "there is no exchange %.*s: declare a queue on it first",
                (int)name.len, name.ptr);
    }
    return x;
}

static bool
is_bound(const exchange *x, pc_slice key, const void *target)
{
    const pc_link *link = x->bindings.next;
    for (; link != &x->bindings; link = link->next) {
        const binding *b = PC_CONTAINER_OF(link, binding, link);
        if (b->target == target && pc_slice_eq(pc_slice_of(b->key, b->key_len), key)) {
            return true;
        }
    }
    return false;
}

int
pc_routes_bind(pc_routes *routes, const char *name, const char *key, void *target, pc_err *err)
{
    exchange *x = find_exchange(routes, pc_slice_str(name), err);
    pc_slice text = pc_slice_str(key == NULL ? "" : key);
    if (x == NULL) {
        return -1;
    }
    if (is_bound(x, text, target)) {
        return 0;
    }
    binding *b = pc_alloc(sizeof *b + text.len);
    if (b == NULL) {
        return pc_fail_nomem(err);
    }
    b->target = target;
    b->key_len = text.len;
    memcpy(b->key, text.ptr, text.len);
    pc_list_put_back(&x->bindings, &b->link);
    return 0;
}

void
pc_routes_unbind(pc_routes *routes, const void *target)
{
    size_t pos = 0;
    exchange *x = NULL;
    while ((x = pc_map_next(&routes->exchanges, &pos)) != NULL) {
        pc_link *link = x->bindings.next;
        while (link != &x->bindings) {
            binding *b = PC_CONTAINER_OF(link, binding, link);
            link = link->next;
            if (b->target == target) {
                pc_link_remove(&b->link);
                pc_free(b);
            }
        }
    }
}

int
pc_routes_find(const pc_routes *routes, pc_slice name, pc_slice key,
               void (*found)(void *ctx, void *target), void *ctx, pc_err *err)
{
    const exchange *x = find_exchange(routes, name, err);
    if (x == NULL) {
        return -1;
    }
    const pc_link *link = x->bindings.next;
    for (; link != &x->bindings; link = link->next) {
        const binding *b = PC_CONTAINER_OF(link, binding, link);
        if (x->matches(pc_slice_of(b->key, b->key_len), key)) {
            found(ctx, b->target);
        }
    }
    return 0;
}
