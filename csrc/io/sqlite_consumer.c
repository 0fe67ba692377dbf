/* SPDX-License-Identifier: BSD-3-Clause */
/* The queues that a source consumes. */
#include "base/mem.h"
#include "io/sqlite_queue.h"
#include "io/sqlite_source.h"

static void
free_consumer(pc_consumer *one)
{
    if (one == NULL) {
        return;
    }
    pc_free((char *)one->queue.name);
    pc_free((char *)one->queue.exchange);
    pc_free((char *)one->queue.exchange_type);
    pc_free((char *)one->queue.routing_key);
    pc_free(one);
}

static int
copy_string(const char **out, const char *text)
{
    const char *from = text == NULL ? "" : text;
    *out = pc_strdup(from, strlen(from));
    return *out == NULL ? -1 : 0;
}

static pc_consumer *
new_consumer(const pc_queue *queue, pc_err *err)
{
    pc_consumer *one = pc_zalloc(sizeof *one);
    if (one == NULL) {
        goto fail;
    }
    pc_link_init(&one->link);
    one->queue.auto_delete = queue->auto_delete;
    one->queue.exclusive = queue->exclusive;
    one->queue.no_ack = queue->no_ack;
    one->queue.passive = queue->passive || queue->no_declare;
    if (copy_string(&one->queue.name, queue->name) < 0 ||
        copy_string(&one->queue.exchange, queue->exchange) < 0 ||
        copy_string(&one->queue.exchange_type, queue->exchange_type) < 0 ||
        copy_string(&one->queue.routing_key, queue->routing_key) < 0) {
        goto fail;
    }
    return one;
fail:
    (void)pc_fail_nomem(err);
    free_consumer(one);
    return NULL;
}

static pc_consumer *
find_consumer(pc_sqlite_source *self, const char *name)
{
    for (pc_link *at = self->consumers.next; at != &self->consumers; at = at->next) {
        pc_consumer *one = PC_CONTAINER_OF(at, pc_consumer, link);
        if (strcmp(one->queue.name, name) == 0) {
            return one;
        }
    }
    return NULL;
}

static void
count_queues(pc_sqlite_source *self)
{
    self->queues = 0;
    self->mask = 0;
    for (pc_link *at = self->consumers.next; at != &self->consumers; at = at->next) {
        pc_consumer *one = PC_CONTAINER_OF(at, pc_consumer, link);
        self->queues++;
        self->mask |= pc_bell_bit(pc_slice_str(one->queue.name));
    }
}

static void
remove_consumer(pc_sqlite_source *self, pc_consumer *one)
{
    pc_link_remove(&one->link);
    free_consumer(one);
    count_queues(self);
}

/* In a transaction. */
static int
start_consumer(pc_sqlite_source *self, pc_consumer *one, pc_err *err)
{
    if (pc_sqlite_queue_declare(self->db, &one->queue, err) < 0 ||
        pc_sqlite_queue_find(self->db, one->queue.name, &one->id, err) < 0) {
        return -1;
    }
    pc_sqlite_bind_int(self->db, PC_SQL_CONSUMER_ADD, 1, one->id);
    pc_sqlite_bind_int(self->db, PC_SQL_CONSUMER_ADD, 2, self->worker.id);
    return pc_sqlite_run(self->db, PC_SQL_CONSUMER_ADD, err) < 0 ? -1 : 0;
}

int
pc_sqlite_source_add_queue(pc_source *base, const pc_queue *queue, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    if (find_consumer(self, queue->name) != NULL) {
        return 0;
    }
    pc_consumer *one = new_consumer(queue, err);
    if (one == NULL) {
        return -1;
    }
    if (self->state == PC_SOURCE_UP &&
        (pc_sqlite_begin(self->db, pc_mono_add(pc_mono_now(), PC_LOCK_WAIT_NS), err) < 0 ||
         pc_sqlite_source_finish(self, start_consumer(self, one, err), err) < 0)) {
        free_consumer(one);
        return -1;
    }
    pc_list_put_back(&self->consumers, &one->link);
    count_queues(self);
    self->suspect = true;
    pc_sqlite_source_run_soon(self);
    return 0;
}

static int
stop_consumer(pc_sqlite_source *self, int64_t id, pc_err *err)
{
    pc_sqlite_bind_int(self->db, PC_SQL_CONSUMER_REMOVE, 1, id);
    pc_sqlite_bind_int(self->db, PC_SQL_CONSUMER_REMOVE, 2, self->worker.id);
    return pc_sqlite_run(self->db, PC_SQL_CONSUMER_REMOVE, err) < 0 ? -1 : 0;
}

int
pc_sqlite_source_drop_queue(pc_source *base, const char *name, pc_err *err)
{
    pc_sqlite_source *self = pc_sqlite_source_of(base);
    pc_consumer *one = find_consumer(self, name);
    if (one == NULL) {
        return 0;
    }
    int64_t id = one->id;
    remove_consumer(self, one);
    if (self->state != PC_SOURCE_UP) {
        return 0;
    }
    if (pc_sqlite_begin(self->db, pc_mono_add(pc_mono_now(), PC_LOCK_WAIT_NS), err) < 0) {
        return -1;
    }
    return pc_sqlite_source_finish(self, stop_consumer(self, id, err), err);
}

int
pc_sqlite_source_start_consumers(pc_sqlite_source *self, pc_err *err)
{
    for (pc_link *at = self->consumers.next; at != &self->consumers; at = at->next) {
        if (start_consumer(self, PC_CONTAINER_OF(at, pc_consumer, link), err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The first queue that was removed under us. */
static int
look_for_cancelled(pc_sqlite_source *self, pc_consumer **gone, pc_err *err)
{
    *gone = NULL;
    for (pc_link *at = self->consumers.next; at != &self->consumers; at = at->next) {
        pc_consumer *one = PC_CONTAINER_OF(at, pc_consumer, link);
        int64_t alive;
        pc_sqlite_bind_int(self->db, PC_SQL_QUEUE_ALIVE, 1, one->id);
        if (pc_sqlite_int(self->db, PC_SQL_QUEUE_ALIVE, &alive, err) < 0) {
            return -1;
        }
        if (!alive) {
            *gone = one;
            return 0;
        }
    }
    return 0;
}

static void
cancel(pc_sqlite_source *self, pc_consumer *gone)
{
    pc_link_remove(&gone->link);
    count_queues(self);
    self->base.hooks.cancelled(self->base.hooks.ctx, gone->queue.name);
    free_consumer(gone);
}

int
pc_sqlite_source_check_queues(pc_sqlite_source *self, pc_err *err)
{
    pc_consumer *gone;
    do {
        if (look_for_cancelled(self, &gone, err) < 0) {
            return -1;
        }
        if (gone != NULL) {
            cancel(self, gone);
        }
    } while (gone != NULL && self->state == PC_SOURCE_UP);  // the hook may have closed us
    return 0;
}

void
pc_sqlite_source_free_consumers(pc_sqlite_source *self)
{
    pc_link *at;
    while ((at = pc_list_take_front(&self->consumers)) != NULL) {
        free_consumer(PC_CONTAINER_OF(at, pc_consumer, link));
    }
}
