/* SPDX-License-Identifier: BSD-3-Clause */
/* Child processes, one task at a time each.
 *
 * DESIGN. The parent is one thread: slot.c, slot_life.c and pool_prefork.c, driven by the loop. Each child has a stream socket for frames
 * (pipe.h), a pidfd that says when it is gone, and a gate in shared memory that says what it
 * started. Jobs given to a child are in its `jobs` list in order; outcomes come back in that order.
 *
 * Fairness: a job is queued behind another only when both kinds of task are known to take less
 * than a millisecond; when such a child makes no progress for a moment, what it has not started is taken back.
 *
 * Death: the socket is drained first, as an outcome may be in it; then the job that had passed the gate
 * is lost, the others come back. A child is replaced unless the pool stops. */
#ifndef PC_WORK_SLOT_H
#define PC_WORK_SLOT_H

#include "work/pipe.h"

#define PC_SLOTS_MAX 4096
#define PC_RESPAWN_DELAY_NS (500 * PC_NS_PER_MS)

typedef enum pc_slot_state { PC_SLOT_EMPTY, PC_SLOT_STARTING, PC_SLOT_UP, PC_SLOT_RETIRING } pc_slot_state;

typedef struct pc_prefork pc_prefork;

typedef struct pc_slot {
    pc_prefork *pool;
    int index;
    pc_slot_state state;
    pid_t pid;
    int fd;
    int pidfd;
    pc_watch watch;
    pc_watch death;
    pc_timer stall;    // queued jobs make no progress
    pc_timer hurry;    // SIGKILL after SIGTERM, start timeout, respawn delay
    pc_gate *gate;
    pc_link jobs;      // given, in order; job->link belongs to the worker, so: nodes
    size_t jobs_len;
    uint64_t sent_seq;
    int64_t given;     // in this child's life, less those taken back
    int64_t done;
    pc_buf in;
    pc_buf out;
    bool want_write;
    bool was_up;
    bool outdated;     // forked before a restart: retired as soon as it is up
    bool stalled;      // what was queued here was taken back: nothing more until it answers
    bool ended;        // the end of its stream was seen
    bool starved;      // no memory to read with: not watched until the next look
} pc_slot;

/* Place of a job in a slot: job->slot points here. */
typedef struct pc_place {
    pc_link link;
    pc_job *job;
    pc_slot *slot;
    bool started;
    pc_lost kill_why;  // should the process die of it
} pc_place;

struct pc_prefork {
    pc_pool base;
    pc_slot **slots;
    int len;         // slots made
    int size;        // slots wanted
    pc_gate *gates;  // shared
    pc_slot *chosen; // by room(), for submit()
    pc_defer flush;
    pc_timer look;   // for starts, and for memory
    int64_t look_ns; // doubles while there is nothing to see
    bool stopping;
};

pc_slot *pc_slot_new(pc_prefork *pool, int index, pc_err *err);
/* Forks the child of an empty slot. */
int pc_slot_spawn(pc_slot *child, pc_err *err);
/* Timer: fills an empty slot again. */
void pc_slot_respawn(void *slot, pc_mono now);
/* By its pidfd: a number may be another process's by now. A child that is gone already needs no signal: 0. */
int pc_slot_signal(const pc_slot *child, int signum, pc_err *err);
/* The slot's one rare timer, aimed anew. */
int pc_slot_hurry(pc_slot *child, void (*due)(void *ctx, pc_mono now), int64_t ns, pc_err *err);
/* Returns true when the child is gone (its jobs were reported, the slot is empty or filled anew). */
bool pc_slot_reap(pc_slot *child);
/* Closes all descriptors and timers; forgets the child. */
void pc_slot_clear(pc_slot *child);

pc_place *pc_slot_first(pc_slot *child);
/* Takes a job out of its slot. */
pc_job *pc_slot_remove(pc_place *at);
void pc_slot_report_started(pc_place *at);
void pc_slot_look_for_start(pc_slot *child);
/* In a moment, and then ever more seldom while there is a start to wait for. */
void pc_prefork_look_soon(pc_prefork *pool);
/* Takes back what has not started. */
void pc_slot_recall(pc_slot *child);
void pc_slot_stalled(void *slot, pc_mono now);
/* Sets or clears the stall timer as the number of jobs demands. */
void pc_slot_watch_progress(pc_slot *child);
void pc_slot_flush(pc_slot *child);
/* Reads and handles what is there. */
void pc_slot_drain(pc_slot *child);
/* Goes on reading where memory was out. */
void pc_slot_feed(pc_slot *child);
void pc_slot_ready(void *slot, unsigned events);
void pc_slot_close(pc_slot *child);
/* No new jobs; ends when idle. */
void pc_slot_retire(pc_slot *child);
void pc_slot_retire_if_idle(pc_slot *child);

#endif
