/* SPDX-License-Identifier: BSD-3-Clause */
/* The prefork pool as the worker sees it (see slot.h for the design). */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "base/mem.h"
#include "work/slot.h"

#define SHORT_TASK_NS PC_NS_PER_MS
#define LOOK_NS PC_NS_PER_MS
#define LOOK_MAX_NS (50 * PC_NS_PER_MS)
#define TERM_GRACE_NS (100 * PC_NS_PER_MS)
#define WINDOW_MAX 64

static void
look_around(void *ctx, pc_mono now)
{
    pc_prefork *pool = ctx;
    bool open = false;

    for (int i = 0; i < pool->len; i++) {
        pc_slot *child = pool->slots[i];
        pc_slot_look_for_start(child);
        pc_slot_feed(child);
        open = open || child->starved || (child->jobs_len > 0 && !pc_slot_first(child)->started);
    }
    if (open) {
        pool->look_ns = pool->look_ns < LOOK_MAX_NS ? 2 * pool->look_ns : LOOK_MAX_NS;
        (void)pc_loop_set_timer(pool->base.loop, &pool->look, pc_mono_add(now, pool->look_ns), NULL);
    }
}

void
pc_prefork_look_soon(pc_prefork *pool)
{
    if (pool->look.node.place == 0 || pool->look_ns > LOOK_NS) {
        pool->look_ns = LOOK_NS;
        (void)pc_loop_set_timer(pool->base.loop, &pool->look, pc_mono_add(pc_mono_now(), LOOK_NS), NULL);
    }
}

static void
flush_all(void *ctx)
{
    pc_prefork *pool = ctx;

    for (int i = 0; i < pool->len; i++) {
        if (pool->slots[i]->fd >= 0 && pc_buf_len(&pool->slots[i]->out) > 0) {
            pc_slot_flush(pool->slots[i]);
        }
    }
}

static void
destroy(pc_pool *base)
{
    pc_prefork *pool = (pc_prefork *)base;

    if (pool == NULL) {
        return;
    }
    for (int i = 0; i < pool->len; i++) {
        pc_slot *child = pool->slots[i];
        if (child->pid > 0) {
            (void)kill(child->pid, SIGKILL);
            (void)waitpid(child->pid, NULL, 0);
        }
        while (child->jobs_len > 0) {
            (void)pc_slot_remove(pc_slot_first(child));
        }
        pc_slot_clear(child);
        pc_buf_fini(&child->in);
        pc_buf_fini(&child->out);
        pc_free(child);
    }
    pc_loop_undefer(base->loop, &pool->flush);
    pc_loop_clear_timer(base->loop, &pool->look);
    if (pool->gates != NULL) {
        (void)munmap(pool->gates, sizeof(pc_gate) * PC_SLOTS_MAX);
    }
    pc_free(pool->slots);
    pc_free(pool);
}

static pc_pool *
create(const pc_pool_config *config, pc_loop *loop, const pc_runner *runner,
       const pc_pool_hooks *hooks, const pc_log *log, pc_err *err)
{
    pc_prefork *pool = pc_zalloc(sizeof(*pool));

    if (pool == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pool->base = (pc_pool){&pc_pool_prefork, *config, *hooks, runner, log, loop};
    pc_defer_init(&pool->flush, flush_all, pool);
    pc_timer_init(&pool->look, look_around, pool);
    pool->look_ns = LOOK_NS;
    pool->slots = pc_zalloc(sizeof(*pool->slots) * PC_SLOTS_MAX);
    void *shared = mmap(NULL, sizeof(pc_gate) * PC_SLOTS_MAX, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pool->gates = shared == MAP_FAILED ? NULL : shared;
    if (pool->slots == NULL || pool->gates == NULL) {
        pc_fail_nomem(err);
        destroy(&pool->base);
        return NULL;
    }
    return &pool->base;
}

static int
resize(pc_pool *base, int size, pc_err *err)
{
    pc_prefork *pool = (pc_prefork *)base;

    if (size < 1 || size > PC_SLOTS_MAX) {
        return pc_fail(err, PC_EDATA, "a pool has 1 to %d processes, not %d", PC_SLOTS_MAX, size);
    }
    pool->size = size;
    for (int i = size; i < pool->len; i++) {
        if (pool->slots[i]->state == PC_SLOT_UP) {
            pc_slot_retire(pool->slots[i]);
        }
    }
    for (int i = 0; i < size; i++) {
        if (i == pool->len) {
            pc_slot *child = pc_slot_new(pool, i, err);
            if (child == NULL) {
                return -1;
            }
            pool->slots[pool->len++] = child;
        }
        if (pool->slots[i]->state == PC_SLOT_EMPTY && pc_slot_spawn(pool->slots[i], err) < 0) {
            (void)pc_slot_hurry(pool->slots[i], pc_slot_respawn, PC_RESPAWN_DELAY_NS, NULL);
            return -1;
        }
    }
    return 0;
}

static void
restart(pc_pool *base)
{
    pc_prefork *pool = (pc_prefork *)base;

    for (int i = 0; i < pool->len; i++) {
        pool->slots[i]->outdated = true;
        if (pool->slots[i]->state == PC_SLOT_UP) {
            pc_slot_retire(pool->slots[i]);
        }
    }
}

static int
start(pc_pool *base, pc_err *err)
{
    return resize(base, base->config.size, err);
}

static size_t
window(const pc_job *job)
{
    int64_t mean = job->spec->mean_ns;

    if (mean <= 0 || mean >= SHORT_TASK_NS) {
        return 1;
    }
    int64_t jobs = SHORT_TASK_NS / mean;
    return jobs > WINDOW_MAX ? WINDOW_MAX : (size_t)jobs;
}

/* Only short tasks in front? The last one given stands for all: each was let in behind short ones. */
static bool
queue_is_short(pc_slot *child)
{
    pc_place *last = PC_CONTAINER_OF(child->jobs.prev, pc_place, link);

    return window(last->job) > 1;
}

static bool
room(pc_pool *base, const pc_job *job)
{
    pc_prefork *pool = (pc_prefork *)base;
    size_t most = window(job);
    pc_slot *best = NULL;

    for (int i = 0; i < pool->len; i++) {
        pc_slot *child = pool->slots[i];
        if (child->state == PC_SLOT_EMPTY && i < pool->size && child->hurry.node.place == 0) {
            // there was no memory for the timer of its next try
            (void)pc_slot_hurry(child, pc_slot_respawn, 0, NULL);
        }
        if (child->state != PC_SLOT_UP || child->ended
            || (base->config.max_tasks > 0 && child->given >= base->config.max_tasks)) {
            continue;
        }
        if (child->jobs_len == 0) {
            best = child;
            break;
        }
        if (child->jobs_len < most && !child->stalled && queue_is_short(child)
            && (best == NULL || child->jobs_len < best->jobs_len)) {
            best = child;
        }
    }
    pool->chosen = best;
    return best != NULL;
}

static int
put_frame(pc_slot *child, const pc_job *job, pc_err *err)
{
    pc_down_frame frame = {.len = job->frame_len, .want_notes = job->wants_events, .seq = child->sent_seq + 1};
    char *to = pc_buf_reserve(&child->out, sizeof(frame) + job->frame_len, err);

    if (to == NULL) {
        return -1;
    }
    memcpy(to, &frame, sizeof(frame));
    memcpy(to + sizeof(frame), job->frame, job->frame_len);
    pc_buf_commit(&child->out, sizeof(frame) + job->frame_len);
    return 0;
}

static int
submit(pc_pool *base, pc_job *job, pc_err *err)
{
    pc_prefork *pool = (pc_prefork *)base;
    pc_slot *child = pool->chosen;
    pc_place *at = pc_alloc(sizeof(*at));

    if (at == NULL) {
        return pc_fail_nomem(err);
    }
    if (put_frame(child, job, err) < 0) {
        pc_free(at);
        return -1;
    }
    child->sent_seq++;
    child->given++;
    *at = (pc_place){.job = job, .slot = child};
    job->seq = child->sent_seq;
    job->slot = at;
    pc_list_put_back(&child->jobs, &at->link);
    child->jobs_len++;
    if (child->jobs_len == 2) {
        pc_slot_watch_progress(child);
    }
    pc_loop_defer_next(base->loop, &pool->flush);  // a result and an ack may leave later
    pc_prefork_look_soon(pool);
    return 0;
}

static int
soft_limit(pc_pool *base, pc_job *job, pc_err *err)
{
    pc_place *at = job->slot;

    (void)base;
    atomic_store(&at->slot->gate->soft_seq, job->seq);
    return pc_slot_signal(at->slot, SIGUSR1, err);
}

static void
kill_now(void *ctx, pc_mono now)
{
    pc_slot *child = ctx;

    (void)now;
    (void)pc_slot_signal(child, SIGKILL, NULL);
}

/* Nothing else may start in a process that is to end: what is queued behind the job is taken back first. If the
 * job is over by then (its outcome is on the way in), its process is left alone. */
static int
kill_job(pc_pool *base, pc_job *job, int signum, pc_lost why, pc_err *err)
{
    pc_place *at = job->slot;
    pc_slot *child = at->slot;
    uint64_t seq = job->seq;

    (void)base;
    pc_slot_recall(child);
    if (pc_gate_started(child->gate) != seq) {
        return 0;
    }
    if (pc_slot_signal(child, signum, err) < 0) {
        return -1;
    }
    at->kill_why = why;
    if (child->state == PC_SLOT_UP) {
        child->state = PC_SLOT_RETIRING;
    }
    // only a limit has the last word: a task may catch the signal of a revoke
    if (why == PC_LOST_HARD && pc_slot_hurry(child, kill_now, TERM_GRACE_NS, NULL) < 0) {
        kill_now(child, pc_mono_now());
    }
    return 0;
}

static void
recall(pc_pool *base)
{
    pc_prefork *pool = (pc_prefork *)base;

    for (int i = 0; i < pool->len; i++) {
        pc_slot_recall(pool->slots[i]);
    }
}

static int
processes(pc_pool *base, pid_t *out, int max)
{
    pc_prefork *pool = (pc_prefork *)base;
    int n = 0;

    for (int i = 0; i < pool->len && n < max; i++) {
        if (pool->slots[i]->pid > 0) {
            out[n++] = pool->slots[i]->pid;
        }
    }
    return n;
}

static bool
any_alive(pc_prefork *pool)
{
    bool alive = false;

    for (int i = 0; i < pool->len; i++) {
        if (pool->slots[i]->pid > 0 && !pc_slot_reap(pool->slots[i])) {
            alive = true;
        }
    }
    return alive;
}

static void
kill_all(pc_prefork *pool)
{
    for (int i = 0; i < pool->len; i++) {
        if (pool->slots[i]->pid > 0) {
            (void)kill(pool->slots[i]->pid, SIGKILL);
        }
    }
}

/* Short naps, not the loop: nothing else happens in a worker that has come this far. */
static void
stop(pc_pool *base, pc_mono deadline)
{
    pc_prefork *pool = (pc_prefork *)base;
    struct timespec nap = {0, 2 * PC_NS_PER_MS};

    pool->stopping = true;
    for (int i = 0; i < pool->len; i++) {
        pc_slot *child = pool->slots[i];
        if (child->pid > 0) {
            child->state = PC_SLOT_RETIRING;
            pc_slot_drain(child);
            pc_slot_retire_if_idle(child);
        }
    }
    while (any_alive(pool)) {
        if (pc_mono_now().ns >= deadline.ns) {
            kill_all(pool);
        }
        (void)nanosleep(&nap, NULL);
    }
}

const pc_pool_ops pc_pool_prefork = {
    .name = "prefork",
    .create = create,
    .start = start,
    .room = room,
    .submit = submit,
    .soft_limit = soft_limit,
    .kill = kill_job,
    .recall = recall,
    .resize = resize,
    .restart = restart,
    .processes = processes,
    .stop = stop,
    .destroy = destroy,
};
