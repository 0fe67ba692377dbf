/* SPDX-License-Identifier: BSD-3-Clause */
/* A producer and a consumer on the SQLite broker. Every test has its own empty directory, so the
 * file is always SQ_DB. Failures end the test. */
#ifndef PC_TESTS_SQLITE_RIG_H
#define PC_TESTS_SQLITE_RIG_H

#include "io/broker.h"

#define SQ_DB "q.db"
#define SQ_LOG_MAX 20000

extern const pc_producer_ops *const sq_out;
extern const pc_source_ops *const sq_in;

typedef struct sq_rig {
    pc_loop *loop;
    pc_source *source;
    int got;  // deliveries
    uint64_t tags[SQ_LOG_MAX];
    int numbers[SQ_LOG_MAX];  // bodies as numbers
    bool redelivered[SQ_LOG_MAX];
    int up;
    int down;
    int cancelled;
    bool ack;  // settle at once
    pc_err why;
    pc_message last;  // without its bytes
    char text[64];
} sq_rig;

pc_mono sq_after_ms(int64_t ms);
pc_broker_config sq_config_for(const char *path);

pc_producer *sq_make_producer(void);
/* `due_ms`: milliseconds from now, 0: none. */
int sq_send_with(pc_producer *producer, const char *queue, const char *body, int priority,
                 int64_t due_ms, pc_err *err);
void sq_send_text(pc_producer *producer, const char *queue, const char *body);
/* The numbers from, ..., to - 1 into queue q. */
void sq_send_numbers(pc_producer *producer, int from, int to);
uint64_t sq_ready_in(pc_producer *producer, const char *queue);
void sq_end_producer(pc_producer *producer);

pc_source_hooks sq_hooks(sq_rig *self);
/* Not connected, no queue. */
sq_rig *sq_make_rig(const char *path);
/* Connected, consuming q; `ack`: acknowledges at once. */
sq_rig *sq_start(unsigned prefetch, bool ack);
sq_rig *sq_start_rig(unsigned prefetch);
void sq_add_queue(sq_rig *self, const char *name);
/* Turns the loop until *counter reaches `want` (true) or the time is over. */
bool sq_turn_until(sq_rig *self, const int *counter, int want, int64_t ms);
void sq_turn_for(sq_rig *self, int64_t ms);
void sq_end_rig(sq_rig *self);

#endif
