/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. A program's side of the rpc store: consumes its own reply queue without acks, keeps what
 * came in an inbox. Threads: as in producer_amqp.c, a pump and no thread of our own.
 *
 * The queue must exist before a task is sent, or its result is dropped by the broker. So the first
 * watch() waits for the queue, at most the connect timeout; while it cannot be had, later ones
 * don't wait. The queue is auto-delete, as Celery's: what is sent while we are not connected is
 * lost. */
#include "base/mem.h"
#include "io/amqp_declare.h"
#include "io/amqp_inbox.h"
#include "io/result_message.h"
#include "io/amqp_sender.h"
#include "io/store.h"
#include "wire/table.h"

#define UNWATCHED_MAX 10000u
#define TRY_AGAIN (1 * PC_NS_PER_SEC)
#define SET_UP_SECONDS 4.0  // when no connect timeout is configured
#define FLUSH_NS (1 * PC_NS_PER_SEC)  // at most, at the end
#define CONSUMER "results"

typedef struct results {
    pc_results base;
    pc_amqp_sender sender;
    pc_amqp_inbox inbox;
    char *queue;
    pc_buf arguments;  // of the queue: a table with its length
    bool persistent;
    double set_up_seconds;
    bool consuming;
    bool has_refusal;  // the queue cannot be had; not tried again by itself
    pc_err refusal;
    pc_mono failed;  // when set_up last failed
} results;

static results *
of(pc_results *base)
{
    return (results *)(void *)base;
}

/* ---- the reply queue ---- */

static void
on_consuming(void *ctx, const pc_amqp_method *reply, const pc_message *message)
{
    (void)reply;
    (void)message;
    ((results *)ctx)->consuming = true;
}

static int
set_up(results *r, pc_err *err)
{
    pc_amqp_conn *conn = &r->sender.link.conn;
    pc_queue queue = {
        .name = r->queue,
        .durable = true,
        .auto_delete = true,
        .queue_arguments =
            pc_slice_of(pc_buf_ptr(&r->arguments) + 4, pc_buf_len(&r->arguments) - 4),
    };
    unsigned count = 0;
    return pc_amqp_declare(conn, &queue, NULL, NULL, &count, err) < 0 ||
                   pc_amqp_write_consume(&conn->stream.out, PC_AMQP_CHANNEL, pc_slice_str(r->queue),
                                         pc_slice_str(CONSUMER), true, (pc_slice){0}, err) < 0 ||
                   pc_amqp_conn_want(conn, PC_AMQP_CONSUME_OK, on_consuming, r, err) < 0
               ? -1
               : 0;
}

static void
refuse(results *r, const pc_err *why)
{
    r->has_refusal = true;
    r->refusal = *why;
    pc_log_write(r->base.log, PC_ERROR, "Result queue %s cannot be consumed: %s", r->queue,
                 why->msg);
}

static void
on_up(void *ctx)
{
    results *r = ctx;
    pc_err err = {0};
    if (!r->has_refusal && set_up(r, &err) < 0) {
        refuse(r, &err);
    }
}

static void
on_down(void *ctx, const pc_err *why)
{
    (void)why;
    ((results *)ctx)->consuming = false;
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    results *r = ctx;
    r->consuming = false;
    if (culprit != PC_AMQP_PUBLISH) {
        refuse(r, why);
    }
}

/* Somebody deleted the queue: a new one, while there is a channel. */
static void
on_cancelled(void *ctx, pc_slice consumer_tag)
{
    results *r = ctx;
    (void)consumer_tag;
    r->consuming = false;
    on_up(r);
}

static void
on_message(void *ctx, const pc_message *message, pc_slice consumer_tag)
{
    results *r = ctx;
    pc_err err = {0};
    (void)consumer_tag;
    if (message->correlation_id.len == 0) {
        pc_log_write(r->base.log, PC_WARNING, "A result without correlation id was dropped");
        return;
    }
    if (pc_amqp_inbox_put(&r->inbox, message->correlation_id, message->body, &err) < 0) {
        pc_log_write(r->base.log, PC_ERROR, "The result of task %.*s was dropped: %s",
                     (int)message->correlation_id.len, message->correlation_id.ptr, err.msg);
    }
}

/* ---- waiting, with the lock held ---- */

typedef struct condition {
    const results *r;
    pc_slice id;
    unsigned downs;
    uint64_t newest;  // document, when the wait began
} condition;

static bool
is_hopeless(const condition *c)
{
    const pc_amqp_link *link = &c->r->sender.link;
    return c->r->has_refusal || (link->downs != c->downs && link->why_down.code == PC_EAUTH);
}

static int
is_set_up(void *ctx)
{
    const condition *c = ctx;
    return c->r->consuming || is_hopeless(c);
}

static int
has_news(void *ctx)
{
    const condition *c = ctx;
    return pc_amqp_inbox_newest(&c->r->inbox, c->id) > c->newest || is_hopeless(c);
}

static int
explain(const results *r, pc_err *err)
{
    const pc_err *why = r->has_refusal ? &r->refusal : &r->sender.link.why_down;
    return pc_fail(err, why->code == PC_OK ? PC_EIO : why->code, "%s", why->msg);
}

/* Begins to connect and set up where that is needed; does not wait. */
static int
start(results *r, pc_err *err)
{
    if (pc_amqp_sender_refresh(&r->sender, err) < 0) {
        return -1;
    }
    pc_amqp_link_wake(&r->sender.link);
    if (r->has_refusal) {
        r->has_refusal = false;
        if (pc_amqp_conn_is_ready(&r->sender.link.conn)) {
            on_up(r);
        }
    }
    return 0;
}

static int
wait_set_up(results *r, pc_mono deadline, pc_err *err)
{
    condition c = {.r = r, .downs = r->sender.link.downs};
    pc_err why = {0};
    if (r->consuming) {
        return 0;
    }
    int rc = pc_pump_wait(r->sender.pump, is_set_up, &c, deadline, NULL, &why);
    if (r->consuming) {
        return 0;
    }
    r->failed = pc_mono_now();
    if (rc < 0 && r->sender.link.why_down.code == PC_OK) {
        return pc_fail(err, why.code, "%s: no reply queue yet: %s", r->sender.link.conn.name,
                       why.msg);
    }
    return explain(r, err);
}

/* ---- for the owner ---- */

static void destroy(pc_results *base);

static int
make_arguments(results *r, double expires, pc_err *err)
{
    pc_table_out table;
    pc_table_out_init(&table, &r->arguments);
    pc_sink *sink = &table.sink;
    if (sink->ops->map_start(sink, err) < 0) {
        return -1;
    }
    if (expires > 0 && (sink->ops->key(sink, pc_slice_str("x-expires"), err) < 0 ||
                        sink->ops->integer(sink, (int64_t)(expires * 1000), err) < 0)) {
        return -1;
    }
    return sink->ops->map_end(sink, err);
}

static pc_results *
create(const pc_store_config *config, const pc_log *log, pc_err *err)
{
    results *r = NULL;
    if (config->broker == NULL || config->reply_queue == NULL) {
        pc_fail(err, PC_EDATA, "rpc results need an AMQP broker and the name of a reply queue");
        return NULL;
    }
    r = pc_zalloc(sizeof *r);
    if (r == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    r->base = (pc_results){&pc_results_rpc, log};
    r->persistent = config->persistent;
    r->set_up_seconds =
        config->broker->connect_timeout > 0 ? config->broker->connect_timeout : SET_UP_SECONDS;
    r->failed = (pc_mono){INT64_MIN / 2};
    pc_amqp_inbox_init(&r->inbox, UNWATCHED_MAX);
    pc_buf_init(&r->arguments);
    r->queue = pc_strdup(config->reply_queue, strlen(config->reply_queue));
    pc_broker_config broker = *config->broker;
    broker.confirm = 1;
    pc_amqp_sender_hooks hooks = {on_up, on_down, on_refused, on_message, on_cancelled, r};
    if (r->queue == NULL) {
        pc_fail_nomem(err);
        goto fail;
    }
    if (make_arguments(r, config->expires, err) < 0 ||
        pc_amqp_sender_init(&r->sender, &broker, &hooks, log, err) < 0) {
        goto fail;
    }
    return &r->base;
fail:
    destroy(&r->base);
    return NULL;
}

static int
set(pc_results *base, const pc_store_item *item, pc_mono deadline, pc_err *err)
{
    results *r = of(base);
    pc_message message;
    if (!pc_result_is_wanted(item)) {
        return 0;
    }
    pc_result_message(item, r->persistent, &message);
    pc_pump_lock(r->sender.pump);
    int rc = pc_amqp_sender_publish(&r->sender, &message, false, deadline, err);
    pc_pump_unlock(r->sender.pump);
    return rc;
}

static int
get(pc_results *base, pc_slice id, pc_buf *out, bool *found, pc_mono deadline, pc_err *err)
{
    results *r = of(base);
    *found = false;
    pc_pump_lock(r->sender.pump);
    int rc = pc_amqp_sender_poll(&r->sender, err);
    pc_slice document = pc_amqp_inbox_peek(&r->inbox, id);
    if (rc == 0 && document.ptr == NULL && !r->consuming) {
        rc = start(r, err);
        rc = rc < 0 ? rc : wait_set_up(r, deadline, err);
        document = pc_amqp_inbox_peek(&r->inbox, id);
    }
    if (rc == 0 && document.ptr != NULL) {
        rc = pc_buf_put_slice(out, document, err);
        *found = rc == 0;
    }
    pc_pump_unlock(r->sender.pump);
    return rc;
}

static int
watch(pc_results *base, pc_slice id, pc_err *err)
{
    results *r = of(base);
    pc_pump_lock(r->sender.pump);
    int rc = pc_amqp_inbox_watch(&r->inbox, id, err);
    pc_mono now = pc_mono_now();
    if (rc == 0 && start(r, NULL) == 0 && now.ns - r->failed.ns > TRY_AGAIN) {
        pc_mono deadline = pc_mono_add(now, (int64_t)(r->set_up_seconds * 1e9));
        (void)wait_set_up(r, deadline, NULL);  // wait() will tell
    }
    pc_pump_unlock(r->sender.pump);
    return rc;
}

static int
wait_locked(results *r, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    condition c = {.r = r, .id = id, .downs = r->sender.link.downs};
    if (pc_amqp_inbox_watch(&r->inbox, id, err) < 0) {
        return -1;
    }
    c.newest = pc_amqp_inbox_newest(&r->inbox, id);
    if (!pc_amqp_inbox_has_unread(&r->inbox, id) &&
        (start(r, err) < 0 ||
         pc_pump_wait(r->sender.pump, has_news, &c, deadline, eintr, err) < 0)) {
        return -1;
    }
    if (pc_amqp_inbox_has_unread(&r->inbox, id)) {
        return pc_amqp_inbox_read(&r->inbox, id, out, err);
    }
    // Another thread that waits for this id was first: a copy.
    return pc_amqp_inbox_newest(&r->inbox, id) > c.newest
               ? pc_buf_put_slice(out, pc_amqp_inbox_peek(&r->inbox, id), err)
               : explain(r, err);
}

static int
wait_results(pc_results *base, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    results *r = of(base);
    if (eintr != NULL) {
        *eintr = false;
    }
    pc_pump_lock(r->sender.pump);
    int rc = wait_locked(r, id, out, deadline, eintr, err);
    pc_pump_unlock(r->sender.pump);
    return rc;
}

static void
unwatch(pc_results *base, pc_slice id)
{
    results *r = of(base);
    pc_pump_lock(r->sender.pump);
    pc_amqp_inbox_unwatch(&r->inbox, id);
    pc_pump_unlock(r->sender.pump);
}

/* Here only: the broker keeps nothing. */
static int
forget(pc_results *base, pc_slice id, pc_mono deadline, pc_err *err)
{
    results *r = of(base);
    (void)deadline;
    (void)err;
    pc_pump_lock(r->sender.pump);
    pc_amqp_inbox_forget(&r->inbox, id);
    pc_pump_unlock(r->sender.pump);
    return 0;
}

static void
abandon(pc_results *base)
{
    pc_amqp_link_abandon(&of(base)->sender.link);
}

/* Unread confirms make the kernel reset the connection at close, and the broker may lose what it has not read. */
static void
flush_results(results *r)
{
    if (pc_amqp_conn_is_ready(&r->sender.link.conn)) {
        pc_pump_lock(r->sender.pump);
        (void)pc_amqp_sender_flush(&r->sender, pc_mono_add(pc_mono_now(), FLUSH_NS), NULL);
        pc_pump_unlock(r->sender.pump);
    }
}

static void
destroy(pc_results *base)
{
    if (base == NULL) {
        return;
    }
    results *r = of(base);
    if (r->sender.pump != NULL) {
        flush_results(r);
        pc_amqp_conn_quit(&r->sender.link.conn);
    }
    pc_amqp_sender_fini(&r->sender);
    pc_amqp_inbox_fini(&r->inbox);
    pc_buf_fini(&r->arguments);
    pc_free(r->queue);
    pc_free(r);
}

const pc_results_ops pc_results_rpc = {
    .scheme = "rpc",
    .create = create,
    .set = set,
    .get = get,
    .watch = watch,
    .wait = wait_results,
    .unwatch = unwatch,
    .forget = forget,
    .abandon = abandon,
    .destroy = destroy,
};
