/* SPDX-License-Identifier: BSD-3-Clause */
/* Published messages that the broker has not confirmed yet: their encoded frames in order, so that
 * they can be written again after a reconnect. No connection in here, only what was and is to be
 * written.
 *
 * A message of the window is unsent, sent, or settled (confirmed or refused) while an older one is
 * not. Messages are let go from the front, so settled() is called in the order of put(), except
 * that a message which the broker nacked goes to the end.
 *
 * When the broker closes the channel because of a publish, it does not say of which, nor what it has
 * taken of those that were under way: all are sent again, one by one ("careful"), and the one that
 * fails alone is at fault. Those that had been taken arrive twice. So what is likely to be refused goes
 * alone the first time: messages to an exchange that is neither declared nor known to take any, and
 * those whose size or expiration the broker may not like. */
#ifndef PC_IO_AMQP_WINDOW_H
#define PC_IO_AMQP_WINDOW_H

#include "base/buf.h"
#include "base/map.h"
#include "wire/message.h"

#define PC_AMQP_LARGE ((size_t)1024 * 1024)  // bodies that brokers may have a limit for

typedef struct pc_amqp_route pc_amqp_route;

typedef struct pc_amqp_window_item {
    uint64_t at;  // of its frames, counted from the first byte ever put
    size_t len;   // 0: settled
    void *cookie;
    pc_amqp_route *route;  // its exchange; NULL: one that is always there
    bool odd;              // goes alone, wherever to
} pc_amqp_window_item;

typedef struct pc_amqp_window {
    pc_buf frames;
    uint64_t frames_at;          // position of the first byte in `frames`
    pc_amqp_window_item *items;  // ring
    size_t cap;                  // power of two, or 0
    uint64_t first;              // number of the oldest item
    uint64_t unsent;             // number of the oldest item not sent on this channel
    uint64_t end;                // number of the next item
    uint64_t shift;              // number of an item that was sent - its delivery tag
    uint64_t careful;            // items below are sent one by one
    bool lonely;                 // what is under way went alone, and stays so
    pc_map routes;               // by exchange
    pc_amqp_route *last;         // the one looked for last
    size_t open;                 // items neither confirmed nor refused
    size_t open_bytes;
    /* why NULL: confirmed. `cookie` is as given to put(). */
    void (*settled)(void *ctx, void *cookie, const pc_err *why);
    void *ctx;
} pc_amqp_window;

void pc_amqp_window_init(pc_amqp_window *window,
                         void (*settled)(void *ctx, void *cookie, const pc_err *why), void *ctx);
void pc_amqp_window_fini(pc_amqp_window *window);

/* Encodes the message and keeps it, unsent. On failure nothing has changed. */
int pc_amqp_window_put(pc_amqp_window *window, const pc_message *message, bool mandatory,
                       uint32_t frame_max, void *cookie, pc_err *err);
/* Writes unsent messages until `out` holds `high` bytes. */
int pc_amqp_window_send(pc_amqp_window *window, pc_buf *out, size_t high, uint32_t frame_max,
                        pc_err *err);
/* The broker confirmed. */
void pc_amqp_window_ack(pc_amqp_window *window, uint64_t tag, bool multiple);
/* The broker would not take it now: to the end of the queue, unsent. */
int pc_amqp_window_nack(pc_amqp_window *window, uint64_t tag, bool multiple, pc_err *err);
/* A new channel: all are unsent, tags start at 1. `refusal` (or NULL) is why the broker closed the
 * last one over a publish. True when that settled the culprit. */
bool pc_amqp_window_restart(pc_amqp_window *window, const pc_err *refusal);
/* The exchange is there: messages to it are sent together with others. */
void pc_amqp_window_prove(pc_amqp_window *window, pc_slice exchange);
/* Something is held back until what went alone is confirmed. */
bool pc_amqp_window_holds(const pc_amqp_window *window);
/* Takes back the message put with this cookie, without a callback; it is not sent (again). */
void pc_amqp_window_cancel(pc_amqp_window *window, const void *cookie);
/* The same for unsent messages that were put one after the other with the cookies first to last,
 * from the last one back; returns how many. */
size_t pc_amqp_window_take_back(pc_amqp_window *window, uintptr_t first, uintptr_t last);
/* Lets all go; settled() is called for each. */
void pc_amqp_window_drop(pc_amqp_window *window, const pc_err *why);

/* Messages sent and not settled. */
size_t pc_amqp_window_under_way(const pc_amqp_window *window);
bool pc_amqp_window_has_unsent(const pc_amqp_window *window);

#endif
