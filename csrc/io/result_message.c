/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/result_message.h"

void
pc_result_message(const pc_store_item *item, bool persistent, pc_message *message)
{
    pc_message_init(message);
    message->exchange = pc_slice_str("");
    message->routing_key = item->reply_to;
    message->correlation_id = item->correlation_id.len > 0 ? item->correlation_id : item->id;
    message->content_type = item->content_type;
    message->content_encoding = item->content_encoding;
    message->delivery_mode = persistent ? 2 : 1;
    message->priority = 0;
    message->headers_kind = PC_HEADERS_TABLE;
    message->headers = pc_slice_of("", 0);
    message->body = item->document;
}

bool
pc_result_is_wanted(const pc_store_item *item)
{
    return item->reply_to.len > 0;
}
