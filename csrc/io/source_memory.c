/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. The source lives on its loop's thread; only `bell` and `rung` are touched by others:
 * whoever changes a queue rings (under the hub's lock), the loop wakes and the source takes what
 * its prefetch count allows, one message from each queue in turn. Settled messages go to the hub at
 * the end of the turn, because the owner may still look at the one it was lent. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/memory_hub.h"

#define TURN_BUDGET 256  // deliveries a turn, so that nobody else starves

typedef struct consumer {
    pc_link link;
    pc_hub_sub sub;
    bool no_ack;
    size_t name_len;
    char name[];
} consumer;

typedef struct source {
    pc_source base;
    pc_loop *loop;
    pc_hub *hub;
    int bell;  // eventfd
    atomic_bool rung;
    pc_watch watch;
    pc_defer settle;
    enum { IDLE, CONNECTING, UP } state;
    bool paused;
    bool starved;       // stopped taking although there may be more
    unsigned prefetch;  // 0: no limit
    pc_link consumers;  // the next to be served first
    size_t consumer_count;
    uint64_t last_tag;
    pc_map flying;     // tag -> pc_hub_message
    pc_link flight;    // the same, in order of delivery
    pc_link dropped;   // settled, to be freed
    pc_link requeued;  // settled, to be given back
} source;

static source *
cast(pc_source *base)
{
    return PC_CONTAINER_OF(base, source, base);
}

static void
ring(void *ctx)
{
    source *s = ctx;
    if (!atomic_exchange(&s->rung, true)) {
        uint64_t one = 1;
        ssize_t done = write(s->bell, &one, sizeof one);
        (void)done;  // fails only when the counter is full: rung then, too
    }
}

static pc_slice
key_of(const pc_hub_message *m)
{
    return pc_slice_of((const char *)&m->message.tag, sizeof m->message.tag);
}

static bool
is_full(const source *s)
{
    return s->prefetch != 0 && s->flying.len >= s->prefetch;
}

/* --- consumers --- */

static consumer *
find_consumer(const source *s, const char *name)
{
    pc_link *link = s->consumers.next;
    for (; link != &s->consumers; link = link->next) {
        consumer *c = PC_CONTAINER_OF(link, consumer, link);
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static void
remove_consumer(source *s, consumer *c)
{
    pc_link_remove(&c->link);
    s->consumer_count--;
    pc_hub_unsubscribe(s->hub, &c->sub);
    pc_free(c);
}

static int
add_queue(pc_source *base, const pc_queue *queue, pc_err *err)
{
    source *s = cast(base);
    if (find_consumer(s, queue->name) != NULL) {
        return 0;
    }
    if (pc_hub_declare(s->hub, queue, err) != 0) {
        return -1;
    }
    size_t len = strlen(queue->name);
    consumer *c = pc_zalloc(sizeof *c + len + 1);
    if (c == NULL) {
        return pc_fail_nomem(err);
    }
    memcpy(c->name, queue->name, len + 1);
    c->no_ack = queue->no_ack;
    c->sub.notify = ring;
    c->sub.ctx = s;
    if (pc_hub_subscribe(s->hub, &c->sub, c->name, err) != 0) {
        pc_free(c);
        return -1;
    }
    pc_list_put_back(&s->consumers, &c->link);
    s->consumer_count++;
    return 0;
}

static int
drop_queue(pc_source *base, const char *name, pc_err *err)
{
    source *s = cast(base);
    consumer *c = find_consumer(s, name);
    if (c == NULL) {
        return pc_fail(err, PC_ENOTFOUND, "queue %s is not consumed", name);
    }
    remove_consumer(s, c);
    return 0;
}

/* --- delivering --- */

static void
report_cancelled(source *s, consumer *c)
{
    pc_link_remove(&c->link);
    s->consumer_count--;
    pc_hub_unsubscribe(s->hub, &c->sub);
    s->base.hooks.cancelled(s->base.hooks.ctx, c->name);
    pc_free(c);
}

static void
hand_out(source *s, const consumer *c, pc_hub_message *m)
{
    m->message.tag = ++s->last_tag;
    if (c->no_ack) {
        s->base.hooks.message(s->base.hooks.ctx, &m->message);
        pc_hub_drop(s->hub, m);
        return;
    }
    if (pc_map_put(&s->flying, key_of(m), m, NULL, NULL) != 0) {
        pc_log_write(s->base.log, PC_ERROR, "out of memory: a message stays in its queue");
        pc_hub_requeue(s->hub, m);
        return;
    }
    pc_list_put_back(&s->flight, &m->link);
    s->base.hooks.message(s->base.hooks.ctx, &m->message);
}

/* Everything is looked at afresh after each callback: it may have paused, closed or dropped
 * anything. */
static void
deliver(source *s)
{
    size_t misses = 0;
    int left = TURN_BUDGET;
    s->starved = false;
    while (s->state == UP && !s->paused && misses < s->consumer_count) {
        if (is_full(s) || left == 0) {
            s->starved = true;
            break;
        }
        pc_link *link = pc_list_take_front(&s->consumers);
        pc_list_put_back(&s->consumers, link);
        consumer *c = PC_CONTAINER_OF(link, consumer, link);
        pc_hub_message *m = pc_hub_take(s->hub, &c->sub);
        if (m != NULL) {
            misses = 0;
            left--;
            hand_out(s, c, m);
        } else if (pc_hub_is_deleted(s->hub, &c->sub)) {
            report_cancelled(s, c);
        } else {
            misses++;
        }
    }
    if (s->starved && !is_full(s)) {
        ring(s);
    }
}

static void
on_bell(void *ctx, unsigned events)
{
    (void)events;
    source *s = ctx;
    uint64_t count = 0;
    ssize_t done = read(s->bell, &count, sizeof count);
    (void)done;
    // Before looking at the queues: what comes later rings again.
    atomic_store(&s->rung, false);
    if (s->state == CONNECTING) {
        s->state = UP;
        s->base.hooks.up(s->base.hooks.ctx);
    }
    deliver(s);
}

/* --- settling --- */

static void
return_settled(source *s)
{
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&s->dropped)) != NULL) {
        pc_hub_drop(s->hub, PC_CONTAINER_OF(link, pc_hub_message, link));
    }
    // Each goes to the front: the last first keeps their order.
    while (!pc_list_empty(&s->requeued)) {
        link = s->requeued.prev;
        pc_link_remove(link);
        pc_hub_requeue(s->hub, PC_CONTAINER_OF(link, pc_hub_message, link));
    }
}

static void
on_settle(void *ctx)
{
    source *s = ctx;
    return_settled(s);
    if (s->starved && !is_full(s)) {
        ring(s);
    }
}

static int
settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err)
{
    (void)err;
    source *s = cast(base);
    pc_hub_message *m = pc_map_take(&s->flying, pc_slice_of((const char *)&tag, sizeof tag));
    if (m != NULL) {
        pc_link_remove(&m->link);
        pc_list_put_back(how == PC_REQUEUE ? &s->requeued : &s->dropped, &m->link);
        pc_loop_defer(s->loop, &s->settle);
    }
    return 0;
}

static int
prefetch(pc_source *base, unsigned count, pc_err *err)
{
    (void)err;
    source *s = cast(base);
    s->prefetch = count;
    if (s->starved && !is_full(s)) {
        ring(s);
    }
    return 0;
}

/* --- life --- */

static void destroy(pc_source *base);

static pc_source *
create(const pc_broker_config *config, pc_loop *loop, const pc_source_hooks *hooks,
       const pc_log *log, pc_err *err)
{
    if (config->hub == NULL) {
        pc_fail(err, PC_EDATA, "the memory broker needs a hub");
        return NULL;
    }
    source *s = pc_zalloc(sizeof *s);
    if (s == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    s->base =
        (pc_source){.ops = &pc_source_memory, .hooks = *hooks, .log = log, .global_qos = true};
    s->loop = loop;
    s->hub = config->hub;
    pc_link_init(&s->consumers);
    pc_link_init(&s->flight);
    pc_link_init(&s->dropped);
    pc_link_init(&s->requeued);
    pc_map_init(&s->flying);
    pc_defer_init(&s->settle, on_settle, s);
    atomic_init(&s->rung, false);
    s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pc_watch_init(&s->watch, s->bell, on_bell, s);
    if (s->bell < 0) {
        pc_fail_errno(err, PC_EIO, "cannot create an eventfd");
        goto fail;
    }
    if (pc_loop_watch(loop, &s->watch, PC_READ, err) != 0) {
        goto fail;
    }
    return &s->base;
fail:
    destroy(&s->base);
    return NULL;
}

static int
connect_now(pc_source *base, pc_err *err)
{
    source *s = cast(base);
    if (s->state != IDLE) {
        return pc_fail(err, PC_ESTATE, "the source is connected already");
    }
    s->state = CONNECTING;
    s->paused = false;
    ring(s);
    return 0;
}

static int
pause_now(pc_source *base, pc_err *err)
{
    (void)err;
    cast(base)->paused = true;
    return 0;
}

static int
close_now(pc_source *base, pc_mono deadline, pc_err *err)
{
    (void)deadline;  // nothing here waits
    (void)err;
    source *s = cast(base);
    s->state = IDLE;
    pc_loop_undefer(s->loop, &s->settle);
    while (!pc_list_empty(&s->consumers)) {
        remove_consumer(s, PC_CONTAINER_OF(s->consumers.next, consumer, link));
    }
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&s->flight)) != NULL) {
        pc_hub_message *m = PC_CONTAINER_OF(link, pc_hub_message, link);
        pc_map_take(&s->flying, key_of(m));
        pc_list_put_back(&s->requeued, &m->link);
    }
    return_settled(s);
    return 0;
}

static void
silence(source *s)
{
    if (s->bell >= 0) {
        pc_loop_unwatch(s->loop, &s->watch);
        close(s->bell);
        s->bell = -1;
    }
}

/* The child's copy of the hub may be locked for ever by a thread that exists only in the parent: it
 * is left alone, and with it the consumers, which are in its lists. */
static void
abandon(pc_source *base)
{
    source *s = cast(base);
    s->state = IDLE;
    pc_loop_undefer(s->loop, &s->settle);
    silence(s);
    s->hub = NULL;
}

static void
free_all(pc_link *messages)
{
    pc_link *link = NULL;
    while ((link = pc_list_take_front(messages)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, pc_hub_message, link));
    }
}

static void
destroy(pc_source *base)
{
    if (base == NULL) {
        return;
    }
    source *s = cast(base);
    if (s->hub != NULL) {
        (void)close_now(base, (pc_mono){0}, NULL);
        silence(s);
    }
    free_all(&s->flight);
    free_all(&s->dropped);
    free_all(&s->requeued);
    pc_map_fini(&s->flying);
    pc_free(s);
}

const pc_source_ops pc_source_memory = {
    .scheme = "memory",
    .create = create,
    .connect = connect_now,
    .add_queue = add_queue,
    .drop_queue = drop_queue,
    .prefetch = prefetch,
    .settle = settle,
    .pause = pause_now,
    .close = close_now,
    .abandon = abandon,
    .destroy = destroy,
};
