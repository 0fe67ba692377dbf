/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/bridge.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "wire/base64.h"
#include "wire/real.h"

#define DECIMAL_MAX (256 + 16)  // the scale has eight bits

static int
copy_null(void *ctx)
{
    pc_bridge *b = ctx;
    return b->sink->ops->null(b->sink, b->err);
}

static int
copy_boolean(void *ctx, int value)
{
    pc_bridge *b = ctx;
    return b->sink->ops->boolean(b->sink, value, b->err);
}

static int
copy_integer(void *ctx, int64_t value)
{
    pc_bridge *b = ctx;
    return b->sink->ops->integer(b->sink, value, b->err);
}

static int
copy_real(void *ctx, double value)
{
    pc_bridge *b = ctx;
    return b->sink->ops->real(b->sink, value, b->err);
}

static int
copy_number(void *ctx, pc_slice text)
{
    pc_bridge *b = ctx;
    bool whole = memchr(text.ptr, '.', text.len) == NULL && memchr(text.ptr, 'e', text.len) == NULL
                 && memchr(text.ptr, 'E', text.len) == NULL;
    if (whole) {
        return pc_fail(b->err, PC_EDATA, "a whole number of %zu digits does not fit 64 bits",
                       text.len);
    }
    return copy_real(ctx, pc_real_parse(text));
}

static int
copy_string(void *ctx, pc_slice text)
{
    pc_bridge *b = ctx;
    return b->sink->ops->string(b->sink, text, b->err);
}

static int
copy_typed(pc_bridge *b, const char *type, pc_slice value)
{
    const pc_sink_ops *ops = b->sink->ops;
    if (ops->map_start(b->sink, b->err) < 0
        || ops->key(b->sink, pc_slice_str("__type__"), b->err) < 0
        || ops->string(b->sink, pc_slice_str(type), b->err) < 0
        || ops->key(b->sink, pc_slice_str("__value__"), b->err) < 0
        || ops->string(b->sink, value, b->err) < 0) {
        return -1;
    }
    return ops->map_end(b->sink, b->err);
}

static int
copy_bytes(void *ctx, pc_slice data)
{
    pc_bridge *b = ctx;
    pc_buf text;
    pc_buf_init(&text);
    int rc = pc_base64_put(&text, data, b->err);
    if (rc == 0) {
        rc = copy_typed(b, "base64", pc_buf_len(&text) ? pc_buf_slice(&text) : pc_slice_str(""));
    }
    pc_buf_fini(&text);
    return rc;
}

static int
copy_timestamp(void *ctx, int64_t seconds)
{
    pc_bridge *b = ctx;
    char text[PC_ISO_MAX];
    if (seconds < 0 || seconds > INT64_MAX / PC_US_PER_SEC) {
        return pc_fail(b->err, PC_EDATA, "a timestamp is out of range");
    }
    int len = pc_wall_format((pc_wall){seconds * PC_US_PER_SEC}, 0, text);
    return copy_typed(b, "datetime", pc_slice_of(text, (size_t)len));
}

static int
copy_decimal(void *ctx, uint8_t scale, int32_t value)
{
    char digits[DECIMAL_MAX];
    char text[DECIMAL_MAX + 2];
    uint32_t size = value < 0 ? 0 - (uint32_t)value : (uint32_t)value;
    int count = snprintf(digits, sizeof digits, "%0*" PRIu32, scale + 1, size);
    int len = snprintf(text, sizeof text, "%s%.*s%s%s", value < 0 ? "-" : "", count - scale,
                       digits, scale > 0 ? "." : "", digits + count - scale);
    return copy_typed(ctx, "decimal", pc_slice_of(text, (size_t)len));
}

static int
copy_map_start(void *ctx)
{
    pc_bridge *b = ctx;
    return b->sink->ops->map_start(b->sink, b->err);
}

static int
copy_key(void *ctx, pc_slice name)
{
    pc_bridge *b = ctx;
    return b->sink->ops->key(b->sink, name, b->err);
}

static int
copy_map_end(void *ctx)
{
    pc_bridge *b = ctx;
    return b->sink->ops->map_end(b->sink, b->err);
}

static int
copy_array_start(void *ctx)
{
    pc_bridge *b = ctx;
    return b->sink->ops->array_start(b->sink, b->err);
}

static int
copy_array_end(void *ctx)
{
    pc_bridge *b = ctx;
    return b->sink->ops->array_end(b->sink, b->err);
}

const pc_visit pc_bridge_visit = {
    .null = copy_null,
    .boolean = copy_boolean,
    .integer = copy_integer,
    .number = copy_number,
    .real = copy_real,
    .string = copy_string,
    .bytes = copy_bytes,
    .timestamp = copy_timestamp,
    .decimal = copy_decimal,
    .map_start = copy_map_start,
    .key = copy_key,
    .map_end = copy_map_end,
    .array_start = copy_array_start,
    .array_end = copy_array_end,
};
