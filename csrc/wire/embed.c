/* SPDX-License-Identifier: BSD-3-Clause */
#include "wire/embed.h"

#define OPENING PC_EMBED_CHAIN "["
#define CLOSING "]" PC_EMBED_CHORD

static bool
starts_with(pc_slice text, pc_slice start)
{
    return text.len >= start.len && memcmp(text.ptr, start.ptr, start.len) == 0;
}

static bool
ends_with(pc_slice text, pc_slice end)
{
    return text.len >= end.len && memcmp(text.ptr + text.len - end.len, end.ptr, end.len) == 0;
}

/* From behind an opening quote to behind the closing one; NULL when there is none. */
static const char *
skip_string(const char *at, const char *end)
{
    for (; at < end; at++) {
        if (*at == '\\') {
            at++;
        } else if (*at == '"') {
            return at + 1;
        }
    }
    return NULL;
}

/* The list or map that starts at `at`. */
static bool
take_container(const char **at, const char *end, char opening, pc_slice *out)
{
    const char *start = *at;
    const char *p = start;
    int depth = 0;

    if (p == end || *p != opening) {
        return false;
    }
    while (p != NULL && p < end) {
        char c = *p++;
        if (c == '"') {
            p = skip_string(p, end);
        } else if (c == '[' || c == '{') {
            depth++;
        } else if ((c == ']' || c == '}') && --depth == 0) {
            *out = pc_slice_of(start, (size_t)(p - start));
            *at = p;
            return true;
        }
    }
    return false;
}

static bool
take_comma(const char **at, const char *end)
{
    if (end - *at < 2 || memcmp(*at, ", ", 2) != 0) {
        return false;
    }
    *at += 2;
    return true;
}

/* From a closing quote back to the opening one; NULL when there is none. A quote behind an odd number of backslashes
 * belongs to the string. */
static const char *
string_start(const char *begin, const char *closing)
{
    const char *p = closing;

    while (p > begin) {
        const char *slash = --p;
        if (*p != '"') {
            continue;
        }
        while (slash > begin && slash[-1] == '\\') {
            slash--;
        }
        if ((p - slash) % 2 == 0) {
            return p;
        }
    }
    return NULL;
}

/* Where the map that ends before `end` starts; NULL when there is none. */
static const char *
map_start(const char *begin, const char *end)
{
    const char *p = end;
    int depth = 0;

    if (p == begin || p[-1] != '}') {
        return NULL;
    }
    while (p > begin) {
        char c = *--p;
        if (c == '"' && (p = string_start(begin, p)) == NULL) {
            return NULL;
        }
        if (c == ']' || c == '}') {
            depth++;
        } else if ((c == '[' || c == '{') && --depth == 0) {
            return c == '{' ? p : NULL;
        }
    }
    return NULL;
}

/* The last of the links, found from behind: only its own text is looked at. */
static bool
split_list(pc_slice list, pc_links *out)
{
    const char *end = list.ptr + list.len;
    const char *next = map_start(list.ptr, end);

    if (next == NULL) {
        return false;
    }
    size_t before = (size_t)(next - list.ptr);
    if (before > 0 && (before < 3 || memcmp(next - 2, ", ", 2) != 0)) {
        return false;
    }
    out->next = pc_slice_of(next, (size_t)(end - next));
    out->rest = pc_slice_of(list.ptr, before > 0 ? before - 2 : 0);
    return true;
}

bool
pc_embed_split(pc_slice body, pc_links *out)
{
    const pc_slice opening = pc_slice_str(OPENING);
    const pc_slice closing = pc_slice_str(CLOSING);

    // most bodies are told apart here
    if (!ends_with(body, pc_slice_str(CLOSING "]")) || body.ptr[0] != '[') {
        return false;
    }
    const char *at = body.ptr + 1;
    const char *end = body.ptr + body.len - 1;
    if (!take_container(&at, end, '[', &out->args) || !take_comma(&at, end)
        || !take_container(&at, end, '{', &out->kwargs) || !take_comma(&at, end)) {
        return false;
    }
    out->embed = pc_slice_of(at, (size_t)(end - at));
    if (out->embed.len < opening.len + closing.len || !starts_with(out->embed, opening)) {
        return false;
    }
    return split_list(pc_slice_of(at + opening.len, out->embed.len - opening.len - closing.len), out);
}

int
pc_embed_put_rest(const pc_links *links, pc_buf *out, pc_err *err)
{
    if (pc_buf_put_str(out, OPENING, err) < 0 || pc_buf_put_slice(out, links->rest, err) < 0) {
        return -1;
    }
    return pc_buf_put_str(out, CLOSING, err);
}
