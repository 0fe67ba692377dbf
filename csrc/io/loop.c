/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/mem.h"

#define EVENTS_PER_WAIT 128
#define MIN_SLOTS 16

/* An epoll event carries generation and slot number instead of a pointer: a watch
 * that was removed after the kernel reported it is then seen to be gone. */
typedef struct slot {
    pc_watch *watch;  // NULL: free
    uint32_t generation;
    uint32_t next_free;  // number of the next free slot, 0: none
} slot;

struct pc_loop {
    int epoll_fd;
    int wake_fd;
    pid_t owner;  // a forked child shares epoll_fd and may not change its set
    slot *slots;
    uint32_t cap;
    uint32_t first_free;
    pc_heap timers;
    pc_link defers;
    pc_link firsts;
    pc_mono now;
    // between prepare() and dispatch(): whoever sets an earlier timer must wake
    bool sleeping;
    pc_mono sleep_until;
    bool interrupted;
    // what wait() found and dispatch() has not handled yet; members, so that a
    // callback that turns the loop itself leaves nothing stale behind
    int found;
    int handled;
    struct epoll_event events[EVENTS_PER_WAIT];
};

static int
open_epoll(pc_loop *loop, pc_err *err)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot create an epoll descriptor");
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return pc_fail_errno(err, PC_EIO, "cannot create an eventfd");
    }
    // Edge-triggered: each write is one event, and nobody has to read.
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 0};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0) {
        return pc_fail_errno(err, PC_EIO, "cannot watch the eventfd");
    }
    return 0;
}

pc_loop *
pc_loop_new(pc_err *err)
{
    pc_loop *loop = pc_zalloc(sizeof *loop);
    if (loop == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    loop->epoll_fd = -1;
    loop->wake_fd = -1;
    loop->owner = getpid();
    loop->now = pc_mono_now();
    pc_heap_init(&loop->timers);
    pc_link_init(&loop->defers);
    pc_link_init(&loop->firsts);
    if (open_epoll(loop, err) != 0) {
        goto fail;
    }
    return loop;
fail:
    pc_loop_free(loop);
    return NULL;
}

void
pc_loop_free(pc_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    while (pc_list_take_front(&loop->defers) != NULL) {
    }
    pc_heap_fini(&loop->timers);
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
    }
    pc_free(loop->slots);
    pc_free(loop);
}

/* --- watches --- */

void
pc_watch_init(pc_watch *watch, int fd, void (*ready)(void *ctx, unsigned events), void *ctx)
{
    *watch = (pc_watch){.fd = fd, .ready = ready, .ctx = ctx};
}

static int
grow(pc_loop *loop, pc_err *err)
{
    uint32_t cap = loop->cap == 0 ? MIN_SLOTS : loop->cap * 2;
    slot *slots = pc_realloc(loop->slots, cap * sizeof *slots);
    if (slots == NULL) {
        return pc_fail_nomem(err);
    }
    for (uint32_t i = loop->cap; i < cap; i++) {
        slots[i] = (slot){.next_free = i + 1 < cap ? i + 2 : 0};
    }
    loop->first_free = loop->cap + 1;
    loop->slots = slots;
    loop->cap = cap;
    return 0;
}

static int
control(pc_loop *loop, int how, pc_watch *watch, unsigned events, pc_err *err)
{
    uint32_t generation = loop->slots[watch->slot - 1].generation;
    struct epoll_event event = {
        .events = ((events & PC_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
                  ((events & PC_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0),
        .data.u64 = (uint64_t)generation << 32 | watch->slot,
    };
    if (epoll_ctl(loop->epoll_fd, how, watch->fd, &event) != 0) {
        return pc_fail_errno(err, PC_EIO, "cannot watch descriptor %d", watch->fd);
    }
    return 0;
}

static void
release(pc_loop *loop, pc_watch *watch)
{
    slot *mine = &loop->slots[watch->slot - 1];
    mine->watch = NULL;
    mine->generation++;
    mine->next_free = loop->first_free;
    loop->first_free = watch->slot;
    watch->slot = 0;
    watch->events = 0;
}

static int
add(pc_loop *loop, pc_watch *watch, unsigned events, pc_err *err)
{
    if (loop->first_free == 0 && grow(loop, err) != 0) {
        return -1;
    }
    watch->slot = loop->first_free;
    slot *mine = &loop->slots[watch->slot - 1];
    loop->first_free = mine->next_free;
    mine->watch = watch;
    if (control(loop, EPOLL_CTL_ADD, watch, events, err) != 0) {
        release(loop, watch);
        return -1;
    }
    watch->events = events;
    return 0;
}

int
pc_loop_watch(pc_loop *loop, pc_watch *watch, unsigned events, pc_err *err)
{
    events &= PC_READ | PC_WRITE;
    if (events == 0) {
        pc_loop_unwatch(loop, watch);
        return 0;
    }
    if (watch->slot == 0) {
        return add(loop, watch, events, err);
    }
    if (events == watch->events) {
        return 0;
    }
    if (control(loop, EPOLL_CTL_MOD, watch, events, err) != 0) {
        return -1;
    }
    watch->events = events;
    return 0;
}

void
pc_loop_unwatch(pc_loop *loop, pc_watch *watch)
{
    if (watch->slot == 0) {
        return;
    }
    if (getpid() == loop->owner) {
        // Fails only when the descriptor was closed, which removed it already.
        (void)control(loop, EPOLL_CTL_DEL, watch, 0, NULL);
    }
    release(loop, watch);
}

/* --- timers --- */

void
pc_timer_init(pc_timer *timer, void (*due)(void *ctx, pc_mono now), void *ctx)
{
    *timer = (pc_timer){.due = due, .ctx = ctx};
}

int
pc_loop_set_timer(pc_loop *loop, pc_timer *timer, pc_mono when, pc_err *err)
{
    if (timer->node.place != 0) {
        pc_heap_rekey(&loop->timers, &timer->node, when.ns);
    } else if (pc_heap_push(&loop->timers, &timer->node, when.ns, err) != 0) {
        return -1;
    }
    if (loop->sleeping && when.ns < loop->sleep_until.ns) {
        pc_loop_wake(loop);
    }
    return 0;
}

void
pc_loop_clear_timer(pc_loop *loop, pc_timer *timer)
{
    pc_heap_remove(&loop->timers, &timer->node);
}

/* --- end-of-turn work --- */

void
pc_defer_init(pc_defer *defer, void (*run)(void *ctx), void *ctx)
{
    pc_link_init(&defer->link);
    defer->run = run;
    defer->ctx = ctx;
}

void
pc_loop_defer(pc_loop *loop, pc_defer *defer)
{
    if (!pc_link_in(&defer->link)) {
        pc_list_put_back(&loop->defers, &defer->link);
    }
}

void
pc_loop_defer_next(pc_loop *loop, pc_defer *defer)
{
    pc_link_remove(&defer->link);
    pc_list_put_front(&loop->defers, &defer->link);
}

void
pc_loop_undefer(pc_loop *loop, pc_defer *defer)
{
    (void)loop;
    pc_link_remove(&defer->link);
}

void
pc_loop_defer_first(pc_loop *loop, pc_defer *defer)
{
    if (!pc_link_in(&defer->link)) {
        pc_list_put_back(&loop->firsts, &defer->link);
    }
}

/* --- the turn --- */

pc_mono
pc_loop_now(const pc_loop *loop)
{
    return loop->now;
}

static void
run_firsts(pc_loop *loop)
{
    loop->now = pc_mono_now();
    for (pc_link *at = loop->firsts.next, *next; at != &loop->firsts; at = next) {
        pc_defer *first = PC_CONTAINER_OF(at, pc_defer, link);
        next = at->next;
        first->run(first->ctx);
    }
}

int
pc_loop_prepare(pc_loop *loop, pc_mono until)
{
    run_firsts(loop);  // what was called last may have taken long, too
    pc_mono now = loop->now;
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&loop->defers)) != NULL) {
        pc_defer *defer = PC_CONTAINER_OF(link, pc_defer, link);
        defer->run(defer->ctx);
        now = pc_mono_now();
    }
    const pc_heap_node *first = pc_heap_peek(&loop->timers);
    if (first != NULL && first->key < until.ns) {
        until.ns = first->key;
    }
    if (!loop->sleeping) {  // else another thread sleeps already, until then
        loop->sleeping = true;
        loop->sleep_until = until;
    }
    return pc_mono_wait_ms(now, until);
}

int
pc_loop_wait(pc_loop *loop, int wait_ms, pc_err *err)
{
    loop->handled = 0;
    loop->found = epoll_wait(loop->epoll_fd, loop->events, EVENTS_PER_WAIT, wait_ms);
    loop->interrupted = loop->found < 0 && errno == EINTR;
    if (loop->found >= 0) {
        return 0;
    }
    loop->found = 0;
    return loop->interrupted ? 0 : pc_fail_errno(err, PC_EIO, "epoll_wait failed");
}

bool
pc_loop_interrupted(const pc_loop *loop)
{
    return loop->interrupted;
}

static unsigned
translate(uint32_t events)
{
    return ((events & EPOLLIN) != 0 ? PC_READ : 0) | ((events & EPOLLOUT) != 0 ? PC_WRITE : 0) |
           ((events & (EPOLLHUP | EPOLLERR)) != 0 ? PC_HANGUP : 0);
}

/* 1 when a callback was made, 0 when the event is void by now. */
static int
deliver(const pc_loop *loop, const struct epoll_event *event)
{
    uint32_t number = (uint32_t)event->data.u64;
    if (number == 0 || number > loop->cap) {  // the wake-up
        return 0;
    }
    slot at = loop->slots[number - 1];
    if (at.watch == NULL || at.generation != event->data.u64 >> 32) {
        return 0;
    }
    unsigned events = translate(event->events) & (at.watch->events | PC_HANGUP);
    if (events == 0) {
        return 0;
    }
    at.watch->ready(at.watch->ctx, events);
    return 1;
}

/* At most as many as there were, so that a timer that sets itself to "now" cannot
 * keep the turn from ending. */
static int
run_timers(pc_loop *loop)
{
    int calls = 0;
    for (uint32_t left = loop->timers.len; left > 0; left--) {
        pc_heap_node *node = pc_heap_peek(&loop->timers);
        if (node == NULL || node->key > loop->now.ns) {
            break;
        }
        pc_heap_remove(&loop->timers, node);
        pc_timer *timer = PC_CONTAINER_OF(node, pc_timer, node);
        timer->due(timer->ctx, loop->now);
        calls++;
    }
    return calls;
}

int
pc_loop_dispatch(pc_loop *loop)
{
    int calls = 0;
    loop->sleeping = false;
    run_firsts(loop);
    while (loop->handled < loop->found) {
        struct epoll_event event = loop->events[loop->handled++];
        calls += deliver(loop, &event);
    }
    return calls + run_timers(loop);
}

int
pc_loop_step(pc_loop *loop, pc_mono until, pc_err *err)
{
    int wait_ms = pc_loop_prepare(loop, until);
    int rc = pc_loop_wait(loop, wait_ms, err);
    int calls = pc_loop_dispatch(loop);
    return rc != 0 ? -1 : calls;
}

int
pc_loop_fd(const pc_loop *loop)
{
    return loop->epoll_fd;
}

void
pc_loop_wake(pc_loop *loop)
{
    int saved = errno;  // of the code that a signal handler interrupted
    uint64_t one = 1;
    ssize_t done = write(loop->wake_fd, &one, sizeof one);
    (void)done;  // can only fail when the counter is full: awake then, too
    errno = saved;
}
