/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_inbox.h"

#include "base/mem.h"

#define MAX_UNREAD 1000u  // of one id: progress reports that nobody reads

typedef struct document {
    pc_link link;
    bool read;  // only the newest may be
    uint64_t number;
    size_t len;
    char data[];
} document;

typedef struct entry {
    pc_link link;  // in inbox->unwatched
    bool watched;
    pc_link documents;  // oldest first
    size_t count;
    size_t id_len;
    char id[];
} entry;

void
pc_amqp_inbox_init(pc_amqp_inbox *inbox, size_t limit)
{
    *inbox = (pc_amqp_inbox){.limit = limit};
    pc_map_init(&inbox->ids);
    pc_link_init(&inbox->unwatched);
}

static void
drop_oldest(entry *e)
{
    pc_link *link = pc_list_take_front(&e->documents);
    if (link != NULL) {
        pc_free(PC_CONTAINER_OF(link, document, link));
        e->count--;
    }
}

static void
free_entry(entry *e)
{
    while (e->count > 0) {
        drop_oldest(e);
    }
    pc_free(e);
}

void
pc_amqp_inbox_fini(pc_amqp_inbox *inbox)
{
    size_t pos = 0;
    entry *e = NULL;
    while ((e = pc_map_next(&inbox->ids, &pos)) != NULL) {
        free_entry(e);
    }
    pc_map_fini(&inbox->ids);
}

void
pc_amqp_inbox_forget(pc_amqp_inbox *inbox, pc_slice id)
{
    entry *e = pc_map_take(&inbox->ids, id);
    if (e != NULL) {
        inbox->unwatched_len -= !e->watched;
        pc_link_remove(&e->link);
        free_entry(e);
    }
}

static void
set_unwatched(pc_amqp_inbox *inbox, entry *e)
{
    e->watched = false;
    pc_list_put_back(&inbox->unwatched, &e->link);
    if (++inbox->unwatched_len > inbox->limit) {
        entry *oldest = PC_CONTAINER_OF(inbox->unwatched.next, entry, link);
        pc_amqp_inbox_forget(inbox, pc_slice_of(oldest->id, oldest->id_len));
    }
}

static entry *
new_entry(pc_amqp_inbox *inbox, pc_slice id, pc_err *err)
{
    entry *e = pc_zalloc(sizeof *e + id.len);
    if (e == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&e->link);
    pc_link_init(&e->documents);
    e->watched = true;
    e->id_len = id.len;
    memcpy(e->id, id.len == 0 ? "" : id.ptr, id.len);
    if (pc_map_put(&inbox->ids, pc_slice_of(e->id, e->id_len), e, NULL, err) < 0) {
        pc_free(e);
        return NULL;
    }
    return e;
}

static document *
newest(const entry *e)
{
    return e == NULL || e->count == 0 ? NULL : PC_CONTAINER_OF(e->documents.prev, document, link);
}

int
pc_amqp_inbox_put(pc_amqp_inbox *inbox, pc_slice id, pc_slice body, pc_err *err)
{
    document *d = pc_alloc(sizeof *d + body.len);
    if (d == NULL) {
        return pc_fail_nomem(err);
    }
    entry *e = pc_map_get(&inbox->ids, id);
    bool known = e != NULL;
    e = known ? e : new_entry(inbox, id, err);
    if (e == NULL) {
        pc_free(d);
        return -1;
    }
    pc_link_init(&d->link);
    d->read = false;
    d->number = ++inbox->arrived;
    d->len = body.len;
    memcpy(d->data, body.len == 0 ? "" : body.ptr, body.len);
    const document *last = newest(e);
    if ((last != NULL && last->read) || e->count == MAX_UNREAD) {
        drop_oldest(e);
    }
    pc_list_put_back(&e->documents, &d->link);
    e->count++;
    if (!known) {
        set_unwatched(inbox, e);
    }
    return 0;
}

int
pc_amqp_inbox_watch(pc_amqp_inbox *inbox, pc_slice id, pc_err *err)
{
    entry *e = pc_map_get(&inbox->ids, id);
    if (e == NULL) {
        return new_entry(inbox, id, err) == NULL ? -1 : 0;
    }
    inbox->unwatched_len -= !e->watched;
    pc_link_remove(&e->link);
    e->watched = true;
    return 0;
}

void
pc_amqp_inbox_unwatch(pc_amqp_inbox *inbox, pc_slice id)
{
    entry *e = pc_map_get(&inbox->ids, id);
    if (e == NULL || !e->watched) {
        return;
    }
    while (e->count > 1) {
        drop_oldest(e);
    }
    if (e->count == 0) {
        pc_amqp_inbox_forget(inbox, id);
    } else {
        set_unwatched(inbox, e);
    }
}

bool
pc_amqp_inbox_has_unread(const pc_amqp_inbox *inbox, pc_slice id)
{
    const document *d = newest(pc_map_get(&inbox->ids, id));
    return d != NULL && !d->read;
}

int
pc_amqp_inbox_read(pc_amqp_inbox *inbox, pc_slice id, pc_buf *out, pc_err *err)
{
    if (!pc_amqp_inbox_has_unread(inbox, id)) {
        return pc_fail(err, PC_ENOTFOUND, "no new document for task %.*s", (int)id.len, id.ptr);
    }
    entry *e = pc_map_get(&inbox->ids, id);
    document *d = PC_CONTAINER_OF(e->documents.next, document, link);
    if (pc_buf_put(out, d->data, d->len, err) < 0) {
        return -1;
    }
    d->read = true;
    if (e->count > 1) {
        drop_oldest(e);
    }
    return 0;
}

uint64_t
pc_amqp_inbox_newest(const pc_amqp_inbox *inbox, pc_slice id)
{
    const document *d = newest(pc_map_get(&inbox->ids, id));
    return d == NULL ? 0 : d->number;
}

pc_slice
pc_amqp_inbox_peek(const pc_amqp_inbox *inbox, pc_slice id)
{
    const document *d = newest(pc_map_get(&inbox->ids, id));
    return d == NULL ? (pc_slice){0} : pc_slice_of(d->data, d->len);
}
