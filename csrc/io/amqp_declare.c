/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_declare.h"

static int
declare_exchange(pc_amqp_conn *conn, const pc_queue *queue, pc_err *err)
{
    pc_amqp_exchange exchange = {
        .name = pc_slice_str(queue->exchange),
        .type = pc_slice_str(queue->exchange_type == NULL ? "direct" : queue->exchange_type),
        // amq.* exist and can't be declared by us
        .passive = queue->passive || strncmp(queue->exchange, "amq.", 4) == 0,
        .durable = queue->exchange_durable,
        .auto_delete = queue->exchange_auto_delete,
        .arguments = queue->exchange_arguments,
    };
    return pc_amqp_write_exchange_declare(&conn->stream.out, PC_AMQP_CHANNEL, &exchange, err);
}

static int
declare_queue(pc_amqp_conn *conn, const pc_queue *queue, pc_err *err)
{
    pc_amqp_queue what = {
        .name = pc_slice_str(queue->name),
        .passive = queue->passive,
        .durable = queue->durable,
        .exclusive = queue->exclusive,
        .auto_delete = queue->auto_delete,
        .arguments = queue->queue_arguments,
    };
    return pc_amqp_write_queue_declare(&conn->stream.out, PC_AMQP_CHANNEL, &what, err);
}

static int
declare_binding(pc_amqp_conn *conn, const pc_queue *queue, pc_err *err)
{
    return pc_amqp_write_queue_bind(
        &conn->stream.out, PC_AMQP_CHANNEL, pc_slice_str(queue->name),
        pc_slice_str(queue->exchange),
        pc_slice_str(queue->routing_key == NULL ? "" : queue->routing_key),
        queue->binding_arguments, err);
}

int
pc_amqp_declare(pc_amqp_conn *conn, const pc_queue *queue, pc_amqp_reply *done, void *ctx,
                unsigned *count, pc_err *err)
{
    bool bound = queue->exchange != NULL && queue->exchange[0] != '\0';
    size_t before = pc_buf_len(&conn->stream.out);
    size_t wanted = conn->wanted_end - conn->wanted_first;
    *count = 0;
    if (queue->no_declare) {
        return 0;
    }
    if ((bound && declare_exchange(conn, queue, err) < 0) || declare_queue(conn, queue, err) < 0 ||
        (bound && declare_binding(conn, queue, err) < 0)) {
        goto fail;
    }
    if ((bound && pc_amqp_conn_want(conn, PC_AMQP_EXCHANGE_DECLARE_OK, done, ctx, err) < 0) ||
        pc_amqp_conn_want(conn, PC_AMQP_QUEUE_DECLARE_OK, done, ctx, err) < 0 ||
        (bound && pc_amqp_conn_want(conn, PC_AMQP_QUEUE_BIND_OK, done, ctx, err) < 0)) {
        goto fail;
    }
    *count = bound ? 3 : 1;
    pc_stream_flush(&conn->stream);
    return 0;
fail:
    // nothing of a declaration that cannot be sent whole
    conn->stream.out.end = conn->stream.out.start + before;
    conn->wanted_end = conn->wanted_first + wanted;
    return -1;
}
