/* SPDX-License-Identifier: BSD-3-Clause */
/* Results as messages (PROTOCOL §3.5.3): what all who send them agree on. */
#ifndef PC_IO_RESULT_MESSAGE_H
#define PC_IO_RESULT_MESSAGE_H

#include "io/store.h"

/* The message that carries the item to its reply queue; points into the item. */
void pc_result_message(const pc_store_item *item, bool persistent, pc_message *message);
bool pc_result_is_wanted(const pc_store_item *item);

#endif
