/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool asyncio, as the interpreter's event loop sees it: what there is to do for it, and what it says. Called without the
 * interpreter's lock, from the thread of the event loop unless it says otherwise. */
#ifndef PC_WORK_LINE_H
#define PC_WORK_LINE_H

#include "work/handoff.h"

typedef enum pc_line_word {
    PC_LINE_RUN,   // a job
    PC_LINE_SOFT,  // its soft limit has passed
    PC_LINE_KILL,  // it is to end at once, and handed in as lost
    PC_LINE_QUIT   // everything is; then runner->turn() returns
} pc_line_word;

typedef struct pc_line_item {
    pc_line_word word;
    pc_handed *at;  // NULL with QUIT
} pc_line_item;

typedef struct pc_line pc_line;

/* Readable when there is something to take. */
int pc_line_fd(const pc_line *line);
/* What there is to do, in order; 0: nothing. QUIT is the last of a turn. */
size_t pc_line_take(pc_line *line, pc_line_item *out, size_t max);
/* Of each job that was taken, before the next take: whose run it is, which is what the runner's strike() is given for it.
 * `plain`: it will run in a thread. */
void pc_line_begin(pc_line *line, pc_handed *at, void *run, bool plain);
/* From any thread: the task starts now. `here`: in the calling thread. */
void pc_line_start(pc_line *line, pc_handed *at, bool here);
/* From any thread. The job is over; its outcome is there unless it is lost. One that has not started goes back then. */
void pc_line_hand_in(pc_line *line, pc_handed *at, bool lost);

#endif
