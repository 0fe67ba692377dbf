/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for results: one subscription connection, any number of threads. Ids are without the
 * key prefix. */
#ifndef PC_IO_REDIS_INBOX_H
#define PC_IO_REDIS_INBOX_H

#include "io/redis_client.h"

typedef struct pc_redis_inbox pc_redis_inbox;

/* `client` and the bytes of `prefix` stay the caller's and must outlive the inbox. Doesn't
 * connect. */
pc_redis_inbox *pc_redis_inbox_new(const pc_redis_config *config, pc_redis_client *client,
                                   pc_slice prefix, pc_err *err);
/* Nobody may be inside. */
void pc_redis_inbox_free(pc_redis_inbox *inbox);
void pc_redis_inbox_abandon(pc_redis_inbox *inbox);

/* As in pc_results_ops. Threads that wait for the same id at the same time: a document wakes
 * all of them, but of several documents one thread may see some and another thread the others;
 * the last one reaches all. */
int pc_redis_inbox_watch(pc_redis_inbox *inbox, pc_slice id, pc_err *err);
int pc_redis_inbox_watch_many(pc_redis_inbox *inbox, const pc_slice *ids, size_t n, pc_err *err);
int pc_redis_inbox_news(pc_redis_inbox *inbox, uint64_t *seen, pc_mono deadline, bool *eintr,
                        pc_err *err);
int pc_redis_inbox_wait(pc_redis_inbox *inbox, pc_slice id, pc_buf *out, pc_mono deadline,
                        bool *eintr, pc_err *err);
void pc_redis_inbox_unwatch(pc_redis_inbox *inbox, pc_slice id);

#endif
