/* SPDX-License-Identifier: BSD-3-Clause */
/* AMQP 0-9-1 frames, and what is in them beside methods: content headers, bodies, the login.
 * Decoders copy nothing; every writer appends whole frames, and when it fails the buffer is as
 * before. */
#ifndef PC_IO_AMQP_FRAME_H
#define PC_IO_AMQP_FRAME_H

#include "base/buf.h"
#include "wire/message.h"

#define PC_MORE (-2)  // a decoder needs more bytes

#define PC_AMQP_METHOD 1
#define PC_AMQP_HEADER 2
#define PC_AMQP_BODY 3
#define PC_AMQP_HEARTBEAT 8
#define PC_AMQP_FRAME_END 0xCE
#define PC_AMQP_FRAME_START 7u     // type, channel, size
#define PC_AMQP_FRAME_EXTRA 8u     // the same and the end byte
#define PC_AMQP_FRAME_MIN 4096u    // every peer takes this much
#define PC_AMQP_FRAME_MAX 131072u  // what we ask for

typedef struct pc_amqp_frame {
    int type;
    uint16_t channel;
    pc_slice payload;
} pc_amqp_frame;

/* Cuts the first frame off `input`: bytes used, PC_MORE, or -1 (PC_EPROTO). */
int64_t pc_amqp_frame_split(pc_slice input, uint32_t frame_max, pc_amqp_frame *frame, pc_err *err);
/* Writes the first PC_AMQP_FRAME_START bytes of a frame. */
void pc_amqp_frame_start(char *to, int type, uint16_t channel, size_t size);

/* Reads a content header's payload: sets the properties and headers (PC_HEADERS_TABLE) of
 * `message`, leaves body and delivery alone. PC_EPROTO. */
int pc_amqp_header_read(pc_slice payload, pc_message *message, uint64_t *body_size, pc_err *err);

/* basic.publish with content, body cut to frames, to message->exchange with message->routing_key.
 * PC_EDATA: a property is too long, headers are no AMQP table; PC_ELIMIT: headers don't fit into a
 * frame. */
int pc_amqp_write_message(pc_buf *out, uint16_t channel, const pc_message *message, bool mandatory,
                          uint32_t frame_max, pc_err *err);
/* Appends frames that were written for another frame_max: bodies are cut smaller where needed. */
int pc_amqp_write_again(pc_buf *out, pc_slice frames, uint32_t frame_max, pc_err *err);

/* connection.start-ok; `properties` is a table without length. */
int pc_amqp_write_start_ok(pc_buf *out, pc_slice properties, pc_slice mechanism, pc_slice response,
                           pc_err *err);
int pc_amqp_write_heartbeat(pc_buf *out, pc_err *err);

#endif
