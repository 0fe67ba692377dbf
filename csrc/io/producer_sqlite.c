/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. One connection behind one mutex, which is held for a transaction. Each publish, and each
 * batch, is a transaction and is durable when it returns, so nothing is ever unconfirmed. */
#include <pthread.h>

#include "base/map.h"
#include "base/mem.h"
#include "io/broker.h"
#include "io/sqlite_bell.h"
#include "io/sqlite_queue.h"
#include "io/sqlite_row.h"

#define ASK_NS (100 * PC_NS_PER_MS)

typedef struct producer {
    pc_producer base;
    int (*interrupted)(void);
    pthread_mutex_t mutex;
    char *path;
    int synchronous;
    pc_sqlite *db;  // NULL: not connected
    pc_bell bell;
    pc_map declared;  // key -> the key itself, owned
    pc_buf scratch;
} producer;

static producer *
self_of(pc_producer *base)
{
    return PC_CONTAINER_OF(base, producer, base);
}

static void
forget_declared(producer *self)
{
    size_t pos = 0;
    char *key;
    while ((key = pc_map_next(&self->declared, &pos)) != NULL) {
        pc_free(key);
    }
    pc_map_fini(&self->declared);
    pc_map_init(&self->declared);
}

static void
disconnect(producer *self)
{
    pc_bell_fini(&self->bell);
    pc_sqlite_close(self->db);
    self->db = NULL;
    forget_declared(self);
}

static int
open_files(producer *self, pc_mono deadline, pc_err *err)
{
    self->db = pc_sqlite_open(self->path, self->synchronous, deadline, err);
    if (self->db == NULL) {
        return -1;
    }
    if (pc_bell_open(&self->bell, pc_sqlite_path(self->db), err) < 0) {
        disconnect(self);
        return -1;
    }
    return 0;
}

/* Connected, and to the file that has the path now. */
static int
ensure(producer *self, pc_mono deadline, pc_err *err)
{
    if (self->db != NULL && pc_sqlite_moved(self->db)) {
        disconnect(self);
    }
    return self->db != NULL ? 0 : open_files(self, deadline, err);
}

static int
try_to_begin(producer *self, pc_mono deadline, pc_err *err)
{
    return ensure(self, deadline, err) < 0 ? -1 : pc_sqlite_begin(self->db, deadline, err);
}

/* The mutex is held. It is let go while others are asked: they may call this producer. */
static int
begin(producer *self, pc_mono deadline, pc_err *err)
{
    while (self->interrupted != NULL) {
        pc_err why = {0};
        pc_mono until = pc_mono_add(pc_mono_now(), ASK_NS);
        if (until.ns >= deadline.ns) {
            break;
        }
        if (try_to_begin(self, until, &why) == 0) {
            return 0;
        }
        if (why.code != PC_ETIMEOUT) {
            return pc_fail(err, why.code, "%s", why.msg);
        }
        pthread_mutex_unlock(&self->mutex);
        int stop = self->interrupted();
        pthread_mutex_lock(&self->mutex);
        if (stop != 0) {
            return pc_fail(err, PC_ESTATE, "the wait was interrupted");
        }
    }
    return try_to_begin(self, deadline, err);
}

/* Commits when the body of the transaction went well. */
static int
finish(producer *self, int rc, pc_err *err)
{
    if (rc < 0) {
        pc_sqlite_rollback(self->db);
        return -1;
    }
    return pc_sqlite_commit(self->db, err);
}

static int
connect_to(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pthread_mutex_lock(&self->mutex);
    int rc = ensure(self, deadline, err);
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

static int
put(producer *self, const pc_message *message, bool mandatory, int64_t due, pc_sqlite_route *route,
    pc_err *err)
{
    if (pc_sqlite_queue_put(self->db, message, due, &self->scratch, route, err) < 0) {
        return -1;
    }
    if (mandatory && route->copies == 0) {
        return pc_fail(
            err, PC_ENOTFOUND,
            "no queue is bound to exchange %.*s with routing key %.*s; declare one first",
            (int)message->exchange.len, message->exchange.ptr, (int)message->routing_key.len,
            message->routing_key.ptr == NULL ? "" : message->routing_key.ptr);
    }
    return 0;
}

/* Microseconds, 0: now. */
static int64_t
moment(pc_wall due)
{
    return due.us > pc_wall_now().us ? due.us : 0;
}

static int
publish(pc_producer *base, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pc_sqlite_route route = {0};
    int64_t when = has_due ? moment(due) : 0;
    pthread_mutex_lock(&self->mutex);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, put(self, message, mandatory, when, &route, err), err);
    }
    if (rc == 0) {
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, route.mask, route.copies);
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

/* Each has a route of its own for the sake of `mandatory`. */
static int
put_all(producer *self, const pc_outgoing *messages, size_t n, pc_sqlite_route *all, pc_err *err)
{
    for (size_t i = 0; i < n; i++) {
        pc_sqlite_route route = {0};
        int64_t when = messages[i].has_due ? moment(messages[i].due) : 0;
        if (put(self, &messages[i].message, messages[i].mandatory, when, &route, err) < 0) {
            return -1;
        }
        all->copies += route.copies;
        all->mask |= route.mask;
    }
    return 0;
}

/* One transaction: all or none. */
static int
publish_many(pc_producer *base, const pc_outgoing *messages, size_t n, pc_mono deadline,
             size_t *done, pc_err *err)
{
    producer *self = self_of(base);
    pc_sqlite_route route = {0};
    *done = 0;
    pthread_mutex_lock(&self->mutex);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, put_all(self, messages, n, &route, err), err);
    }
    if (rc == 0) {
        *done = n;
        pc_bell_ring(&self->bell, PC_BELL_QUEUE, route.mask, route.copies);
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

static int
flush(pc_producer *base, pc_mono deadline, pc_err *err)
{
    (void)base;
    (void)deadline;
    (void)err;
    return 0;  // publish() has committed
}

static size_t
unconfirmed(pc_producer *base)
{
    (void)base;
    return 0;
}

/* --- declaring --- */

static char *
declaration_key(producer *self, const pc_queue *queue, pc_err *err)
{
    const char *parts[] = {queue->name, queue->exchange, queue->exchange_type, queue->routing_key};
    pc_buf_reset(&self->scratch, 4096);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        // a byte that can't be in the parts keeps ("a", "bc") and ("ab", "c") apart
        if (pc_buf_put_str(&self->scratch, parts[i] == NULL ? "" : parts[i], err) < 0 ||
            pc_buf_put_u8(&self->scratch, 0x01, err) < 0) {
            return NULL;
        }
    }
    char *key = pc_strdup(pc_buf_ptr(&self->scratch), pc_buf_len(&self->scratch));
    if (key == NULL) {
        (void)pc_fail_nomem(err);
    }
    return key;
}

static int
declare_once(producer *self, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    if (ensure(self, deadline, err) < 0) {
        return -1;
    }
    char *key = declaration_key(self, queue, err);
    if (key == NULL) {
        return -1;
    }
    if (pc_map_get(&self->declared, pc_slice_str(key)) != NULL) {
        pc_free(key);
        return 0;
    }
    if (pc_sqlite_begin(self->db, deadline, err) < 0 ||
        finish(self, pc_sqlite_queue_declare(self->db, queue, err), err) < 0 ||
        pc_map_put(&self->declared, pc_slice_str(key), key, NULL, err) < 0) {
        pc_free(key);
        return -1;
    }
    return 0;
}

static int
declare(pc_producer *base, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pthread_mutex_lock(&self->mutex);
    int rc = declare_once(self, queue, deadline, err);
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

/* --- looking into queues --- */

/* PC_ENOTFOUND when there is no such queue. */
static int
find(producer *self, const char *queue, int64_t *id, pc_err *err)
{
    if (pc_sqlite_queue_find(self->db, queue, id, err) < 0) {
        return -1;
    }
    return *id != 0 ? 0
                    : pc_fail(err, PC_ENOTFOUND, "no queue %.100s in %.100s", queue, self->path);
}

static int
count(producer *self, pc_sql which, int64_t id, uint64_t *out, pc_err *err)
{
    int64_t n;
    pc_sqlite_bind_int(self->db, which, 1, id);
    if (pc_sqlite_int(self->db, which, &n, err) < 0) {
        return -1;
    }
    *out = (uint64_t)n;
    return 0;
}

static int
measure(producer *self, const char *queue, uint64_t *messages, uint64_t *consumers,
        pc_mono deadline, pc_err *err)
{
    int64_t id;
    if (ensure(self, deadline, err) < 0 || find(self, queue, &id, err) < 0 ||
        count(self, PC_SQL_QUEUE_SIZE, id, messages, err) < 0) {
        return -1;
    }
    return count(self, PC_SQL_QUEUE_CONSUMERS, id, consumers, err);
}

static int
size(pc_producer *base, const char *queue, uint64_t *messages, uint64_t *consumers,
     pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pthread_mutex_lock(&self->mutex);
    int rc = measure(self, queue, messages, consumers, deadline, err);
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

static int
empty(producer *self, const char *queue, uint64_t *messages, pc_err *err)
{
    int64_t id;
    if (find(self, queue, &id, err) < 0) {
        return -1;
    }
    pc_sqlite_bind_int(self->db, PC_SQL_QUEUE_PURGE, 1, id);
    int n = pc_sqlite_run(self->db, PC_SQL_QUEUE_PURGE, err);
    if (n < 0) {
        return -1;
    }
    *messages = (uint64_t)n;
    return 0;
}

static int
purge(pc_producer *base, const char *queue, uint64_t *messages, pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pthread_mutex_lock(&self->mutex);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, empty(self, queue, messages, err), err);
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

static int
drop(producer *self, const char *queue, pc_err *err)
{
    pc_sqlite_bind_text(self->db, PC_SQL_QUEUE_REMOVE, 1, pc_slice_str(queue));
    if (pc_sqlite_run(self->db, PC_SQL_QUEUE_REMOVE, err) < 0) {
        return -1;
    }
    forget_declared(self);
    return 0;
}

/* A queue that isn't there counts as removed, as with RabbitMQ. */
static int
remove_queue(pc_producer *base, const char *queue, pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pthread_mutex_lock(&self->mutex);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        rc = finish(self, drop(self, queue, err), err);
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

/* 1: the row is in memory, 0: empty, -1. */
static int
take(producer *self, const char *queue, pc_buf *memory, pc_sqlite_row *row, pc_err *err)
{
    int64_t id;
    if (find(self, queue, &id, err) < 0) {
        return -1;
    }
    pc_sqlite_bind_int(self->db, PC_SQL_MSG_TAKE, 1, id);
    int rc = pc_sqlite_step(self->db, PC_SQL_MSG_TAKE, err);
    if (rc <= 0) {
        return rc;
    }
    rc = pc_sqlite_row_read(self->db, PC_SQL_MSG_TAKE, memory, row, err);
    pc_sqlite_reset(self->db, PC_SQL_MSG_TAKE);
    if (rc < 0) {
        return -1;
    }
    row->tries++;  // a claim counts before it delivers
    return 1;
}

static int
get(pc_producer *base, const char *queue, bool *found, pc_message *message, pc_buf *memory,
    pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    pc_sqlite_row row;
    *found = false;
    pc_buf_reset(memory, SIZE_MAX);
    pthread_mutex_lock(&self->mutex);
    int rc = begin(self, deadline, err);
    if (rc == 0) {
        int got = take(self, queue, memory, &row, err);
        rc = finish(self, got, err);
        *found = rc == 0 && got > 0;
    }
    pthread_mutex_unlock(&self->mutex);
    return *found ? pc_sqlite_row_message(&row, memory, message, err) : rc;
}

/* --- life --- */

static int
close_files(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *self = self_of(base);
    (void)deadline;
    (void)err;
    pthread_mutex_lock(&self->mutex);
    disconnect(self);
    pthread_mutex_unlock(&self->mutex);
    return 0;
}

/* Only the forking thread exists in the child: a mutex that is locked here was some other thread's,
 * in the middle of a call, and what that call worked on is forgotten. The producer is as new
 * afterwards. */
static void
abandon(pc_producer *base)
{
    producer *self = self_of(base);
    bool idle = pthread_mutex_trylock(&self->mutex) == 0;
    if (idle) {
        pthread_mutex_unlock(&self->mutex);
        forget_declared(self);
    } else {
        (void)pthread_mutex_init(&self->mutex, NULL);
        pc_map_init(&self->declared);
        pc_buf_init(&self->scratch);
    }
    pc_bell_abandon(&self->bell);
    pc_sqlite_abandon(self->db, idle);
    self->db = NULL;
}

static void
destroy(pc_producer *base)
{
    if (base == NULL) {
        return;
    }
    producer *self = self_of(base);
    disconnect(self);
    pc_map_fini(&self->declared);
    pc_buf_fini(&self->scratch);
    pthread_mutex_destroy(&self->mutex);
    pc_free(self->path);
    pc_free(self);
}

static pc_producer *
create(const pc_broker_config *config, const pc_log *log, pc_err *err)
{
    const char *path = config->vhost == NULL ? "" : config->vhost;
    producer *self = pc_zalloc(sizeof *self);
    if (self == NULL) {
        (void)pc_fail_nomem(err);
        return NULL;
    }
    self->base = (pc_producer){&pc_producer_sqlite, log};
    self->synchronous = config->synchronous;
    self->interrupted = config->interrupted;
    (void)pthread_mutex_init(&self->mutex, NULL);  // cannot fail with default attributes
    pc_bell_init(&self->bell);
    pc_map_init(&self->declared);
    pc_buf_init(&self->scratch);
    self->path = pc_strdup(path, strlen(path));
    if (self->path == NULL) {
        (void)pc_fail_nomem(err);
        destroy(&self->base);
        return NULL;
    }
    return &self->base;
}

const pc_producer_ops pc_producer_sqlite = {
    .scheme = "sqlite",
    .headers_kind = PC_HEADERS_JSON,
    .create = create,
    .connect = connect_to,
    .publish = publish,
    .publish_many = publish_many,
    .flush = flush,
    .unconfirmed = unconfirmed,
    .declare = declare,
    .size = size,
    .purge = purge,
    .remove = remove_queue,
    .get = get,
    .close = close_files,
    .abandon = abandon,
    .destroy = destroy,
};
