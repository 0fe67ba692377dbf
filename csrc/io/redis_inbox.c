/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. `client` does the commands (on a pump of its own), `sub` the subscriptions on our
 * pump, whose lock guards everything below. Nobody turns the loop except threads inside wait()
 * and, for a moment, watch(). Each id somebody is interested in has a pc_redis_watch in
 * `watches`. The order that misses nothing and tells nothing twice: SUBSCRIBE, its
 * confirmation, GET, messages; a message that came first makes the GET needless, since it is
 * newer than anything stored before it. A lost connection puts every watch back to "not
 * subscribed". Ready results are unsubscribed in batches. The GET is done with the lock
 * released: `reading` keeps others from doing the same, `waiters` keeps the watch alive.
 * Shutdown: no thread inside, then connection, watches, pump. */
#include "io/redis_inbox.h"

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "io/pump.h"
#include "io/redis_channels.h"
#include "io/redis_conn.h"
#include "io/redis_watch.h"
#include "wire/result.h"

#define FIRST_BACKOFF (PC_NS_PER_SEC / 10)
#define LAST_BACKOFF (2 * PC_NS_PER_SEC)
#define LEAVING_MAX 64     // watches that wait for the next UNSUBSCRIBE
#define POLL_EVERY 32      // watch() calls; reads confirmations before they pile up in the socket

struct pc_redis_inbox {
    pc_pump *pump;
    pc_redis *sub;
    pc_redis_client *client;  // the owner's
    pc_slice prefix;          // the owner's
    // --
    pc_map watches;      // key -> pc_redis_watch
    pc_link leaving;
    size_t nleaving;
    unsigned unpolled;
    uint64_t events;     // messages, confirmations and losses so far, from 1
    uint64_t losses;     // of the subscription connection
    pc_err trouble;      // of the last one
    bool refused;        // and it was login or configuration: waiting is in vain
    bool backing_off;    // the timer will connect
    int64_t backoff_ns;
    pc_timer retry;
};

// ---- SUBSCRIBE and UNSUBSCRIBE in batches ----

static void
drop_watch(pc_redis_inbox *inbox, pc_redis_watch *watch)
{
    inbox->nleaving -= pc_link_in(&watch->leaving);
    (void)pc_map_take(&inbox->watches, watch->key);
    pc_redis_watch_free(watch);
}

/* One that is not confirmed yet stays: its confirmation must not be taken for that of a later
 * SUBSCRIBE. */
static void
unsubscribe_leaving(pc_redis_inbox *inbox)
{
    pc_redis_channels b;
    pc_redis_channels_begin(&b, inbox->sub, "UNSUBSCRIBE");
    for (pc_link *at = inbox->leaving.next; at != &inbox->leaving && b.argc <= PC_REDIS_CHANNELS;
         at = at->next) {
        const pc_redis_watch *watch = PC_CONTAINER_OF(at, pc_redis_watch, leaving);
        if (watch->confirmed) {
            b.argv[b.argc++] = watch->key;
        }
    }
    size_t left = b.argc - 1;
    if (pc_redis_channels_flush(&b, NULL) < 0) {
        return;  // they wait for another occasion
    }
    for (pc_link *at = inbox->leaving.next, *next; left > 0; at = next) {
        pc_redis_watch *watch = PC_CONTAINER_OF(at, pc_redis_watch, leaving);
        next = at->next;
        if (watch->confirmed) {
            drop_watch(inbox, watch);
            left--;
        }
    }
}

static void
leave(pc_redis_inbox *inbox, pc_redis_watch *watch)
{
    if (pc_link_in(&watch->leaving)) {
        return;
    }
    pc_redis_watch_clear(watch);
    if (!watch->sent) {
        drop_watch(inbox, watch);
        return;
    }
    pc_list_put_back(&inbox->leaving, &watch->leaving);
    inbox->nleaving++;
    if (inbox->nleaving >= LEAVING_MAX && inbox->nleaving % LEAVING_MAX == 0) {
        unsubscribe_leaving(inbox);
    }
}

// ---- the subscription connection ----

static void
retry_later(pc_redis_inbox *inbox)
{
    pc_mono when = pc_mono_add(pc_mono_now(), inbox->backoff_ns);
    int64_t next = inbox->backoff_ns * 2;
    inbox->backoff_ns = next > LAST_BACKOFF ? LAST_BACKOFF : next;
    inbox->backing_off = true;
    // it is always set, if only for "never": moving cannot fail
    (void)pc_loop_set_timer(pc_pump_loop(inbox->pump), &inbox->retry, when, NULL);
}

static void
lose_subscriptions(pc_redis_inbox *inbox, const pc_err *why)
{
    size_t pos = 0;
    inbox->losses++;
    inbox->events++;
    inbox->trouble = *why;
    inbox->refused = why->code == PC_EAUTH || why->code == PC_EDATA;
    for (pc_redis_watch *w; (w = pc_map_next(&inbox->watches, &pos)) != NULL;) {
        w->sent = w->confirmed = w->read = false;
        if (pc_link_in(&w->leaving)) {
            drop_watch(inbox, w);
        }
    }
    retry_later(inbox);
}

static void
on_down(void *ctx, const pc_err *why)
{
    lose_subscriptions(ctx, why);
}

/* Memory ran out in the middle: begin again with a new connection. */
static void
restart(pc_redis_inbox *inbox, const pc_err *why)
{
    pc_redis_close(inbox->sub);
    lose_subscriptions(inbox, why);
}

/* All that are not subscribed yet; without a connection on_up() does it. */
static void
subscribe_missing(pc_redis_inbox *inbox)
{
    pc_err err = {0};
    size_t pos = 0;
    int rc = 0;
    pc_redis_channels b;
    pc_redis_channels_begin(&b, inbox->sub, "SUBSCRIBE");
    for (pc_redis_watch *w; rc == 0 && (w = pc_map_next(&inbox->watches, &pos)) != NULL;) {
        if (!w->sent) {
            w->sent = true;
            rc = pc_redis_channels_add(&b, w->key, &err);
        }
    }
    if (rc < 0 || pc_redis_channels_flush(&b, &err) < 0) {
        restart(inbox, &err);
    }
}

static void
on_up(void *ctx)
{
    pc_redis_inbox *inbox = ctx;
    inbox->backoff_ns = FIRST_BACKOFF;
    inbox->refused = false;
    subscribe_missing(inbox);
}

static void
connect_sub(pc_redis_inbox *inbox)
{
    pc_err err = {0};
    inbox->refused = false;
    if (pc_redis_connect(inbox->sub, &err) < 0) {
        lose_subscriptions(inbox, &err);
    }
}

static void
on_retry(void *ctx, pc_mono now)
{
    (void)now;
    pc_redis_inbox *inbox = ctx;
    inbox->backing_off = false;
    // the place it had in the loop until now is still free
    (void)pc_loop_set_timer(pc_pump_loop(inbox->pump), &inbox->retry, PC_MONO_NEVER, NULL);
    if (inbox->watches.len > 0) {
        connect_sub(inbox);
    }
}

static void
on_published(pc_redis_inbox *inbox, pc_redis_watch *watch, pc_slice document)
{
    pc_err err = {0};
    if (pc_link_in(&watch->leaving)) {
        return;
    }
    watch->read = true;
    if (pc_redis_watch_put(watch, document, &err) < 0) {
        restart(inbox, &err);
    }
}

static void
on_message(void *ctx, const pc_reply *reply)
{
    pc_redis_inbox *inbox = ctx;
    pc_err err = {0};
    if (pc_redis_check(inbox->sub, reply, &err) < 0) {
        restart(inbox, &err);
        return;
    }
    if (reply->type != PC_REPLY_ARRAY || reply->len != 3) {
        return;
    }
    pc_slice kind = reply->children[0]->text;
    pc_redis_watch *watch = pc_map_get(&inbox->watches, reply->children[1]->text);
    if (watch == NULL) {
        return;
    }
    inbox->events++;
    if (pc_slice_is(kind, "message")) {
        on_published(inbox, watch, reply->children[2]->text);
    } else if (pc_slice_is(kind, "subscribe")) {
        watch->confirmed = true;
    }
}

// ---- watches ----

static void
subscribe(pc_redis_inbox *inbox, pc_redis_watch *watch)
{
    pc_slice argv[] = {pc_slice_str("SUBSCRIBE"), watch->key};
    pc_err err = {0};
    if (!pc_redis_is_up(inbox->sub)) {
        return;  // on_up does it
    }
    watch->sent = true;
    if (pc_redis_subscribe(inbox->sub, 2, argv, &err) < 0) {
        restart(inbox, &err);
    }
}

static pc_redis_watch *
add_watch(pc_redis_inbox *inbox, pc_slice id, bool now, pc_err *err)
{
    pc_redis_watch *watch = pc_redis_watch_new(inbox->prefix, id, err);
    if (watch == NULL || pc_map_put(&inbox->watches, watch->key, watch, NULL, err) < 0) {
        pc_redis_watch_free(watch);
        return NULL;
    }
    if (now) {
        subscribe(inbox, watch);
    }
    return watch;
}

static pc_redis_watch *
find_watch(pc_redis_inbox *inbox, pc_slice id, bool *failed, pc_err *err)
{
    pc_buf key;
    pc_buf_init(&key);
    *failed = pc_buf_put_slice(&key, inbox->prefix, err) < 0 || pc_buf_put_slice(&key, id, err) < 0;
    pc_redis_watch *watch = *failed ? NULL : pc_map_get(&inbox->watches, pc_buf_slice(&key));
    pc_buf_fini(&key);
    return watch;
}

/* Found or new, subscribed `now` or by subscribe_missing(); one that was leaving stays, and reads what
 * it may have missed. */
static pc_redis_watch *
want_watch(pc_redis_inbox *inbox, pc_slice id, bool now, pc_err *err)
{
    bool failed = false;
    pc_redis_watch *watch = find_watch(inbox, id, &failed, err);
    if (failed) {
        return NULL;
    }
    if (watch == NULL) {
        watch = add_watch(inbox, id, now, err);
    } else if (pc_link_in(&watch->leaving)) {
        pc_link_remove(&watch->leaving);
        inbox->nleaving--;
        watch->read = false;
        watch->ended = false;
    }
    if (watch != NULL && !inbox->backing_off) {
        connect_sub(inbox);
    }
    return watch;
}

// ---- waiting ----

typedef struct visit {
    pc_redis_inbox *inbox;
    pc_redis_watch *watch;
    uint64_t handed;
} visit;

static bool
must_read(const pc_redis_watch *watch)
{
    return watch->confirmed && !watch->read && !watch->reading;
}

static int
is_news(void *ctx)
{
    const visit *v = ctx;
    return pc_redis_watch_has(v->watch, v->handed) || must_read(v->watch) || v->inbox->refused;
}

static int
is_never(void *ctx)
{
    (void)ctx;
    return 0;
}

/* A message that came while we read is at least as new as what we read. */
static int
take_stored(visit *v, const pc_reply *answer, uint64_t losses, pc_err *err)
{
    const pc_reply *stored = answer->children[0];
    if (pc_pump_poll(v->inbox->pump, err) < 0) {
        return -1;
    }
    if (v->watch->read || v->inbox->losses != losses) {
        return 0;
    }
    bool some = stored->type == PC_REPLY_STRING;
    if (some && pc_redis_watch_put(v->watch, stored->text, err) < 0) {
        return -1;
    }
    v->watch->read = true;
    return 0;
}

/* A moment's rest before asking a server again that could not answer. */
static int
rest(visit *v, pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_mono when = pc_mono_add(pc_mono_now(), FIRST_BACKOFF);
    pc_err why = {0};
    if (when.ns > deadline.ns) {
        when = deadline;
    }
    (void)pc_pump_wait(v->inbox->pump, is_never, NULL, when, eintr, &why);
    if (why.code == PC_ETIMEOUT && when.ns < deadline.ns) {
        return 0;
    }
    return pc_fail(err, why.code, "%s", why.msg);
}

static int
read_stored(visit *v, pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_redis_inbox *inbox = v->inbox;
    uint64_t losses = inbox->losses;
    pc_reply *answer = NULL;
    pc_err why = {0};
    v->watch->reading = true;
    pc_pump_unlock(inbox->pump);
    int rc = pc_redis_client_get(inbox->client, v->watch->key, &answer, deadline, eintr, &why);
    pc_pump_lock(inbox->pump);
    v->watch->reading = false;
    if (rc == 0) {
        rc = take_stored(v, answer, losses, err);
    } else if (why.code == PC_EIO) {
        rc = rest(v, deadline, eintr, err);
    } else {
        pc_fail(err, why.code, "%s", why.msg);
    }
    pc_reply_free(answer);
    return rc;
}

static bool
is_ready(pc_slice document)
{
    pc_state state = PC_PENDING;
    return pc_result_peek_status(document, &state, NULL) == 0 && pc_state_ready(state);
}

static int
hand_out(visit *v, pc_buf *out, pc_err *err)
{
    pc_slice document = pc_redis_watch_peek(v->watch, v->handed);
    if (pc_buf_put_slice(out, document, err) < 0) {
        return -1;
    }
    v->watch->ended = v->watch->ended || is_ready(document);
    pc_redis_watch_drop(v->watch);
    return 0;
}

static int
sleep_for_news(visit *v, pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_redis_inbox *inbox = v->inbox;
    pc_err why = {0};
    if (pc_pump_wait(inbox->pump, is_news, v, deadline, eintr, &why) == 0) {
        return 0;
    }
    bool offline = why.code == PC_ETIMEOUT && !pc_redis_is_up(inbox->sub) && inbox->trouble.code != PC_OK;
    return pc_fail(err, why.code, "%s", offline ? inbox->trouble.msg : why.msg);
}

static int
wait_document(visit *v, pc_buf *out, pc_mono deadline, bool *eintr, pc_err *err)
{
    pc_redis_inbox *inbox = v->inbox;
    int rc = pc_pump_poll(inbox->pump, err);
    while (rc == 0) {
        if (pc_redis_watch_has(v->watch, v->handed)) {
            return hand_out(v, out, err);
        }
        if (inbox->refused) {
            return pc_fail(err, inbox->trouble.code, "%s", inbox->trouble.msg);
        }
        rc = must_read(v->watch) ? read_stored(v, deadline, eintr, err)
                                 : sleep_for_news(v, deadline, eintr, err);
    }
    return rc;
}

// ---- for the owner ----

int
pc_redis_inbox_watch(pc_redis_inbox *inbox, pc_slice id, pc_err *err)
{
    pc_pump_lock(inbox->pump);
    int rc = want_watch(inbox, id, true, err) == NULL ? -1 : 0;
    inbox->unpolled++;
    if (rc == 0 && (!pc_redis_is_up(inbox->sub) || inbox->unpolled >= POLL_EVERY)) {
        inbox->unpolled = 0;
        rc = pc_pump_poll(inbox->pump, err);
    }
    pc_redis_flush_now(inbox->sub);
    pc_pump_unlock(inbox->pump);
    return rc;
}

int
pc_redis_inbox_watch_many(pc_redis_inbox *inbox, const pc_slice *ids, size_t n, pc_err *err)
{
    int rc = 0;
    pc_pump_lock(inbox->pump);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = want_watch(inbox, ids[i], false, err) == NULL ? -1 : 0;
    }
    if (pc_redis_is_up(inbox->sub)) {
        subscribe_missing(inbox);
    }
    rc = rc < 0 ? rc : pc_pump_poll(inbox->pump, err);
    pc_redis_flush_now(inbox->sub);
    pc_pump_unlock(inbox->pump);
    return rc;
}

typedef struct listener {
    const pc_redis_inbox *inbox;
    uint64_t seen;
} listener;

static int
has_heard(void *ctx)
{
    const listener *l = ctx;
    return l->inbox->events != l->seen || l->inbox->refused;
}

int
pc_redis_inbox_news(pc_redis_inbox *inbox, uint64_t *seen, pc_mono deadline, bool *eintr,
                    pc_err *err)
{
    listener l = {inbox, *seen};
    if (eintr != NULL) {
        *eintr = false;
    }
    pc_pump_lock(inbox->pump);
    int rc = pc_pump_poll(inbox->pump, err);
    rc = rc < 0 ? rc : pc_pump_wait(inbox->pump, has_heard, &l, deadline, eintr, err);
    if (rc == 0 && inbox->refused) {
        rc = pc_fail(err, inbox->trouble.code, "%s", inbox->trouble.msg);
    }
    *seen = inbox->events;
    pc_pump_unlock(inbox->pump);
    return rc;
}

int
pc_redis_inbox_wait(pc_redis_inbox *inbox, pc_slice id, pc_buf *out, pc_mono deadline, bool *eintr,
             pc_err *err)
{
    int rc = -1;
    if (eintr != NULL) {
        *eintr = false;
    }
    pc_pump_lock(inbox->pump);
    pc_redis_watch *watch = want_watch(inbox, id, true, err);
    if (watch != NULL) {
        // others are still inside with an ended watch: its last document is the newcomer's, too
        bool late = watch->ended && watch->last != NULL;
        visit v = {inbox, watch, watch->handed - late};
        watch->waiters++;
        rc = wait_document(&v, out, deadline, eintr, err);
        watch->waiters--;
        if (watch->waiters == 0 && watch->ended) {
            leave(inbox, watch);
        }
    }
    pc_pump_unlock(inbox->pump);
    return rc;
}

void
pc_redis_inbox_unwatch(pc_redis_inbox *inbox, pc_slice id)
{
    bool failed = false;
    pc_pump_lock(inbox->pump);
    pc_redis_watch *watch = find_watch(inbox, id, &failed, NULL);
    if (watch != NULL) {
        watch->ended = true;
        if (watch->waiters == 0) {
            leave(inbox, watch);
        }
    }
    pc_pump_unlock(inbox->pump);
}

void
pc_redis_inbox_abandon(pc_redis_inbox *inbox)
{
    pc_redis_abandon(inbox->sub);
}

void
pc_redis_inbox_free(pc_redis_inbox *inbox)
{
    if (inbox == NULL) {
        return;
    }
    size_t pos = 0;
    pc_redis_free(inbox->sub);
    for (pc_redis_watch *w; (w = pc_map_next(&inbox->watches, &pos)) != NULL;) {
        pc_redis_watch_free(w);
    }
    pc_map_fini(&inbox->watches);
    pc_pump_free(inbox->pump);
    pc_free(inbox);
}

static int
prepare(pc_redis_inbox *inbox, const pc_redis_config *config, pc_err *err)
{
    pc_redis_hooks hooks = {.up = on_up, .down = on_down, .message = on_message, .ctx = inbox};
    inbox->pump = pc_pump_new(err);
    if (inbox->pump == NULL) {
        return -1;
    }
    pc_loop *loop = pc_pump_loop(inbox->pump);
    inbox->sub = pc_redis_new(config, loop, &hooks, err);
    if (inbox->sub == NULL) {
        return -1;
    }
    return pc_loop_set_timer(loop, &inbox->retry, PC_MONO_NEVER, err);
}

pc_redis_inbox *
pc_redis_inbox_new(const pc_redis_config *config, pc_redis_client *client, pc_slice prefix,
                   pc_err *err)
{
    pc_redis_inbox *inbox = pc_zalloc(sizeof *inbox);
    if (inbox == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    inbox->client = client;
    inbox->prefix = prefix;
    inbox->events = 1;
    inbox->backoff_ns = FIRST_BACKOFF;
    pc_map_init(&inbox->watches);
    pc_link_init(&inbox->leaving);
    pc_timer_init(&inbox->retry, on_retry, inbox);
    if (prepare(inbox, config, err) < 0) {
        pc_redis_inbox_free(inbox);
        return NULL;
    }
    return inbox;
}
