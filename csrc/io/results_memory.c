/* SPDX-License-Identifier: BSD-3-Clause */
/* A program's side of the in-memory result store. Any thread may call; everything is under the
 * hub's lock. A waiting thread sleeps in its own park, which the writer of the document wakes. */
#include "base/mem.h"
#include "io/memory_hub.h"
#include "io/store.h"

/* An id of interest; holds a reference on its document, which keeps the id's bytes. */
typedef struct interest {
    pc_doc *doc;
    uint64_t seen;     // version that was handed out last
    unsigned waiting;  // threads inside wait(); unwatch() leaves the entry to the last of them
    bool ended;
} interest;

typedef struct results {
    pc_results base;
    pc_hub *hub;
    double expires;
    pc_map interests;
} results;

static results *
cast(pc_results *base)
{
    return PC_CONTAINER_OF(base, results, base);
}

static void
lock(const results *r)
{
    pthread_mutex_lock(&r->hub->lock);
}

static void
unlock(const results *r)
{
    pthread_mutex_unlock(&r->hub->lock);
}

static pc_results *
create(const pc_store_config *config, const pc_log *log, pc_err *err)
{
    if (config->hub == NULL) {
        pc_fail(err, PC_EDATA, "the memory result store needs a hub");
        return NULL;
    }
    results *r = pc_zalloc(sizeof *r);
    if (r == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    r->base = (pc_results){.ops = &pc_results_memory, .log = log};
    r->hub = config->hub;
    r->expires = config->expires;
    pc_map_init(&r->interests);
    return &r->base;
}

static int
set(pc_results *base, const pc_store_item *item, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    const results *r = cast(base);
    return pc_hub_put_doc(r->hub, item->id, item->document, item->state == PC_SUCCESS, r->expires,
                          err);
}

static int
get(pc_results *base, pc_slice id, pc_buf *out, bool *found, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    results *r = cast(base);
    lock(r);
    const pc_doc *doc = pc_docs_get(&r->hub->docs, id, pc_mono_now());
    *found = doc != NULL;
    int rc = doc == NULL ? 0 : pc_buf_put_slice(out, pc_buf_slice(&doc->text), err);
    unlock(r);
    return rc;
}

static int
forget(pc_results *base, pc_slice id, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    (void)err;
    results *r = cast(base);
    lock(r);
    pc_docs_forget(&r->hub->docs, id);
    unlock(r);
    return 0;
}

/* --- interest; the hub is locked --- */

static void
free_interest(results *r, interest *i)
{
    pc_docs_unref(&r->hub->docs, i->doc);
    pc_free(i);
}

static interest *
find_or_make(results *r, pc_slice id, pc_err *err)
{
    interest *i = pc_map_get(&r->interests, id);
    if (i != NULL) {
        return i;
    }
    i = pc_zalloc(sizeof *i);
    if (i == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    i->doc = pc_docs_ref(&r->hub->docs, id, err);
    if (i->doc == NULL) {
        pc_free(i);
        return NULL;
    }
    if (pc_map_put(&r->interests, pc_slice_of(i->doc->id, i->doc->id_len), i, NULL, err) != 0) {
        free_interest(r, i);
        return NULL;
    }
    return i;
}

static int
watch(pc_results *base, pc_slice id, pc_err *err)
{
    results *r = cast(base);
    lock(r);
    const interest *i = find_or_make(r, id, err);
    unlock(r);
    return i == NULL ? -1 : 0;
}

static void
unwatch(pc_results *base, pc_slice id)
{
    results *r = cast(base);
    lock(r);
    interest *i = pc_map_take(&r->interests, id);
    if (i != NULL && i->waiting > 0) {
        i->ended = true;
    } else if (i != NULL) {
        free_interest(r, i);
    }
    unlock(r);
}

/* Sleeps until something is written, the deadline or a signal; the lock is released meanwhile. */
static pc_park_end
sleep_for_doc(results *r, pc_doc *doc, pc_mono deadline)
{
    pc_doc_waiter self;
    pc_link_init(&self.link);
    pc_park_init(&self.park);
    pc_list_put_back(&doc->waiters, &self.link);
    unlock(r);
    pc_park_end end = pc_park_sleep(&self.park, deadline);
    lock(r);
    pc_link_remove(&self.link);
    return end;
}

/* What was seen is taken at the start: of several threads that wait for one id each gets the
 * document. A signal that arrives together with the document does no harm: the document comes
 * first. */
static int
wait_locked(results *r, interest *i, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_doc *doc = i->doc;
    uint64_t seen = i->seen;
    for (;;) {
        pc_docs_expire(&r->hub->docs, pc_mono_now());
        if (doc->found && doc->version > seen) {
            if (pc_buf_put_slice(out, pc_buf_slice(&doc->text), err) != 0) {
                return -1;
            }
            i->seen = doc->version;
            return 0;
        }
        if (eintr != NULL && *eintr) {
            return pc_fail(err, PC_ESTATE, "the wait was interrupted");
        }
        if (pc_mono_now().ns >= deadline.ns) {
            return pc_fail(err, PC_ETIMEOUT, "no result came in time");
        }
        pc_park_end end = sleep_for_doc(r, doc, deadline);
        if (eintr != NULL && end == PC_PARK_SIGNAL) {
            *eintr = true;
        }
    }
}

static int
wait_for(pc_results *base, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    results *r = cast(base);
    int rc = -1;
    if (eintr != NULL) {
        *eintr = false;
    }
    lock(r);
    interest *i = find_or_make(r, id, err);
    if (i != NULL) {
        i->waiting++;
        rc = wait_locked(r, i, out, deadline, eintr, err);
        i->waiting--;
        if (i->ended && i->waiting == 0) {
            free_interest(r, i);
        }
    }
    unlock(r);
    if (rc == 0 && eintr != NULL) {
        *eintr = false;
    }
    return rc;
}

/* The child's copy of the hub may be locked for ever: it is left alone from now on. */
static void
abandon(pc_results *base)
{
    results *r = cast(base);
    size_t pos = 0;
    interest *i = NULL;
    while ((i = pc_map_next(&r->interests, &pos)) != NULL) {
        pc_free(i);
    }
    pc_map_fini(&r->interests);
    pc_map_init(&r->interests);
}

static void
free_interests(results *r)
{
    size_t pos = 0;
    interest *i = NULL;
    while ((i = pc_map_next(&r->interests, &pos)) != NULL) {
        // Out of the map first: its key is the document's.
        pc_map_take(&r->interests, pc_slice_of(i->doc->id, i->doc->id_len));
        free_interest(r, i);
    }
}

static void
destroy(pc_results *base)
{
    if (base == NULL) {
        return;
    }
    results *r = cast(base);
    if (r->interests.len > 0) {  // none after abandon(): no lock then
        lock(r);
        free_interests(r);
        unlock(r);
    }
    pc_map_fini(&r->interests);
    pc_free(r);
}

const pc_results_ops pc_results_memory = {
    .scheme = "memory",
    .create = create,
    .set = set,
    .get = get,
    .watch = watch,
    .wait = wait_for,
    .unwatch = unwatch,
    .forget = forget,
    .abandon = abandon,
    .destroy = destroy,
};
