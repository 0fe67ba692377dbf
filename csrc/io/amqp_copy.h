/* SPDX-License-Identifier: BSD-3-Clause */
/* Deep copies of what callers describe with borrowed strings; each is one block, freed with
 * pc_free. */
#ifndef PC_IO_AMQP_COPY_H
#define PC_IO_AMQP_COPY_H

#include "io/broker.h"

/* With tls; the hub stays borrowed. NULL when memory is out. */
pc_broker_config *pc_amqp_copy_config(const pc_broker_config *from, pc_err *err);
/* With all tables. */
pc_queue *pc_amqp_copy_queue(const pc_queue *from, pc_err *err);

#endif
