/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_bell.h"

static void
close_with(pc_redis_bell *bell, const pc_err *why)
{
    pc_redis_bell_close(bell);
    bell->hooks.gone(bell->hooks.ctx, why);
}

static void
on_up(void *ctx)
{
    pc_redis_bell *bell = ctx;
    pc_err err = {0};
    pc_slice id[] = {pc_slice_str("CLIENT"), pc_slice_str("ID")};
    pc_slice subscribe[] = {pc_slice_str("SUBSCRIBE"), pc_slice_str("__redis__:invalidate")};
    if (pc_redis_subscribe(bell->conn, 2, id, &err) < 0
        || pc_redis_subscribe(bell->conn, 2, subscribe, &err) < 0) {
        close_with(bell, &err);
    }
}

static void
on_down(void *ctx, const pc_err *why)
{
    pc_redis_bell *bell = ctx;
    bell->open = false;
    bell->client = 0;
    bell->hooks.gone(bell->hooks.ctx, why);
}

static void
on_message(void *ctx, const pc_reply *reply)
{
    pc_redis_bell *bell = ctx;
    pc_err err = {0};
    if (pc_redis_check(bell->conn, reply, &err) < 0) {
        close_with(bell, &err);
    } else if (reply->type == PC_REPLY_INTEGER) {
        bell->client = reply->integer;
    } else if (bell->open) {
        bell->hooks.ring(bell->hooks.ctx);
    } else if (bell->client != 0) {
        bell->open = true;
        bell->hooks.open(bell->hooks.ctx, bell->client);
    }
}

int
pc_redis_bell_init(pc_redis_bell *bell, const pc_redis_config *config, pc_loop *loop,
                   const pc_redis_bell_hooks *hooks, pc_err *err)
{
    *bell = (pc_redis_bell){.hooks = *hooks};
    pc_redis_hooks mine = {.up = on_up, .down = on_down, .message = on_message, .ctx = bell};
    bell->conn = pc_redis_new(config, loop, &mine, err);
    return bell->conn == NULL ? -1 : 0;
}

void
pc_redis_bell_fini(pc_redis_bell *bell)
{
    pc_redis_free(bell->conn);
    bell->conn = NULL;
}

int
pc_redis_bell_connect(pc_redis_bell *bell, pc_err *err)
{
    return pc_redis_connect(bell->conn, err);
}

void
pc_redis_bell_close(pc_redis_bell *bell)
{
    bell->open = false;
    bell->client = 0;
    pc_redis_close(bell->conn);
}

void
pc_redis_bell_abandon(pc_redis_bell *bell)
{
    pc_redis_abandon(bell->conn);
}
