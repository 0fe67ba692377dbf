/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_codec.h"

#if defined(__has_include) && __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#include "base/mem.h"
#include "io/amqp_frame.h"

#define POOL_PAGE 4096u    // far more than any decoded struct
#define METHOD_ROOM 2048u  // four short strings and the fixed fields
#define SHORT_MAX 255u
#define START_FIXED 6u  // connection.start: version bytes and the table's length

/* ---- reading methods ---- */

struct pc_amqp_codec {
    amqp_pool_t pool;
};

pc_amqp_codec *
pc_amqp_codec_new(pc_err *err)
{
    pc_amqp_codec *codec = pc_zalloc(sizeof *codec);
    if (codec == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    init_amqp_pool(&codec->pool, POOL_PAGE);
    return codec;
}

void
pc_amqp_codec_free(pc_amqp_codec *codec)
{
    if (codec != NULL) {
        empty_amqp_pool(&codec->pool);
        pc_free(codec);
    }
}

static pc_slice
slice(amqp_bytes_t bytes)
{
    return pc_slice_of(bytes.bytes == NULL ? "" : bytes.bytes, bytes.len);
}

static amqp_bytes_t
bytes(pc_slice text)
{
    return (amqp_bytes_t){text.len, (void *)(uintptr_t)text.ptr};
}

static void
take_deliver(const void *from, pc_amqp_method *to)
{
    const amqp_basic_deliver_t *m = from;
    to->consumer_tag = slice(m->consumer_tag);
    to->tag = m->delivery_tag;
    to->redelivered = m->redelivered != 0;
    to->exchange = slice(m->exchange);
    to->routing_key = slice(m->routing_key);
}

static void
take_ack(const void *from, pc_amqp_method *to)
{
    const amqp_basic_ack_t *m = from;
    to->tag = m->delivery_tag;
    to->multiple = m->multiple != 0;
}

static void
take_nack(const void *from, pc_amqp_method *to)
{
    const amqp_basic_nack_t *m = from;
    to->tag = m->delivery_tag;
    to->multiple = m->multiple != 0;
}

static void
take_get_ok(const void *from, pc_amqp_method *to)
{
    const amqp_basic_get_ok_t *m = from;
    to->tag = m->delivery_tag;
    to->redelivered = m->redelivered != 0;
    to->exchange = slice(m->exchange);
    to->routing_key = slice(m->routing_key);
    to->messages = m->message_count;
}

static void
take_return(const void *from, pc_amqp_method *to)
{
    const amqp_basic_return_t *m = from;
    to->code = m->reply_code;
    to->text = slice(m->reply_text);
    to->exchange = slice(m->exchange);
    to->routing_key = slice(m->routing_key);
}

static void
take_cancel(const void *from, pc_amqp_method *to)
{
    to->consumer_tag = slice(((const amqp_basic_cancel_t *)from)->consumer_tag);
}

static void
take_cancel_ok(const void *from, pc_amqp_method *to)
{
    to->consumer_tag = slice(((const amqp_basic_cancel_ok_t *)from)->consumer_tag);
}

static void
take_consume_ok(const void *from, pc_amqp_method *to)
{
    to->consumer_tag = slice(((const amqp_basic_consume_ok_t *)from)->consumer_tag);
}

static void
take_declare_ok(const void *from, pc_amqp_method *to)
{
    const amqp_queue_declare_ok_t *m = from;
    to->text = slice(m->queue);
    to->messages = m->message_count;
    to->consumers = m->consumer_count;
}

static void
take_purge_ok(const void *from, pc_amqp_method *to)
{
    to->messages = ((const amqp_queue_purge_ok_t *)from)->message_count;
}

static void
take_delete_ok(const void *from, pc_amqp_method *to)
{
    to->messages = ((const amqp_queue_delete_ok_t *)from)->message_count;
}

static void
take_tune(const void *from, pc_amqp_method *to)
{
    const amqp_connection_tune_t *m = from;
    to->channel_max = m->channel_max;
    to->frame_max = m->frame_max;
    to->heartbeat = m->heartbeat;
}

static void
take_close(const void *from, pc_amqp_method *to)
{
    const amqp_connection_close_t *m = from;
    to->code = m->reply_code;
    to->text = slice(m->reply_text);
    to->culprit = (uint32_t)m->class_id << 16 | m->method_id;
}

static void
take_channel_close(const void *from, pc_amqp_method *to)
{
    const amqp_channel_close_t *m = from;
    to->code = m->reply_code;
    to->text = slice(m->reply_text);
    to->culprit = (uint32_t)m->class_id << 16 | m->method_id;
}

static void
take_blocked(const void *from, pc_amqp_method *to)
{
    to->text = slice(((const amqp_connection_blocked_t *)from)->reason);
}

static void
take_flow(const void *from, pc_amqp_method *to)
{
    to->active = ((const amqp_channel_flow_t *)from)->active != 0;
}

/* None of these has a field table, so the library may decode them. The busiest come first. */
static const struct {
    pc_amqp_id id;
    void (*take)(const void *from, pc_amqp_method *to);  // NULL: nothing of interest
} methods[] = {
    {PC_AMQP_DELIVER, take_deliver},
    {PC_AMQP_ACK, take_ack},
    {PC_AMQP_NACK, take_nack},
    {PC_AMQP_GET_OK, take_get_ok},
    {PC_AMQP_GET_EMPTY, NULL},
    {PC_AMQP_RETURN, take_return},
    {PC_AMQP_CANCEL, take_cancel},
    {PC_AMQP_CANCEL_OK, take_cancel_ok},
    {PC_AMQP_CONSUME_OK, take_consume_ok},
    {PC_AMQP_QOS_OK, NULL},
    {PC_AMQP_SELECT_OK, NULL},
    {PC_AMQP_EXCHANGE_DECLARE_OK, NULL},
    {PC_AMQP_QUEUE_DECLARE_OK, take_declare_ok},
    {PC_AMQP_QUEUE_BIND_OK, NULL},
    {PC_AMQP_QUEUE_PURGE_OK, take_purge_ok},
    {PC_AMQP_QUEUE_DELETE_OK, take_delete_ok},
    {PC_AMQP_TUNE, take_tune},
    {PC_AMQP_SECURE, NULL},
    {PC_AMQP_OPEN_OK, NULL},
    {PC_AMQP_CLOSE, take_close},
    {PC_AMQP_CLOSE_OK, NULL},
    {PC_AMQP_BLOCKED, take_blocked},
    {PC_AMQP_UNBLOCKED, NULL},
    {PC_AMQP_CHANNEL_OPEN_OK, NULL},
    {PC_AMQP_CHANNEL_FLOW, take_flow},
    {PC_AMQP_CHANNEL_CLOSE, take_channel_close},
    {PC_AMQP_CHANNEL_CLOSE_OK, NULL},
};

/* connection.start by hand, for its table: version (2 bytes), table, mechanisms, locales (long
 * strings). */
static int
read_start(pc_slice args, pc_amqp_method *method, pc_err *err)
{
    if (args.len < START_FIXED) {
        return pc_fail(err, PC_EPROTO, "the server's greeting is cut short");
    }
    size_t table_len = pc_get_u32(args.ptr + 2);
    if (table_len > args.len - START_FIXED || args.len - START_FIXED - table_len < 4) {
        return pc_fail(err, PC_EPROTO, "the server's greeting is cut short");
    }
    const char *at = args.ptr + START_FIXED + table_len;
    size_t left = args.len - START_FIXED - table_len - 4;
    size_t len = pc_get_u32(at);
    if (len > left) {
        return pc_fail(err, PC_EPROTO, "the server's greeting is cut short");
    }
    method->table = pc_slice_of(args.ptr + START_FIXED, table_len);
    method->mechanisms = pc_slice_of(at + 4, len);
    return 0;
}

static int
read_known(pc_amqp_codec *codec, size_t row, pc_slice args, pc_amqp_method *method, pc_err *err)
{
    void *decoded = NULL;
    int rc =
        amqp_decode_method((amqp_method_number_t)method->id, &codec->pool, bytes(args), &decoded);
    if (rc < 0) {
        recycle_amqp_pool(&codec->pool);
        return rc == AMQP_STATUS_NO_MEMORY
                   ? pc_fail_nomem(err)
                   : pc_fail(err, PC_EPROTO, "the server sent a malformed method 0x%08x",
                             (unsigned)method->id);
    }
    if (methods[row].take != NULL) {
        methods[row].take(decoded, method);
    }
    recycle_amqp_pool(&codec->pool);
    return 0;
}

int
pc_amqp_method_read(pc_amqp_codec *codec, pc_slice payload, pc_amqp_method *method, pc_err *err)
{
    *method = (pc_amqp_method){0};
    if (payload.len < 4) {
        return pc_fail(err, PC_EPROTO, "the server sent a method frame of %zu bytes", payload.len);
    }
    method->id = (pc_amqp_id)pc_get_u32(payload.ptr);
    pc_slice args = pc_slice_of(payload.ptr + 4, payload.len - 4);
    if (method->id == PC_AMQP_START) {
        return read_start(args, method, err);
    }
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (methods[i].id == method->id) {
            return read_known(codec, i, args, method, err);
        }
    }
    return pc_fail(err, PC_EPROTO, "the server sent the unexpected method 0x%08x",
                   (unsigned)method->id);
}

/* ---- writing methods ---- */

static int
check_name(pc_slice name, const char *what, pc_err *err)
{
    if (name.len > SHORT_MAX) {
        return pc_fail(err, PC_EDATA, "%s of %zu bytes, AMQP allows %u: \"%.40s…\"", what, name.len,
                       SHORT_MAX, name.ptr);
    }
    return 0;
}

/* `extra` bytes more than METHOD_ROOM may be needed. */
static int
put_method(pc_buf *out, uint16_t channel, uint32_t id, void *fields, size_t extra, pc_err *err)
{
    size_t room = METHOD_ROOM + extra;
    char *to = pc_buf_reserve(out, room, err);
    if (to == NULL) {
        return -1;
    }
    size_t head = PC_AMQP_FRAME_START + 4;
    amqp_bytes_t place = {room - head - 1, to + head};
    int len = amqp_encode_method(id, fields, place);
    if (len < 0) {
        return pc_fail(err, PC_EDATA, "method 0x%08x cannot be encoded: %s", id,
                       amqp_error_string2(len));
    }
    pc_amqp_frame_start(to, PC_AMQP_METHOD, channel, (size_t)len + 4);
    pc_set_u32(to + PC_AMQP_FRAME_START, id);
    to[head + (size_t)len] = (char)PC_AMQP_FRAME_END;
    pc_buf_commit(out, head + (size_t)len + 1);
    return 0;
}

/* For methods whose last field is a table: encoded with an empty one, whose length and bytes are
 * then put in place. */
static int
put_method_table(pc_buf *out, uint16_t channel, uint32_t id, void *fields, pc_slice table,
                 pc_err *err)
{
    size_t begin = pc_buf_len(out);
    if (table.len > PC_AMQP_FRAME_MAX) {
        return pc_fail(err, PC_ELIMIT, "arguments of %zu bytes do not fit into a frame", table.len);
    }
    if (put_method(out, channel, id, fields, table.len, err) < 0) {
        return -1;
    }
    if (table.len > 0) {
        char *end = out->data + out->end - 1;
        pc_set_u32(end - 4, (uint32_t)table.len);
        memcpy(end, table.ptr, table.len);
        end[table.len] = (char)PC_AMQP_FRAME_END;
        pc_buf_commit(out, table.len);
        char *frame = pc_buf_ptr(out) + begin;
        pc_set_u32(frame + 3, pc_get_u32(frame + 3) + (uint32_t)table.len);
    }
    return 0;
}

int
pc_amqp_write_tune_ok(pc_buf *out, uint16_t channel_max, uint32_t frame_max, uint16_t heartbeat,
                      pc_err *err)
{
    amqp_connection_tune_ok_t m = {channel_max, frame_max, heartbeat};
    return put_method(out, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &m, 0, err);
}

int
pc_amqp_write_open(pc_buf *out, pc_slice vhost, pc_err *err)
{
    amqp_connection_open_t m = {.virtual_host = bytes(vhost)};
    return check_name(vhost, "a virtual host", err) < 0
               ? -1
               : put_method(out, 0, AMQP_CONNECTION_OPEN_METHOD, &m, 0, err);
}

int
pc_amqp_write_close(pc_buf *out, pc_err *err)
{
    amqp_connection_close_t m = {.reply_code = AMQP_REPLY_SUCCESS};
    return put_method(out, 0, AMQP_CONNECTION_CLOSE_METHOD, &m, 0, err);
}

int
pc_amqp_write_close_ok(pc_buf *out, pc_err *err)
{
    amqp_connection_close_ok_t m = {0};
    return put_method(out, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &m, 0, err);
}

int
pc_amqp_write_channel_open(pc_buf *out, uint16_t channel, pc_err *err)
{
    amqp_channel_open_t m = {.out_of_band = amqp_empty_bytes};
    return put_method(out, channel, AMQP_CHANNEL_OPEN_METHOD, &m, 0, err);
}

int
pc_amqp_write_channel_close(pc_buf *out, uint16_t channel, pc_err *err)
{
    amqp_channel_close_t m = {.reply_code = AMQP_REPLY_SUCCESS};
    return put_method(out, channel, AMQP_CHANNEL_CLOSE_METHOD, &m, 0, err);
}

int
pc_amqp_write_channel_close_ok(pc_buf *out, uint16_t channel, pc_err *err)
{
    amqp_channel_close_ok_t m = {0};
    return put_method(out, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &m, 0, err);
}

int
pc_amqp_write_flow_ok(pc_buf *out, uint16_t channel, bool active, pc_err *err)
{
    amqp_channel_flow_ok_t m = {.active = active};
    return put_method(out, channel, AMQP_CHANNEL_FLOW_OK_METHOD, &m, 0, err);
}

int
pc_amqp_write_exchange_declare(pc_buf *out, uint16_t channel, const pc_amqp_exchange *exchange,
                               pc_err *err)
{
    amqp_exchange_declare_t m = {
        .exchange = bytes(exchange->name),
        .type = bytes(exchange->type),
        .passive = exchange->passive,
        .durable = exchange->durable,
        .auto_delete = exchange->auto_delete,
    };
    if (check_name(exchange->name, "an exchange name", err) < 0 ||
        check_name(exchange->type, "an exchange type", err) < 0) {
        return -1;
    }
    return put_method_table(out, channel, AMQP_EXCHANGE_DECLARE_METHOD, &m, exchange->arguments,
                            err);
}

int
pc_amqp_write_queue_declare(pc_buf *out, uint16_t channel, const pc_amqp_queue *queue, pc_err *err)
{
    amqp_queue_declare_t m = {
        .queue = bytes(queue->name),
        .passive = queue->passive,
        .durable = queue->durable,
        .exclusive = queue->exclusive,
        .auto_delete = queue->auto_delete,
    };
    if (check_name(queue->name, "a queue name", err) < 0) {
        return -1;
    }
    return put_method_table(out, channel, AMQP_QUEUE_DECLARE_METHOD, &m, queue->arguments, err);
}

int
pc_amqp_write_queue_bind(pc_buf *out, uint16_t channel, pc_slice queue, pc_slice exchange,
                         pc_slice routing_key, pc_slice arguments, pc_err *err)
{
    amqp_queue_bind_t m = {
        .queue = bytes(queue),
        .exchange = bytes(exchange),
        .routing_key = bytes(routing_key),
    };
    if (check_name(queue, "a queue name", err) < 0 ||
        check_name(exchange, "an exchange name", err) < 0 ||
        check_name(routing_key, "a routing key", err) < 0) {
        return -1;
    }
    return put_method_table(out, channel, AMQP_QUEUE_BIND_METHOD, &m, arguments, err);
}

int
pc_amqp_write_queue_purge(pc_buf *out, uint16_t channel, pc_slice queue, pc_err *err)
{
    amqp_queue_purge_t m = {.queue = bytes(queue)};
    return check_name(queue, "a queue name", err) < 0
               ? -1
               : put_method(out, channel, AMQP_QUEUE_PURGE_METHOD, &m, 0, err);
}

int
pc_amqp_write_queue_delete(pc_buf *out, uint16_t channel, pc_slice queue, pc_err *err)
{
    amqp_queue_delete_t m = {.queue = bytes(queue)};
    return check_name(queue, "a queue name", err) < 0
               ? -1
               : put_method(out, channel, AMQP_QUEUE_DELETE_METHOD, &m, 0, err);
}

int
pc_amqp_write_qos(pc_buf *out, uint16_t channel, uint16_t count, bool global, pc_err *err)
{
    amqp_basic_qos_t m = {.prefetch_count = count, .global = global};
    return put_method(out, channel, AMQP_BASIC_QOS_METHOD, &m, 0, err);
}

int
pc_amqp_write_consume(pc_buf *out, uint16_t channel, pc_slice queue, pc_slice consumer_tag,
                      bool no_ack, pc_slice arguments, pc_err *err)
{
    amqp_basic_consume_t m = {
        .queue = bytes(queue),
        .consumer_tag = bytes(consumer_tag),
        .no_ack = no_ack,
    };
    if (check_name(queue, "a queue name", err) < 0 ||
        check_name(consumer_tag, "a consumer tag", err) < 0) {
        return -1;
    }
    return put_method_table(out, channel, AMQP_BASIC_CONSUME_METHOD, &m, arguments, err);
}

int
pc_amqp_write_cancel(pc_buf *out, uint16_t channel, pc_slice consumer_tag, pc_err *err)
{
    amqp_basic_cancel_t m = {.consumer_tag = bytes(consumer_tag)};
    return check_name(consumer_tag, "a consumer tag", err) < 0
               ? -1
               : put_method(out, channel, AMQP_BASIC_CANCEL_METHOD, &m, 0, err);
}

int
pc_amqp_write_publish(pc_buf *out, uint16_t channel, pc_slice exchange, pc_slice routing_key,
                      bool mandatory, pc_err *err)
{
    amqp_basic_publish_t m = {
        .exchange = bytes(exchange),
        .routing_key = bytes(routing_key),
        .mandatory = mandatory,
    };
    if (check_name(exchange, "an exchange name", err) < 0 ||
        check_name(routing_key, "a routing key", err) < 0) {
        return -1;
    }
    return put_method(out, channel, AMQP_BASIC_PUBLISH_METHOD, &m, 0, err);
}

int
pc_amqp_write_get(pc_buf *out, uint16_t channel, pc_slice queue, bool no_ack, pc_err *err)
{
    amqp_basic_get_t m = {.queue = bytes(queue), .no_ack = no_ack};
    return check_name(queue, "a queue name", err) < 0
               ? -1
               : put_method(out, channel, AMQP_BASIC_GET_METHOD, &m, 0, err);
}

int
pc_amqp_write_ack(pc_buf *out, uint16_t channel, uint64_t tag, bool multiple, pc_err *err)
{
    amqp_basic_ack_t m = {.delivery_tag = tag, .multiple = multiple};
    return put_method(out, channel, AMQP_BASIC_ACK_METHOD, &m, 0, err);
}

int
pc_amqp_write_reject(pc_buf *out, uint16_t channel, uint64_t tag, bool requeue, pc_err *err)
{
    amqp_basic_reject_t m = {.delivery_tag = tag, .requeue = requeue};
    return put_method(out, channel, AMQP_BASIC_REJECT_METHOD, &m, 0, err);
}

int
pc_amqp_write_select(pc_buf *out, uint16_t channel, pc_err *err)
{
    amqp_confirm_select_t m = {0};
    return put_method(out, channel, AMQP_CONFIRM_SELECT_METHOD, &m, 0, err);
}
