/* SPDX-License-Identifier: BSD-3-Clause */
/* Text of the usual kind goes the quick way (json_plain.h), all other through yajl.
 *
 * yajl does not check its allocations, so they come from an arena that leaves the
 * parser by longjmp when memory is out. Nothing of yajl's is freed one by one: the
 * arena goes as a whole. Small documents live in its stack part only. */
#include "wire/json.h"

#include <setjmp.h>
#include <stdalign.h>

#include <yajl/yajl_parse.h>

#include "base/list.h"
#include "base/mem.h"
#include "wire/json_plain.h"

#define ARENA_SIZE 6144
#define TEXT_MAX ((size_t)1 << 30)  // yajl aborts on buffers near 2 GiB

typedef struct block {
    pc_link link;  // only of blocks outside the stack part
    size_t size;
    bool on_heap;
} block;

#define BLOCK_HEAD ((sizeof(block) + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1))

typedef struct parser {
    const pc_visit *visit;
    void *ctx;
    int depth;
    bool too_deep;
    size_t used;
    pc_link heap;  // blocks
    jmp_buf no_memory;
    alignas(max_align_t) char arena[ARENA_SIZE];
} parser;

static void *
arena_alloc(void *ctx, size_t size)
{
    parser *p = ctx;
    size_t need = BLOCK_HEAD + ((size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1));
    bool on_heap = need > ARENA_SIZE - p->used;
    char *memory = on_heap ? pc_alloc(need) : p->arena + p->used;
    if (memory == NULL) {
        longjmp(p->no_memory, 1);
    }
    block *made = (block *)(void *)memory;
    made->size = size;
    made->on_heap = on_heap;
    pc_link_init(&made->link);
    if (on_heap) {
        pc_list_put_back(&p->heap, &made->link);
    } else {
        p->used += need;
    }
    return memory + BLOCK_HEAD;
}

static void *
grow_heap_block(parser *p, block *old, size_t size)
{
    pc_link_remove(&old->link);
    block *made = pc_realloc(old, BLOCK_HEAD + size);
    if (made == NULL) {
        pc_list_put_back(&p->heap, &old->link);
        longjmp(p->no_memory, 1);
    }
    made->size = size;
    pc_list_put_back(&p->heap, &made->link);
    return (char *)made + BLOCK_HEAD;
}

static void *
arena_realloc(void *ctx, void *ptr, size_t size)
{
    if (ptr == NULL) {
        return arena_alloc(ctx, size);
    }
    block *old = (block *)(void *)((char *)ptr - BLOCK_HEAD);
    if (size <= old->size) {
        return ptr;
    }
    if (old->on_heap) {
        return grow_heap_block(ctx, old, size);
    }
    void *made = arena_alloc(ctx, size);
    memcpy(made, ptr, old->size);
    return made;
}

static void
arena_free(void *ctx, void *ptr)
{
    (void)ctx;
    (void)ptr;
}

static void
arena_fini(parser *p)
{
    for (pc_link *link; (link = pc_list_take_front(&p->heap)) != NULL;) {
        pc_free(PC_CONTAINER_OF(link, block, link));
    }
}

/* yajl wants 1 to go on and 0 to stop; the visitor 0 and -1. */
static int
on_null(void *ctx)
{
    parser *p = ctx;
    return p->visit->null == NULL || p->visit->null(p->ctx) == 0;
}

static int
on_boolean(void *ctx, int value)
{
    parser *p = ctx;
    return p->visit->boolean == NULL || p->visit->boolean(p->ctx, value) == 0;
}

static int
on_number(void *ctx, const char *text, size_t len)
{
    parser *p = ctx;
    return pc_json_number(p->visit, p->ctx, pc_slice_of(text, len)) == 0;
}

static int
on_string(void *ctx, const unsigned char *text, size_t len)
{
    parser *p = ctx;
    return p->visit->string == NULL
           || p->visit->string(p->ctx, pc_slice_of((const char *)text, len)) == 0;
}

static int
on_key(void *ctx, const unsigned char *text, size_t len)
{
    parser *p = ctx;
    return p->visit->key == NULL
           || p->visit->key(p->ctx, pc_slice_of((const char *)text, len)) == 0;
}

static int
enter(parser *p, int (*start)(void *))
{
    if (++p->depth > PC_JSON_MAX_DEPTH) {
        p->too_deep = true;
        return 0;
    }
    return start == NULL || start(p->ctx) == 0;
}

static int
leave(parser *p, int (*end)(void *))
{
    p->depth--;
    return end == NULL || end(p->ctx) == 0;
}

static int
on_map_start(void *ctx)
{
    parser *p = ctx;
    return enter(p, p->visit->map_start);
}

static int
on_map_end(void *ctx)
{
    parser *p = ctx;
    return leave(p, p->visit->map_end);
}

static int
on_array_start(void *ctx)
{
    parser *p = ctx;
    return enter(p, p->visit->array_start);
}

static int
on_array_end(void *ctx)
{
    parser *p = ctx;
    return leave(p, p->visit->array_end);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_map_start,
    .yajl_map_key = on_key,
    .yajl_end_map = on_map_end,
    .yajl_start_array = on_array_start,
    .yajl_end_array = on_array_end,
};

/* The code unit of an escape "\uXXXX" at `at`, or 0 when there is none. */
static unsigned
escape_at(const char *at, const char *end)
{
    unsigned unit = 0;
    if (end - at < 6 || at[0] != '\\' || at[1] != 'u') {
        return 0;
    }
    for (int i = 2; i < 6; i++) {
        unsigned c = (unsigned char)at[i];
        unsigned digit = c - '0' <= 9 ? c - '0' : (c | 0x20) - 'a' + 10;
        if (digit > 15) {
            return 0;
        }
        unit = unit << 4 | digit;
    }
    return unit;
}

/* yajl silently damages surrogates that are not in pairs; Python keeps them. */
static bool
surrogates_paired(pc_slice text)
{
    const char *at = text.ptr;
    const char *end = text.ptr + text.len;
    while ((at = memchr(at, '\\', (size_t)(end - at))) != NULL) {
        unsigned unit = escape_at(at, end);
        if ((unit & 0xfc00) == 0xdc00) {
            return false;
        }
        if ((unit & 0xfc00) == 0xd800) {
            if ((escape_at(at + 6, end) & 0xfc00) != 0xdc00) {
                return false;
            }
            at += 6;
        }
        at += unit != 0 ? 6 : 2;  // 2: an escaped backslash must not start an escape
        if (at >= end) {
            break;
        }
    }
    return true;
}

/* yajl takes \v and \f for white space; they are errors wherever they stand. */
static bool
decidable(pc_slice text)
{
    return memchr(text.ptr, '\v', text.len) == NULL && memchr(text.ptr, '\f', text.len) == NULL
           && surrogates_paired(text);
}

static pc_code
parse(parser *p, pc_slice text)
{
    yajl_alloc_funcs funcs = {arena_alloc, arena_realloc, arena_free, p};
    if (setjmp(p->no_memory) != 0) {
        return PC_ENOMEM;
    }
    yajl_handle handle = yajl_alloc(&callbacks, &funcs, p);
    if (handle == NULL) {
        return PC_ENOMEM;
    }
    yajl_config(handle, yajl_dont_validate_strings, 1);
    yajl_status status = yajl_parse(handle, (const unsigned char *)text.ptr, text.len);
    if (status == yajl_status_ok) {
        // Without it a string that is open at the end of the text, as in `[]"`, goes unnoticed.
        status = yajl_parse(handle, (const unsigned char *)"\n", 1);
    }
    if (status == yajl_status_ok) {
        status = yajl_complete_parse(handle);
    }
    if (status == yajl_status_client_canceled && !p->too_deep) {
        return PC_ESTATE;
    }
    return status == yajl_status_ok ? PC_OK : PC_EFALLBACK;
}

/* Anything that the quick way leaves open. */
static pc_code
walk(pc_slice text, const pc_visit *visit, void *ctx)
{
    parser p;
    if (!decidable(text)) {
        return PC_EFALLBACK;
    }
    p.visit = visit;
    p.ctx = ctx;
    p.depth = 0;
    p.too_deep = false;
    p.used = 0;
    pc_link_init(&p.heap);
    pc_code code = parse(&p, text);
    arena_fini(&p);
    return code;
}

int
pc_json_visit(pc_slice text, const pc_visit *visit, void *ctx, pc_err *err)
{
    if (err != NULL) {
        err->code = PC_OK;  // so that we see whether a callback filled it
    }
    if (text.len == 0 || text.len > TEXT_MAX) {
        return pc_fail(err, PC_EFALLBACK, "JSON text is empty or too large");
    }
    switch (pc_json_is_plain(text) ? pc_json_plain_walk(text, visit, ctx) : walk(text, visit, ctx)) {
    case PC_OK:
        return 0;
    case PC_ENOMEM:
        return pc_fail_nomem(err);
    case PC_ESTATE:
        return err != NULL && err->code != PC_OK
                   ? -1
                   : pc_fail(err, PC_ESTATE, "the reader of the JSON text stopped");
    default:
        return pc_fail(err, PC_EFALLBACK, "not plain JSON, or nested deeper than %d levels",
                       PC_JSON_MAX_DEPTH);
    }
}

static void
tame_constant(char *at, const char *end, const char *constant, const char *number)
{
    size_t len = strlen(constant);
    if ((size_t)(end - at) >= len && memcmp(at, constant, len) == 0) {
        memcpy(at, number, len);
    }
}

/* The escape at `at`; returns what is behind it. */
static char *
tame_escape(char *at, const char *end)
{
    unsigned unit = escape_at(at, end);
    bool high = (unit & 0xfc00) == 0xd800;
    if (high && (escape_at(at + 6, end) & 0xfc00) == 0xdc00) {
        return at + 12;
    }
    if (high || (unit & 0xfc00) == 0xdc00) {
        memcpy(at + 2, "fffd", 4);
    }
    return at + (unit != 0 ? 6 : 2);
}

int
pc_json_tame(pc_slice text, pc_buf *out, pc_err *err)
{
    char *at = pc_buf_reserve(out, text.len, err);
    bool in_string = false;
    if (at == NULL) {
        return -1;
    }
    memcpy(at, text.ptr, text.len);
    pc_buf_commit(out, text.len);
    for (char *end = at + text.len; at < end;) {
        if (in_string && *at == '\\') {
            at = tame_escape(at, end);
            continue;
        }
        if (*at == '"') {
            in_string = !in_string;
        } else if (!in_string && *at == 'N') {
            tame_constant(at, end, "NaN", "0.0");
        } else if (!in_string && *at == 'I') {
            tame_constant(at, end, "Infinity", "1e999999");
        }
        at++;
    }
    return 0;
}
