/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_window.h"

#include "base/mem.h"
#include "io/amqp_conn.h"
#include "io/amqp_frame.h"

#define MIN_ITEMS 64u
#define KEEP_BYTES (1024u * 1024)
#define MAX_ROUTES 1000u     // messages to other exchanges go together with all
#define EXPIRATION_DIGITS 9u  // milliseconds; more may be more than a broker takes

struct pc_amqp_route {
    bool proven;
    size_t len;
    char name[];
};

void
pc_amqp_window_init(pc_amqp_window *window,
                    void (*settled)(void *ctx, void *cookie, const pc_err *why), void *ctx)
{
    *window = (pc_amqp_window){.settled = settled, .ctx = ctx};
    pc_buf_init(&window->frames);
    pc_map_init(&window->routes);
    (void)pc_amqp_window_restart(window, NULL);
}

void
pc_amqp_window_fini(pc_amqp_window *window)
{
    size_t pos = 0;
    for (pc_amqp_route *route; (route = pc_map_next(&window->routes, &pos)) != NULL;) {
        pc_free(route);
    }
    pc_map_fini(&window->routes);
    pc_buf_fini(&window->frames);
    pc_free(window->items);
    *window = (pc_amqp_window){0};
}

// ---- routes ----

static int
add_route(pc_amqp_window *window, pc_slice exchange, pc_err *err)
{
    pc_amqp_route *route = pc_zalloc(sizeof *route + exchange.len);
    if (route == NULL) {
        return pc_fail_nomem(err);
    }
    route->len = exchange.len;
    memcpy(route->name, exchange.ptr, exchange.len);
    if (pc_map_put(&window->routes, pc_slice_of(route->name, route->len), route, NULL, err) < 0) {
        pc_free(route);
        return -1;
    }
    window->last = route;
    return 0;
}

static int
find_route(pc_amqp_window *window, pc_slice exchange, pc_amqp_route **route, pc_err *err)
{
    const pc_amqp_route *last = window->last;
    *route = NULL;
    if (exchange.len == 0) {
        return 0;
    }
    if (last == NULL || !pc_slice_eq(pc_slice_of(last->name, last->len), exchange)) {
        pc_amqp_route *known = pc_map_get(&window->routes, exchange);
        if (known == NULL && window->routes.len >= MAX_ROUTES) {
            return 0;
        }
        if (known != NULL) {
            window->last = known;
        } else if (add_route(window, exchange, err) < 0) {
            return -1;
        }
    }
    *route = window->last;
    return 0;
}

void
pc_amqp_window_prove(pc_amqp_window *window, pc_slice exchange)
{
    pc_amqp_route *route = NULL;
    if (find_route(window, exchange, &route, NULL) == 0 && route != NULL) {
        route->proven = true;
    }
}

static void
doubt_all(pc_amqp_window *window)
{
    size_t pos = 0;
    for (pc_amqp_route *route; (route = pc_map_next(&window->routes, &pos)) != NULL;) {
        route->proven = false;
    }
}

static bool
is_odd(const pc_message *message)
{
    const pc_slice expiration = message->expiration;
    bool odd = message->body.len >= PC_AMQP_LARGE || expiration.len > EXPIRATION_DIGITS;
    for (size_t i = 0; i < expiration.len && !odd; i++) {
        odd = expiration.ptr[i] < '0' || expiration.ptr[i] > '9';
    }
    return odd;
}

// ---- items ----

static pc_amqp_window_item *
item_at(const pc_amqp_window *window, uint64_t number)
{
    return &window->items[number & (window->cap - 1)];
}

static int
grow(pc_amqp_window *window, pc_err *err)
{
    size_t cap = window->cap == 0 ? MIN_ITEMS : window->cap * 2;
    pc_amqp_window_item *items = pc_alloc(cap * sizeof *items);
    if (items == NULL) {
        return pc_fail_nomem(err);
    }
    for (uint64_t n = window->first; n < window->end; n++) {
        items[n & (cap - 1)] = *item_at(window, n);
    }
    pc_free(window->items);
    window->items = items;
    window->cap = cap;
    return 0;
}

static int
make_room(pc_amqp_window *window, pc_err *err)
{
    return window->end - window->first < window->cap ? 0 : grow(window, err);
}

static pc_slice
frames_of(const pc_amqp_window *window, const pc_amqp_window_item *item)
{
    return pc_slice_of(pc_buf_ptr(&window->frames) + (item->at - window->frames_at), item->len);
}

/* The frames of a new item are the last `len` bytes. */
static void
add(pc_amqp_window *window, const pc_amqp_window_item *item)
{
    pc_amqp_window_item *place = item_at(window, window->end++);
    *place = *item;
    place->at = window->frames_at + pc_buf_len(&window->frames) - item->len;
}

int
pc_amqp_window_put(pc_amqp_window *window, const pc_message *message, bool mandatory,
                   uint32_t frame_max, void *cookie, pc_err *err)
{
    pc_amqp_window_item item = {.cookie = cookie, .odd = is_odd(message)};
    size_t before = pc_buf_len(&window->frames);
    if (make_room(window, err) < 0 ||
        find_route(window, message->exchange, &item.route, err) < 0 ||
        pc_amqp_write_message(&window->frames, PC_AMQP_CHANNEL, message, mandatory, frame_max,
                              err) < 0) {
        return -1;
    }
    item.len = pc_buf_len(&window->frames) - before;
    add(window, &item);
    window->open++;
    window->open_bytes += item.len;
    return 0;
}

static bool
goes_alone(const pc_amqp_window *window, uint64_t number)
{
    const pc_amqp_window_item *item = item_at(window, number);
    return number < window->careful || item->odd || (item->route != NULL && !item->route->proven);
}

bool
pc_amqp_window_holds(const pc_amqp_window *window)
{
    return window->unsent < window->end && pc_amqp_window_under_way(window) > 0 &&
           (window->lonely || goes_alone(window, window->unsent));
}

int
pc_amqp_window_send(pc_amqp_window *window, pc_buf *out, size_t high, uint32_t frame_max,
                    pc_err *err)
{
    while (window->unsent < window->end && pc_buf_len(out) < high && !pc_amqp_window_holds(window)) {
        pc_slice frames = frames_of(window, item_at(window, window->unsent));
        bool alone = goes_alone(window, window->unsent);
        if (pc_amqp_write_again(out, frames, frame_max, err) < 0) {
            return -1;
        }
        window->lonely = alone;
        window->unsent++;
    }
    return 0;
}

/* Settled items leave when nothing older is open; so do their bytes. */
static void
let_go(pc_amqp_window *window)
{
    while (window->first < window->unsent && item_at(window, window->first)->len == 0) {
        window->first++;
    }
    uint64_t keep = window->first < window->end ? item_at(window, window->first)->at
                                                : window->frames_at + pc_buf_len(&window->frames);
    pc_buf_consume(&window->frames, (size_t)(keep - window->frames_at));
    window->frames_at = keep;
    if (pc_buf_len(&window->frames) == 0) {
        pc_buf_reset(&window->frames, KEEP_BYTES);
    }
}

static void
settle(pc_amqp_window *window, pc_amqp_window_item *item, const pc_err *why)
{
    window->open--;
    window->open_bytes -= item->len;
    item->len = 0;
    if (item->route != NULL && why == NULL) {
        item->route->proven = true;
    }
    window->settled(window->ctx, item->cookie, why);
}

void
pc_amqp_window_ack(pc_amqp_window *window, uint64_t tag, bool multiple)
{
    uint64_t last = tag + window->shift;
    // multiple with tag 0 means all
    if (multiple && (tag == 0 || last >= window->unsent)) {
        last = window->unsent - 1;
    }
    for (uint64_t n = multiple ? window->first : last; n <= last && n < window->unsent; n++) {
        if (n >= window->first && item_at(window, n)->len > 0) {
            settle(window, item_at(window, n), NULL);
        }
    }
    let_go(window);
}

/* A copy at the end takes the item's place. */
static int
move_back(pc_amqp_window *window, uint64_t number, pc_err *err)
{
    if (make_room(window, err) < 0) {
        return -1;
    }
    pc_amqp_window_item item = *item_at(window, number);
    if (pc_buf_reserve(&window->frames, item.len, err) == NULL ||
        pc_buf_put_slice(&window->frames, frames_of(window, &item), err) < 0) {
        return -1;
    }
    add(window, &item);
    item_at(window, number)->len = 0;
    return 0;
}

int
pc_amqp_window_nack(pc_amqp_window *window, uint64_t tag, bool multiple, pc_err *err)
{
    uint64_t last = tag + window->shift;
    uint64_t sent = window->unsent;
    if (multiple && (tag == 0 || last >= sent)) {
        last = sent - 1;
    }
    for (uint64_t n = multiple ? window->first : last; n <= last && n < sent; n++) {
        if (n >= window->first && item_at(window, n)->len > 0 && move_back(window, n, err) < 0) {
            return -1;
        }
    }
    let_go(window);
    return 0;
}

/* Squeezes settled items out, so that numbers and delivery tags run in parallel again. */
static void
squeeze(pc_amqp_window *window)
{
    uint64_t to = window->first;
    for (uint64_t n = window->first; n < window->end; n++) {
        if (item_at(window, n)->len > 0) {
            *item_at(window, to++) = *item_at(window, n);
        }
    }
    window->end = to;
}

static uint64_t
count_open(const pc_amqp_window *window, uint64_t below)
{
    uint64_t open = 0;
    for (uint64_t n = window->first; n < below && n < window->end; n++) {
        open += item_at(window, n)->len > 0;
    }
    return open;
}

static void
refuse(pc_amqp_window *window, const pc_err *why)
{
    for (uint64_t n = window->first; n < window->unsent; n++) {
        pc_amqp_window_item *item = item_at(window, n);
        if (item->len > 0) {
            if (item->route != NULL) {
                item->route->proven = false;
            }
            settle(window, item, why);
        }
    }
}

bool
pc_amqp_window_restart(pc_amqp_window *window, const pc_err *refusal)
{
    bool found = refusal != NULL && pc_amqp_window_under_way(window) == 1;
    bool doubtful = refusal != NULL && !found;
    uint64_t below = doubtful && window->unsent > window->careful ? window->unsent : window->careful;
    if (found) {
        refuse(window, refusal);
    } else if (doubtful) {
        doubt_all(window);
    }
    uint64_t careful = count_open(window, below);
    squeeze(window);
    window->careful = careful > 0 ? window->first + careful : 0;
    window->unsent = window->first;
    window->shift = window->first - 1;
    let_go(window);
    return found;
}

void
pc_amqp_window_cancel(pc_amqp_window *window, const void *cookie)
{
    uint64_t n = window->first;
    while (n < window->end &&
           (item_at(window, n)->len == 0 || item_at(window, n)->cookie != cookie)) {
        n++;
    }
    if (n == window->end) {
        return;
    }
    window->open--;
    window->open_bytes -= item_at(window, n)->len;
    item_at(window, n)->len = 0;
    if (n >= window->unsent) {  // among the unsent there are no gaps
        for (; n + 1 < window->end; n++) {
            *item_at(window, n) = *item_at(window, n + 1);
        }
        window->end--;
    }
    let_go(window);
}

/* Among the unsent there are no gaps: the others move up. */
size_t
pc_amqp_window_take_back(pc_amqp_window *window, uintptr_t first, uintptr_t last)
{
    size_t taken = 0;
    for (uint64_t n = window->end; n > window->unsent && last >= first; n--) {
        pc_amqp_window_item *item = item_at(window, n - 1);
        if ((uintptr_t)item->cookie == last) {
            window->open--;
            window->open_bytes -= item->len;
            item->len = 0;
            taken++;
            last--;
        }
    }
    uint64_t to = window->unsent;
    for (uint64_t n = window->unsent; n < window->end; n++) {
        if (item_at(window, n)->len > 0) {
            *item_at(window, to++) = *item_at(window, n);
        }
    }
    window->end = to;
    let_go(window);
    return taken;
}

void
pc_amqp_window_drop(pc_amqp_window *window, const pc_err *why)
{
    window->unsent = window->end;
    for (uint64_t n = window->first; n < window->end; n++) {
        if (item_at(window, n)->len > 0) {
            settle(window, item_at(window, n), why);
        }
    }
    let_go(window);
}

size_t
pc_amqp_window_under_way(const pc_amqp_window *window)
{
    return window->open - (size_t)(window->end - window->unsent);
}

bool
pc_amqp_window_has_unsent(const pc_amqp_window *window)
{
    return window->unsent < window->end;
}
