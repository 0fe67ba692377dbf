/* SPDX-License-Identifier: BSD-3-Clause */
/* A child as the parent deals with it: the jobs it was given, output, input. */
#include "work/slot.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#define STALL_NS (5 * PC_NS_PER_MS)
#define READ_CHUNK 262144

/* --- jobs of a slot ---------------------------------------------------- */

pc_place *
pc_slot_first(pc_slot *child)
{
    return PC_CONTAINER_OF(child->jobs.next, pc_place, link);
}

pc_job *
pc_slot_remove(pc_place *at)
{
    pc_job *job = at->job;

    pc_link_remove(&at->link);
    at->slot->jobs_len--;
    job->slot = NULL;
    pc_free(at);
    return job;
}

void
pc_slot_report_started(pc_place *at)
{
    pc_slot *child = at->slot;

    if (!at->started) {
        at->started = true;
        at->job->pid = (int)child->pid;
        child->pool->base.hooks.started(child->pool->base.hooks.ctx, at->job);
    }
}

/* Returns false when nothing has been started that was not known. */
void
pc_slot_look_for_start(pc_slot *child)
{
    if (child->jobs_len == 0) {
        return;
    }
    uint64_t started = pc_gate_started(child->gate);
    pc_place *at = pc_slot_first(child);
    if (at->job->seq <= started) {
        pc_slot_report_started(at);
    }
}

/* Takes back what has not started; from the last to the first, so that the worker, putting each at the front, keeps the order. */
void
pc_slot_recall(pc_slot *child)
{
    pc_prefork *pool = child->pool;

    if (child->jobs_len == 0) {
        return;
    }
    uint64_t started = pc_gate_recall(child->gate, child->sent_seq);
    while (child->jobs_len > 0) {
        pc_place *last = PC_CONTAINER_OF(child->jobs.prev, pc_place, link);
        if (last->job->seq <= started) {
            break;
        }
        child->given--;
        pool->base.hooks.back(pool->base.hooks.ctx, pc_slot_remove(last));
    }
    pc_loop_clear_timer(pool->base.loop, &child->stall);
    pc_slot_look_for_start(child);
}

void
pc_slot_stalled(void *ctx, pc_mono now)
{
    pc_slot *child = ctx;

    (void)now;
    // or the same jobs would go to it and come back every few milliseconds, each time as bytes that it has not read
    child->stalled = true;
    pc_slot_recall(child);
}

void
pc_slot_watch_progress(pc_slot *child)
{
    pc_loop *loop = child->pool->base.loop;

    if (child->jobs_len < 2) {
        pc_loop_clear_timer(loop, &child->stall);
    } else if (pc_loop_set_timer(loop, &child->stall,
                                 pc_mono_add(pc_mono_now(), STALL_NS), NULL) < 0) {
        pc_slot_recall(child);
    }
}

/* --- output ------------------------------------------------------------ */

static void
set_watch(pc_slot *child, bool write)
{
    pc_err err = {0};

    if (child->want_write == write) {
        return;
    }
    child->want_write = write;
    if (child->starved || child->ended) {
        return;
    }
    if (pc_loop_watch(child->pool->base.loop, &child->watch,
                      write ? PC_READ | PC_WRITE : PC_READ, &err) < 0) {
        pc_log_write(child->pool->base.log, PC_ERROR, "pool: %s", err.msg);
    }
}

void
pc_slot_flush(pc_slot *child)
{
    while (pc_buf_len(&child->out) > 0) {
        ssize_t sent = send(child->fd, pc_buf_ptr(&child->out), pc_buf_len(&child->out),
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            // any other failure than a full socket means that the child is dying: its pidfd will tell
            set_watch(child, errno == EAGAIN || errno == EWOULDBLOCK);
            return;
        }
        pc_buf_consume(&child->out, (size_t)sent);
    }
    pc_buf_reset(&child->out, 1 << 20);
    set_watch(child, false);
}

/* --- input ------------------------------------------------------------- */

void
pc_slot_close(pc_slot *child)
{
    if (child->fd >= 0) {
        pc_loop_unwatch(child->pool->base.loop, &child->watch);
        // close() alone says nothing while a copy exists, in a process of another pool say
        (void)shutdown(child->fd, SHUT_RDWR);
        (void)close(child->fd);
        child->fd = -1;
    }
}

/* Says goodbye to an idle child: it sees the end of its socket and exits. */
void
pc_slot_retire_if_idle(pc_slot *child)
{
    if (child->state == PC_SLOT_RETIRING && child->jobs_len == 0) {
        pc_slot_close(child);
    }
}

void
pc_slot_retire(pc_slot *child)
{
    child->state = PC_SLOT_RETIRING;
    pc_slot_recall(child);
    pc_slot_retire_if_idle(child);
}

static bool
worn_out(const pc_slot *child, int64_t rss_kib)
{
    const pc_pool_config *config = &child->pool->base.config;

    return (config->max_tasks > 0 && child->done >= config->max_tasks)
           || (config->max_rss_kib > 0 && rss_kib > config->max_rss_kib);
}

static void
came_up(pc_slot *child)
{
    pc_prefork *pool = child->pool;

    if (child->state != PC_SLOT_STARTING) {
        return;
    }
    child->state = PC_SLOT_UP;
    child->was_up = true;
    pc_loop_clear_timer(pool->base.loop, &child->hurry);
    pool->base.hooks.child(pool->base.hooks.ctx, child->index, child->pid, true, NULL);
    if (child->outdated || child->index >= pool->size) {  // the pool was restarted, or shrank, meanwhile
        pc_slot_retire(child);
    }
}

static void
take_outcome(pc_slot *child, const pc_up_frame *frame, const char *payload)
{
    pc_prefork *pool = child->pool;

    if (child->jobs_len == 0 || pc_slot_first(child)->job->seq != frame->seq
        || frame->state >= PC_STATE_COUNT) {
        pc_log_write(pool->base.log, PC_CRITICAL, "pool: child %d answered out of turn", (int)child->pid);
        (void)kill(child->pid, SIGKILL);
        return;
    }
    pc_place *at = pc_slot_first(child);
    pc_slot_report_started(at);
    pc_job *job = pc_slot_remove(at);
    child->done++;
    child->stalled = false;
    pc_outcome outcome = {
        .state = (pc_state)frame->state,
        .flags = frame->flags,
        .run_ns = frame->run_ns,
        .rss_kib = frame->rss_kib,
        .document = pc_slice_of(payload, frame->len),
        .notes = pc_slice_of(payload + frame->len, frame->notes_len),
    };
    pool->base.hooks.done(pool->base.hooks.ctx, job, &outcome);
    pc_slot_look_for_start(child);
    if (child->jobs_len > 0 && !pc_slot_first(child)->started) {
        pc_prefork_look_soon(pool);
    }
    pc_slot_watch_progress(child);
    if (child->state == PC_SLOT_UP && worn_out(child, frame->rss_kib)) {
        pc_slot_retire(child);
    }
    pc_slot_retire_if_idle(child);
}

static bool
fits_behind(pc_slot *child, uint64_t seq)
{
    int64_t max_tasks = child->pool->base.config.max_tasks;

    return child->state == PC_SLOT_UP && !child->stalled && child->jobs_len == 1 && pc_slot_first(child)->job->seq == seq
           && (max_tasks == 0 || child->given < max_tasks);
}

/* What is granted stands behind the job that offers it, which is about to end. */
static void
take_offer(pc_slot *child, const pc_up_frame *frame, const char *payload)
{
    pc_prefork *pool = child->pool;

    if (!pc_gate_take(child->gate, frame->offer)) {
        return;  // withdrawn
    }
    bool granted = fits_behind(child, frame->seq);
    if (granted) {
        pc_place *at = pc_slot_first(child);
        pc_slot_report_started(at);
        pool->chosen = child;
        granted = pool->base.hooks.follow(pool->base.hooks.ctx, at->job, pc_slice_of(payload, frame->len));
    }
    pc_gate_tell(child->gate, frame->offer, granted);
}

static void
take_frames(pc_slot *child)
{
    pc_up_frame frame;

    while (pc_buf_len(&child->in) >= sizeof(frame)) {
        memcpy(&frame, pc_buf_ptr(&child->in), sizeof(frame));
        size_t whole = sizeof(frame) + frame.len + frame.notes_len;
        if (pc_buf_len(&child->in) < whole) {
            return;
        }
        if (frame.seq == 0) {
            came_up(child);
        } else if (frame.offer != 0) {
            take_offer(child, &frame, pc_buf_ptr(&child->in) + sizeof(frame));
        } else {
            take_outcome(child, &frame, pc_buf_ptr(&child->in) + sizeof(frame));
        }
        pc_buf_consume(&child->in, whole);
    }
    if (pc_buf_len(&child->in) == 0) {
        pc_buf_reset(&child->in, 1 << 20);
    }
}

/* The descriptor stays readable: watched, it would keep the loop from sleeping until there is memory. */
static void
starve(pc_slot *child)
{
    pc_prefork *pool = child->pool;

    if (pc_loop_set_timer(pool->base.loop, &pool->look, pc_mono_add(pc_mono_now(), STALL_NS), NULL) == 0) {
        pc_loop_unwatch(pool->base.loop, &child->watch);
        child->starved = true;
    }
}

static int
watch_again(pc_slot *child)
{
    pc_loop *loop = child->pool->base.loop;

    if (child->pidfd >= 0 && pc_loop_watch(loop, &child->death, PC_READ, NULL) < 0) {
        return -1;
    }
    if (child->fd < 0 || child->ended) {
        return 0;
    }
    return pc_loop_watch(loop, &child->watch, child->want_write ? PC_READ | PC_WRITE : PC_READ, NULL);
}

void
pc_slot_feed(pc_slot *child)
{
    if (!child->starved) {
        return;
    }
    child->starved = false;
    pc_slot_drain(child);
    if (!child->starved && watch_again(child) < 0) {
        starve(child);
    }
}

/* Reads what is there. */
void
pc_slot_drain(pc_slot *child)
{
    while (child->fd >= 0) {
        char *to = pc_buf_reserve(&child->in, READ_CHUNK, NULL);
        if (to == NULL) {
            starve(child);
            return;
        }
        ssize_t got = recv(child->fd, to, READ_CHUNK, MSG_DONTWAIT);
        if (got <= 0) {
            if (got < 0 && errno == EINTR) {
                continue;
            }
            if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
                // closed by a dying child; keep the socket for the final drain, stop listening
                child->ended = true;
                pc_loop_unwatch(child->pool->base.loop, &child->watch);
            }
            return;
        }
        pc_buf_commit(&child->in, (size_t)got);
        take_frames(child);
        if ((size_t)got < READ_CHUNK) {
            return;
        }
    }
}

void
pc_slot_ready(void *ctx, unsigned events)
{
    pc_slot *child = ctx;

    if (events & PC_WRITE) {
        pc_slot_flush(child);
    }
    if (events & (PC_READ | PC_HANGUP)) {
        pc_slot_drain(child);
        child->pool->base.hooks.room(child->pool->base.hooks.ctx);
    }
}
