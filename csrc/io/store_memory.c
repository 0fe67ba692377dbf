/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of the in-memory result store. Documents are written at once; the owner hears
 * of it at the end of the turn, as the contract of put() wants. */
#include "base/mem.h"
#include "io/memory_hub.h"
#include "io/store.h"

typedef struct answer {
    pc_link link;
    void *cookie;
} answer;

typedef struct store {
    pc_store base;
    pc_loop *loop;
    pc_hub *hub;
    double expires;
    pc_defer report;
    pc_link answers;  // in order of the puts
    size_t pending;
} store;

static store *
cast(const pc_store *base)
{
    return PC_CONTAINER_OF(base, store, base);
}

static void
on_report(void *ctx)
{
    store *s = ctx;
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&s->answers)) != NULL) {
        answer *a = PC_CONTAINER_OF(link, answer, link);
        void *cookie = a->cookie;
        pc_free(a);
        s->pending--;
        s->base.hooks.stored(s->base.hooks.ctx, cookie, NULL);
    }
}

static pc_store *
create(const pc_store_config *config, pc_loop *loop, const pc_store_hooks *hooks, const pc_log *log,
       pc_err *err)
{
    if (config->hub == NULL) {
        pc_fail(err, PC_EDATA, "the memory result store needs a hub");
        return NULL;
    }
    store *s = pc_zalloc(sizeof *s);
    if (s == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    s->base = (pc_store){.ops = &pc_store_memory, .hooks = *hooks, .log = log};
    s->loop = loop;
    s->hub = config->hub;
    s->expires = config->expires;
    pc_defer_init(&s->report, on_report, s);
    pc_link_init(&s->answers);
    return &s->base;
}

static int
put(pc_store *base, const pc_store_item *item, void *cookie, pc_err *err)
{
    store *s = cast(base);
    answer *a = pc_alloc(sizeof *a);
    if (a == NULL) {
        return pc_fail_nomem(err);
    }
    if (pc_hub_put_doc(s->hub, item->id, item->document, item->state == PC_SUCCESS, s->expires,
                       err) != 0) {
        pc_free(a);
        return -1;
    }
    a->cookie = cookie;
    pc_link_init(&a->link);
    pc_list_put_back(&s->answers, &a->link);
    s->pending++;
    pc_loop_defer(s->loop, &s->report);
    return 0;
}

static size_t
pending(const pc_store *base)
{
    return cast(base)->pending;
}

static void
abandon(pc_store *base)
{
    store *s = cast(base);
    pc_loop_undefer(s->loop, &s->report);
}

static void
destroy(pc_store *base)
{
    if (base == NULL) {
        return;
    }
    store *s = cast(base);
    pc_loop_undefer(s->loop, &s->report);
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&s->answers)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, answer, link));
    }
    pc_free(s);
}

const pc_store_ops pc_store_memory = {
    .scheme = "memory",
    .create = create,
    .put = put,
    .pending = pending,
    .abandon = abandon,
    .destroy = destroy,
};
