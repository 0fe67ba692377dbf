/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_queues.h"

#include "base/mem.h"
#include "io/amqp_copy.h"
#include "wire/json_out.h"

int
pc_redis_queues_init(pc_redis_queues *queues, const char *order, pc_err *err)
{
    static const char *const names[] = {"round_robin", "priority", "sorted"};
    *queues = (pc_redis_queues){.len = 0};
    pc_link_init(&queues->list);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (order == NULL || strcmp(order, names[i]) == 0) {
            queues->order = (pc_redis_order)i;
            return 0;
        }
    }
    return pc_fail(err, PC_EUNSUP,
                   "no queue_order_strategy %s: use round_robin, priority or sorted", order);
}

static void
free_consumer(pc_redis_consumer *c)
{
    if (c != NULL) {
        pc_link_remove(&c->link);
        pc_free(c->queue);
        pc_buf_fini(&c->tail);
        pc_buf_fini(&c->channel);
        pc_free(c);
    }
}

void
pc_redis_queues_fini(pc_redis_queues *queues)
{
    while (queues->list.next != NULL && !pc_list_empty(&queues->list)) {
        free_consumer(PC_CONTAINER_OF(queues->list.next, pc_redis_consumer, link));
    }
}

pc_redis_consumer *
pc_redis_queues_find(const pc_redis_queues *queues, const char *name)
{
    for (pc_link *at = queues->list.next; at != &queues->list; at = at->next) {
        pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (strcmp(c->queue->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static int
make_tail(pc_redis_consumer *c, pc_err *err)
{
    if (pc_buf_put_str(&c->tail, ", \"\", ", err) < 0
        || pc_json_put_string(&c->tail, pc_slice_str(c->queue->name), err) < 0) {
        return -1;
    }
    return pc_buf_put_u8(&c->tail, ']', err);
}

static int
make_channel(pc_redis_consumer *c, const pc_redis_names *names, pc_err *err)
{
    const pc_queue *queue = c->queue;
    if (!pc_redis_is_fanout(queue)) {
        return 0;
    }
    if (pc_redis_put_channel(names, pc_slice_str(queue->exchange), pc_slice_str(queue->routing_key),
                             &c->channel, err) < 0) {
        return -1;
    }
    // kombu's way to say "whatever the key is"
    char *at = pc_buf_ptr(&c->channel);
    for (size_t i = names->channels.len + strlen(queue->exchange); i < pc_buf_len(&c->channel); i++) {
        at[i] = at[i] == '#' ? '*' : at[i];
    }
    return 0;
}

static void
insert(pc_redis_queues *queues, pc_redis_consumer *c)
{
    pc_link *before = queues->list.prev;
    while (queues->order == PC_ORDER_SORTED && before != &queues->list
           && strcmp(PC_CONTAINER_OF(before, pc_redis_consumer, link)->queue->name, c->queue->name)
                  > 0) {
        before = before->prev;
    }
    pc_list_put_after(before, &c->link);
    queues->len++;
}

pc_redis_consumer *
pc_redis_queues_add(pc_redis_queues *queues, const pc_redis_names *names, const pc_queue *queue,
                    pc_err *err)
{
    pc_redis_consumer *c = pc_zalloc(sizeof *c);
    if (c == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&c->link);
    pc_buf_init(&c->tail);
    pc_buf_init(&c->channel);
    c->queue = pc_amqp_copy_queue(queue, err);
    if (c->queue == NULL || (!queue->no_ack && make_tail(c, err) < 0)
        || make_channel(c, names, err) < 0) {
        free_consumer(c);
        return NULL;
    }
    c->id = ++queues->last_id;
    insert(queues, c);
    return c;
}

void
pc_redis_queues_drop(pc_redis_queues *queues, pc_redis_consumer *consumer)
{
    free_consumer(consumer);
    queues->len--;
}

int
pc_redis_asked_set(pc_redis_asked *asked, const pc_redis_queues *queues, pc_err *err)
{
    if (queues->len > asked->cap) {
        uint32_t *ids = pc_realloc(asked->ids, queues->len * sizeof *ids);
        if (ids == NULL) {
            return pc_fail_nomem(err);
        }
        asked->ids = ids;
        asked->cap = queues->len;
    }
    asked->len = 0;
    for (pc_link *at = queues->list.next; at != &queues->list; at = at->next) {
        asked->ids[asked->len++] = PC_CONTAINER_OF(at, pc_redis_consumer, link)->id;
    }
    return 0;
}

void
pc_redis_asked_fini(pc_redis_asked *asked)
{
    pc_free(asked->ids);
    *asked = (pc_redis_asked){.len = 0};
}

pc_redis_consumer *
pc_redis_queues_served(pc_redis_queues *queues, const pc_redis_asked *asked, int64_t place)
{
    if (place < 1 || place > (int64_t)asked->len) {
        return NULL;
    }
    for (pc_link *at = queues->list.next; at != &queues->list; at = at->next) {
        pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
        if (c->id == asked->ids[place - 1]) {
            if (queues->order == PC_ORDER_ROUND_ROBIN) {
                pc_link_remove(&c->link);
                pc_list_put_back(&queues->list, &c->link);
            }
            return c;
        }
    }
    return NULL;
}

void
pc_redis_queues_put_lists(const pc_redis_queues *queues, const pc_redis_names *names,
                          pc_redis_args *args)
{
    for (size_t i = 0; i < names->nsteps; i++) {
        for (pc_link *at = queues->list.next; at != &queues->list; at = at->next) {
            const pc_redis_consumer *c = PC_CONTAINER_OF(at, pc_redis_consumer, link);
            pc_redis_args_end(args, pc_redis_put_list(names, pc_slice_str(c->queue->name),
                                                      names->steps[i], &args->text, &args->err));
        }
    }
}

void
pc_redis_queues_put_tails(const pc_redis_queues *queues, pc_redis_args *args)
{
    for (pc_link *at = queues->list.next; at != &queues->list; at = at->next) {
        pc_redis_args_add(args, pc_buf_slice(&PC_CONTAINER_OF(at, pc_redis_consumer, link)->tail));
    }
}
