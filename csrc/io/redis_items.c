/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_items.h"

#include "base/mem.h"


pc_redis_item *
pc_redis_item_new(pc_redis_sender *s, const pc_redis_args *args, pc_err *err)
{
    if (args->failed) {
        pc_fail(err, args->err.code, "%s", args->err.msg);
        return NULL;
    }
    if (pc_buf_len(&args->text) > PC_REDIS_VALUE_MAX) {  // the server would only hang up
        pc_fail(err, PC_ELIMIT,
                "a message of %zu bytes; Redis takes at most 512 MiB: store the data elsewhere and "
                "send where", pc_buf_len(&args->text));
        return NULL;
    }
    pc_redis_item *it = pc_alloc(sizeof *it + pc_redis_args_room(args));
    if (it == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *it = (pc_redis_item){.sender = s};
    pc_link_init(&it->link);
    it->size = pc_redis_args_write(args, it->command);
    return it;
}

void
pc_redis_item_drop(pc_redis_item *it)
{
    pc_redis_sender *s = it->sender;
    pc_link_remove(&it->link);
    if (it->kept) {
        s->open--;
        s->open_bytes -= it->size;
        s->unsent -= !it->sent;
    }
    pc_free(it);
}

void
pc_redis_item_unsend(pc_redis_item *it)
{
    it->sender->unsent += it->sent;
    it->sent = false;
}

static void
tell_waiter(pc_redis_waiter *w, const pc_err *why)
{
    w->open--;
    if (why != NULL && !w->failed) {
        w->failed = true;
        w->err = *why;
    }
}

void
pc_redis_item_refuse(pc_redis_item *it, const pc_err *why)
{
    pc_redis_sender *s = it->sender;
    if (it->waiter != NULL) {
        tell_waiter(it->waiter, why);
    } else {
        pc_log_write(s->log, PC_ERROR, "A message was refused and is lost: %s", why->msg);
        s->has_refusal = true;
        s->refusal = *why;
    }
    pc_redis_item_drop(it);
}

void
pc_redis_item_confirm(pc_redis_item *it, const pc_reply *reply)
{
    pc_redis_sender *s = it->sender;
    if (it->mandatory && reply->type == PC_REPLY_INTEGER && reply->integer == 0) {
        s->unrouted++;
        pc_log_write(s->log, PC_WARNING, "%s: no queue is bound for a message, it is dropped (%llu so far)",
                     pc_redis_where(s->conn), (unsigned long long)s->unrouted);
    }
    if (it->waiter != NULL) {
        tell_waiter(it->waiter, NULL);
    }
    s->full = false;
    s->backoff_ns = PC_REDIS_FIRST_BACKOFF;
    pc_redis_item_drop(it);
}

size_t
pc_redis_items_take_back(pc_redis_sender *s, const pc_redis_waiter *w)
{
    size_t n = 0;
    for (pc_link *at = s->items.next, *next; at != &s->items; at = next) {
        pc_redis_item *it = PC_CONTAINER_OF(at, pc_redis_item, link);
        next = at->next;
        if (it->waiter != w) {
            continue;
        }
        it->waiter = NULL;
        it->mandatory = false;
        if (!it->sent) {
            pc_redis_item_drop(it);
            n++;
        }
    }
    return n;
}

void
pc_redis_items_drop_unsent(pc_redis_sender *s, uint64_t serial)
{
    for (pc_link *at = s->items.prev; at != &s->items; at = at->prev) {
        pc_redis_item *it = PC_CONTAINER_OF(at, pc_redis_item, link);
        if (it->serial == serial && !it->sent) {
            pc_redis_item_drop(it);
            return;
        }
    }
}

