/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/pipe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_CHUNK 65536
#define CONFIRM_MS 100  // a producer that lost its connection tries again
#define NEXT_MS 5       // a confirm alone does not wake a child whose next task comes that soon
#define OFFER_MAX (1 << 20)   // bytes; what is larger goes by the broker

bool
pc_child_soft_due(const pc_child *child)
{
    uint64_t current = atomic_load(&child->current);

    return current != 0 && atomic_load(&child->gate->soft_seq) == current;
}

/* --- the child's loop -------------------------------------------------- */

static int64_t
resident_kib(void)
{
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");

    if (statm == NULL) {
        return 0;
    }
    if (fscanf(statm, "%*s %ld", &pages) != 1) {
        pages = 0;
    }
    (void)fclose(statm);
    return (int64_t)pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int
send_all(const pc_child *child, const pc_up_frame *frame, pc_slice document, pc_slice notes)
{
    struct iovec parts[3] = {
        {(void *)(uintptr_t)frame, sizeof(*frame)},
        {(void *)(uintptr_t)document.ptr, document.len},
        {(void *)(uintptr_t)notes.ptr, notes.len},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = notes.len > 0 ? 3 : document.len > 0 ? 2 : 1};

    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(child->fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        size_t left = (size_t)sent;
        while (message.msg_iovlen > 0 && left >= message.msg_iov->iov_len) {
            left -= message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + left;
            message.msg_iov->iov_len -= left;
        }
    }
    return 0;
}

static bool
offer(void *to, pc_slice frame)
{
    pc_child *child = to;
    pc_up_frame up = {.len = (uint32_t)frame.len, .seq = atomic_load(&child->current)};

    if (frame.len > OFFER_MAX || pc_asking_skips(&child->asking)) {
        return false;
    }
    up.offer = pc_gate_ask(child->gate);
    if (send_all(child, &up, frame, pc_slice_of(NULL, 0)) < 0) {
        return false;  // nobody is there any more
    }
    return pc_asking_note(&child->asking, pc_gate_wait(child->gate, up.offer));
}

static int
run_one(pc_child *child, const pc_down_frame *order, pc_slice message)
{
    pc_outcome outcome = {.state = PC_FAILURE, .want_notes = order->want_notes != 0, .offer = offer, .offer_to = child};
    uint64_t seq = order->seq;

    if (!pc_gate_enter(child->gate, seq)) {
        return 0;
    }
    pc_buf_reset(&child->memory, 1 << 20);
    atomic_store(&child->current, seq);
    child->runner->run(child->runner->ctx, message, &outcome, &child->memory);
    atomic_store(&child->current, 0);
    pc_slice document = outcome.flags & PC_OUT_DOCUMENT ? outcome.document : pc_slice_of(NULL, 0);
    if (document.len > UINT32_MAX || outcome.notes.len > UINT32_MAX) {
        return -1;
    }
    pc_up_frame frame = {
        .len = (uint32_t)document.len,
        .state = (uint16_t)outcome.state,
        .flags = (uint16_t)outcome.flags,
        .seq = seq,
        .run_ns = outcome.run_ns,
        .rss_kib = child->measure_rss ? resident_kib() : 0,
        .notes_len = (uint32_t)outcome.notes.len,
    };
    return send_all(child, &frame, document, outcome.notes);
}

/* Runs every complete frame. -1: the parent is gone. */
static int
run_buffered(pc_child *child)
{
    pc_down_frame frame;

    while (pc_buf_len(&child->in) >= sizeof(frame)) {
        memcpy(&frame, pc_buf_ptr(&child->in), sizeof(frame));
        size_t whole = sizeof(frame) + frame.len;
        if (pc_buf_len(&child->in) < whole) {
            return 0;
        }
        pc_slice message = pc_slice_of(pc_buf_ptr(&child->in) + sizeof(frame), frame.len);
        if (run_one(child, &frame, message) < 0) {
            return -1;
        }
        pc_buf_consume(&child->in, whole);
    }
    if (pc_buf_len(&child->in) == 0) {
        pc_buf_reset(&child->in, 1 << 20);
    }
    return 0;
}

static size_t
wanted_bytes(const pc_child *child)
{
    pc_down_frame frame;
    size_t have = pc_buf_len(&child->in);

    if (have < sizeof(frame)) {
        return READ_CHUNK;
    }
    memcpy(&frame, pc_buf_ptr(&child->in), sizeof(frame));
    size_t rest = sizeof(frame) + frame.len - have;
    return rest < READ_CHUNK ? READ_CHUNK : rest;
}

/* The child has time: what its tasks have published is confirmed, until there is a next one. True: leave. */
static bool
confirm(pc_child *child)
{
    const pc_runner *runner = child->runner;
    struct pollfd wait[2] = {{.fd = child->fd, .events = POLLIN}, {.events = POLLIN}};
    bool soon = true;
    int fd;

    for (; runner->confirming != NULL && (fd = runner->confirming(runner->ctx)) >= 0; soon = false) {
        wait[1].fd = fd;
        int found = poll(wait, soon ? 1 : 2, soon ? NEXT_MS : CONFIRM_MS);
        if (found < 0 ? errno != EINTR : wait[0].revents != 0) {
            break;
        }
        if (runner->child_signals(runner->ctx) != 0) {
            return true;
        }
    }
    return false;
}

/* 1 got bytes, 0 the end, -1 failed */
static int
receive(pc_child *child)
{
    if (confirm(child)) {
        return 0;
    }
    for (;;) {
        size_t want = wanted_bytes(child);
        char *to = pc_buf_reserve(&child->in, want, NULL);
        if (to == NULL) {
            return -1;
        }
        ssize_t got = recv(child->fd, to, want, 0);
        if (got > 0) {
            pc_buf_commit(&child->in, (size_t)got);
            return 1;
        }
        if (got == 0) {
            return 0;
        }
        if (errno != EINTR) {
            return errno == ECONNRESET ? 0 : -1;
        }
        if (child->runner->child_signals(child->runner->ctx) != 0) {
            return 0;
        }
    }
}

int
pc_child_main(pc_child *child, int index)
{
    static const pc_up_frame up = {0};
    const pc_runner *runner = child->runner;
    int got = 0;

    int code = runner->child_start(runner->ctx, index, child);
    if (code == 0 && send_all(child, &up, pc_slice_of(NULL, 0), pc_slice_of(NULL, 0)) == 0) {
        while ((got = receive(child)) > 0) {
            // without this a signal that came between two system calls would wait for the next task
            if (run_buffered(child) < 0 || runner->child_signals(runner->ctx) != 0) {
                got = 0;
                break;
            }
        }
        code = got < 0 ? 1 : 0;
    }
    return runner->child_stop(runner->ctx, code);
}
