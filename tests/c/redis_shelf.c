/* SPDX-License-Identifier: BSD-3-Clause */
#include "redis_shelf.h"

#include "harness.h"

static void
on_stored(void *ctx, void *cookie, const pc_err *why)
{
    redis_shelf *f = ctx;
    PC_ASSERT((size_t)(uintptr_t)cookie == f->stored, "answer %zu for item %zu", f->stored,
              (size_t)(uintptr_t)cookie);
    f->stored++;
    if (why != NULL) {
        f->refused++;
        f->why = *why;
    }
}

static void
on_down(void *ctx, const pc_err *why)
{
    redis_shelf *f = ctx;
    f->downs++;
    f->down = *why;
}

static void
on_up(void *ctx)
{
    ((redis_shelf *)ctx)->ups++;
}

pc_store_hooks
redis_shelf_hooks(redis_shelf *f)
{
    return (pc_store_hooks){on_stored, on_down, on_up, f};
}

void
redis_shelf_open(redis_shelf *f)
{
    pc_err err = {0};
    pc_store_hooks hooks = redis_shelf_hooks(f);
    f->loop = pc_loop_new(&err);
    PC_ASSERT(f->loop != NULL, "%s", err.msg);
    f->store = pc_store_redis.create(&f->config, f->loop, &hooks, NULL, &err);
    PC_ASSERT(f->store != NULL, "%s", err.msg);
}

void
redis_shelf_close(redis_shelf *f)
{
    pc_store_redis.destroy(f->store);
    pc_loop_free(f->loop);
    redis_rig_clean(&f->config);
}

int
redis_shelf_put(redis_shelf *f, const pc_store_item *item, pc_err *err)
{
    int rc = pc_store_redis.put(f->store, item, (void *)(uintptr_t)f->put, err);
    f->put += rc == 0;
    return rc;
}

void
redis_shelf_settle(redis_shelf *f, double seconds)
{
    pc_mono end = redis_rig_in(seconds);
    while (f->stored < f->put && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(f->loop, end, NULL) >= 0);
    }
    PC_ASSERT(f->stored == f->put, "%zu of %zu stored; down: %s", f->stored, f->put, f->down.msg);
    PC_ASSERT_INT(pc_store_redis.pending(f->store), 0);
}
