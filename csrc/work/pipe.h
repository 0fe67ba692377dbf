/* SPDX-License-Identifier: BSD-3-Clause */
/* What parent and child of the prefork pool say to each other: frames on a stream socket, besides what they share in memory. */
#ifndef PC_WORK_PIPE_H
#define PC_WORK_PIPE_H

#include "work/gate.h"
#include "work/pool.h"

/* parent → child */
typedef struct pc_down_frame {
    uint32_t len;  // of the packed message that follows
    uint32_t want_notes;
    uint64_t seq;
} pc_down_frame;

/* child → parent; seq 0 says "I am up" */
typedef struct pc_up_frame {
    uint32_t len;  // of the document that follows, or of the packed message that is offered
    uint16_t state;
    uint16_t flags;
    uint64_t seq;
    int64_t run_ns;
    int64_t rss_kib;
    uint32_t notes_len;  // of the notes behind the document
    uint32_t offer;  // its number; 0: an outcome
} pc_up_frame;

struct pc_child {
    int fd;
    pc_gate *gate;
    const pc_runner *runner;
    _Atomic uint64_t current;  // number of the running job, 0 between jobs
    bool measure_rss;
    pc_asking asking;
    pc_buf in;
    pc_buf memory;
};

/* The child's life on `fd`: until the parent closes it or the runner says so. Returns the exit code. */
int pc_child_main(pc_child *child, int index);

#endif
