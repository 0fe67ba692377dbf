/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_queue.h"

#include "io/sqlite_bell.h"
#include "io/sqlite_row.h"

static bool
is_named(const char *name)
{
    return name != NULL && name[0] != '\0';
}

static int
add_queue(pc_sqlite *db, pc_slice name, bool auto_delete, pc_err *err)
{
    pc_sqlite_bind_text(db, PC_SQL_QUEUE_ADD, 1, name);
    pc_sqlite_bind_int(db, PC_SQL_QUEUE_ADD, 2, auto_delete);
    return pc_sqlite_run(db, PC_SQL_QUEUE_ADD, err) < 0 ? -1 : 0;
}

static int
add_exchange(pc_sqlite *db, const char *name, const char *type, pc_err *err)
{
    if (pc_slice_is(pc_slice_str(type), "headers")) {
        return pc_fail(
            err, PC_EUNSUP,
            "exchange %.100s: type headers is not available on SQLite; use direct, topic or fanout",
            name);
    }
    pc_sqlite_bind_text(db, PC_SQL_EXCHANGE_ADD, 1, pc_slice_str(name));
    pc_sqlite_bind_text(db, PC_SQL_EXCHANGE_ADD, 2, pc_slice_str(is_named(type) ? type : "direct"));
    return pc_sqlite_run(db, PC_SQL_EXCHANGE_ADD, err) < 0 ? -1 : 0;
}

static int
bind(pc_sqlite *db, const pc_queue *queue, pc_err *err)
{
    const char *key = queue->routing_key == NULL ? "" : queue->routing_key;
    pc_sqlite_bind_text(db, PC_SQL_BINDING_ADD, 1, pc_slice_str(queue->exchange));
    pc_sqlite_bind_text(db, PC_SQL_BINDING_ADD, 2, pc_slice_str(key));
    pc_sqlite_bind_text(db, PC_SQL_BINDING_ADD, 3, pc_slice_str(queue->name));
    return pc_sqlite_run(db, PC_SQL_BINDING_ADD, err) < 0 ? -1 : 0;
}

int
pc_sqlite_queue_find(pc_sqlite *db, const char *name, int64_t *id, pc_err *err)
{
    pc_sqlite_bind_text(db, PC_SQL_QUEUE_ID, 1, pc_slice_str(name));
    return pc_sqlite_int(db, PC_SQL_QUEUE_ID, id, err);
}

static int
check_exists(pc_sqlite *db, const char *name, pc_err *err)
{
    int64_t id;
    if (pc_sqlite_queue_find(db, name, &id, err) < 0) {
        return -1;
    }
    return id != 0
               ? 0
               : pc_fail(err, PC_ENOTFOUND, "no queue %.100s in %.100s", name, pc_sqlite_path(db));
}

int
pc_sqlite_queue_declare(pc_sqlite *db, const pc_queue *queue, pc_err *err)
{
    if (queue->passive) {
        return check_exists(db, queue->name, err);
    }
    bool named = is_named(queue->name);
    if (named && add_queue(db, pc_slice_str(queue->name), queue->auto_delete || queue->exclusive, err) < 0) {
        return -1;
    }
    if (!is_named(queue->exchange)) {
        return 0;
    }
    if (add_exchange(db, queue->exchange, queue->exchange_type, err) < 0) {
        return -1;
    }
    return named ? bind(db, queue, err) : 0;
}

/* --- routing --- */

static pc_slice
take_word(pc_slice *text)
{
    const char *dot = memchr(text->ptr, '.', text->len);
    size_t len = dot == NULL ? text->len : (size_t)(dot - text->ptr);
    pc_slice word = pc_slice_of(text->ptr, len);
    // after the last word the rest is absent, not empty: "a." has two words
    *text = dot == NULL ? (pc_slice){0} : pc_slice_of(dot + 1, text->len - len - 1);
    return word;
}

bool
pc_sqlite_topic_match(pc_slice pattern, pc_slice key)
{
    pc_slice after_hash = {0};  // pattern behind the last #, and the key's rest that it is tried on
    pc_slice retry = {0};
    bool hash = false;
    for (;;) {
        if (pattern.ptr != NULL) {
            pc_slice rest = pattern;
            pc_slice want = take_word(&rest);
            if (pc_slice_is(want, "#")) {
                pattern = after_hash = rest;
                retry = key;
                hash = true;
                continue;
            }
            if (key.ptr != NULL) {
                pc_slice key_rest = key;
                pc_slice word = take_word(&key_rest);
                if (pc_slice_is(want, "*") || pc_slice_eq(want, word)) {
                    pattern = rest;
                    key = key_rest;
                    continue;
                }
            }
        } else if (key.ptr == NULL) {
            return true;
        }
        if (!hash || retry.ptr == NULL) {
            return false;
        }
        (void)take_word(&retry);  // let the # eat one more word
        key = retry;
        pattern = after_hash;
    }
}

typedef struct put {
    pc_sqlite *db;
    const pc_message *message;
    int64_t due;
    pc_slice props;
    pc_sqlite_route *route;
} put;

/* Number of rows inserted: 0 when there is no such queue. */
static int
insert(const put *self, pc_slice queue, pc_err *err)
{
    const pc_message *message = self->message;
    pc_sqlite_bind_text(self->db, PC_SQL_MSG_PUT, 1, queue);
    pc_sqlite_bind_int(self->db, PC_SQL_MSG_PUT, 2, message->priority < 0 ? 0 : message->priority);
    pc_sqlite_bind_int(self->db, PC_SQL_MSG_PUT, 3, self->due);
    pc_sqlite_bind_blob(self->db, PC_SQL_MSG_PUT, 4, self->props);
    pc_sqlite_bind_text(self->db, PC_SQL_MSG_PUT, 5, message->headers);
    pc_sqlite_bind_blob(self->db, PC_SQL_MSG_PUT, 6, message->body);
    int n = pc_sqlite_run(self->db, PC_SQL_MSG_PUT, err);
    if (n > 0) {
        self->route->copies++;
        self->route->mask |= pc_bell_bit(queue);
    }
    return n;
}

static int
put_direct(const put *self, pc_slice queue, pc_err *err)
{
    int n = insert(self, queue, err);
    if (n == 0) {
        if (add_queue(self->db, queue, false, err) < 0) {
            return -1;
        }
        n = insert(self, queue, err);
    }
    return n < 0 ? -1 : 0;
}

static bool
matches(char type, pc_slice pattern, pc_slice key)
{
    if (type == 'f') {
        return true;
    }
    return type == 't' ? pc_sqlite_topic_match(pattern, key) : pc_slice_eq(pattern, key);
}

/* The list is read to its end before the next row is asked for only where the statement differs:
 * inserting into msg doesn't disturb it. */
static int
put_bound(const put *self, char type, pc_err *err)
{
    pc_sqlite *db = self->db;
    pc_slice key =
        self->message->routing_key.ptr == NULL ? pc_slice_of("", 0) : self->message->routing_key;
    pc_sqlite_bind_text(db, PC_SQL_BINDING_LIST, 1, self->message->exchange);
    int rc;
    while ((rc = pc_sqlite_step(db, PC_SQL_BINDING_LIST, err)) > 0) {
        pc_slice pattern = pc_sqlite_column_slice(db, PC_SQL_BINDING_LIST, 0);
        pc_slice queue = pc_sqlite_column_slice(db, PC_SQL_BINDING_LIST, 1);
        if (matches(type, pattern, key) && insert(self, queue, err) < 0) {
            pc_sqlite_reset(db, PC_SQL_BINDING_LIST);
            return -1;
        }
    }
    return rc;
}

/* First letter of the type, 0 when nobody has declared the exchange. */
static int
exchange_type(pc_sqlite *db, pc_slice name, char *type, pc_err *err)
{
    *type = '\0';
    pc_sqlite_bind_text(db, PC_SQL_EXCHANGE_TYPE, 1, name);
    int rc = pc_sqlite_step(db, PC_SQL_EXCHANGE_TYPE, err);
    if (rc > 0) {
        pc_slice text = pc_sqlite_column_slice(db, PC_SQL_EXCHANGE_TYPE, 0);
        *type = text.len > 0 ? text.ptr[0] : 'd';
        pc_sqlite_reset(db, PC_SQL_EXCHANGE_TYPE);
    }
    return rc < 0 ? -1 : 0;
}

int
pc_sqlite_queue_put(pc_sqlite *db, const pc_message *message, int64_t due, pc_buf *scratch,
                    pc_sqlite_route *route, pc_err *err)
{
    if (message->headers_kind == PC_HEADERS_TABLE) {
        return pc_fail(err, PC_EUNSUP, "headers for SQLite must be JSON");
    }
    pc_buf_reset(scratch, 4096);
    if (pc_sqlite_props_pack(message, scratch, err) < 0) {
        return -1;
    }
    put self = {db, message, due, pc_buf_slice(scratch), route};
    char type = '\0';
    if (message->exchange.len > 0 && exchange_type(db, message->exchange, &type, err) < 0) {
        return -1;
    }
    if (type != '\0') {
        return put_bound(&self, type, err);
    }
    if (message->routing_key.len == 0) {
        return pc_fail(err, PC_EDATA, "a message needs a routing key: the name of its queue");
    }
    return put_direct(&self, message->routing_key, err);
}
