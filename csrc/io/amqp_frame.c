/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_frame.h"

#include "io/amqp_codec.h"

#define CLASS_BASIC 60
#define START_OK 0x000A000Bu
#define HEADER_FIXED 14u  // class, weight, body size, flags
#define SHORT_MAX 255u
#define MORE_FLAGS 1u
#define HAS_HEADERS 0x2000u
#define HAS_DELIVERY_MODE 0x1000u
#define HAS_PRIORITY 0x0800u
#define HAS_TIMESTAMP 0x0040u

/* ---- frames ---- */

static int
check_frame(int type, uint32_t size, uint32_t frame_max, pc_err *err)
{
    if (type != PC_AMQP_METHOD && type != PC_AMQP_HEADER && type != PC_AMQP_BODY &&
        type != PC_AMQP_HEARTBEAT) {
        return pc_fail(err, PC_EPROTO,
                       "the server sent a frame of unknown type %d: is this an AMQP 0-9-1 port?",
                       type);
    }
    if (size > frame_max - PC_AMQP_FRAME_EXTRA) {
        return pc_fail(err, PC_EPROTO, "the server sent a frame of %u bytes, %u were agreed on",
                       size, frame_max);
    }
    return 0;
}

int64_t
pc_amqp_frame_split(pc_slice input, uint32_t frame_max, pc_amqp_frame *frame, pc_err *err)
{
    if (input.len < PC_AMQP_FRAME_START) {
        return PC_MORE;
    }
    int type = (unsigned char)input.ptr[0];
    uint32_t size = pc_get_u32(input.ptr + 3);
    if (check_frame(type, size, frame_max, err) < 0) {
        return -1;
    }
    size_t whole = (size_t)size + PC_AMQP_FRAME_EXTRA;
    if (input.len < whole) {
        return PC_MORE;
    }
    if ((unsigned char)input.ptr[whole - 1] != PC_AMQP_FRAME_END) {
        return pc_fail(err, PC_EPROTO, "the server sent a frame without its end byte");
    }
    frame->type = type;
    frame->channel = pc_get_u16(input.ptr + 1);
    frame->payload = pc_slice_of(input.ptr + PC_AMQP_FRAME_START, size);
    return (int64_t)whole;
}

void
pc_amqp_frame_start(char *to, int type, uint16_t channel, size_t size)
{
    to[0] = (char)type;
    to[1] = (char)(channel >> 8);
    to[2] = (char)channel;
    pc_set_u32(to + 3, (uint32_t)size);
}

int
pc_amqp_write_heartbeat(pc_buf *out, pc_err *err)
{
    static const char frame[PC_AMQP_FRAME_EXTRA] = {PC_AMQP_HEARTBEAT,      0, 0, 0, 0, 0, 0,
                                                    (char)PC_AMQP_FRAME_END};
    return pc_buf_put(out, frame, sizeof frame, err);
}

/* ---- content header ---- */

/* The short strings in the order of their flags; the other four properties come between them. */
typedef struct text_property {
    uint16_t flag;
    uint16_t offset;
    const char *name;
} text_property;

#define TEXT(flag, field) \
    { \
        flag, offsetof(pc_message, field), #field \
    }
static const text_property before_headers[] = {
    TEXT(0x8000, content_type),
    TEXT(0x4000, content_encoding),
};
static const text_property before_timestamp[] = {
    TEXT(0x0400, correlation_id),
    TEXT(0x0200, reply_to),
    TEXT(0x0100, expiration),
    TEXT(0x0080, message_id),
};
static const text_property after_timestamp[] = {
    TEXT(0x0020, type),
    TEXT(0x0010, user_id),
    TEXT(0x0008, app_id),
    TEXT(0x0004, cluster_id),
};
#undef TEXT
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct reader {
    const unsigned char *at;
    size_t left;
    uint16_t flags;
    bool bad;
} reader;

static const unsigned char *
take(reader *in, size_t n)
{
    if (n > in->left) {
        in->bad = true;
        in->left = 0;
        return NULL;
    }
    const unsigned char *at = in->at;
    in->at += n;
    in->left -= n;
    return at;
}

static void
read_texts(reader *in, const text_property *rows, size_t n, pc_message *message)
{
    for (size_t i = 0; i < n; i++) {
        if ((in->flags & rows[i].flag) == 0) {
            continue;
        }
        const unsigned char *len = take(in, 1);
        const unsigned char *text = len == NULL ? NULL : take(in, *len);
        if (text == NULL) {
            return;
        }
        pc_slice value = pc_slice_of((const char *)text, *len);
        memcpy((char *)message + rows[i].offset, &value, sizeof value);
    }
}

static void
read_headers(reader *in, pc_message *message)
{
    const unsigned char *len = in->flags & HAS_HEADERS ? take(in, 4) : NULL;
    const unsigned char *table = len == NULL ? NULL : take(in, pc_get_u32(len));
    if (table != NULL) {
        message->headers_kind = PC_HEADERS_TABLE;
        message->headers = pc_slice_of((const char *)table, pc_get_u32(len));
    }
}

static int
read_octet(reader *in, uint16_t flag, int absent)
{
    const unsigned char *octet = in->flags & flag ? take(in, 1) : NULL;
    return octet == NULL ? absent : *octet;
}

static int64_t
read_timestamp(reader *in)
{
    const unsigned char *at = in->flags & HAS_TIMESTAMP ? take(in, 8) : NULL;
    uint64_t seconds = at == NULL ? UINT64_MAX : pc_get_u64(at);
    return seconds > INT64_MAX ? -1 : (int64_t)seconds;
}

int
pc_amqp_header_read(pc_slice payload, pc_message *message, uint64_t *body_size, pc_err *err)
{
    if (payload.len < HEADER_FIXED || pc_get_u16(payload.ptr) != CLASS_BASIC) {
        return pc_fail(err, PC_EPROTO, "the server sent a malformed content header");
    }
    *body_size = pc_get_u64(payload.ptr + 4);
    reader in = {(const unsigned char *)payload.ptr + HEADER_FIXED, payload.len - HEADER_FIXED,
                 pc_get_u16(payload.ptr + 12), false};
    if (in.flags & MORE_FLAGS) {
        return pc_fail(err, PC_EPROTO, "the server sent a content header with unknown properties");
    }
    read_texts(&in, before_headers, COUNT(before_headers), message);
    read_headers(&in, message);
    message->delivery_mode = read_octet(&in, HAS_DELIVERY_MODE, 0);
    message->priority = read_octet(&in, HAS_PRIORITY, -1);
    read_texts(&in, before_timestamp, COUNT(before_timestamp), message);
    message->timestamp = read_timestamp(&in);
    read_texts(&in, after_timestamp, COUNT(after_timestamp), message);
    return in.bad ? pc_fail(err, PC_EPROTO, "the server sent a content header that is cut short")
                  : 0;
}

/* ---- publishing ---- */

static int
put_texts(char **to, uint16_t *flags, const text_property *rows, size_t n,
          const pc_message *message, pc_err *err)
{
    for (size_t i = 0; i < n; i++) {
        pc_slice value;
        memcpy(&value, (const char *)message + rows[i].offset, sizeof value);
        if (value.ptr == NULL) {
            continue;
        }
        if (value.len > SHORT_MAX) {
            return pc_fail(err, PC_EDATA, "the message's %s has %zu bytes, AMQP allows %u",
                           rows[i].name, value.len, SHORT_MAX);
        }
        *flags = (uint16_t)(*flags | rows[i].flag);
        *(*to)++ = (char)value.len;
        memcpy(*to, value.ptr, value.len);
        *to += value.len;
    }
    return 0;
}

static int
check_header(const pc_message *message, uint32_t frame_max, pc_err *err)
{
    if (message->headers_kind == PC_HEADERS_JSON) {
        return pc_fail(err, PC_EDATA, "the message's headers are JSON, AMQP wants a field table");
    }
    // 20 bytes: what the frame and the fixed fields of the header take
    if (message->headers_kind == PC_HEADERS_TABLE && message->headers.len > frame_max - 20) {
        return pc_fail(err, PC_ELIMIT,
                       "the message's headers have %zu bytes, the server takes frames of %u",
                       message->headers.len, frame_max);
    }
    return 0;
}

static int
put_properties(char **to, uint16_t *flags, const pc_message *message, pc_err *err)
{
    if (put_texts(to, flags, before_headers, COUNT(before_headers), message, err) < 0) {
        return -1;
    }
    if (message->headers_kind == PC_HEADERS_TABLE) {
        *flags |= HAS_HEADERS;
        pc_set_u32(*to, (uint32_t)message->headers.len);
        memcpy(*to + 4, message->headers.len == 0 ? "" : message->headers.ptr,
               message->headers.len);
        *to += 4 + message->headers.len;
    }
    if (message->delivery_mode != 0) {
        *flags |= HAS_DELIVERY_MODE;
        *(*to)++ = (char)message->delivery_mode;
    }
    if (message->priority >= 0) {
        *flags |= HAS_PRIORITY;
        *(*to)++ = (char)(message->priority > 255 ? 255 : message->priority);
    }
    if (put_texts(to, flags, before_timestamp, COUNT(before_timestamp), message, err) < 0) {
        return -1;
    }
    if (message->timestamp >= 0) {
        *flags |= HAS_TIMESTAMP;
        pc_set_u64(*to, (uint64_t)message->timestamp);
        *to += 8;
    }
    return put_texts(to, flags, after_timestamp, COUNT(after_timestamp), message, err);
}

static int
put_header(pc_buf *out, uint16_t channel, const pc_message *message, uint32_t frame_max,
           pc_err *err)
{
    if (check_header(message, frame_max, err) < 0) {
        return -1;
    }
    size_t texts = COUNT(before_headers) + COUNT(before_timestamp) + COUNT(after_timestamp);
    size_t room =
        PC_AMQP_FRAME_EXTRA + HEADER_FIXED + texts * (SHORT_MAX + 1) + message->headers.len + 16;
    char *frame = pc_buf_reserve(out, room, err);
    if (frame == NULL) {
        return -1;
    }
    char *fixed = frame + PC_AMQP_FRAME_START;
    char *to = fixed + HEADER_FIXED;
    uint16_t flags = 0;
    if (put_properties(&to, &flags, message, err) < 0) {
        return -1;
    }
    size_t size = (size_t)(to - fixed);
    if (size > frame_max - PC_AMQP_FRAME_EXTRA) {
        return pc_fail(err, PC_ELIMIT,
                       "the message's properties have %zu bytes, the server takes frames of %u",
                       size, frame_max);
    }
    pc_amqp_frame_start(frame, PC_AMQP_HEADER, channel, size);
    pc_set_u32(fixed, (uint32_t)CLASS_BASIC << 16);
    pc_set_u64(fixed + 4, message->body.len);
    fixed[12] = (char)(flags >> 8);
    fixed[13] = (char)flags;
    *to++ = (char)PC_AMQP_FRAME_END;
    pc_buf_commit(out, (size_t)(to - frame));
    return 0;
}

static int
put_body(pc_buf *out, uint16_t channel, pc_slice body, uint32_t frame_max, pc_err *err)
{
    size_t piece = frame_max - PC_AMQP_FRAME_EXTRA;
    while (body.len > 0) {
        size_t n = body.len < piece ? body.len : piece;
        char *to = pc_buf_reserve(out, n + PC_AMQP_FRAME_EXTRA, err);
        if (to == NULL) {
            return -1;
        }
        pc_amqp_frame_start(to, PC_AMQP_BODY, channel, n);
        memcpy(to + PC_AMQP_FRAME_START, body.ptr, n);
        to[PC_AMQP_FRAME_START + n] = (char)PC_AMQP_FRAME_END;
        pc_buf_commit(out, n + PC_AMQP_FRAME_EXTRA);
        body = pc_slice_of(body.ptr + n, body.len - n);
    }
    return 0;
}

int
pc_amqp_write_message(pc_buf *out, uint16_t channel, const pc_message *message, bool mandatory,
                      uint32_t frame_max, pc_err *err)
{
    size_t before = pc_buf_len(out);
    if (pc_amqp_write_publish(out, channel, message->exchange, message->routing_key, mandatory,
                              err) < 0 ||
        put_header(out, channel, message, frame_max, err) < 0 ||
        put_body(out, channel, message->body, frame_max, err) < 0) {
        out->end = out->start + before;
        return -1;
    }
    return 0;
}

int
pc_amqp_write_again(pc_buf *out, pc_slice frames, uint32_t frame_max, pc_err *err)
{
    size_t before = pc_buf_len(out);
    if (frames.len <= frame_max) {  // nothing in it can be too long
        return pc_buf_put_slice(out, frames, err);
    }
    while (frames.len > 0) {
        pc_amqp_frame frame;
        int64_t used = pc_amqp_frame_split(frames, UINT32_MAX, &frame, err);
        if (used < 0) {
            goto fail;
        }
        bool cut = frame.type == PC_AMQP_BODY && (size_t)used > frame_max;
        int rc = cut ? put_body(out, frame.channel, frame.payload, frame_max, err)
                     : pc_buf_put(out, frames.ptr, (size_t)used, err);
        if (rc < 0) {
            goto fail;
        }
        frames = pc_slice_of(frames.ptr + used, frames.len - (size_t)used);
    }
    return 0;
fail:
    out->end = out->start + before;
    return -1;
}

/* ---- login ---- */

static char *
append(char *to, pc_slice text)
{
    if (text.len > 0) {
        memcpy(to, text.ptr, text.len);
    }
    return to + text.len;
}

int
pc_amqp_write_start_ok(pc_buf *out, pc_slice properties, pc_slice mechanism, pc_slice response,
                       pc_err *err)
{
    pc_slice locale = pc_slice_str("en_US");
    size_t size = 4 + 4 + properties.len + 1 + mechanism.len + 4 + response.len + 1 + locale.len;
    if (mechanism.len > SHORT_MAX || size > PC_AMQP_FRAME_MIN - PC_AMQP_FRAME_EXTRA) {
        return pc_fail(err, PC_ELIMIT,
                       "user name, password, login method or client name is too long");
    }
    char *to = pc_buf_reserve(out, size + PC_AMQP_FRAME_EXTRA, err);
    if (to == NULL) {
        return -1;
    }
    pc_amqp_frame_start(to, PC_AMQP_METHOD, 0, size);
    pc_set_u32(to + 7, START_OK);
    pc_set_u32(to + 11, (uint32_t)properties.len);
    to = append(to + 15, properties);
    *to++ = (char)mechanism.len;
    to = append(to, mechanism);
    pc_set_u32(to, (uint32_t)response.len);
    to = append(to + 4, response);
    *to++ = (char)locale.len;
    to = append(to, locale);
    *to = (char)PC_AMQP_FRAME_END;
    pc_buf_commit(out, size + PC_AMQP_FRAME_EXTRA);
    return 0;
}
