/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_keeper.h"

#include <stdio.h>

#define DEFAULT_LEASE 10.0
#define DEFAULT_VISIBILITY 3600.0
#define LOOK_MAX 10.0     // seconds between two looks for abandoned messages
#define LEAST_PAUSE 0.05  // seconds
#define STANDSTILL 1.5    // leases; others wait for two, and one third may have passed before it
#define NO_LEASE (-2)
#define TAKEN "another worker has given back the messages of this one"
#define BATCH "1000"      // messages per script call: a few milliseconds of the server

static pc_mono
in_seconds(double seconds)
{
    double s = seconds < LEAST_PAUSE ? LEAST_PAUSE : seconds > 1e6 ? 1e6 : seconds;
    return pc_mono_add(pc_mono_now(), (int64_t)(s * (double)PC_NS_PER_SEC));
}

static void
set_timer(pc_redis_keeper *k, pc_timer *timer, double seconds)
{
    pc_err err = {0};
    if (pc_loop_set_timer(k->loop, timer, in_seconds(seconds), &err) < 0) {
        k->hooks.failed(k->hooks.ctx, &err);
    }
}

void
pc_redis_keeper_put_held(const pc_redis_names *names, const char *id, pc_redis_args *args)
{
    int rc = pc_buf_put_slice(&args->text, names->workers, &args->err);
    rc = rc < 0 ? rc : pc_buf_put_u8(&args->text, '.', &args->err);
    pc_redis_args_end(args, rc < 0 ? rc : pc_buf_put_str(&args->text, id, &args->err));
}

/* True when the answer can be used; else the owner was told. */
static bool
is_usable(pc_redis_keeper *k, const pc_reply *reply, const pc_err *why)
{
    pc_err err = {0};
    if (why != NULL || !k->running) {
        return false;
    }
    if (pc_redis_check(k->conn, reply, &err) < 0) {
        k->hooks.failed(k->hooks.ctx, &err);
        return false;
    }
    return true;
}

static int
send(pc_redis_keeper *k, pc_redis_callback *callback, pc_err *err)
{
    return pc_redis_args_send(&k->args, k->conn, callback, k, err);
}

static void
send_or_fail(pc_redis_keeper *k, pc_redis_callback *callback)
{
    pc_err err = {0};
    if (send(k, callback, &err) < 0) {
        k->hooks.failed(k->hooks.ctx, &err);
    }
}

// ---- giving back what a worker holds ----

/* `spare`: seconds that must have passed since its lease ended; negative: at once. `cursor`: absent to begin. */
static void
write_retire(pc_redis_keeper *k, const char *id, double spare, pc_slice cursor)
{
    pc_redis_scripts_begin(k->scripts, PC_SCRIPT_RETIRE, 4, &k->args);
    pc_redis_args_add(&k->args, k->names->index);
    pc_redis_args_add(&k->args, k->names->unacked);
    pc_redis_keeper_put_held(k->names, id, &k->args);
    pc_redis_args_add(&k->args, k->names->workers);
    pc_redis_args_str(&k->args, id);
    pc_redis_args_str(&k->args, BATCH);
    if (spare < 0) {
        pc_redis_args_str(&k->args, "");
    } else {
        pc_redis_args_real(&k->args, spare);
    }
    pc_redis_args_add(&k->args, cursor.ptr == NULL ? pc_slice_str("0") : cursor);
}

/* `cursor` is absent at the end. */
static bool
read_retired(const pc_reply *reply, int64_t *count, pc_slice *cursor)
{
    if (reply->type != PC_REPLY_ARRAY || reply->len != 2) {
        return false;
    }
    pc_slice next = reply->children[1]->text;
    *count = reply->children[0]->integer;
    *cursor = pc_slice_is(next, "0") ? pc_slice_of(NULL, 0) : next;
    return true;
}

static void retire_first(pc_redis_keeper *k, pc_slice cursor);

/* The first of `dead` was retired; the next has its turn, or the same again. */
static void
on_dead_retired(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    int64_t count = 0;
    pc_slice cursor;
    if (!is_usable(k, reply, why) || !read_retired(reply, &count, &cursor)) {
        k->ndead = 0;
        return;
    }
    k->nback += count;
    if (cursor.ptr == NULL && k->ndead > 0) {
        k->ndead--;
        if (k->nback > 0) {
            pc_log_write(k->log, PC_WARNING, "%s: %lld messages of a worker that %s are back",
                         pc_redis_where(k->conn), (long long)k->nback,
                         k->dead[k->ndead].connected ? "hangs or was stopped" : "is gone");
        }
        k->nback = 0;
    }
    retire_first(k, cursor);
}

static void
retire_first(pc_redis_keeper *k, pc_slice cursor)
{
    if (k->ndead > 0) {
        const pc_redis_suspect *first = &k->dead[k->ndead - 1];
        write_retire(k, first->id, first->connected ? k->lease : 0, cursor);
        send_or_fail(k, on_dead_retired);
    }
}

// ---- who is dead ----

static void
write_beat(pc_redis_keeper *k, bool begin)
{
    pc_redis_scripts_begin(k->scripts, PC_SCRIPT_BEAT, 1, &k->args);
    pc_redis_args_add(&k->args, k->names->workers);
    pc_redis_args_str(&k->args, k->id);
    pc_redis_args_real(&k->args, k->lease);
    pc_redis_args_str(&k->args, begin ? "1" : "0");
}

static bool
has_client(pc_slice clients, const char *id)
{
    char name[64];
    int len = snprintf(name, sizeof name, " name=pyceleryc-%s ", id);
    return memmem(clients.ptr, clients.len, name, (size_t)len) != NULL;
}

/* True when we have seen no sign of life for the length of a lease. */
static bool
hangs(pc_redis_keeper *k, const pc_redis_suspect *suspect)
{
    pc_mono now = pc_mono_now();
    for (size_t i = 0; i < k->nsilent; i++) {
        if (strcmp(k->silent[i].id, suspect->id) == 0) {
            return (double)(now.ns - k->silent[i].since.ns) >= k->lease * (double)PC_NS_PER_SEC;
        }
    }
    if (k->nsilent < PC_REDIS_DEAD_MAX) {
        k->silent[k->nsilent] = *suspect;
        k->silent[k->nsilent++].since = now;
    }
    return false;
}

/* `reply` names those whose leases have ended; the others live. */
static void
forget_living(pc_redis_keeper *k, const pc_reply *reply)
{
    size_t n = 0;
    for (size_t i = 0; i < k->nsilent; i++) {
        bool named = false;
        for (size_t at = 1; at < reply->len && !named; at++) {
            named = pc_slice_is(reply->children[at]->text, k->silent[i].id);
        }
        if (named) {
            k->silent[n++] = k->silent[i];
        }
    }
    k->nsilent = n;
}

/* Keeps those in `dead` that are gone, or silent for long enough. */
static void
on_clients(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    pc_err err = {0};
    if (why != NULL || !k->running) {
        return;
    }
    if (pc_redis_check(k->conn, reply, &err) < 0) {
        k->blind = true;
        k->ndead = 0;
        pc_log_write(k->log, PC_WARNING,
                     "%s; without CLIENT LIST messages of killed workers come back only after the "
                     "visibility_timeout", err.msg);
        return;
    }
    size_t n = 0;
    for (size_t i = 0; i < k->ndead; i++) {
        k->dead[i].connected = has_client(reply->text, k->dead[i].id);
        if (!k->dead[i].connected || hangs(k, &k->dead[i])) {
            k->dead[n++] = k->dead[i];
        }
    }
    k->ndead = k->running ? n : 0;
    k->nback = 0;
    retire_first(k, pc_slice_of(NULL, 0));
}

static void
ask_for_clients(pc_redis_keeper *k, const pc_reply *reply)
{
    if (k->ndead > 0 || k->blind) {
        return;  // still busy with the last ones
    }
    for (size_t i = 1; i < reply->len && k->ndead < PC_REDIS_DEAD_MAX; i++) {
        pc_slice id = reply->children[i]->text;
        if (id.len == PC_REDIS_ID_LEN && !pc_slice_is(id, k->id)) {
            snprintf(k->dead[k->ndead++].id, sizeof k->dead[0].id, "%.*s", PC_REDIS_ID_LEN, id.ptr);
        }
    }
    if (k->ndead > 0) {
        pc_redis_args_reset(&k->args);
        pc_redis_args_str(&k->args, "CLIENT");
        pc_redis_args_str(&k->args, "LIST");
        send_or_fail(k, on_clients);
    }
}

/* What we hold is not ours any more: the owner forgets it and begins anew. */
static void
resign(pc_redis_keeper *k, const char *why)
{
    pc_err err = {0};
    pc_fail(&err, PC_EIO, "%s: %s", pc_redis_where(k->conn), why);
    k->hooks.failed(k->hooks.ctx, &err);
}

static void
turn_began(void *ctx)
{
    pc_redis_keeper *k = ctx;
    pc_mono now = pc_loop_now(k->loop);
    pc_mono alive = k->turned;
    bool ours = k->pulse == NULL || pc_redis_pulse_turn(k->pulse, now, &alive);
    double stood = (double)(now.ns - alive.ns) / (double)PC_NS_PER_SEC;
    k->turned = now;
    if (k->enrolled && !ours) {
        resign(k, TAKEN);
    } else if (k->enrolled && stood > STANDSTILL * k->lease) {
        resign(k, "this worker stood still for longer than its lease");
    }
}

static void
on_beat(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    pc_err err = {0};
    k->beating = false;
    if (!is_usable(k, reply, why) || k->draining || reply->type != PC_REPLY_ARRAY || reply->len == 0) {
        return;
    }
    if (reply->children[0]->integer == NO_LEASE) {
        resign(k, TAKEN);
        return;
    }
    if (!k->enrolled && k->pulse != NULL && pc_redis_pulse_begin(k->pulse, &err) < 0) {
        k->hooks.failed(k->hooks.ctx, &err);
        return;
    }
    k->enrolled = true;
    double next = k->lease / 3;
    double other = (double)reply->children[0]->integer / 1000;
    // looks at the moment when a lease ends, a little later than its owner would renew it
    if (reply->children[0]->integer >= 0 && other + LEAST_PAUSE < next) {
        next = other + LEAST_PAUSE;
    }
    if (next < k->lease / 3) {
        set_timer(k, &k->beat, next);
    }
    forget_living(k, reply);
    ask_for_clients(k, reply);
}

static void
beat_due(void *ctx, pc_mono now)
{
    pc_redis_keeper *k = ctx;
    (void)now;
    if (!k->running) {
        return;
    }
    set_timer(k, &k->beat, k->lease / 3);
    if (k->running && !k->beating) {
        k->beating = true;
        write_beat(k, !k->enrolled);
        send_or_fail(k, on_beat);
    }
}

// ---- staying young ----

static void write_touch(pc_redis_keeper *k, pc_slice cursor);

static void
on_touched(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    k->touching = false;
    if (!is_usable(k, reply, why)) {
        return;
    }
    if (reply->type == PC_REPLY_STRING && !pc_slice_is(reply->text, "0")) {
        write_touch(k, reply->text);
    }
}

static void
write_touch(pc_redis_keeper *k, pc_slice cursor)
{
    k->touching = true;
    pc_redis_scripts_begin(k->scripts, PC_SCRIPT_TOUCH, 2, &k->args);
    pc_redis_args_add(&k->args, k->names->index);
    pc_redis_keeper_put_held(k->names, k->id, &k->args);
    pc_redis_args_add(&k->args, cursor);
    pc_redis_args_str(&k->args, BATCH);
    send_or_fail(k, on_touched);
}

static void
touch_due(void *ctx, pc_mono now)
{
    pc_redis_keeper *k = ctx;
    (void)now;
    if (!k->running) {
        return;
    }
    set_timer(k, &k->touch, k->visibility / 4);
    if (k->running && !k->touching) {
        write_touch(k, pc_slice_str("0"));
    }
}

// ---- abandoned by Celery's workers ----

static double
look_pause(const pc_redis_keeper *k)
{
    return k->visibility / 2 < LOOK_MAX ? k->visibility / 2 : LOOK_MAX;
}

static void
on_looked(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    k->looking = false;
    if (is_usable(k, reply, why) && reply->integer > 0) {
        pc_log_write(k->log, PC_WARNING,
                     "%s: %lld messages that nobody acknowledged for %g s are back",
                     pc_redis_where(k->conn), (long long)reply->integer, k->visibility);
    }
}

static void
write_look(pc_redis_keeper *k)
{
    const pc_redis_names *names = k->names;
    k->looking = true;
    // blind we know no other rule for what dead workers of ours hold
    pc_redis_scripts_begin(k->scripts, PC_SCRIPT_VISIBLE, k->blind ? 3 : 4, &k->args);
    pc_redis_args_add(&k->args, names->index);
    pc_redis_args_add(&k->args, names->unacked);
    pc_redis_args_add(&k->args, names->mutex);
    if (!k->blind) {
        pc_redis_args_add(&k->args, names->workers);
    }
    pc_redis_args_real(&k->args, k->visibility);
    pc_redis_args_str(&k->args, BATCH);
    pc_redis_args_add(&k->args, names->prefix);
    pc_redis_args_add(&k->args, names->sep);
    for (size_t i = 0; i < names->nsteps; i++) {
        pc_redis_args_printf(&k->args, "%d", names->steps[i]);
    }
    send_or_fail(k, on_looked);
}

static void
look_due(void *ctx, pc_mono now)
{
    pc_redis_keeper *k = ctx;
    (void)now;
    if (!k->running) {
        return;
    }
    set_timer(k, &k->look, look_pause(k));
    if (k->running && !k->looking) {
        write_look(k);
    }
}

// ---- beginning and end ----

static void
on_own_retired(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_keeper *k = ctx;
    pc_mono now = {0};
    int64_t count = 0;
    pc_slice cursor;
    if (!is_usable(k, reply, why) || !read_retired(reply, &count, &cursor)) {
        return;
    }
    if (cursor.ptr != NULL) {
        write_retire(k, k->id, -1, cursor);
        send_or_fail(k, on_own_retired);
    } else if (k->draining) {
        k->hooks.drained(k->hooks.ctx);
    } else {
        beat_due(k, now);
        touch_due(k, now);
        look_due(k, now);
        if (k->running) {
            k->hooks.ready(k->hooks.ctx);
        }
    }
}

int
pc_redis_keeper_start(pc_redis_keeper *k, pc_redis *conn, const pc_redis_scripts *scripts,
                      pc_err *err)
{
    k->conn = conn;
    k->scripts = scripts;
    k->running = true;
    k->draining = k->beating = k->touching = k->looking = false;
    k->enrolled = false;
    k->turned = pc_mono_now();
    k->ndead = k->nsilent = 0;
    pc_loop_defer_first(k->loop, &k->turn);
    write_retire(k, k->id, -1, pc_slice_of(NULL, 0));
    return send(k, on_own_retired, err);
}

static void
end_pulse(pc_redis_keeper *k)
{
    if (k->pulse != NULL) {
        pc_redis_pulse_end(k->pulse);
    }
}

int
pc_redis_keeper_drain(pc_redis_keeper *k, pc_err *err)
{
    k->draining = true;
    end_pulse(k);
    pc_loop_clear_timer(k->loop, &k->beat);
    pc_loop_clear_timer(k->loop, &k->touch);
    pc_loop_clear_timer(k->loop, &k->look);
    pc_loop_undefer(k->loop, &k->turn);
    write_retire(k, k->id, -1, pc_slice_of(NULL, 0));
    return send(k, on_own_retired, err);
}

void
pc_redis_keeper_stop(pc_redis_keeper *k)
{
    k->running = false;
    end_pulse(k);
    pc_loop_undefer(k->loop, &k->turn);
    pc_loop_clear_timer(k->loop, &k->beat);
    pc_loop_clear_timer(k->loop, &k->touch);
    pc_loop_clear_timer(k->loop, &k->look);
}

int
pc_redis_keeper_redirect(pc_redis_keeper *k, const pc_broker_config *config, pc_err *err)
{
    return k->pulse == NULL ? 0 : pc_redis_pulse_redirect(k->pulse, config, err);
}

void
pc_redis_keeper_abandon(pc_redis_keeper *k)
{
    pc_redis_keeper_stop(k);
    if (k->pulse != NULL) {
        pc_redis_pulse_abandon(k->pulse);
    }
}

static int
take_id(pc_redis_keeper *k, pc_err *err)
{
    unsigned char bytes[PC_REDIS_ID_LEN / 2];
    if (pc_random(bytes, sizeof bytes, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        snprintf(k->id + 2 * i, 3, "%02x", bytes[i]);
    }
    snprintf(k->client, sizeof k->client, "pyceleryc-%s", k->id);
    return 0;
}

int
pc_redis_keeper_init(pc_redis_keeper *k, const pc_broker_config *config,
                     const pc_redis_names *names, pc_loop *loop, const pc_redis_keeper_hooks *hooks,
                     const pc_log *log, pc_err *err)
{
    *k = (pc_redis_keeper){.hooks = *hooks, .names = names, .loop = loop, .log = log};
    k->lease = config->lease > 0 ? config->lease : DEFAULT_LEASE;
    k->visibility = config->visibility_timeout > 0 ? config->visibility_timeout
                                                   : DEFAULT_VISIBILITY;
    pc_redis_args_init(&k->args);
    pc_timer_init(&k->beat, beat_due, k);
    pc_timer_init(&k->touch, touch_due, k);
    pc_timer_init(&k->look, look_due, k);
    pc_defer_init(&k->turn, turn_began, k);
    if (take_id(k, err) < 0) {
        return -1;
    }
    if (config->stalls) {
        k->pulse = pc_redis_pulse_new(config, names->workers, k->id, k->lease, err);
    }
    return config->stalls && k->pulse == NULL ? -1 : 0;
}

void
pc_redis_keeper_fini(pc_redis_keeper *k)
{
    if (k->loop != NULL) {
        pc_redis_keeper_stop(k);
    }
    pc_redis_pulse_free(k->pulse);
    k->pulse = NULL;
    pc_redis_args_fini(&k->args);
}
