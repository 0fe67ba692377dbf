/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_watch.h"

#include "base/mem.h"

pc_redis_watch *
pc_redis_watch_new(pc_slice prefix, pc_slice id, pc_err *err)
{
    pc_redis_watch *watch = pc_zalloc(sizeof *watch + prefix.len + id.len);
    if (watch == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    char *key = (char *)(watch + 1);
    memcpy(key, prefix.ptr, prefix.len);
    memcpy(key + prefix.len, id.ptr, id.len);
    watch->key = pc_slice_of(key, prefix.len + id.len);
    pc_link_init(&watch->leaving);
    pc_link_init(&watch->docs);
    return watch;
}

static pc_redis_doc *
take_first(pc_redis_watch *watch)
{
    pc_link *link = pc_list_take_front(&watch->docs);
    watch->ndocs -= link != NULL;
    return link == NULL ? NULL : PC_CONTAINER_OF(link, pc_redis_doc, link);
}

void
pc_redis_watch_clear(pc_redis_watch *watch)
{
    for (pc_redis_doc *doc; (doc = take_first(watch)) != NULL;) {
        pc_free(doc);
    }
    pc_free(watch->last);
    watch->last = NULL;
}

void
pc_redis_watch_free(pc_redis_watch *watch)
{
    if (watch != NULL) {
        pc_link_remove(&watch->leaving);
        pc_redis_watch_clear(watch);
        pc_free(watch);
    }
}

static const pc_redis_doc *
newest(const pc_redis_watch *watch)
{
    return watch->ndocs == 0 ? watch->last
                             : PC_CONTAINER_OF(watch->docs.prev, pc_redis_doc, link);
}

int
pc_redis_watch_put(pc_redis_watch *watch, pc_slice text, pc_err *err)
{
    const pc_redis_doc *before = newest(watch);
    if (before != NULL && pc_slice_eq(before->text, text)) {
        return 0;
    }
    pc_redis_doc *doc = pc_alloc(sizeof *doc + text.len);
    if (doc == NULL) {
        return pc_fail_nomem(err);
    }
    char *bytes = (char *)(doc + 1);
    memcpy(bytes, text.ptr, text.len);
    doc->text = pc_slice_of(bytes, text.len);
    pc_link_init(&doc->link);
    pc_list_put_back(&watch->docs, &doc->link);
    watch->ndocs++;
    if (watch->ndocs > PC_REDIS_WATCH_MAX) {
        pc_free(take_first(watch));
    }
    return 0;
}

bool
pc_redis_watch_has(const pc_redis_watch *watch, uint64_t handed)
{
    return watch->ndocs > 0 || (watch->handed != handed && watch->last != NULL);
}

pc_slice
pc_redis_watch_peek(const pc_redis_watch *watch, uint64_t handed)
{
    if (watch->ndocs > 0) {
        return PC_CONTAINER_OF(watch->docs.next, pc_redis_doc, link)->text;
    }
    return pc_redis_watch_has(watch, handed) ? watch->last->text : pc_slice_of(NULL, 0);
}

void
pc_redis_watch_drop(pc_redis_watch *watch)
{
    pc_redis_doc *doc = take_first(watch);
    if (doc != NULL) {
        pc_free(watch->last);
        watch->last = doc;
        watch->handed++;
    }
}
