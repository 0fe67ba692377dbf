/* SPDX-License-Identifier: BSD-3-Clause */
/* A program's side of the results in a database file.
 *
 * DESIGN. One connection and one bell, both used with the pump's lock held only. Who waits puts
 * itself into `waits`, marks the bell, and looks once; whenever the bell rings, and once in a
 * second, whoever turns the pump looks for all of them. The row's `changed`, noted for each watched
 * id, tells a new document from one that was handed out already. */
#include "base/map.h"
#include "base/mem.h"
#include "io/pump.h"
#include "io/sqlite_bell.h"
#include "io/sqlite_result.h"
#include "io/store.h"

#define LOOK_NS (10 * PC_NS_PER_MS)  // instead of a bell, when all its places are taken

typedef struct watched {
    int64_t changed;  // of the document handed out last, 0: none
    size_t len;
    char id[];
} watched;

typedef struct wait {
    pc_link link;
    pc_slice id;  // the caller's
    int64_t changed;
    pc_buf *out;
    bool found;
    bool failed;
    pc_err err;
} wait;

typedef struct results {
    pc_results base;
    pc_pump *pump;
    char *path;
    int64_t expires_us;
    pc_sqlite *db;
    pc_bell bell;
    pc_map watches;  // id -> watched
    pc_link waits;
    int64_t seen;  // data_version at the last look
    pc_mono cleaned;
    pc_watch socket;
    pc_timer tick;
    bool busy;  // the connection is in use: a child must not touch it
} results;

static results *
self_of(pc_results *base)
{
    return PC_CONTAINER_OF(base, results, base);
}

static void
enter(results *self)
{
    pc_pump_lock(self->pump);
    self->busy = true;
}

static void
leave(results *self)
{
    self->busy = false;
    pc_pump_unlock(self->pump);
}

/* --- the file --- */

static void
disconnect(results *self)
{
    if (self->socket.fd >= 0) {
        pc_loop_unwatch(pc_pump_loop(self->pump), &self->socket);
        self->socket.fd = -1;
    }
    pc_bell_fini(&self->bell);
    pc_sqlite_close(self->db);
    self->db = NULL;
    self->seen = -1;
}

static int
ensure(results *self, pc_mono deadline, pc_err *err)
{
    if (self->db != NULL && pc_sqlite_moved(self->db)) {
        disconnect(self);
    }
    if (self->db != NULL) {
        return 0;
    }
    self->db = pc_sqlite_open(self->path, PC_SQLITE_NORMAL, deadline, err);
    if (self->db == NULL) {
        return -1;
    }
    if (pc_bell_open(&self->bell, pc_sqlite_path(self->db), err) < 0) {
        disconnect(self);
        return -1;
    }
    return 0;
}

/* --- who waits --- */

static void
look_for(results *self, wait *one)
{
    if (one->found || one->failed) {
        return;
    }
    one->failed = pc_sqlite_result_get(self->db, one->id, &one->changed, one->out, &one->found,
                                       &one->err) < 0;
}

static uint64_t
mask_of(const results *self)
{
    uint64_t mask = 0;
    for (const pc_link *at = self->waits.next; at != &self->waits; at = at->next) {
        mask |= pc_bell_bit(PC_CONTAINER_OF(at, wait, link)->id);
    }
    return mask;
}

static void
fail_all(results *self, const pc_err *why)
{
    for (pc_link *at = self->waits.next; at != &self->waits; at = at->next) {
        wait *one = PC_CONTAINER_OF(at, wait, link);
        if (!one->found) {
            one->failed = true;
            one->err = *why;
        }
    }
}

/* Marks the bell first: what is written after the look rings it. */
static void
look_for_all(results *self)
{
    pc_err err;
    if (pc_list_empty(&self->waits)) {
        pc_bell_awake(&self->bell);
        return;
    }
    if (self->db == NULL) {  // another thread's call has found the file gone
        return;
    }
    pc_bell_sleep(&self->bell, mask_of(self));
    int64_t version = pc_sqlite_data_version(self->db, &err);
    if (version < 0) {
        fail_all(self, &err);
        return;
    }
    if (version == self->seen) {
        return;
    }
    self->seen = version;
    for (pc_link *at = self->waits.next; at != &self->waits; at = at->next) {
        look_for(self, PC_CONTAINER_OF(at, wait, link));
    }
}

static void
on_bell(void *ctx, unsigned events)
{
    results *self = ctx;
    (void)events;
    pc_bell_drain(&self->bell);
    self->busy = true;
    look_for_all(self);
    self->busy = false;
}

/* A file that is gone or replaced takes the bell with it: the next wait() opens the new one. */
static void
on_tick(void *ctx, pc_mono now)
{
    results *self = ctx;
    if (pc_list_empty(&self->waits)) {
        return;
    }
    int64_t span = self->bell.slot < 0 ? LOOK_NS : PC_BELL_CHECK_NS;
    (void)pc_loop_set_timer(pc_pump_loop(self->pump), &self->tick, pc_mono_add(now, span),
                            NULL);  // it had its place
    if (self->db == NULL || pc_sqlite_moved(self->db)) {
        pc_err why;
        (void)pc_fail(&why, PC_EIO,
                      "%.150s was removed or replaced while its results were waited for",
                      self->path);
        fail_all(self, &why);
        return;
    }
    self->busy = true;
    look_for_all(self);
    self->busy = false;
}

/* Makes sure that something wakes us: the bell, or else the timer alone. */
static int
prepare_to_sleep(results *self, pc_err *err)
{
    pc_loop *loop = pc_pump_loop(self->pump);
    if (self->bell.slot < 0 && pc_bell_sit(&self->bell, PC_BELL_RESULT, NULL) == 0) {
        pc_watch_init(&self->socket, self->bell.socket, on_bell, self);
        if (pc_loop_watch(loop, &self->socket, PC_READ, err) < 0) {
            return -1;
        }
    }
    if (self->tick.node.place != 0) {
        return 0;
    }
    int64_t span = self->bell.slot < 0 ? LOOK_NS : PC_BELL_CHECK_NS;
    return pc_loop_set_timer(loop, &self->tick, pc_mono_add(pc_mono_now(), span), err);
}

static watched *
find_or_add(results *self, pc_slice id, pc_err *err)
{
    watched *entry = pc_map_get(&self->watches, id);
    if (entry != NULL) {
        return entry;
    }
    entry = pc_alloc(sizeof *entry + id.len);
    if (entry == NULL) {
        (void)pc_fail_nomem(err);
        return NULL;
    }
    *entry = (watched){.len = id.len};
    memcpy(entry->id, id.ptr, id.len);
    if (pc_map_put(&self->watches, pc_slice_of(entry->id, id.len), entry, NULL, err) < 0) {
        pc_free(entry);
        return NULL;
    }
    return entry;
}

static int
is_over(void *ctx)
{
    const wait *one = ctx;
    return one->found || one->failed;
}

/* Lock held. Looks, and sleeps until there is something. */
static int
sleep_until(results *self, wait *one, pc_mono deadline, bool *eintr, pc_err *err)
{
    if (prepare_to_sleep(self, err) < 0) {
        return -1;
    }
    pc_list_put_back(&self->waits, &one->link);
    pc_bell_sleep(&self->bell, mask_of(self));
    look_for(self, one);
    self->busy = false;
    int rc = is_over(one) ? 0 : pc_pump_wait(self->pump, is_over, one, deadline, eintr, err);
    self->busy = true;
    pc_link_remove(&one->link);
    if (pc_list_empty(&self->waits)) {
        pc_bell_awake(&self->bell);
    }
    if (one->found) {  // also when the deadline passed in the same turn
        return 0;
    }
    if (one->failed) {
        if (err != NULL) {
            *err = one->err;
        }
        return -1;
    }
    return rc;
}

static int
wait_for(results *self, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    watched *entry = find_or_add(self, id, err);
    if (entry == NULL || ensure(self, deadline, err) < 0) {
        return -1;
    }
    wait one = {.id = id, .changed = entry->changed, .out = out};
    pc_link_init(&one.link);
    int rc = sleep_until(self, &one, deadline, eintr, err);
    entry = pc_map_get(&self->watches, id);  // another thread may have ended the watch
    if (rc == 0 && entry != NULL) {
        entry->changed = one.changed;
    }
    return rc;
}

static int
wait_locked(pc_results *base, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    results *self = self_of(base);
    if (eintr != NULL) {
        *eintr = false;
    }
    enter(self);
    int rc = wait_for(self, id, out, deadline, eintr, err);
    leave(self);
    return rc;
}

static int
watch(pc_results *base, pc_slice id, pc_err *err)
{
    results *self = self_of(base);
    enter(self);
    watched *entry = find_or_add(self, id, err);
    leave(self);
    return entry == NULL ? -1 : 0;
}

static void
unwatch(pc_results *base, pc_slice id)
{
    results *self = self_of(base);
    enter(self);
    pc_free(pc_map_take(&self->watches, id));
    leave(self);
}

/* --- reading and writing --- */

static int
write_one(results *self, const pc_store_item *item, pc_err *err)
{
    int64_t now = pc_wall_now().us;
    pc_sqlite_result result = {
        .id = item->id,
        .state = item->state,
        .document = item->document,
        .expires = self->expires_us == 0 ? 0 : now + self->expires_us,
    };
    if (pc_sqlite_result_put(self->db, &result, now, err) < 0) {
        return -1;
    }
    return pc_sqlite_result_clean(self->db, &self->cleaned, now, err);
}

static int
delete_one(results *self, pc_slice id, pc_err *err)
{
    pc_sqlite_bind_text(self->db, PC_SQL_RESULT_REMOVE, 1, id);
    return pc_sqlite_run(self->db, PC_SQL_RESULT_REMOVE, err) < 0 ? -1 : 0;
}

static int
begin(results *self, pc_mono deadline, pc_err *err)
{
    return ensure(self, deadline, err) < 0 ? -1 : pc_sqlite_begin(self->db, deadline, err);
}

static int
finish(results *self, int rc, pc_err *err)
{
    if (rc < 0) {
        pc_sqlite_rollback(self->db);
        return -1;
    }
    return pc_sqlite_commit(self->db, err);
}

/* Our own commits don't change data_version: threads of ours that wait have to be looked after. */
static int
set(pc_results *base, const pc_store_item *item, pc_mono deadline, pc_err *err)
{
    results *self = self_of(base);
    enter(self);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, write_one(self, item, err), err);
    }
    if (rc == 0) {
        pc_bell_ring(&self->bell, PC_BELL_RESULT, pc_bell_bit(item->id), UINT32_MAX);
        self->seen = -1;
        look_for_all(self);
    }
    leave(self);
    return rc;
}

static int
get(pc_results *base, pc_slice id, pc_buf *out, bool *found, pc_mono deadline, pc_err *err)
{
    results *self = self_of(base);
    int64_t changed = 0;
    *found = false;
    enter(self);
    int rc = ensure(self, deadline, err);
    if (rc == 0) {
        rc = pc_sqlite_result_get(self->db, id, &changed, out, found, err);
    }
    leave(self);
    return rc;
}

static int
forget(pc_results *base, pc_slice id, pc_mono deadline, pc_err *err)
{
    results *self = self_of(base);
    enter(self);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, delete_one(self, id, err), err);
    }
    pc_free(pc_map_take(&self->watches, id));
    leave(self);
    return rc;
}

/* --- life --- */

/* In a forked child. No lock is taken: only the forking thread is left, and another may have held
 * it. */
static void
abandon(pc_results *base)
{
    results *self = self_of(base);
    self->socket.fd = -1;
    pc_bell_abandon(&self->bell);
    pc_sqlite_abandon(self->db, !self->busy);
    self->db = NULL;
}

static void
destroy(pc_results *base)
{
    if (base == NULL) {
        return;
    }
    results *self = self_of(base);
    if (self->pump != NULL) {
        disconnect(self);
        pc_loop_clear_timer(pc_pump_loop(self->pump), &self->tick);
    }
    size_t pos = 0;
    watched *entry;
    while ((entry = pc_map_next(&self->watches, &pos)) != NULL) {
        pc_free(entry);
    }
    pc_map_fini(&self->watches);
    pc_pump_free(self->pump);
    pc_free(self->path);
    pc_free(self);
}

static pc_results *
create(const pc_store_config *config, const pc_log *log, pc_err *err)
{
    const char *path = config->path == NULL ? "" : config->path;
    results *self = pc_zalloc(sizeof *self);
    if (self == NULL) {
        (void)pc_fail_nomem(err);
        return NULL;
    }
    self->base = (pc_results){&pc_results_sqlite, log};
    self->expires_us = pc_sqlite_result_span(config->expires);
    self->seen = -1;
    pc_bell_init(&self->bell);
    pc_map_init(&self->watches);
    pc_link_init(&self->waits);
    pc_watch_init(&self->socket, -1, on_bell, self);
    pc_timer_init(&self->tick, on_tick, self);
    self->path = pc_strdup(path, strlen(path));
    if (self->path == NULL) {
        (void)pc_fail_nomem(err);
        goto fail;
    }
    self->pump = pc_pump_new(err);
    if (self->pump == NULL) {
        goto fail;
    }
    return &self->base;
fail:
    destroy(&self->base);
    return NULL;
}

const pc_results_ops pc_results_sqlite = {
    .scheme = "sqlite",
    .create = create,
    .set = set,
    .get = get,
    .watch = watch,
    .wait = wait_locked,
    .unwatch = unwatch,
    .forget = forget,
    .abandon = abandon,
    .destroy = destroy,
};
