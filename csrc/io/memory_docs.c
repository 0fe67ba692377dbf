/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/memory_docs.h"

#include "base/mem.h"

void
pc_docs_init(pc_docs *docs)
{
    pc_map_init(&docs->docs);
    pc_heap_init(&docs->expiries);
}

static void
free_doc(pc_doc *doc)
{
    pc_buf_fini(&doc->text);
    pc_free(doc);
}

void
pc_docs_fini(pc_docs *docs)
{
    size_t pos = 0;
    pc_doc *doc = NULL;
    pc_heap_fini(&docs->expiries);  // before its nodes go away
    while ((doc = pc_map_next(&docs->docs, &pos)) != NULL) {
        free_doc(doc);
    }
    pc_map_fini(&docs->docs);
}

static pc_doc *
find(const pc_docs *docs, pc_slice id)
{
    return pc_map_get(&docs->docs, id);
}

static pc_doc *
find_or_make(pc_docs *docs, pc_slice id, pc_err *err)
{
    pc_doc *doc = find(docs, id);
    if (doc != NULL) {
        return doc;
    }
    doc = pc_zalloc(sizeof *doc + id.len);
    if (doc == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_buf_init(&doc->text);
    pc_link_init(&doc->waiters);
    doc->id_len = id.len;
    if (id.len > 0) {
        memcpy(doc->id, id.ptr, id.len);
    }
    if (pc_map_put(&docs->docs, pc_slice_of(doc->id, id.len), doc, NULL, err) != 0) {
        free_doc(doc);
        return NULL;
    }
    return doc;
}

/* An entry nobody watches and that holds nothing goes. */
static void
drop_if_idle(pc_docs *docs, pc_doc *doc)
{
    if (doc->refs == 0 && !doc->found) {
        pc_map_take(&docs->docs, pc_slice_of(doc->id, doc->id_len));
        free_doc(doc);
    }
}

static void
clear(pc_docs *docs, pc_doc *doc)
{
    pc_heap_remove(&docs->expiries, &doc->expiry);
    pc_buf_fini(&doc->text);
    doc->found = false;
    doc->success = false;
    drop_if_idle(docs, doc);
}

void
pc_docs_expire(pc_docs *docs, pc_mono now)
{
    pc_heap_node *first = NULL;
    while ((first = pc_heap_peek(&docs->expiries)) != NULL && first->key <= now.ns) {
        clear(docs, PC_CONTAINER_OF(first, pc_doc, expiry));
    }
}

static int
set_expiry(pc_docs *docs, pc_doc *doc, pc_mono expires, pc_err *err)
{
    if (expires.ns == PC_MONO_NEVER.ns) {
        pc_heap_remove(&docs->expiries, &doc->expiry);
        return 0;
    }
    if (doc->expiry.place != 0) {
        pc_heap_rekey(&docs->expiries, &doc->expiry, expires.ns);
        return 0;
    }
    return pc_heap_push(&docs->expiries, &doc->expiry, expires.ns, err);
}

static int
write_doc(pc_docs *docs, pc_doc *doc, pc_slice text, pc_mono expires, pc_err *err)
{
    pc_buf copy;
    pc_buf_init(&copy);
    if (pc_buf_put_slice(&copy, text, err) != 0 || set_expiry(docs, doc, expires, err) != 0) {
        pc_buf_fini(&copy);
        return -1;
    }
    pc_buf_fini(&doc->text);
    doc->text = copy;
    doc->found = true;
    doc->version++;
    pc_link *link = doc->waiters.next;
    for (; link != &doc->waiters; link = link->next) {
        pc_park_wake(&PC_CONTAINER_OF(link, pc_doc_waiter, link)->park);
    }
    return 0;
}

int
pc_docs_put(pc_docs *docs, pc_slice id, pc_slice text, bool success, pc_mono expires, pc_mono now,
            pc_err *err)
{
    pc_docs_expire(docs, now);
    pc_doc *doc = find_or_make(docs, id, err);
    if (doc == NULL) {
        return -1;
    }
    if (doc->success && !success) {
        return 0;
    }
    if (write_doc(docs, doc, text, expires, err) != 0) {
        drop_if_idle(docs, doc);
        return -1;
    }
    doc->success = success;
    return 0;
}

pc_doc *
pc_docs_get(pc_docs *docs, pc_slice id, pc_mono now)
{
    pc_docs_expire(docs, now);
    pc_doc *doc = find(docs, id);
    return doc != NULL && doc->found ? doc : NULL;
}

void
pc_docs_forget(pc_docs *docs, pc_slice id)
{
    pc_doc *doc = find(docs, id);
    if (doc != NULL) {
        clear(docs, doc);
    }
}

pc_doc *
pc_docs_ref(pc_docs *docs, pc_slice id, pc_err *err)
{
    pc_doc *doc = find_or_make(docs, id, err);
    if (doc != NULL) {
        doc->refs++;
    }
    return doc;
}

void
pc_docs_unref(pc_docs *docs, pc_doc *doc)
{
    doc->refs--;
    drop_if_idle(docs, doc);
}
