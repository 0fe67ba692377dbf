/* SPDX-License-Identifier: BSD-3-Clause */
/* AMQP 0-9-1 methods <-> structs. No I/O, no state but a scratch pool of the library.
 *
 * Input is validated before rabbitmq-c sees it, and no foreign field table is ever given to it: its
 * decoder recurses without limit in 0.11. Tables stay raw slices, which wire/table.h can walk.
 * Nothing that is decoded is copied: slices point into the input. Every writer appends whole
 * frames; when it fails, the buffer is as before. */
#ifndef PC_IO_AMQP_CODEC_H
#define PC_IO_AMQP_CODEC_H

#include "base/buf.h"

/* class << 16 | method, of all that a client receives */
typedef enum pc_amqp_id {
    PC_AMQP_START = 0x000A000A,
    PC_AMQP_SECURE = 0x000A0014,
    PC_AMQP_TUNE = 0x000A001E,
    PC_AMQP_OPEN_OK = 0x000A0029,
    PC_AMQP_CLOSE = 0x000A0032,
    PC_AMQP_CLOSE_OK = 0x000A0033,
    PC_AMQP_BLOCKED = 0x000A003C,
    PC_AMQP_UNBLOCKED = 0x000A003D,
    PC_AMQP_CHANNEL_OPEN_OK = 0x0014000B,
    PC_AMQP_CHANNEL_FLOW = 0x00140014,
    PC_AMQP_CHANNEL_CLOSE = 0x00140028,
    PC_AMQP_CHANNEL_CLOSE_OK = 0x00140029,
    PC_AMQP_EXCHANGE_DECLARE = 0x0028000A,  // never received, as CONSUME and the like; named by close and channel.close
    PC_AMQP_EXCHANGE_DECLARE_OK = 0x0028000B,
    PC_AMQP_QUEUE_DECLARE = 0x0032000A,
    PC_AMQP_QUEUE_DECLARE_OK = 0x0032000B,
    PC_AMQP_QUEUE_BIND = 0x00320014,
    PC_AMQP_QUEUE_BIND_OK = 0x00320015,
    PC_AMQP_QUEUE_PURGE_OK = 0x0032001F,
    PC_AMQP_QUEUE_DELETE_OK = 0x00320029,
    PC_AMQP_QOS_OK = 0x003C000B,
    PC_AMQP_CONSUME = 0x003C0014,
    PC_AMQP_CONSUME_OK = 0x003C0015,
    PC_AMQP_CANCEL = 0x003C001E,
    PC_AMQP_CANCEL_OK = 0x003C001F,
    PC_AMQP_PUBLISH = 0x003C0028,
    PC_AMQP_RETURN = 0x003C0032,
    PC_AMQP_DELIVER = 0x003C003C,
    PC_AMQP_GET_OK = 0x003C0047,
    PC_AMQP_GET_EMPTY = 0x003C0048,
    PC_AMQP_ACK = 0x003C0050,
    PC_AMQP_NACK = 0x003C0078,
    PC_AMQP_SELECT_OK = 0x0055000B
} pc_amqp_id;

/* One decoded method; what does not belong to it is 0. */
typedef struct pc_amqp_method {
    pc_amqp_id id;
    uint16_t code;         // close, channel.close, return
    uint16_t channel_max;  // tune
    uint16_t heartbeat;    // tune, seconds
    uint32_t frame_max;    // tune, 0: no limit
    uint32_t culprit;      // close, channel.close: the method that caused it, as pc_amqp_id
    uint32_t messages;     // declare-ok, purge-ok, delete-ok, get-ok
    uint32_t consumers;    // declare-ok
    uint64_t tag;          // deliver, get-ok, ack, nack
    bool multiple;         // ack, nack
    bool redelivered;      // deliver, get-ok
    bool active;           // flow
    pc_slice
        text;  // close, channel.close, return: why; blocked: the reason; declare-ok: queue's name
    pc_slice consumer_tag;  // deliver, cancel, cancel-ok, consume-ok
    pc_slice exchange;      // deliver, get-ok, return
    pc_slice routing_key;
    pc_slice mechanisms;  // start, space between
    pc_slice table;       // start: the server's properties
} pc_amqp_method;

/* Scratch memory for decoding, one per connection. */
typedef struct pc_amqp_codec pc_amqp_codec;
pc_amqp_codec *pc_amqp_codec_new(pc_err *err);
void pc_amqp_codec_free(pc_amqp_codec *codec);

/* PC_EPROTO: malformed, or a method that no client receives. */
int pc_amqp_method_read(pc_amqp_codec *codec, pc_slice payload, pc_amqp_method *method,
                        pc_err *err);

/* --- writers; PC_EDATA when a name is longer than 255 bytes. Tables are without length, absent:
 * empty --- */

int pc_amqp_write_tune_ok(pc_buf *out, uint16_t channel_max, uint32_t frame_max, uint16_t heartbeat,
                          pc_err *err);
int pc_amqp_write_open(pc_buf *out, pc_slice vhost, pc_err *err);
int pc_amqp_write_close(pc_buf *out, pc_err *err);
int pc_amqp_write_close_ok(pc_buf *out, pc_err *err);
int pc_amqp_write_channel_open(pc_buf *out, uint16_t channel, pc_err *err);
int pc_amqp_write_channel_close(pc_buf *out, uint16_t channel, pc_err *err);
int pc_amqp_write_channel_close_ok(pc_buf *out, uint16_t channel, pc_err *err);
int pc_amqp_write_flow_ok(pc_buf *out, uint16_t channel, bool active, pc_err *err);

typedef struct pc_amqp_exchange {
    pc_slice name;
    pc_slice type;
    bool passive;
    bool durable;
    bool auto_delete;
    pc_slice arguments;
} pc_amqp_exchange;

typedef struct pc_amqp_queue {
    pc_slice name;
    bool passive;
    bool durable;
    bool exclusive;
    bool auto_delete;
    pc_slice arguments;
} pc_amqp_queue;

int pc_amqp_write_exchange_declare(pc_buf *out, uint16_t channel, const pc_amqp_exchange *exchange,
                                   pc_err *err);
int pc_amqp_write_queue_declare(pc_buf *out, uint16_t channel, const pc_amqp_queue *queue,
                                pc_err *err);
int pc_amqp_write_queue_bind(pc_buf *out, uint16_t channel, pc_slice queue, pc_slice exchange,
                             pc_slice routing_key, pc_slice arguments, pc_err *err);
int pc_amqp_write_queue_purge(pc_buf *out, uint16_t channel, pc_slice queue, pc_err *err);
int pc_amqp_write_queue_delete(pc_buf *out, uint16_t channel, pc_slice queue, pc_err *err);
int pc_amqp_write_qos(pc_buf *out, uint16_t channel, uint16_t count, bool global, pc_err *err);
int pc_amqp_write_consume(pc_buf *out, uint16_t channel, pc_slice queue, pc_slice consumer_tag,
                          bool no_ack, pc_slice arguments, pc_err *err);
int pc_amqp_write_cancel(pc_buf *out, uint16_t channel, pc_slice consumer_tag, pc_err *err);
int pc_amqp_write_publish(pc_buf *out, uint16_t channel, pc_slice exchange, pc_slice routing_key,
                          bool mandatory, pc_err *err);
int pc_amqp_write_get(pc_buf *out, uint16_t channel, pc_slice queue, bool no_ack, pc_err *err);
int pc_amqp_write_ack(pc_buf *out, uint16_t channel, uint64_t tag, bool multiple, pc_err *err);
int pc_amqp_write_reject(pc_buf *out, uint16_t channel, uint64_t tag, bool requeue, pc_err *err);
int pc_amqp_write_select(pc_buf *out, uint16_t channel, pc_err *err);

#endif
