/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/batch.h"

#include "base/mem.h"

#define MIN_ITEMS 64u
#define BLOCK ((size_t)256 * 1024)
#define FIRST_BLOCK ((size_t)8 * 1024)

typedef struct block {
    pc_link link;
    char bytes[];
} block;

void
pc_batch_init(pc_batch *batch)
{
    *batch = (pc_batch){0};
    pc_link_init(&batch->blocks);
}

void
pc_batch_fini(pc_batch *batch)
{
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&batch->blocks)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, block, link));
    }
    pc_free(batch->items);
    pc_batch_init(batch);
}

static int
grow(pc_batch *batch, pc_err *err)
{
    size_t cap = batch->cap == 0 ? MIN_ITEMS : batch->cap * 2;
    pc_outgoing *items = pc_realloc(batch->items, cap * sizeof *items);
    if (items == NULL) {
        return pc_fail_nomem(err);
    }
    batch->items = items;
    batch->cap = cap;
    return 0;
}

static int
add_block(pc_batch *batch, size_t wanted, pc_err *err)
{
    size_t usual = pc_list_empty(&batch->blocks) ? FIRST_BLOCK : BLOCK;
    size_t size = wanted > usual ? wanted : usual;
    block *made = pc_alloc(sizeof *made + size);
    if (made == NULL) {
        return pc_fail_nomem(err);
    }
    pc_link_init(&made->link);
    pc_list_put_back(&batch->blocks, &made->link);
    batch->free = made->bytes;
    batch->room = size;
    return 0;
}

int
pc_batch_add(pc_batch *batch, const pc_outgoing *message, pc_err *err)
{
    size_t size = pc_message_slices_size(&message->message);
    if (batch->len == batch->cap && grow(batch, err) < 0) {
        return -1;
    }
    if (size > batch->room && add_block(batch, size, err) < 0) {
        return -1;
    }
    pc_outgoing *item = &batch->items[batch->len++];
    *item = *message;
    pc_message_copy_to(&item->message, &message->message, batch->free);
    batch->free += size;
    batch->room -= size;
    return 0;
}

/* Their bytes stay until the end. */
void
pc_batch_truncate(pc_batch *batch, size_t len)
{
    size_t least = len < batch->sent ? batch->sent : len;
    if (least < batch->len) {
        batch->len = least;
    }
}

int
pc_batch_publish(pc_batch *batch, pc_producer *producer, pc_mono deadline, pc_err *err)
{
    size_t done = 0;
    if (batch->sent == batch->len) {
        return 0;
    }
    int rc = pc_publish_many(producer, batch->items + batch->sent, batch->len - batch->sent,
                             deadline, &done, err);
    batch->sent += done;
    return rc;
}

int
pc_publish_many(pc_producer *producer, const pc_outgoing *messages, size_t n, pc_mono deadline,
                size_t *done, pc_err *err)
{
    if (producer->ops->publish_many != NULL) {
        return producer->ops->publish_many(producer, messages, n, deadline, done, err);
    }
    for (*done = 0; *done < n; ++*done) {
        const pc_outgoing *next = &messages[*done];
        if (producer->ops->publish(producer, &next->message, next->mandatory, next->due,
                                   next->has_due, deadline, err) < 0) {
            return -1;
        }
    }
    return 0;
}
