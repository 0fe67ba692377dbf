/* SPDX-License-Identifier: BSD-3-Clause */
#include "worker_world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "io/memory_hub.h"

static rig *the_rig;                   // one a process

static void
note(rig *r, const char *what, const char *detail)
{
    char word[80];

    if (r->quiet) {
        return;
    }
    snprintf(word, sizeof word, "%s:%s ", what, detail);
    PC_ASSERT(strlen(r->words) + strlen(word) < sizeof r->words, "too many words");
    strcat(r->words, word);
    if (r->on_hook != NULL) {
        r->on_hook(r, word);
    }
}

static void
note_job(rig *r, const char *what, const pc_job *job)
{
    char id[32];
    pc_slice slice = pc_job_id(job);

    snprintf(id, sizeof id, "%.*s", (int)slice.len, slice.ptr);
    note(r, what, id);
}

/* --- hooks ------------------------------------------------------------- */

static void
on_ready(void *ctx)
{
    ((rig *)ctx)->ready++;
}

static void
on_down(void *ctx, const pc_err *why, int attempt, double next_try)
{
    rig *r = ctx;

    (void)attempt;
    r->down++;
    r->gave_up += next_try < 0;
    note(r, "down", pc_code_name(why->code));
}

static bool
on_received(void *ctx, pc_job *job, pc_settle *how)
{
    rig *r = ctx;

    PC_ASSERT(job->tag < LEDGER_MAX);
    r->number[job->tag] = atoi(pc_job_id(job).ptr + 1);
    note_job(r, "received", job);
    *how = r->refuse_how;
    return r->refuse != NULL && pc_slice_is(pc_job_id(job), r->refuse);
}

static void
on_accepted(void *ctx, pc_job *job)
{
    note_job(ctx, "accepted", job);
}

/* The old protocol of these tests: the body is what the headers should be. */
static bool
on_upgrade(void *ctx, const pc_message *message, pc_buf *frame)
{
    pc_message copy = *message;

    note(ctx, "upgrade", "");
    if (message->body.len == 0 || message->body.ptr[0] != '{') {
        return false;
    }
    copy.headers_kind = PC_HEADERS_JSON;
    copy.headers = message->body;
    copy.body = pc_slice_str("ok");
    return pc_message_pack(&copy, frame, NULL) == 0;
}

static pc_settle
on_bad(void *ctx, pc_bad why, const pc_message *message, const pc_err *err)
{
    static const char *const names[] = {"unknown", "no_task", "headers", "refused"};

    (void)message;
    (void)err;
    note(ctx, "bad", names[why]);
    return PC_REJECT;
}

static void
on_lost(void *ctx, pc_job *job, pc_lost why, const char *how, bool requeued)
{
    static const char *const names[] = {"died", "hard", "terminated"};

    note_job(ctx, "lost", job);
    note(ctx, requeued ? "requeued" : "final", names[why]);
    note(ctx, "how", how);
}

static void
on_revoked(void *ctx, pc_job *job, pc_revoked why)
{
    static const char *const names[] = {"expired", "revoked", "terminated"};

    note_job(ctx, names[why], job);
}

static void
on_soft_limit(void *ctx, pc_job *job, double seconds)
{
    (void)seconds;
    note_job(ctx, "soft", job);
}

static void
on_cancelled(void *ctx, const char *queue)
{
    note(ctx, "cancelled", queue);
}

static void
on_refused(void *ctx, const char *queue, const pc_err *why)
{
    (void)why;
    note(ctx, "refused", queue);
}

static void
on_store_failed(void *ctx, pc_job *job, const pc_err *why)
{
    (void)why;
    note_job(ctx, "unstored", job);
}

static void
on_store_down(void *ctx, const pc_err *why, bool up)
{
    (void)why;
    note(ctx, "store", up ? "up" : "down");
}

static void
on_child(void *ctx, int index, pid_t pid, bool up, const char *how)
{
    rig *r = ctx;

    (void)index, (void)pid, (void)how;
    r->ups += up;
    r->deaths += !up;
}

static void
on_log(void *ctx, pc_level level, const char *msg, size_t len)
{
    ((rig *)ctx)->errors += level >= PC_ERROR;
    printf("log %d: %.*s\n", level, (int)len, msg);
}

/* --- spies ------------------------------------------------------------- */

static int
spy_settle(pc_source *source, uint64_t tag, pc_settle how, pc_err *err)
{
    static const char *const names[] = {"ack", "reject", "requeue"};
    rig *r = the_rig;
    char id[16];

    PC_ASSERT(tag < LEDGER_MAX);
    PC_ASSERT(r->fate[tag] == 0, "delivery %d (t%d) is settled twice; %s", (int)tag, r->number[tag],
              r->words);
    r->fate[tag] = (unsigned char)(1 + how);
    r->settled++;
    snprintf(id, sizeof id, "t%d", r->number[tag]);
    note(r, names[how], id);
    return r->source_real->settle(source, tag, how, err);
}

static int
spy_prefetch(pc_source *source, unsigned count, pc_err *err)
{
    the_rig->prefetch = count;
    return the_rig->source_real->prefetch(source, count, err);
}

/* Closed by rig_break(), the source has forgotten its queue. */
static int
spy_connect(pc_source *source, pc_err *err)
{
    pc_queue queue = {.name = "q"};

    if (pc_worker_add_queue(the_rig->worker, &queue, err) < 0) {
        return -1;
    }
    return the_rig->source_real->connect(source, err);
}

static void
put_stored(rig *r, void *cookie)
{
    pc_err why = {.code = PC_EDATA, .msg = "refused by the test"};

    note_job(r, r->store_rejects ? "rejected" : "stored", cookie);
    r->stored_real(r->worker, cookie, r->store_rejects ? &why : NULL);
}

static void
spy_stored(void *ctx, void *cookie, const pc_err *why)
{
    rig *r = the_rig;

    (void)ctx, (void)why;
    if (!r->store_paused) {
        put_stored(r, cookie);
        return;
    }
    PC_ASSERT(r->cookies_len < 64);
    r->cookies[r->cookies_len++] = cookie;
}

static int
spy_put(pc_store *store, const pc_store_item *item, void *cookie, pc_err *err)
{
    if (the_rig->store_starves > 0) {
        the_rig->store_starves--;
        return pc_fail_nomem(err);
    }
    if (the_rig->store_refuses) {
        return pc_fail(err, PC_ELIMIT, "refused by the test");
    }
    return the_rig->store_real->put(store, item, cookie, err);
}

static size_t
spy_pending(const pc_store *store)
{
    return the_rig->cookies_len + the_rig->store_real->pending(store);
}

static void
spy_on(rig *r)
{
    r->source_real = r->worker->source->ops;
    r->source_spy = *r->source_real;
    r->source_spy.settle = spy_settle;
    r->source_spy.prefetch = spy_prefetch;
    r->source_spy.connect = spy_connect;
    r->worker->source->ops = &r->source_spy;
    r->store_real = r->worker->store->ops;
    r->store_spy = *r->store_real;
    r->store_spy.put = spy_put;
    r->store_spy.pending = spy_pending;
    r->worker->store->ops = &r->store_spy;
    r->stored_real = r->worker->store->hooks.stored;
    r->worker->store->hooks.stored = spy_stored;
}

/* --- life -------------------------------------------------------------- */

void
rig_init(rig *r, const char *pool, int size)
{
    *r = (rig){.ready = 0};
    the_rig = r;
    world_setup(&r->w);
    world_declare(&r->w, "q", NULL, NULL, NULL);
    r->shared = mmap(NULL, sizeof *r->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                     -1, 0);
    PC_ASSERT(r->shared != MAP_FAILED);
    r->log = (pc_log){PC_INFO, on_log, r};
    r->store = (pc_store_config){.scheme = "memory", .hub = r->w.hub};
    r->config = (pc_worker_config){
        .broker = &r->w.config, .store = &r->store, .pool = pool,
        .pool_config = {.size = size, .fair = true, .start_timeout = 4},
        .prefetch = 16, .retry = true, .retry_on_startup = true, .max_retries = -1,
        .want_received = true, .want_accepted = true,
        .result_content_type = "application/json", .result_content_encoding = "utf-8",
    };
    rig_runner(r);
    r->hooks = (pc_worker_hooks){on_ready, on_down, on_received, on_accepted, on_upgrade, on_bad,
                                 on_lost, on_revoked, on_soft_limit, on_cancelled, on_refused, on_store_failed,
                                 on_store_down, on_child, NULL, r};
}

void
rig_make(rig *r)
{
    pc_err err = {0};

    r->worker = pc_worker_new(&r->config, &r->runner, &r->hooks, &r->log, &err);
    PC_ASSERT(r->worker != NULL, "%s", err.msg);
    spy_on(r);
}

void
rig_start(rig *r)
{
    pc_err err = {0};

    if (r->worker == NULL) {
        rig_make(r);
    }
    PC_ASSERT(pc_worker_start(r->worker, &err) == 0, "%s", err.msg);
    RIG_UNTIL(r, r->ready > 0);
}

void
rig_free(rig *r)
{
    pc_worker_free(r->worker);
    world_teardown(&r->w);
    munmap(r->shared, sizeof *r->shared);
}

const char *
rig_queue(rig *r)
{
    static char all[4096];
    pc_producer *producer = r->w.producer;
    pc_message message;
    pc_buf memory;
    bool found = true;

    all[0] = '\0';
    pc_buf_init(&memory);
    for (;;) {
        PC_ASSERT_INT(producer->ops->get(producer, "q", &found, &message, &memory, soon, NULL), 0);
        if (!found) {
            break;
        }
        size_t len = strlen(all);
        PC_ASSERT(len + 16 < sizeof all);
        snprintf(all + len, 16, "t%d ", rig_number(&message));
    }
    pc_buf_fini(&memory);
    return all;
}

const char *
rig_stop(rig *r, pc_stop how, int ms)
{
    int rc = 1;

    pc_worker_stop(r->worker, how, in_ms(ms));
    for (pc_mono end = in_ms(ms + 7000); rc == 1;) {
        PC_ASSERT(pc_mono_now().ns < end.ns, "does not stop; %s", r->words);
        rc = rig_turn(r, 50);
    }
    PC_ASSERT_INT(rc, 0);
    pid_t pids[8];
    PC_ASSERT_INT(pc_worker_pids(r->worker, pids, 8), 0);
    return rig_queue(r);
}

/* --- tasks ------------------------------------------------------------- */

pc_spec
rig_spec(const char *name)
{
    return (pc_spec){.name = (char *)(uintptr_t)name, .acks_on_failure = true,
                     .acks_on_timeout = true, .time_limit = NAN, .soft_time_limit = NAN};
}

void
rig_add(rig *r, pc_spec spec)
{
    if (r->worker == NULL) {
        rig_make(r);
    }
    PC_ASSERT_INT(pc_worker_task(r->worker, &spec, NULL), 0);
}

void
rig_task(rig *r, const char *name, bool late)
{
    pc_spec spec = rig_spec(name);

    spec.acks_late = late;
    rig_add(r, spec);
}

void
rig_send_with(rig *r, int number, const char *task, const char *script, const char *headers)
{
    char text[400];
    pc_message message;

    snprintf(text, sizeof text, "{\"task\": \"%s\", \"id\": \"t%d\"%s}", task, number, headers);
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str(text);
    message.body = pc_slice_str(script);
    message.content_type = pc_slice_str("application/json");
    PC_ASSERT_INT(pc_hub_publish(r->w.hub, &message, true, NULL), 0);
}

void
rig_send(rig *r, int number, const char *task, const char *script)
{
    rig_send_with(r, number, task, script, "");
}

static const char *
moment(const char *name, int ms, char *out, size_t size)
{
    char iso[PC_ISO_MAX];
    pc_wall when = {pc_wall_now().us + ms * 1000LL};

    (void)pc_wall_format(when, 0, iso);
    snprintf(out, size, ", \"%s\": \"%s\"", name, iso);
    return out;
}

const char *
rig_eta(int ms)
{
    static char text[80];

    return moment("eta", ms, text, sizeof text);
}

const char *
rig_expires(int ms)
{
    static char text[80];

    return moment("expires", ms, text, sizeof text);
}

/* --- turning and looking ----------------------------------------------- */

int
rig_turn(rig *r, int ms)
{
    pc_err err = {0};
    int rc = pc_worker_turn(r->worker, in_ms(ms), &err);

    r->waits++;
    if (rc < 0) {
        printf("turn: %s\n", err.msg);
    }
    return rc;
}

void
rig_turns(rig *r, int ms)
{
    for (pc_mono end = in_ms(ms); pc_mono_now().ns < end.ns;) {
        PC_ASSERT(rig_turn(r, 5) >= 0);
    }
}

void
rig_break(rig *r)
{
    pc_err why = {.code = PC_EIO, .msg = "broken by the test"};
    pc_source *source = r->worker->source;

    // what was settled this turn is as good as lost, too, but the hub has no notion of that
    PC_ASSERT_INT(r->source_real->close(source, soon, NULL), 0);
    source->hooks.down(source->hooks.ctx, &why);
}

void
rig_release_store(rig *r)
{
    size_t len = r->cookies_len;

    r->store_paused = false;
    r->cookies_len = 0;
    for (size_t i = 0; i < len; i++) {
        put_stored(r, r->cookies[i]);
    }
}

int
rig_seen(const rig *r, const char *word)
{
    int n = 0;

    for (const char *at = r->words; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, " ");
        n += len == strlen(word) && memcmp(at, word, len) == 0;
        at += len + (at[len] == ' ');
    }
    return n;
}

bool
rig_before(const rig *r, const char *a, const char *b)
{
    const char *first = strstr(r->words, a);
    const char *second = strstr(r->words, b);

    return first != NULL && second != NULL && first < second;
}

pc_worker_stats
rig_stats(const rig *r)
{
    pc_worker_stats stats;

    pc_worker_get_stats(r->worker, &stats);
    return stats;
}

bool
rig_is_idle(const rig *r)
{
    pc_worker_stats s = rig_stats(r);

    return s.held + s.limited + s.ready + s.in_pool + s.storing == 0;
}
