/* SPDX-License-Identifier: BSD-3-Clause */
/* What parent and child of the prefork pool say to each other: frames on a stream
 * socket, and a gate in shared memory that makes "has it started?" exact.
 *
 * The gate. The child must pass it before it starts job number seq. The parent can close it for a moment, which stops the
 * child from starting anything, so that the parent knows for certain which jobs have
 * started and can take the others back. One atomic word holds generation, closed bit and the
 * last started number; the generation makes a child that was between reading and writing the
 * word during a whole close-open cycle try again. */
#ifndef PC_WORK_PIPE_H
#define PC_WORK_PIPE_H

#include <stdatomic.h>

#include "work/pool.h"

typedef struct pc_gate {
    _Atomic uint64_t word;
    _Atomic uint64_t drop_upto;  // jobs up to here were taken back
    _Atomic uint64_t soft_seq;   // the job whose soft limit has passed
} pc_gate;

/* Child: false when the job was taken back. */
bool pc_gate_enter(pc_gate *gate, uint64_t seq);
/* Parent: the last started number. */
uint64_t pc_gate_started(pc_gate *gate);
/* Parent: takes back all that has not started up to `sent`; returns the last started. */
uint64_t pc_gate_recall(pc_gate *gate, uint64_t sent);
/* Parent, for a new child. */
void pc_gate_reset(pc_gate *gate, uint64_t seq);

/* parent → child */
typedef struct pc_down_frame {
    uint32_t len;  // of the packed message that follows
    uint32_t want_notes;
    uint64_t seq;
} pc_down_frame;

/* child → parent; seq 0 says "I am up" */
typedef struct pc_up_frame {
    uint32_t len;  // of the document that follows
    uint16_t state;
    uint16_t flags;
    uint64_t seq;
    int64_t run_ns;
    int64_t rss_kib;
    uint32_t notes_len;  // of the notes behind the document
    uint32_t zero;
} pc_up_frame;

struct pc_child {
    int fd;
    pc_gate *gate;
    const pc_runner *runner;
    _Atomic uint64_t current;  // number of the running job, 0 between jobs
    bool measure_rss;
    pc_buf in;
    pc_buf memory;
};

/* The child's life on `fd`: until the parent closes it or the runner says so. Returns the exit code. */
int pc_child_main(pc_child *child, int index);

#endif
