/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_park.h"

#include <stdio.h>

#include "base/list.h"
#include "base/mem.h"
#include "io/amqp_declare.h"
#include "wire/table.h"

#define LEVEL_MAX 21  // 2^21 seconds, 24 days; twice that is the longest x-expires
#define NAME_MAX_BYTES 255
#define PREFIX "pyceleryc.delay."
#define UNDER_WAY_MAX 2000u
#define PAUSE (30 * PC_NS_PER_SEC)
#define LOOK_AGAIN PC_NS_PER_SEC
#define SLACK_MS 60000

typedef struct delay {
    pc_link link;
    int level;
    pc_mono declared;  // ns 0: not yet on this connection
    bool filled;       // messages for it may be under way
    pc_queue queue;
    pc_buf arguments;
    char name[NAME_MAX_BYTES + 1];
} delay;

static int64_t
seconds_of(int level)
{
    return INT64_C(1) << level;
}

/* ---- delay queues ---- */

static void
free_delay(delay *d)
{
    pc_link_remove(&d->link);
    pc_buf_fini(&d->arguments);
    pc_free(d);
}

static void
forget_queues(pc_amqp_park *park)
{
    while (!pc_list_empty(&park->queues)) {
        free_delay(PC_CONTAINER_OF(park->queues.next, delay, link));
    }
}

static int
put_text(pc_sink *sink, const char *key, const char *text, pc_err *err)
{
    return sink->ops->key(sink, pc_slice_str(key), err) < 0 ||
                   sink->ops->string(sink, pc_slice_str(text), err) < 0
               ? -1
               : 0;
}

static int
put_number(pc_sink *sink, const char *key, int64_t number, pc_err *err)
{
    return sink->ops->key(sink, pc_slice_str(key), err) < 0 ||
                   sink->ops->integer(sink, number, err) < 0
               ? -1
               : 0;
}

/* The queue's expiry counts from its last declaration, which is at most half a delay ago when a
 * message is sent to it, and is repeated when the confirm took long (on_settled): none can be in
 * there when it comes. */
static int
write_arguments(delay *d, const char *back_to, pc_err *err)
{
    pc_table_out table;
    int64_t ms = seconds_of(d->level) * 1000;
    pc_table_out_init(&table, &d->arguments);
    pc_sink *sink = &table.sink;
    if (sink->ops->map_start(sink, err) < 0 ||
        put_text(sink, "x-dead-letter-exchange", "", err) < 0 ||
        put_text(sink, "x-dead-letter-routing-key", back_to, err) < 0 ||
        put_number(sink, "x-message-ttl", ms, err) < 0 ||
        put_number(sink, "x-expires", 2 * ms + SLACK_MS, err) < 0 ||
        sink->ops->map_end(sink, err) < 0) {
        return -1;
    }
    pc_slice whole = pc_buf_slice(&d->arguments);
    d->queue.queue_arguments = pc_slice_of(whole.ptr + 4, whole.len - 4);
    return 0;
}

static delay *
new_delay(int level, const char *name, const char *back_to, pc_err *err)
{
    delay *d = pc_zalloc(sizeof *d);
    if (d == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&d->link);
    pc_buf_init(&d->arguments);
    d->level = level;
    (void)snprintf(d->name, sizeof d->name, "%s", name);
    d->queue = (pc_queue){.name = d->name, .durable = true};
    if (write_arguments(d, back_to, err) < 0) {
        free_delay(d);
        return NULL;
    }
    return d;
}

static int
declare(pc_amqp_park *park, delay *d, pc_err *err)
{
    unsigned replies = 0;
    if (pc_amqp_declare(&park->link.conn, &d->queue, NULL, NULL, &replies, err) < 0) {
        return -1;
    }
    d->declared = pc_mono_now();
    return 0;
}

static bool
is_fresh(const delay *d)
{
    return d->declared.ns != 0 &&
           pc_mono_now().ns - d->declared.ns < seconds_of(d->level) * PC_NS_PER_SEC / 2;
}

static delay *
find_delay(pc_amqp_park *park, const char *name)
{
    for (pc_link *at = park->queues.next; at != &park->queues; at = at->next) {
        delay *d = PC_CONTAINER_OF(at, delay, link);
        if (strcmp(d->name, name) == 0) {
            return d;
        }
    }
    return NULL;
}

/* The queue with that delay: it exists, or will before the next message is sent. */
static delay *
want_delay(pc_amqp_park *park, int level, const char *back_to, pc_err *err)
{
    char name[NAME_MAX_BYTES + 1];
    int len = snprintf(name, sizeof name, PREFIX "%lld.%s", (long long)seconds_of(level), back_to);
    if (len > NAME_MAX_BYTES) {
        pc_fail(err, PC_ENOTFOUND, "no delay queue: the name of queue %s is too long", back_to);
        return NULL;
    }
    delay *found = find_delay(park, name);
    delay *d = found != NULL ? found : new_delay(level, name, back_to, err);
    if (d == NULL) {
        return NULL;
    }
    bool ready = pc_amqp_conn_is_ready(&park->link.conn);
    if (ready && !is_fresh(d) && declare(park, d, err) < 0) {
        if (found == NULL) {
            free_delay(d);
        }
        return NULL;
    }
    if (found == NULL) {
        pc_list_put_back(&park->queues, &d->link);
    }
    return d;
}

/* ---- the link ---- */

static void
fall(pc_amqp_park *park, const pc_err *why)
{
    pc_amqp_link_drop(&park->link);
    forget_queues(park);
    pc_amqp_window_drop(&park->link.window, why);
    (void)pc_amqp_window_restart(&park->link.window, NULL);
}

static int
on_prepare(void *ctx, pc_err *err)
{
    pc_amqp_park *park = ctx;
    for (pc_link *at = park->queues.next; at != &park->queues; at = at->next) {
        if (declare(park, PC_CONTAINER_OF(at, delay, link), err) < 0) {
            return -1;
        }
    }
    return 0;
}

static void
on_up(void *ctx)
{
    pc_amqp_park *park = ctx;
    pc_log_write(park->log, PC_DEBUG, "%s: connected to park far ETAs", park->link.conn.name);
}

static void
on_down(void *ctx, const pc_err *why)
{
    pc_amqp_park *park = ctx;
    pc_log_write(park->log, PC_DEBUG, "far ETAs are held here for now: %s", why->msg);
    park->not_before = pc_mono_add(pc_mono_now(), PAUSE);
    fall(park, why);
}

static void
on_refused(void *ctx, uint32_t culprit, const pc_err *why)
{
    pc_amqp_park *park = ctx;
    (void)culprit;
    if (!park->forbidden) {
        pc_log_write(park->log, PC_WARNING,
                     "far ETAs are held here, the broker refuses delay queues: %s", why->msg);
    }
    park->forbidden = true;
    fall(park, why);
}

/* The delay queue was deleted behind our back. */
static void
on_returned(void *ctx, const pc_message *message, const pc_err *why)
{
    (void)message;
    fall(ctx, why);
}

/* What was confirmed just now may have been held up for long (an alarm of the broker), and the queue's
 * life would end before the delay does: it begins anew. */
static int
renew(pc_amqp_park *park)
{
    for (pc_link *at = park->queues.next; at != &park->queues; at = at->next) {
        delay *d = PC_CONTAINER_OF(at, delay, link);
        if (d->filled && !is_fresh(d) && declare(park, d, NULL) < 0) {
            return -1;
        }
        d->filled = d->filled && park->link.window.open > 0;
    }
    return 0;
}

static void
on_settled(void *ctx, void *cookie, const pc_err *why)
{
    pc_amqp_park *park = ctx;
    bool kept = why == NULL && renew(park) == 0;
    park->settle(park->ctx, (uint64_t)(uintptr_t)cookie, kept ? PC_ACK : PC_REQUEUE);
}

static int
begin(pc_amqp_park *park, pc_err *err)
{
    pc_amqp_link_hooks hooks = {
        .prepare = on_prepare,
        .up = on_up,
        .down = on_down,
        .refused = on_refused,
        .returned = on_returned,
        .settled = on_settled,
        .ctx = park,
    };
    if (!park->begun) {
        if (pc_amqp_link_init(&park->link, park->loop, park->config, true, &hooks, park->log,
                              err) < 0) {
            return -1;
        }
        park->begun = true;
    }
    return 0;
}

/* ---- not now ---- */

static void
look_again(pc_amqp_park *park)
{
    pc_mono when = pc_mono_add(pc_mono_now(), LOOK_AGAIN);
    if (when.ns < park->not_before.ns) {
        when = park->not_before;
    }
    if (park->again.node.place == 0) {  // without memory for it the next refusal tries again
        (void)pc_loop_set_timer(park->loop, &park->again, when, NULL);
    }
}

/* What is held instead for longer than the broker's consumer_timeout would cost the channel. No more comes at
 * a time than there is room for: quorum queues count how often a message is given back, and drop it at last. */
static void
on_again(void *ctx, pc_mono now)
{
    pc_amqp_park *park = ctx;
    bool rested = now.ns >= park->not_before.ns;
    if (park->forbidden) {
        return;
    }
    if (rested && begin(park, NULL) == 0) {
        pc_amqp_link_wake(&park->link);
    }
    size_t most = UNDER_WAY_MAX / 2;
    bool ready = rested && park->begun && pc_amqp_link_takes(&park->link) && park->link.window.open < most;
    if (!ready || park->possible(park->ctx, most) == most) {
        look_again(park);
    }
}

/* ---- for the source ---- */

void
pc_amqp_park_init(pc_amqp_park *park, pc_loop *loop, const pc_broker_config *config,
                  void (*settle)(void *ctx, uint64_t tag, pc_settle how),
                  size_t (*possible)(void *ctx, size_t most), void *ctx, const pc_log *log)
{
    *park = (pc_amqp_park){
        .loop = loop, .config = config, .settle = settle, .possible = possible, .ctx = ctx, .log = log};
    pc_link_init(&park->queues);
    pc_timer_init(&park->again, on_again, park);
}

void
pc_amqp_park_fini(pc_amqp_park *park)
{
    if (park->queues.next == NULL) {
        return;  // never initialised
    }
    forget_queues(park);
    pc_loop_clear_timer(park->loop, &park->again);
    if (park->begun) {
        pc_amqp_conn_quit(&park->link.conn);
        pc_amqp_link_fini(&park->link);
    }
    park->begun = false;
}

static int
on_key(void *ctx, pc_slice name)
{
    *(pc_slice *)ctx = name;
    return pc_slice_is(name, "CC") || pc_slice_is(name, "BCC") || pc_slice_is(name, "x-overflow") ? -1 : 0;
}

static int
on_text(void *ctx, pc_slice text)
{
    const pc_slice *key = ctx;
    bool foreign = pc_slice_is(*key, "x-first-death-queue") &&
                   (text.len < sizeof PREFIX || memcmp(text.ptr, PREFIX, sizeof PREFIX - 1) != 0);
    return foreign ? -1 : 0;
}

/* Not so: a message that died elsewhere before, as RabbitMQ drops what it takes for a cycle of dead letters;
 * one that would be copied to other queues again; and a queue that may refuse what comes back. */
static bool
is_ordinary(const pc_message *message, const pc_queue *from)
{
    static const pc_visit visit = {.key = on_key, .string = on_text};
    pc_slice key = {0};
    return pc_message_visit_headers(message, &visit, &key, NULL) == 0 &&
           pc_table_visit(from->queue_arguments, &visit, &key, NULL) == 0;
}

static bool
may_park(const pc_message *message, const pc_queue *from)
{
    return !from->no_ack && !from->exclusive && !from->auto_delete && message->user_id.ptr == NULL &&
           is_ordinary(message, from);
}

static int
level_of(int64_t delay_ns)
{
    int level = -1;
    while (level < LEVEL_MAX && seconds_of(level + 1) <= delay_ns / PC_NS_PER_SEC) {
        level++;
    }
    return level;
}

static int
put(pc_amqp_park *park, const pc_message *message, const pc_queue *from, int level, pc_err *err)
{
    if (pc_mono_now().ns < park->not_before.ns || (park->begun && park->link.window.open >= UNDER_WAY_MAX)) {
        return pc_fail(err, PC_EIO, "messages can't be parked now");
    }
    if (begin(park, err) < 0) {
        return -1;
    }
    delay *d = want_delay(park, level, from->name, err);
    if (d == NULL) {
        return -1;
    }
    pc_message copy = *message;
    copy.exchange = pc_slice_str("");
    copy.routing_key = pc_slice_str(d->name);
    copy.expiration = (pc_slice){0};  // what expires says so in its headers, too
    if (pc_amqp_link_put(&park->link, &copy, true, (void *)(uintptr_t)message->tag, err) < 0) {
        return -1;
    }
    d->filled = true;
    pc_amqp_link_send(&park->link);
    pc_amqp_link_wake(&park->link);
    return 0;
}

int
pc_amqp_park_put(pc_amqp_park *park, const pc_message *message, const pc_queue *from,
                 int64_t delay_ns, pc_err *err)
{
    pc_err why = {0};
    int level = level_of(delay_ns);
    if (park->forbidden || level < 0 || !may_park(message, from)) {
        return pc_fail(err, PC_ENOTFOUND, "messages of this kind can't be parked");
    }
    if (put(park, message, from, level, &why) == 0) {
        return 0;
    }
    if (why.code == PC_EIO) {
        look_again(park);
    }
    // what is too large, for AMQP or for our memory, will be so then
    return pc_fail(err, why.code == PC_EIO ? PC_EIO : PC_ENOTFOUND, "%s", why.msg);
}

void
pc_amqp_park_void(pc_amqp_park *park, const pc_err *why)
{
    pc_loop_clear_timer(park->loop, &park->again);
    if (park->begun) {
        fall(park, why);
    }
}

void
pc_amqp_park_resume(pc_amqp_park *park)
{
    park->not_before = (pc_mono){0};
}

bool
pc_amqp_park_busy(const pc_amqp_park *park)
{
    return park->begun && park->link.window.open > 0;
}

void
pc_amqp_park_abandon(pc_amqp_park *park)
{
    pc_loop_clear_timer(park->loop, &park->again);
    if (park->begun) {
        pc_amqp_link_abandon(&park->link);
    }
}
