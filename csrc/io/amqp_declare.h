/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes a queue with its exchange and binding exist. */
#ifndef PC_IO_AMQP_DECLARE_H
#define PC_IO_AMQP_DECLARE_H

#include "io/amqp_conn.h"

/* Declares exchange, queue and binding as the queue says, pipelined; done() is called once per
 * reply. *count receives their number. */
int pc_amqp_declare(pc_amqp_conn *conn, const pc_queue *queue, pc_amqp_reply *done, void *ctx,
                    unsigned *count, pc_err *err);

/* Quorum queues and streams refuse consumers on a channel with global prefetch. */
int pc_amqp_refuses_global_qos(const pc_queue *queue, bool *refuses, pc_err *err);

#endif
