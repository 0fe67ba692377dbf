/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/message.h"

#include "wire/json.h"
#include "wire/table.h"

/* Every slice of a message: whatever copies or packs one walks this list. */
static const size_t slices[] = {
    offsetof(pc_message, content_type),   offsetof(pc_message, content_encoding),
    offsetof(pc_message, correlation_id), offsetof(pc_message, reply_to),
    offsetof(pc_message, expiration),     offsetof(pc_message, message_id),
    offsetof(pc_message, type),           offsetof(pc_message, user_id),
    offsetof(pc_message, app_id),         offsetof(pc_message, cluster_id),
    offsetof(pc_message, headers),        offsetof(pc_message, body),
    offsetof(pc_message, exchange),       offsetof(pc_message, routing_key),
};

#define SLICES (sizeof slices / sizeof slices[0])
#define ABSENT UINT64_MAX

/* The beginning of a packed message; the bytes of the slices follow in order. */
typedef struct frame {
    uint64_t lens[SLICES];
    uint64_t tag;
    int64_t timestamp;
    int32_t delivery_mode;
    int32_t priority;
    uint32_t headers_kind;
    uint32_t redelivered;
} frame;

static pc_slice *
slice_at(pc_message *message, size_t i)
{
    return (pc_slice *)(void *)((char *)message + slices[i]);
}

static const pc_slice *
peek_slice(const pc_message *message, size_t i)
{
    return (const pc_slice *)(const void *)((const char *)message + slices[i]);
}

void
pc_message_init(pc_message *message)
{
    *message = (pc_message){.timestamp = -1, .priority = -1};
}

size_t
pc_message_slices_size(const pc_message *message)
{
    size_t size = 0;
    for (size_t i = 0; i < SLICES; i++) {
        size += peek_slice(message, i)->len;
    }
    return size;
}

size_t
pc_message_packed_size(const pc_message *message)
{
    return sizeof(frame) + pc_message_slices_size(message);
}

int
pc_message_pack(const pc_message *message, pc_buf *out, pc_err *err)
{
    frame head = {
        .tag = message->tag,
        .timestamp = message->timestamp,
        .delivery_mode = message->delivery_mode,
        .priority = message->priority,
        .headers_kind = (uint32_t)message->headers_kind,
        .redelivered = message->redelivered,
    };
    char *to = pc_buf_reserve(out, pc_message_packed_size(message), err);
    if (to == NULL) {
        return -1;
    }
    size_t size = sizeof head;
    for (size_t i = 0; i < SLICES; i++) {
        const pc_slice *slice = peek_slice(message, i);
        head.lens[i] = slice->ptr == NULL ? ABSENT : slice->len;
        if (slice->len > 0) {
            memcpy(to + size, slice->ptr, slice->len);
        }
        size += slice->len;
    }
    memcpy(to, &head, sizeof head);
    pc_buf_commit(out, size);
    return 0;
}

static int
malformed(pc_err *err)
{
    return pc_fail(err, PC_EDATA, "packed message is malformed");
}

int
pc_message_unpack(pc_slice packed, pc_message *out, pc_err *err)
{
    frame head;
    pc_message_init(out);
    if (packed.len < sizeof head) {
        return malformed(err);
    }
    memcpy(&head, packed.ptr, sizeof head);
    const char *at = packed.ptr + sizeof head;
    const char *end = packed.ptr + packed.len;
    for (size_t i = 0; i < SLICES; i++) {
        if (head.lens[i] == ABSENT) {
            continue;
        }
        if (head.lens[i] > (uint64_t)(end - at)) {
            return malformed(err);
        }
        *slice_at(out, i) = pc_slice_of(at, (size_t)head.lens[i]);
        at += head.lens[i];
    }
    if (at != end || head.headers_kind > PC_HEADERS_TABLE) {
        return malformed(err);
    }
    out->tag = head.tag;
    out->timestamp = head.timestamp;
    out->delivery_mode = head.delivery_mode;
    out->priority = head.priority;
    out->headers_kind = (pc_headers_kind)head.headers_kind;
    out->redelivered = head.redelivered != 0;
    return 0;
}

int
pc_message_visit_headers(const pc_message *message, const pc_visit *visit, void *ctx, pc_err *err)
{
    switch (message->headers_kind) {
    case PC_HEADERS_JSON:
        return pc_json_visit(message->headers, visit, ctx, err);
    case PC_HEADERS_TABLE:
        return pc_table_visit(message->headers, visit, ctx, err);
    default:
        return 0;
    }
}

void
pc_message_copy_to(pc_message *to, const pc_message *from, char *memory)
{
    *to = *from;
    for (size_t i = 0; i < SLICES; i++) {
        pc_slice *slice = slice_at(to, i);
        if (slice->len == 0) {
            slice->ptr = slice->ptr == NULL ? NULL : "";
            continue;
        }
        memcpy(memory, slice->ptr, slice->len);
        slice->ptr = memory;
        memory += slice->len;
    }
}
