/* SPDX-License-Identifier: BSD-3-Clause */
/* Results as messages (PROTOCOL §3.5.3): what both sides of the rpc store agree on. */
#ifndef PC_IO_AMQP_REPLY_H
#define PC_IO_AMQP_REPLY_H

#include "io/store.h"

/* The message that carries the item to its reply queue; points into the item. */
void pc_amqp_reply_message(const pc_store_item *item, bool persistent, pc_message *message);
bool pc_amqp_reply_wanted(const pc_store_item *item);

#endif
