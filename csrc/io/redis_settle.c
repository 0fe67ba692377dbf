/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_settle.h"

#include "base/mem.h"
#include "io/redis_keeper.h"

#define ACKS_MAX 1000   // words that Lua's unpack takes with ease
#define OTHERS_MAX 100  // each is work for the server

void
pc_redis_settler_init(pc_redis_settler *s, pc_redis *conn, const pc_redis_names *names,
                      const pc_redis_scripts *scripts, const char *id,
                      void (*answered)(void *ctx, const pc_err *why), void *ctx)
{
    *s = (pc_redis_settler){.names = names,
                            .scripts = scripts,
                            .id = id,
                            .conn = conn,
                            .answered = answered,
                            .ctx = ctx};
    pc_redis_args_init(&s->args);
}

void
pc_redis_settler_fini(pc_redis_settler *s)
{
    pc_free(s->items);
    s->items = NULL;
    pc_redis_args_fini(&s->args);
}

int
pc_redis_settler_put(pc_redis_settler *s, uint64_t number, pc_redis_fate fate, pc_err *err)
{
    if (s->len == s->cap) {
        size_t cap = s->cap == 0 ? 64 : s->cap * 2;
        pc_redis_settlement *items = pc_realloc(s->items, cap * sizeof *items);
        if (items == NULL) {
            return pc_fail_nomem(err);
        }
        s->items = items;
        s->cap = cap;
    }
    s->items[s->len++] = (pc_redis_settlement){number, fate, false};
    return 0;
}

void
pc_redis_settler_rewind(pc_redis_settler *s)
{
    s->sent = 0;
    s->awaited = 0;
    s->broken = false;
    for (size_t i = 0; i < s->len; i++) {
        s->items[i].last = false;
    }
}

static void
drop_first(pc_redis_settler *s)
{
    size_t n = 0;
    while (n < s->sent && !s->items[n].last) {
        n++;
    }
    n += n < s->sent;
    memmove(s->items, s->items + n, (s->len - n) * sizeof *s->items);
    s->len -= n;
    s->sent -= n;
}

/* After a refusal all that is under way is sent again, since what an answer stands for would have
 * to be found out otherwise. */
static void
on_answer(void *ctx, const pc_reply *reply, const pc_err *why)
{
    pc_redis_settler *s = ctx;
    pc_err err = {0};
    if (why != NULL) {
        return;
    }
    s->awaited--;
    bool refused = pc_redis_check(s->conn, reply, &err) < 0;
    if (!s->broken && (!refused || err.code == PC_EDATA)) {
        drop_first(s);
    } else {
        s->broken = true;
    }
    if (s->broken && s->awaited == 0) {
        pc_redis_settler_rewind(s);
    }
    s->answered(s->ctx, refused ? &err : NULL);
}

/* What is given back to the front goes there the last first, and so keeps its order. */
static int
write_some(pc_redis_settler *s, size_t from, size_t n, pc_err *err)
{
    static const char *const names[] = {"ack", "back", "front", "dead"};
    pc_redis_fate fate = s->items[from].fate;
    pc_redis_scripts_begin(s->scripts, PC_SCRIPT_SETTLE, 4, &s->args);
    pc_redis_args_add(&s->args, s->names->index);
    pc_redis_args_add(&s->args, s->names->unacked);
    pc_redis_keeper_put_held(s->names, s->id, &s->args);
    pc_redis_args_add(&s->args, s->names->dead);
    pc_redis_args_str(&s->args, names[fate]);
    for (size_t i = 0; i < n; i++) {
        size_t at = fate == PC_REDIS_FRONT ? from + n - 1 - i : from + i;
        pc_redis_args_tag(&s->args, s->id, s->items[at].number);
    }
    return pc_redis_args_send(&s->args, s->conn, on_answer, s, err);
}

static size_t
alike(const pc_redis_settler *s)
{
    pc_redis_fate fate = s->items[s->sent].fate;
    size_t most = fate == PC_REDIS_ACK ? ACKS_MAX : OTHERS_MAX;
    size_t n = 1;
    while (n < most && s->sent + n < s->len && s->items[s->sent + n].fate == fate) {
        n++;
    }
    return n;
}

int
pc_redis_settler_write(pc_redis_settler *s, pc_err *err)
{
    while (!s->broken && s->sent < s->len) {
        size_t n = alike(s);
        if (write_some(s, s->sent, n, err) < 0) {
            return -1;
        }
        s->sent += n;
        s->items[s->sent - 1].last = true;
        s->awaited++;
    }
    return 0;
}
