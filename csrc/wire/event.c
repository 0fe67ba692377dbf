/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/event.h"

#include "wire/json_out.h"

#define NS_PER_SEC 1000000000

int
pc_event_put_prefix(pc_slice hostname, int utcoffset, int pid, pc_buf *out, pc_err *err)
{
    if (pc_buf_put_str(out, "{\"hostname\": ", err) < 0 || pc_json_put_string(out, hostname, err) < 0) {
        return -1;
    }
    return pc_buf_printf(out, err, ", \"utcoffset\": %d, \"pid\": %d, \"clock\": ", utcoffset, pid);
}

static void
note(pc_event *event, int rc)
{
    event->failed = event->failed || rc < 0;
}

static void
put(pc_event *event, const char *text, size_t len)
{
    note(event, pc_buf_put(event->out, text, len, NULL));
}

void
pc_event_begin(pc_event *event, pc_buf *out, pc_slice prefix, uint64_t clock)
{
    *event = (pc_event){.out = out, .before = pc_buf_len(out)};
    put(event, prefix.ptr, prefix.len);
    note(event, pc_json_put_integer(out, (int64_t)clock, NULL));
}

static void
name_of(pc_event *event, const char *name)
{
    put(event, ", \"", 3);
    put(event, name, strlen(name));
    put(event, "\": ", 3);
}

static void
value(pc_event *event, pc_slice text)
{
    pc_err err = {0};
    size_t before = pc_buf_len(event->out);

    if (text.ptr == NULL) {
        put(event, "null", 4);
    } else if (pc_json_put_string(event->out, text, &err) < 0) {
        event->out->end = event->out->start + before;
        event->failed = event->failed || err.code == PC_ENOMEM;
        put(event, "null", 4);
    }
}

void
pc_event_text(pc_event *event, const char *name, pc_slice text)
{
    name_of(event, name);
    value(event, text);
}

void
pc_event_integer(pc_event *event, const char *name, int64_t number)
{
    name_of(event, name);
    note(event, pc_json_put_integer(event->out, number, NULL));
}

void
pc_event_boolean(pc_event *event, const char *name, bool yes)
{
    name_of(event, name);
    put(event, yes ? "true" : "false", yes ? 4 : 5);
}

/* Seconds with as many digits after the point as are needed, one at least. Much cheaper than the shortest text of a
 * double, and it reads back as the same one. */
static void
put_decimal(pc_event *event, int64_t whole, int64_t part, int digits)
{
    char text[16];
    int len = digits;

    note(event, pc_json_put_integer(event->out, whole, NULL));
    text[0] = '.';
    for (int i = digits; i > 0; i--, part /= 10) {
        text[i] = (char)('0' + part % 10);
    }
    while (len > 1 && text[len] == '0') {
        len--;
    }
    put(event, text, (size_t)len + 1);
}

void
pc_event_seconds(pc_event *event, const char *name, int64_t ns)
{
    int64_t least = ns > 0 ? ns : 0;

    name_of(event, name);
    put_decimal(event, least / NS_PER_SEC, least % NS_PER_SEC, 9);
}

void
pc_event_members(pc_event *event, pc_slice members)
{
    if (members.len > 0) {
        put(event, ", ", 2);
        put(event, members.ptr, members.len);
    }
}

int
pc_event_end(pc_event *event, pc_slice type, pc_wall when)
{
    int64_t us = when.us > 0 ? when.us : 0;

    name_of(event, "timestamp");
    put_decimal(event, us / 1000000, us % 1000000, 6);
    name_of(event, "type");
    note(event, pc_json_put_string(event->out, type, NULL));
    put(event, "}", 1);
    if (event->failed) {
        event->out->end = event->out->start + event->before;
        return -1;
    }
    return 0;
}
