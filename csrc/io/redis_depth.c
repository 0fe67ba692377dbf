/* SPDX-License-Identifier: BSD-3-Clause */
/* How many messages wait in the queues of a Redis source: one question per queue, one after the other. */
#include "io/redis_source.h"

/* The first from this id on: they are not in order, and few. */
static const pc_redis_consumer *
find_from(const pc_redis_source *src, uint32_t id)
{
    const pc_redis_consumer *found = NULL;

    for (const pc_link *at = src->queues.list.next; at != &src->queues.list; at = at->next) {
        const pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (c->id >= id && (found == NULL || c->id < found->id)) {
            found = c;
        }
    }
    return found;
}

static void look_next(pc_redis_source *src);

static void
on_depth(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_source *src = ctx;
    const pc_redis_consumer *c = find_from(src, src->depth_of);

    if (why != NULL || reply->type != PC_REPLY_INTEGER) {
        src->depth_of = 0;
        return;
    }
    if (c != NULL && c->id == src->depth_of) {  // it may be gone by now
        src->base.hooks.depth(src->base.hooks.ctx, c->queue->name, (uint64_t)reply->integer);
    }
    look_next(src);
}

static void
look_next(pc_redis_source *src)
{
    const pc_redis_consumer *next = find_from(src, src->depth_of + 1);

    src->depth_of = 0;
    if (next == NULL || !src->is_up || src->paused) {
        return;
    }
    pc_redis_args_reset(&src->args);
    pc_redis_eval_begin(PC_ASK_SIZE, src->names.nsteps, &src->args);
    for (size_t i = 0; i < src->names.nsteps; i++) {
        pc_redis_args_end(&src->args, pc_redis_put_list(&src->names, pc_slice_str(next->queue->name),
                                                        src->names.steps[i], &src->args.text, &src->args.err));
    }
    if (pc_redis_args_send(&src->args, src->conn, on_depth, src, NULL) == 0) {
        src->depth_of = next->id;
    }
}

void
pc_redis_source_look(pc_source *base)
{
    pc_redis_source *src = (pc_redis_source *)(void *)base;

    if (src->depth_of == 0) {
        look_next(src);
    }
}
