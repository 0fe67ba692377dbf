/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/sqlite_row.h"

#include <stddef.h>

/* A packed field: number (1 byte), length (4 bytes, big-endian), bytes. Absent fields are left out.
 */
#define FIELD_HEAD 5

/* Numbers 1, 2, …: append only. */
static const size_t slices[] = {
    offsetof(pc_message, content_type),   offsetof(pc_message, content_encoding),
    offsetof(pc_message, correlation_id), offsetof(pc_message, reply_to),
    offsetof(pc_message, expiration),     offsetof(pc_message, message_id),
    offsetof(pc_message, type),           offsetof(pc_message, user_id),
    offsetof(pc_message, app_id),         offsetof(pc_message, cluster_id),
    offsetof(pc_message, exchange),       offsetof(pc_message, routing_key),
};
#define SLICES (sizeof slices / sizeof slices[0])

/* 8 bytes, big-endian */
#define FIELD_TIMESTAMP 64
#define FIELD_DELIVERY_MODE 65
#define FIELD_PRIORITY 66

static int
put_field(pc_buf *out, unsigned number, pc_slice value, pc_err *err)
{
    if (value.len > UINT32_MAX) {
        return pc_fail(err, PC_ELIMIT, "a message property is larger than 4 GB");
    }
    if (pc_buf_put_u8(out, (uint8_t)number, err) < 0 ||
        pc_buf_put_u32(out, (uint32_t)value.len, err) < 0) {
        return -1;
    }
    return pc_buf_put_slice(out, value, err);
}

static int
put_number(pc_buf *out, unsigned number, int64_t value, pc_err *err)
{
    char bytes[8];
    pc_set_u64(bytes, (uint64_t)value);
    return put_field(out, number, pc_slice_of(bytes, sizeof bytes), err);
}

int
pc_sqlite_props_pack(const pc_message *message, pc_buf *out, pc_err *err)
{
    for (size_t i = 0; i < SLICES; i++) {
        const pc_slice *value = (const pc_slice *)(const void *)((const char *)message + slices[i]);
        if (value->ptr != NULL && put_field(out, (unsigned)i + 1, *value, err) < 0) {
            return -1;
        }
    }
    if (message->timestamp >= 0 && put_number(out, FIELD_TIMESTAMP, message->timestamp, err) < 0) {
        return -1;
    }
    if (message->delivery_mode != 0 &&
        put_number(out, FIELD_DELIVERY_MODE, message->delivery_mode, err) < 0) {
        return -1;
    }
    if (message->priority >= 0 && put_number(out, FIELD_PRIORITY, message->priority, err) < 0) {
        return -1;
    }
    return 0;
}

/* Unknown numbers are a newer writer's: skipped. */
static void
set_field(pc_message *message, unsigned number, pc_slice value)
{
    if (number >= 1 && number <= SLICES) {
        *(pc_slice *)(void *)((char *)message + slices[number - 1]) = value;
        return;
    }
    if (value.len != 8) {
        return;
    }
    int64_t whole = (int64_t)pc_get_u64(value.ptr);
    if (number == FIELD_TIMESTAMP) {
        message->timestamp = whole;
    } else if (number == FIELD_DELIVERY_MODE) {
        message->delivery_mode = (int)whole;
    } else if (number == FIELD_PRIORITY) {
        message->priority = (int)whole;
    }
}

static int
unpack(pc_slice props, pc_message *message)
{
    while (props.len >= FIELD_HEAD) {
        uint32_t len = pc_get_u32(props.ptr + 1);
        if (len > props.len - FIELD_HEAD) {
            return -1;
        }
        set_field(message, (unsigned char)props.ptr[0], pc_slice_of(props.ptr + FIELD_HEAD, len));
        props = pc_slice_of(props.ptr + FIELD_HEAD + len, props.len - FIELD_HEAD - len);
    }
    return props.len == 0 ? 0 : -1;
}

int
pc_sqlite_row_read(pc_sqlite *db, pc_sql which, pc_buf *bytes, pc_sqlite_row *row, pc_err *err)
{
    row->id = pc_sqlite_column_int(db, which, 0);
    row->priority = pc_sqlite_column_int(db, which, 1);
    row->tries = pc_sqlite_column_int(db, which, 2);
    row->no_ack = false;
    for (int i = 0; i < 3; i++) {
        pc_slice part = pc_sqlite_column_slice(db, which, 3 + i);
        row->at[i] = pc_buf_len(bytes);
        row->len[i] = part.len;
        row->absent[i] = part.ptr == NULL;
        if (pc_buf_put(bytes, part.ptr == NULL ? "" : part.ptr, part.len, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static pc_slice
part_of(const pc_sqlite_row *row, const pc_buf *bytes, int i)
{
    if (row->absent[i]) {
        return (pc_slice){0};
    }
    if (row->len[i] == 0) {
        return pc_slice_of("", 0);
    }
    return pc_slice_of(pc_buf_ptr(bytes) + row->at[i], row->len[i]);
}

int
pc_sqlite_row_message(const pc_sqlite_row *row, const pc_buf *bytes, pc_message *message,
                      pc_err *err)
{
    pc_message_init(message);
    if (unpack(part_of(row, bytes, 0), message) < 0) {
        return pc_fail(err, PC_EDATA, "the properties of message %lld are damaged",
                       (long long)row->id);
    }
    message->headers = part_of(row, bytes, 1);
    message->headers_kind = message->headers.ptr == NULL ? PC_HEADERS_NONE : PC_HEADERS_JSON;
    message->body = part_of(row, bytes, 2);
    message->redelivered = row->tries > 1;
    return 0;
}
