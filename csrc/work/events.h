/* SPDX-License-Identifier: BSD-3-Clause */
/* Monitoring events of one worker: written into a batch, and sent off when it is full or a moment old.
 *
 * DESIGN. All on the loop's thread. They leave through a producer that is the owner's, which must not make the loop wait: each
 * publish has no time at all, and what cannot be sent stays in the batch until the next attempt. Beyond PC_EVENTS_KEPT
 * events are lost and counted; tasks are never held up for them. Without a producer the batch
 * goes to the owner, who knows other serializers and transports.
 * The logical clock is shared with the owner: an atomic of his. */
#ifndef PC_WORK_EVENTS_H
#define PC_WORK_EVENTS_H

#include <stdatomic.h>

#include "io/broker.h"
#include "wire/event.h"

#define PC_EVENTS_BATCH 24
#define PC_EVENTS_KEPT 1000

typedef struct pc_events_hooks {
    /* A JSON list of events for this routing key. False: try again later. Without the interpreter's lock. */
    bool (*send)(void *ctx, pc_slice routing_key, pc_slice body);
    void *ctx;
} pc_events_hooks;

typedef struct pc_events {
    bool tasks;  // events about tasks are wanted
    pc_loop *loop;
    const pc_log *log;
    // -- set by pc_events_open
    pc_producer *producer;  // borrowed; NULL: hooks.send
    pc_events_hooks hooks;
    bool is_open;
    // --
    _Atomic uint64_t *clock;  // borrowed; NULL: own_clock
    _Atomic uint64_t own_clock;
    pc_buf exchange;
    pc_buf hostname;
    pc_buf prefix;
    pc_buf headers;   // for the producer's kind of headers
    pc_buf batch;     // "[{…}, {…}" without its end
    pc_buf single;
    size_t count;     // events in the batch
    uint64_t lost;
    pc_timer flush;
} pc_events;

void pc_events_init(pc_events *events, pc_loop *loop, const pc_log *log);
void pc_events_fini(pc_events *events);
/* Who speaks. `clock` NULL: one of our own. */
int pc_events_identity(pc_events *events, pc_slice hostname, int utcoffset, int pid, pc_slice exchange,
                       _Atomic uint64_t *clock, pc_err *err);
/* From now on events leave; with `producer` NULL through `hooks`. What was kept is sent. */
int pc_events_open(pc_events *events, pc_producer *producer, const pc_events_hooks *hooks, pc_err *err);
/* The producer is gone; what comes now is kept. */
void pc_events_close(pc_events *events);

/* Begins an event of the batch; false when it cannot be kept. */
bool pc_events_begin(pc_events *events, pc_event *event);
/* `type` is a string with its length known: PC_EVENT_TYPE("task-started"). */
void pc_events_end(pc_events *events, pc_event *event, pc_slice type, pc_wall when);
/* One event by itself, after the batch. `members` as in pc_event_members. -1: it was not sent. */
int pc_events_send(pc_events *events, pc_slice type, pc_slice routing_key, pc_slice members, pc_wall when);
void pc_events_flush(pc_events *events);

#endif
