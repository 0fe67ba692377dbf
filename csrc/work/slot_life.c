/* SPDX-License-Identifier: BSD-3-Clause */
/* Birth and death of a child. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "work/slot.h"

/* --- death ------------------------------------------------------------- */

static void
describe_exit(const siginfo_t *info, bool known, char *out, size_t size)
{
    if (!known) {
        (void)snprintf(out, size, "unknown status");
    } else if (info->si_code == CLD_EXITED) {
        (void)snprintf(out, size, "exitcode %d", info->si_status);
    } else {
        const char *name = sigabbrev_np(info->si_status);
        (void)snprintf(out, size, "signal %d (SIG%s)", info->si_status, name == NULL ? "?" : name);
    }
}

static void
lose_jobs(pc_slot *child, const char *how)
{
    pc_prefork *pool = child->pool;
    uint64_t started = pc_gate_started(child->gate);

    while (child->jobs_len > 0) {
        pc_place *last = PC_CONTAINER_OF(child->jobs.prev, pc_place, link);
        if (last->job->seq > started) {
            pool->base.hooks.back(pool->base.hooks.ctx, pc_slot_remove(last));
            continue;
        }
        pc_slot_report_started(last);
        pc_lost why = last->kill_why;
        pool->base.hooks.lost(pool->base.hooks.ctx, pc_slot_remove(last), why, how);
    }
}

void
pc_slot_clear(pc_slot *child)
{
    pc_loop *loop = child->pool->base.loop;

    pc_slot_close(child);
    pc_loop_clear_timer(loop, &child->stall);
    pc_loop_clear_timer(loop, &child->hurry);
    if (child->pidfd >= 0) {
        pc_loop_unwatch(loop, &child->death);
        (void)close(child->pidfd);
        child->pidfd = -1;
    }
    pc_buf_reset(&child->in, 0);
    pc_buf_reset(&child->out, 0);
    child->want_write = false;
    child->stalled = false;
    child->starved = false;
    child->ended = false;
    child->state = PC_SLOT_EMPTY;
    child->pid = 0;
}

int
pc_slot_signal(const pc_slot *child, int signum, pc_err *err)
{
    if (syscall(SYS_pidfd_send_signal, child->pidfd, signum, NULL, 0) < 0 && errno != ESRCH) {
        return pc_fail_errno(err, PC_EIO, "cannot send signal %d to a pool process", signum);
    }
    return 0;
}

int
pc_slot_hurry(pc_slot *child, void (*due)(void *ctx, pc_mono now), int64_t ns, pc_err *err)
{
    pc_loop *loop = child->pool->base.loop;

    pc_loop_clear_timer(loop, &child->hurry);
    pc_timer_init(&child->hurry, due, child);
    return pc_loop_set_timer(loop, &child->hurry, pc_mono_add(pc_mono_now(), ns), err);
}

void
pc_slot_respawn(void *ctx, pc_mono now)
{
    pc_slot *child = ctx;
    pc_prefork *pool = child->pool;
    pc_err err = {0};

    (void)now;
    if (pool->stopping || child->index >= pool->size || child->state != PC_SLOT_EMPTY) {
        return;
    }
    if (pc_slot_spawn(child, &err) < 0) {
        pc_log_write(pool->base.log, PC_ERROR, "cannot start a pool process: %s", err.msg);
        (void)pc_slot_hurry(child, pc_slot_respawn, PC_RESPAWN_DELAY_NS, NULL);
    }
}

/* A child that never came up, or did nothing before it died, is not replaced at once: it would burn the machine. */
static void
replace(pc_slot *child, bool useful)
{
    pc_prefork *pool = child->pool;

    if (pool->stopping || child->index >= pool->size) {
        return;
    }
    if (useful) {
        pc_slot_respawn(child, pc_mono_now());
        return;
    }
    (void)pc_slot_hurry(child, pc_slot_respawn, PC_RESPAWN_DELAY_NS, NULL);
}

static void
bury(pc_slot *child, const siginfo_t *info, bool known)
{
    pc_prefork *pool = child->pool;
    char how[64];
    bool useful = child->was_up && child->given > 0;
    pid_t pid = child->pid;

    describe_exit(info, known, how, sizeof(how));
    pc_slot_drain(child);
    lose_jobs(child, how);
    pc_slot_clear(child);
    pool->base.hooks.child(pool->base.hooks.ctx, child->index, pid, false, how);
    replace(child, useful);
    pool->base.hooks.room(pool->base.hooks.ctx);
}

/* Returns true when the child is gone. A task that waits for any child itself may have taken the status away. */
bool
pc_slot_reap(pc_slot *child)
{
    siginfo_t info = {0};
    int rc = child->pidfd >= 0 ? waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG)
                               : waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG);

    if (rc == 0 && info.si_pid == 0) {
        return false;
    }
    if (rc < 0 && errno != ECHILD) {
        return false;
    }
    bury(child, &info, rc == 0);
    return true;
}

static void
child_died(void *ctx, unsigned events)
{
    pc_slot *child = ctx;

    (void)events;
    pc_slot_drain(child);
    if (child->starved) {
        // an outcome that can't be read now is no loss: pc_slot_feed() watches again
        pc_loop_unwatch(child->pool->base.loop, &child->death);
        return;
    }
    (void)pc_slot_reap(child);
}

/* --- birth ------------------------------------------------------------- */

/* In the new child. The parent's memory is left as it is; its descriptors are closed. */
static void
run_child(pc_slot *own, int fd, pid_t parent)
{
    pc_prefork *pool = own->pool;
    pc_child child = {
        .fd = fd,
        .gate = own->gate,
        .runner = pool->base.runner,
        .measure_rss = pool->base.config.max_rss_kib > 0,
    };

    for (int i = 0; i < pool->len; i++) {
        if (pool->slots[i]->fd >= 0) {
            (void)close(pool->slots[i]->fd);
        }
        if (pool->slots[i]->pidfd >= 0) {
            (void)close(pool->slots[i]->pidfd);
        }
    }
    pc_buf_init(&child.in);
    pc_buf_init(&child.memory);
    // without a parent nobody would ever close the socket's other end if a task's own child holds a copy
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    const pc_runner *runner = pool->base.runner;
    runner->child_exit(runner->ctx, getppid() == parent ? pc_child_main(&child, own->index) : 1);
}

static void
start_too_slow(void *ctx, pc_mono now)
{
    pc_slot *child = ctx;

    (void)now;
    pc_log_write(child->pool->base.log, PC_ERROR,
                 "pool process %d did not come up in time and is killed", (int)child->pid);
    (void)kill(child->pid, SIGKILL);
}

static int
adopt(pc_slot *child, pid_t pid, int fd, pc_err *err)
{
    pc_loop *loop = child->pool->base.loop;
    double timeout = child->pool->base.config.start_timeout;

    child->pid = pid;
    child->fd = fd;
    child->state = PC_SLOT_STARTING;
    child->was_up = false;
    child->outdated = false;
    child->given = 0;
    child->done = 0;
    child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (child->pidfd < 0) {
        return pc_fail_errno(err, PC_EIO, "pidfd_open");
    }
    pc_watch_init(&child->watch, fd, pc_slot_ready, child);
    pc_watch_init(&child->death, child->pidfd, child_died, child);
    if (pc_loop_watch(loop, &child->watch, PC_READ, err) < 0
        || pc_loop_watch(loop, &child->death, PC_READ, err) < 0) {
        return -1;
    }
    if (timeout <= 0) {
        return 0;
    }
    return pc_slot_hurry(child, start_too_slow, (int64_t)(timeout * 1e9), err);
}

int
pc_slot_spawn(pc_slot *child, pc_err *err)
{
    const pc_runner *runner = child->pool->base.runner;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return pc_fail_errno(err, PC_EIO, "socketpair");
    }
    pc_gate_reset(child->gate, child->sent_seq);
    pid_t parent = getpid();
    pid_t pid = runner->fork(runner->ctx);
    if (pid == 0) {
        (void)close(pair[0]);
        run_child(child, pair[1], parent);
    }
    int fork_errno = errno;
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        errno = fork_errno;
        return pc_fail_errno(err, PC_EIO, "fork");
    }
    if (adopt(child, pid, pair[0], err) < 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        pc_slot_clear(child);
        return -1;
    }
    return 0;
}

pc_slot *
pc_slot_new(pc_prefork *pool, int index, pc_err *err)
{
    pc_slot *child = pc_zalloc(sizeof(*child));

    if (child == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    child->pool = pool;
    child->index = index;
    child->fd = -1;
    child->pidfd = -1;
    child->gate = &pool->gates[index];
    pc_link_init(&child->jobs);
    pc_buf_init(&child->in);
    pc_buf_init(&child->out);
    pc_timer_init(&child->stall, pc_slot_stalled, child);
    pc_timer_init(&child->hurry, pc_slot_respawn, child);
    return child;
}
