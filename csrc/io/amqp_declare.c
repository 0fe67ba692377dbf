/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_declare.h"

#include "wire/table.h"

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
    bool queued = queue->name[0] != '\0';
    if (!queued && !bound) {
        return pc_fail(err, PC_EDATA, "a declaration names neither queue nor exchange");
    }
    if ((bound && declare_exchange(conn, queue, err) < 0)
        || (queued && declare_queue(conn, queue, err) < 0)
        || (queued && bound && declare_binding(conn, queue, err) < 0)) {
        goto fail;
    }
    if ((bound && pc_amqp_conn_want(conn, PC_AMQP_EXCHANGE_DECLARE_OK, done, ctx, err) < 0)
        || (queued && pc_amqp_conn_want(conn, PC_AMQP_QUEUE_DECLARE_OK, done, ctx, err) < 0)
        || (queued && bound && pc_amqp_conn_want(conn, PC_AMQP_QUEUE_BIND_OK, done, ctx, err) < 0)) {
        goto fail;
    }
    *count = (unsigned)bound + queued + (queued && bound);
    pc_stream_flush(&conn->stream);
    return 0;
fail:
    // nothing of a declaration that cannot be sent whole
    conn->stream.out.end = conn->stream.out.start + before;
    conn->wanted_end = conn->wanted_first + wanted;
    return -1;
}

typedef struct kind_finder {
    pc_slice key;
    int depth;
    bool found;
} kind_finder;

static int
kind_enter(void *ctx)
{
    ((kind_finder *)ctx)->depth++;
    return 0;
}

static int
kind_leave(void *ctx)
{
    ((kind_finder *)ctx)->depth--;
    return 0;
}

static int
kind_key(void *ctx, pc_slice name)
{
    ((kind_finder *)ctx)->key = name;
    return 0;
}

static int
kind_text(void *ctx, pc_slice text)
{
    kind_finder *find = ctx;
    if (find->depth == 1 && pc_slice_is(find->key, "x-queue-type")) {
        find->found = pc_slice_is(text, "quorum") || pc_slice_is(text, "stream");
    }
    return 0;
}

int
pc_amqp_refuses_global_qos(const pc_queue *queue, bool *refuses, pc_err *err)
{
    static const pc_visit visit = {
        .string = kind_text,
        .key = kind_key,
        .map_start = kind_enter,
        .map_end = kind_leave,
        .array_start = kind_enter,
        .array_end = kind_leave,
    };
    kind_finder find = {0};
    if (pc_table_visit(queue->queue_arguments, &visit, &find, err) < 0) {
        return -1;
    }
    *refuses = find.found;
    return 0;
}
