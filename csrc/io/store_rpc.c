/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of the rpc store: each document is one confirmed message to the client's reply
 * queue, on a connection of its own (an alarm of the broker must not hold up acks). A client that
 * has gone has no queue: the broker drops the message and confirms it. */
#include "base/list.h"
#include "base/mem.h"
#include "io/amqp_link.h"
#include "io/result_message.h"
#include "io/store.h"

/* One put() that is not reported yet. */
typedef struct entry {
    pc_link link;
    void *cookie;
    bool done;
    bool failed;
    pc_err why;  // only when failed
} entry;

typedef struct store {
    pc_store base;
    pc_loop *loop;
    pc_amqp_link link;
    pc_link entries;  // in order of put()
    size_t pending;
    bool persistent;
    pc_defer report;  // for documents that nobody wants
} store;

static store *
of(pc_store *base)
{
    return (store *)(void *)base;
}

static void
report(store *s)
{
    while (!pc_list_empty(&s->entries)) {
        entry *e = PC_CONTAINER_OF(s->entries.next, entry, link);
        if (!e->done) {
            return;
        }
        pc_link_remove(&e->link);
        s->pending--;
        s->base.hooks.stored(s->base.hooks.ctx, e->cookie, e->failed ? &e->why : NULL);
        pc_free(e);
    }
}

static void
on_report(void *ctx)
{
    report(ctx);
}

static void
on_settled(void *ctx, void *cookie, const pc_err *why)
{
    entry *e = cookie;
    e->done = true;
    if (why != NULL) {
        e->failed = true;
        e->why = *why;
    }
    // Not from here: the window is in the middle of its work.
    pc_loop_defer(((store *)ctx)->loop, &((store *)ctx)->report);
}

static void
on_up(void *ctx)
{
    store *s = ctx;
    s->base.hooks.up(s->base.hooks.ctx);
}

static void
on_down(void *ctx, const pc_err *why)
{
    store *s = ctx;
    s->base.hooks.down(s->base.hooks.ctx, why);
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    store *s = ctx;
    (void)culprit;
    pc_log_write(s->base.log, PC_WARNING, "Result channel closed, opening it again: %s", why->msg);
}

static void destroy(pc_store *base);

static pc_store *
create(const pc_store_config *config, pc_loop *loop, const pc_store_hooks *hooks, const pc_log *log,
       pc_err *err)
{
    store *s = NULL;
    if (config->broker == NULL) {
        pc_fail(err, PC_EDATA, "the rpc result store needs an AMQP broker");
        return NULL;
    }
    s = pc_zalloc(sizeof *s);
    if (s == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    s->base = (pc_store){&pc_store_rpc, *hooks, log};
    s->loop = loop;
    s->persistent = config->persistent;
    pc_link_init(&s->entries);
    pc_defer_init(&s->report, on_report, s);
    pc_amqp_link_hooks mine = {
        .up = on_up,
        .down = on_down,
        .refused = on_refused,
        .settled = on_settled,
        .ctx = s,
    };
    if (pc_amqp_link_init(&s->link, loop, config->broker, true, &mine, log, err) < 0) {
        destroy(&s->base);
        return NULL;
    }
    pc_amqp_link_wake(&s->link);
    return &s->base;
}

static int
put(pc_store *base, const pc_store_item *item, void *cookie, pc_err *err)
{
    store *s = of(base);
    entry *e = pc_alloc(sizeof *e);
    if (e == NULL) {
        return pc_fail_nomem(err);
    }
    pc_link_init(&e->link);
    e->cookie = cookie;
    e->failed = false;
    e->done = !pc_result_is_wanted(item);
    if (e->done) {
        pc_loop_defer(s->loop, &s->report);
    } else {
        pc_message message;
        pc_result_message(item, s->persistent, &message);
        if (pc_amqp_link_put(&s->link, &message, false, e, err) < 0) {
            pc_free(e);
            return -1;
        }
        pc_amqp_link_send(&s->link);
    }
    pc_list_put_back(&s->entries, &e->link);
    s->pending++;
    return 0;
}

static size_t
pending(const pc_store *base)
{
    return ((const store *)(const void *)base)->pending;
}

static void
abandon(pc_store *base)
{
    pc_amqp_link_abandon(&of(base)->link);
}

static void
destroy(pc_store *base)
{
    if (base == NULL) {
        return;
    }
    store *s = of(base);
    pc_link *link = NULL;
    pc_loop_undefer(s->loop, &s->report);
    if (s->link.loop != NULL) {
        pc_amqp_conn_quit(&s->link.conn);
    }
    pc_amqp_link_fini(&s->link);
    while ((link = pc_list_take_front(&s->entries)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, entry, link));
    }
    pc_free(s);
}

const pc_store_ops pc_store_rpc = {
    .scheme = "rpc",
    .create = create,
    .put = put,
    .pending = pending,
    .abandon = abandon,
    .destroy = destroy,
};
