/* SPDX-License-Identifier: BSD-3-Clause */
/* How many messages wait in the queues of an AMQP source: passive declarations, one after the other. A queue that is gone this
 * very moment costs the channel; then everything is declared anew, as it is for the lost consumer. */
#include "io/amqp_source.h"

/* The first from this number on that stays: they are in order. */
static const pc_amqp_consumer *
find_from(const pc_amqp_source *src, unsigned number)
{
    const pc_link *at = src->consumers.next;
    for (; at != &src->consumers; at = at->next) {
        const pc_amqp_consumer *c = PC_CONTAINER_OF(at, pc_amqp_consumer, link);
        if (c->number >= number && !c->leaving && !c->on_trial) {
            return c;
        }
    }
    return NULL;
}

static void look_next(pc_amqp_source *src);

static void
on_depth(void *ctx, const pc_amqp_method *reply, const pc_message *message)
{
    pc_amqp_source *src = ctx;
    const pc_amqp_consumer *c = find_from(src, src->looked);
    (void)message;
    if (c != NULL && c->number == src->looked) {  // it may be gone by now
        src->base.hooks.depth(src->base.hooks.ctx, c->queue->name, reply->messages);
    }
    look_next(src);
}

static void
look_next(pc_amqp_source *src)
{
    const pc_amqp_consumer *next = find_from(src, src->looked + 1);
    pc_amqp_conn *conn = &src->conn;
    src->looked = 0;
    if (next == NULL || src->trial != NULL || src->paused || !pc_amqp_conn_is_ready(conn)
        || pc_amqp_conn_want(conn, PC_AMQP_QUEUE_DECLARE_OK, on_depth, src, NULL) < 0) {
        return;
    }
    pc_amqp_queue what = {.name = pc_slice_str(next->queue->name), .passive = true};
    if (pc_amqp_write_queue_declare(&conn->stream.out, PC_AMQP_CHANNEL, &what, NULL) < 0) {
        conn->wanted_end--;
        return;
    }
    src->looked = next->number;
    pc_stream_flush(&conn->stream);
}

void
pc_amqp_source_look(pc_source *base)
{
    pc_amqp_source *src = (pc_amqp_source *)(void *)base;
    if (src->looked == 0) {
        look_next(src);
    }
}
