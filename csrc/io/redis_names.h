/* SPDX-License-Identifier: BSD-3-Clause */
/* How kombu's Redis transport names things (PROTOCOL §3.6.2), with the options that change it, and
 * the few keys of our own beside them: `<unacked>.pyceleryc` (sorted set, worker -> end of its lease),
 * `<unacked>.pyceleryc.<worker>` (hash, tag -> list it came from) and `<unacked>.pyceleryc.dead`
 * (list of texts that are no envelopes). */
#ifndef PC_IO_REDIS_NAMES_H
#define PC_IO_REDIS_NAMES_H

#include "io/broker.h"
#include "io/redis_config.h"

#define PC_REDIS_STEPS_MAX 10

typedef struct pc_redis_names {
    pc_slice prefix;
    pc_slice sep;
    pc_slice unacked;  // these with the prefix
    pc_slice index;
    pc_slice mutex;
    pc_slice workers;
    pc_slice dead;
    pc_slice channels;  // prefix of fanout channels
    bool fanout_plain;
    int steps[PC_REDIS_STEPS_MAX];  // ascending
    size_t nsteps;
    // --
    pc_buf memory;
} pc_redis_names;

int pc_redis_names_init(pc_redis_names *names, const pc_broker_config *config, pc_err *err);
void pc_redis_names_fini(pc_redis_names *names);

/* The step a message of this priority (-1: none) belongs to. */
int pc_redis_names_step(const pc_redis_names *names, int priority);
/* All append to `out`. What stands behind the name of a queue: nothing for step 0. */
int pc_redis_put_suffix(const pc_redis_names *names, int step, pc_buf *out, pc_err *err);
int pc_redis_put_list(const pc_redis_names *names, pc_slice queue, int step, pc_buf *out,
                      pc_err *err);
/* The set of an exchange's bindings, and one member of it. */
int pc_redis_put_bindings(const pc_redis_names *names, pc_slice exchange, pc_buf *out, pc_err *err);
int pc_redis_put_binding(const pc_redis_names *names, const pc_queue *queue, pc_buf *out,
                         pc_err *err);
/* Where messages for a fanout exchange are published. */
int pc_redis_put_channel(const pc_redis_names *names, pc_slice exchange, pc_slice key, pc_buf *out,
                         pc_err *err);

bool pc_redis_is_fanout(const pc_queue *queue);

/* The part of a broker's configuration that a connection needs; borrows. */
pc_redis_config pc_redis_broker_config(const pc_broker_config *config);

#endif
