/* SPDX-License-Identifier: BSD-3-Clause */
/* Consumes from a database file.
 *
 * DESIGN. All on the loop's thread. A turn ends with work(): what was settled and the claim of the
 * next messages are one transaction. When there is nothing to claim the bell (sqlite_bell.h) wakes
 * us; `seen`, the data_version at our last look, tells whether another connection has written
 * since. What is claimed belongs to our row in the table worker (sqlite_worker.h). That row and the
 * settlements not yet written outlive a lost database: they are written at the next connect, so
 * that a full disk doesn't run a task twice. */
#include "base/mem.h"
#include "io/sqlite_source.h"

#define OPEN_WAIT_NS PC_NS_PER_SEC
#define LAST_WAIT_NS (100 * PC_NS_PER_MS)  // of destroy()
#define RETRY_FIRST_NS (50 * PC_NS_PER_MS)
#define RETRY_DOUBLINGS 4u
#define FAILURES_MAX 4u                // of the file in a row, before down()
#define LOOK_NS (10 * PC_NS_PER_MS)    // instead of a bell, when all its places are taken
#define OWNERS_NS (2 * PC_NS_PER_SEC)  // how often the dead are looked for

static pc_mono
within(int64_t ns)
{
    return pc_mono_add(pc_mono_now(), ns);
}

unsigned
pc_sqlite_source_room(const pc_sqlite_source *self)
{
    if (self->paused || self->queues == 0) {
        return 0;
    }
    if (self->prefetch == 0) {
        return PC_CLAIM_MAX;
    }
    unsigned taken = self->held + self->base.busy;
    unsigned left = self->prefetch > taken ? self->prefetch - taken : 0;
    return left < PC_CLAIM_MAX ? left : PC_CLAIM_MAX;
}

void
pc_sqlite_source_run_soon(pc_sqlite_source *self)
{
    if (self->state == PC_SOURCE_UP || self->state == PC_SOURCE_OPENING) {
        pc_loop_defer(self->loop, &self->defer);
    }
}

int
pc_sqlite_source_finish(pc_sqlite_source *self, int rc, pc_err *err)
{
    if (rc < 0) {
        pc_sqlite_rollback(self->db);
        return -1;
    }
    return pc_sqlite_commit(self->db, err);
}

static int
settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    uint64_t generation = tag >> PC_TAG_ID_BITS;
    if ((tag & PC_TAG_NO_ACK) != 0 || self->state == PC_SOURCE_ABANDONED) {
        return 0;
    }
    if (generation != self->generation) {  // done until we are up again: settled then, before the rest goes back
        bool held = generation == self->held_by && !self->checked_in && how != PC_REQUEUE;
        return held ? pc_sqlite_source_push(self, (int64_t)(tag & PC_TAG_ID_MASK), (int)how, err) : 0;
    }
    if (pc_sqlite_source_push(self, (int64_t)(tag & PC_TAG_ID_MASK), (int)how, err) < 0) {
        return -1;
    }
    if (self->held > 0) {
        self->held--;
    }
    pc_sqlite_source_run_soon(self);
    return 0;
}

/* --- trouble --- */

/* Others use another file by now, or take us for dead: our row and the settlements are void. */
static bool
is_lost(const pc_sqlite_source *self)
{
    return self->db != NULL &&
           (pc_sqlite_moved(self->db) || pc_sqlite_worker_is_lost(&self->worker));
}

static void
disconnect(pc_sqlite_source *self)
{
    bool lost = is_lost(self);
    if (self->watch.fd >= 0) {
        pc_loop_unwatch(self->loop, &self->watch);
        self->watch.fd = -1;
    }
    pc_loop_clear_timer(self->loop, &self->tick);
    pc_loop_clear_timer(self->loop, &self->retry);
    pc_loop_clear_timer(self->loop, &self->due);
    pc_loop_undefer(self->loop, &self->defer);
    pc_bell_fini(&self->bell);
    pc_sqlite_close(self->db);
    self->db = NULL;
    if (lost) {
        pc_sqlite_worker_fini(&self->worker);
        self->pending_len = 0;
    }
    self->held_by = lost ? PC_TAG_GENERATIONS : self->checked_in ? self->generation : self->held_by;
    self->checked_in = false;
    self->state = PC_SOURCE_CLOSED;
    self->held = 0;
    self->failures = 0;
    self->generation = (self->generation + 1) % PC_TAG_GENERATIONS;
}

static void
go_down(pc_sqlite_source *self, const pc_err *why)
{
    disconnect(self);
    self->base.hooks.down(self->base.hooks.ctx, why);
}

static bool
is_hopeless(pc_sqlite_source *self, const pc_err *err)
{
    if (err->code == PC_ETIMEOUT || err->code == PC_ENOMEM) {
        return false;
    }
    return err->code == PC_EDATA || self->failures > FAILURES_MAX || is_lost(self);
}

static void
trouble(pc_sqlite_source *self, const pc_err *err)
{
    self->failures++;
    if (is_hopeless(self, err)) {
        go_down(self, err);
        return;
    }
    unsigned shift = self->failures < RETRY_DOUBLINGS ? self->failures : RETRY_DOUBLINGS;
    pc_log_write(self->base.log, PC_WARNING, "%s: trying again", err->msg);
    if (pc_loop_set_timer(self->loop, &self->retry, within(RETRY_FIRST_NS << shift), NULL) < 0) {
        go_down(self, err);
    }
}

/* --- the end of a turn --- */

static bool
is_due(const pc_sqlite_source *self)
{
    return self->next_due > 0 && self->next_due <= pc_wall_now().us && !self->paused;
}

static bool
has_work(const pc_sqlite_source *self)
{
    return self->pending_len > 0 || (self->suspect && pc_sqlite_source_room(self) > 0) ||
           is_due(self);
}

static void
work(pc_sqlite_source *self)
{
    pc_err err;
    while (self->state == PC_SOURCE_UP && self->retry.node.place == 0) {
        bool asleep = false;
        if (!has_work(self) && (pc_sqlite_source_rest(self, &asleep, &err) < 0 || asleep)) {
            if (!asleep) {
                trouble(self, &err);
            }
            return;
        }
        if (pc_sqlite_source_transact(self, &err) < 0) {
            trouble(self, &err);
            return;
        }
        pc_sqlite_source_deliver(self);
        // without a limit this would go on as long as there are messages: let the loop have a turn
        if (self->prefetch == 0 && self->state == PC_SOURCE_UP && self->suspect &&
            pc_loop_set_timer(self->loop, &self->retry, pc_mono_now(), NULL) == 0) {
            return;
        }
    }
}

/* --- the tick: lost bells, the removed file, dead workers, removed queues --- */

static int
recover(pc_sqlite_source *self, pc_err *err)
{
    unsigned workers = 0;
    unsigned messages = 0;
    if (pc_sqlite_begin(self->db, within(PC_LOCK_WAIT_NS), err) < 0 ||
        pc_sqlite_source_finish(
            self, pc_sqlite_worker_recover(&self->worker, self->db, &workers, &messages, err),
            err) < 0) {
        return -1;
    }
    if (messages > 0) {
        pc_log_write(self->base.log, PC_WARNING, "gave back %u messages of %u workers that died",
                     messages, workers);
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, PC_BELL_ALL, messages);
        self->suspect = true;
    }
    return 0;
}

static int
look_for_dead(pc_sqlite_source *self, pc_err *err)
{
    int64_t dead;
    char name[PC_UUID_LEN + 1];
    if (pc_sqlite_worker_find_dead(&self->worker, self->db, &dead, name, err) < 0) {
        return -1;
    }
    return dead == 0 ? 0 : recover(self, err);
}

static int
look_around(pc_sqlite_source *self, pc_mono now, pc_err *err)
{
    if (now.ns < self->owners_at.ns) {
        return 0;
    }
    self->owners_at = pc_mono_add(now, OWNERS_NS);
    if (is_lost(self)) {
        return pc_fail(err, PC_EIO, "%.150s or its directory .d was removed while it was open",
                       pc_sqlite_path(self->db));
    }
    if (look_for_dead(self, err) < 0 || pc_sqlite_source_check_queues(self, err) < 0) {
        return -1;
    }
    self->failures = 0;
    return 0;
}

static void
set_tick(pc_sqlite_source *self, pc_mono now)
{
    int64_t span = self->bell.slot < 0 ? LOOK_NS : PC_BELL_CHECK_NS;
    (void)pc_loop_set_timer(self->loop, &self->tick, pc_mono_add(now, span),
                            NULL);  // it had its place
}

static void
on_tick(void *ctx, pc_mono now)
{
    pc_sqlite_source *self = ctx;
    pc_err err;
    set_tick(self, now);
    if (look_around(self, now, &err) < 0) {
        trouble(self, &err);
    }
    pc_sqlite_source_run_soon(self);
}

static void
on_bell(void *ctx, unsigned events)
{
    pc_sqlite_source *self = ctx;
    (void)events;
    pc_bell_drain(&self->bell);
    pc_sqlite_source_run_soon(self);
}

static void
on_retry(void *ctx, pc_mono now)
{
    (void)now;
    pc_sqlite_source_run_soon(ctx);
}

/* The two clocks may differ a little, and the wall clock may have been set. */
static void
on_due(void *ctx, pc_mono now)
{
    pc_sqlite_source *self = ctx;
    (void)now;
    if (is_due(self)) {
        pc_sqlite_source_run_soon(self);
    } else {
        pc_sqlite_source_set_due_timer(self);
    }
}

/* --- connecting --- */

/* In a transaction: our row, what was settled while we were down, what we held before, what the
 * dead held. *ready counts the messages that wait again. */
static int
check_in(pc_sqlite_source *self, unsigned *ready, pc_err *err)
{
    bool known;
    unsigned workers;
    unsigned messages;
    if (pc_sqlite_worker_register(&self->worker, self->db, &known, err) < 0) {
        return -1;
    }
    if (known && pc_sqlite_source_write_settled(self, err) < 0) {
        return -1;
    }
    pc_sqlite_bind_int(self->db, PC_SQL_MSG_RELEASE, 1, self->worker.id);
    int released = pc_sqlite_run(self->db, PC_SQL_MSG_RELEASE, err);
    if (released < 0 ||
        pc_sqlite_worker_recover(&self->worker, self->db, &workers, &messages, err) < 0) {
        return -1;
    }
    *ready = (unsigned)released + messages;
    return pc_sqlite_source_start_consumers(self, err);
}

static int
sit(pc_sqlite_source *self, pc_err *err)
{
    pc_err why = {0};
    if (pc_bell_open(&self->bell, pc_sqlite_path(self->db), err) < 0) {
        return -1;
    }
    if (pc_bell_sit(&self->bell, PC_BELL_QUEUE, &why) < 0) {
        pc_log_write(self->base.log, PC_WARNING, "%s: looking for messages every 10 ms", why.msg);
        return 0;
    }
    pc_watch_init(&self->watch, self->bell.socket, on_bell, self);
    return pc_loop_watch(self->loop, &self->watch, PC_READ, err);
}

static int
bring_up(pc_sqlite_source *self, pc_err *err)
{
    unsigned ready = 0;
    self->db = pc_sqlite_open(self->path, self->synchronous, within(OPEN_WAIT_NS), err);
    if (self->db == NULL || sit(self, err) < 0) {
        return -1;
    }
    if (self->worker.lease < 0 &&
        pc_sqlite_worker_open(&self->worker, self->bell.folder, err) < 0) {
        return -1;
    }
    if (pc_sqlite_begin(self->db, within(OPEN_WAIT_NS), err) < 0 ||
        pc_sqlite_source_finish(self, check_in(self, &ready, err), err) < 0) {
        return -1;
    }
    if (ready > 0) {
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, PC_BELL_ALL, ready);
    }
    self->pending_len = 0;
    self->checked_in = true;
    self->suspect = true;
    self->seen = -1;
    self->next_due = PC_DUE_UNKNOWN;
    pc_mono now = pc_mono_now();
    self->owners_at = pc_mono_add(now, OWNERS_NS);
    return pc_loop_set_timer(self->loop, &self->tick, pc_mono_add(now, PC_BELL_CHECK_NS), err);
}

static void
on_turn_end(void *ctx)
{
    pc_sqlite_source *self = ctx;
    pc_err err;
    if (self->state == PC_SOURCE_UP) {
        work(self);
        return;
    }
    if (bring_up(self, &err) < 0) {
        go_down(self, &err);
        return;
    }
    self->state = PC_SOURCE_UP;
    pc_sqlite_source_run_soon(self);
    self->base.hooks.up(self->base.hooks.ctx);
}

static int
connect_to(pc_source *base, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    if (self->state != PC_SOURCE_CLOSED) {
        return pc_fail(err, PC_ESTATE, "already connected");
    }
    self->state = PC_SOURCE_OPENING;
    self->paused = false;
    pc_sqlite_source_run_soon(self);
    return 0;
}

static int
prefetch(pc_source *base, unsigned count, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    (void)err;
    self->prefetch = count;
    pc_sqlite_source_run_soon(self);
    return 0;
}

static int
pause(pc_source *base, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    (void)err;
    self->paused = true;
    pc_sqlite_source_run_soon(self);
    return 0;
}

/* --- the end --- */

static int
check_out(pc_sqlite_source *self, pc_mono deadline, pc_err *err)
{
    if (pc_sqlite_begin(self->db, deadline, err) < 0) {
        return -1;
    }
    int rc = pc_sqlite_source_write_settled(self, err);
    int released = rc < 0 ? -1 : pc_sqlite_worker_retire(self->db, self->worker.id, err);
    if (pc_sqlite_source_finish(self, released, err) < 0) {
        return -1;
    }
    if (rc + released > 0) {
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, PC_BELL_ALL, (unsigned)(rc + released));
    }
    return 0;
}

/* When writing fails, the lease ends all the same: others give back what we hold. */
static int
close_files(pc_source *base, pc_mono deadline, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    int rc = self->state == PC_SOURCE_UP ? check_out(self, deadline, err) : 0;
    disconnect(self);
    pc_sqlite_worker_fini(&self->worker);
    self->pending_len = 0;
    return rc;
}

/* The loop's epoll is the parent's too: nothing is unwatched here. */
static void
abandon(pc_source *base)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    self->state = PC_SOURCE_ABANDONED;
    self->watch.fd = -1;
    pc_bell_abandon(&self->bell);
    pc_sqlite_worker_abandon(&self->worker);
    pc_sqlite_abandon(self->db, true);
    self->db = NULL;
}

static void
destroy(pc_source *base)
{
    if (base == NULL) {
        return;
    }
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    (void)close_files(base, within(LAST_WAIT_NS), NULL);
    pc_sqlite_source_free_consumers(self);
    pc_buf_fini(&self->bytes);
    pc_free(self->rows);
    pc_free(self->pending);
    pc_free(self->path);
    pc_free(self);
}

static void
init(pc_sqlite_source *self, const pc_broker_config *config, pc_loop *loop,
     const pc_source_hooks *hooks, const pc_log *log)
{
    self->base =
        (pc_source){.ops = &pc_source_sqlite, .hooks = *hooks, .log = log, .global_qos = true};
    self->loop = loop;
    self->synchronous = config->synchronous;
    pc_bell_init(&self->bell);
    pc_sqlite_worker_init(&self->worker);
    pc_link_init(&self->consumers);
    pc_buf_init(&self->bytes);
    pc_watch_init(&self->watch, -1, on_bell, self);
    pc_defer_init(&self->defer, on_turn_end, self);
    pc_timer_init(&self->tick, on_tick, self);
    pc_timer_init(&self->retry, on_retry, self);
    pc_timer_init(&self->due, on_due, self);
}

static pc_source *
create(const pc_broker_config *config, pc_loop *loop, const pc_source_hooks *hooks,
       const pc_log *log, pc_err *err)
{
    const char *path = config->vhost == NULL ? "" : config->vhost;
    pc_sqlite_source *self = pc_zalloc(sizeof *self);
    if (self == NULL) {
        goto fail;
    }
    init(self, config, loop, hooks, log);
    self->path = pc_strdup(path, strlen(path));
    self->rows = pc_alloc(PC_CLAIM_MAX * sizeof *self->rows);
    if (self->path == NULL || self->rows == NULL) {
        goto fail;
    }
    return &self->base;
fail:
    (void)pc_fail_nomem(err);
    destroy(self == NULL ? NULL : &self->base);
    return NULL;
}

const pc_source_ops pc_source_sqlite = {
    .scheme = "sqlite",
    .create = create,
    .connect = connect_to,
    .add_queue = pc_sqlite_source_add_queue,
    .drop_queue = pc_sqlite_source_drop_queue,
    .prefetch = prefetch,
    .settle = settle,
    .pause = pause,
    .close = close_files,
    .abandon = abandon,
    .destroy = destroy,
};
