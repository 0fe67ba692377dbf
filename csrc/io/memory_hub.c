/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. One mutex guards everything below pc_hub and is held for a few moves of pointers at a
 * time, and for the copies of a message. A publisher notifies the subscribed sources (each
 * writes to its own eventfd); the sources then take messages on their own loop's thread. Threads
 * that wait for a result sleep in a park that the writer wakes. Nothing here blocks but the mutex.
 */
#include "io/memory_hub.h"

#include "base/mem.h"

pc_hub *
pc_hub_new(pc_err *err)
{
    pc_hub *hub = pc_zalloc(sizeof *hub);
    if (hub == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    if (pthread_mutex_init(&hub->lock, NULL) != 0) {
        pc_fail(err, PC_ENOMEM, "cannot create a mutex");
        pc_free(hub);
        return NULL;
    }
    pc_map_init(&hub->queues);
    pc_routes_init(&hub->routes);
    pc_docs_init(&hub->docs);
    return hub;
}

void
pc_hub_abandon(pc_hub *hub)
{
    (void)pthread_mutex_init(&hub->lock, NULL);  // a thread that is not here may have it locked
    hub->sealed = false;
    pc_map_init(&hub->queues);
    pc_routes_init(&hub->routes);
    pc_docs_init(&hub->docs);
}

void
pc_hub_seal(pc_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    hub->sealed = true;
    pthread_mutex_unlock(&hub->lock);
}

static int
check_open(const pc_hub *hub, pc_err *err)
{
    return !hub->sealed
               ? 0
               : pc_fail(err, PC_EUNSUP, "memory:// ends with its process, and a child of the prefork pool is another one: "
                                         "use the pool threads or solo, or another broker");
}

static void
unref(pc_hub_queue *queue)
{
    if (--queue->refs == 0) {
        pc_free(queue);
    }
}

/* Frees what is ready; returns how many. */
static uint64_t
empty(pc_hub_queue *queue)
{
    uint64_t count = queue->ready;
    for (int i = 0; i < PC_HUB_PRIORITIES; i++) {
        pc_link *link = NULL;
        while ((link = pc_list_take_front(&queue->lanes[i])) != NULL) {
            pc_free(PC_CONTAINER_OF(link, pc_hub_message, link));
        }
    }
    queue->ready = 0;
    return count;
}

void
pc_hub_free(pc_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    size_t pos = 0;
    pc_hub_queue *queue = NULL;
    while ((queue = pc_map_next(&hub->queues, &pos)) != NULL) {
        empty(queue);
        unref(queue);
    }
    pc_map_fini(&hub->queues);
    pc_routes_fini(&hub->routes);
    pc_docs_fini(&hub->docs);
    pthread_mutex_destroy(&hub->lock);
    pc_free(hub);
}

/* --- queues --- */

static pc_hub_queue *
new_queue(pc_slice name, bool auto_delete)
{
    pc_hub_queue *queue = pc_zalloc(sizeof *queue + name.len);
    if (queue == NULL) {
        return NULL;
    }
    for (int i = 0; i < PC_HUB_PRIORITIES; i++) {
        pc_link_init(&queue->lanes[i]);
    }
    pc_link_init(&queue->subs);
    pc_link_init(&queue->chosen);
    queue->auto_delete = auto_delete;
    queue->refs = 1;
    queue->name_len = name.len;
    memcpy(queue->name, name.ptr, name.len);
    return queue;
}

static pc_slice
name_of(const pc_hub_queue *queue)
{
    return pc_slice_of(queue->name, queue->name_len);
}

static pc_hub_queue *
find_queue(const pc_hub *hub, const char *name, pc_err *err)
{
    pc_hub_queue *queue = pc_map_get(&hub->queues, pc_slice_str(name));
    if (queue == NULL) {
        pc_fail(err, PC_ENOTFOUND, "there is no queue %s in the memory broker: declare it first",
                name);
    }
    return queue;
}

static pc_hub_queue *
make_queue(pc_hub *hub, const pc_queue *spec, pc_err *err)
{
    pc_slice name = pc_slice_str(spec->name);
    pc_hub_queue *queue = pc_map_get(&hub->queues, name);
    if (queue != NULL) {
        return queue;
    }
    if (spec->passive || spec->no_declare) {
        return find_queue(hub, spec->name, err);
    }
    queue = new_queue(name, spec->auto_delete);
    if (queue == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    if (pc_map_put(&hub->queues, name_of(queue), queue, NULL, err) != 0) {
        unref(queue);
        return NULL;
    }
    return queue;
}

static int
declare(pc_hub *hub, const pc_queue *spec, pc_err *err)
{
    const char *exchange = spec->exchange;
    bool bound = exchange != NULL && exchange[0] != '\0' && !spec->no_declare && !spec->passive;
    if (check_open(hub, err) != 0) {
        return -1;
    }
    if (bound && pc_routes_declare(&hub->routes, exchange, spec->exchange_type, err) != 0) {
        return -1;
    }
    if (spec->name == NULL || spec->name[0] == '\0') {
        return 0;
    }
    pc_hub_queue *queue = make_queue(hub, spec, err);
    if (queue == NULL) {
        return -1;
    }
    return !bound ? 0 : pc_routes_bind(&hub->routes, exchange, spec->routing_key, queue, err);
}

int
pc_hub_declare(pc_hub *hub, const pc_queue *spec, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    int rc = declare(hub, spec, err);
    pthread_mutex_unlock(&hub->lock);
    return rc;
}

static void
notify(const pc_hub_queue *queue)
{
    pc_link *link = queue->subs.next;
    for (; link != &queue->subs; link = link->next) {
        const pc_hub_sub *sub = PC_CONTAINER_OF(link, pc_hub_sub, link);
        sub->notify(sub->ctx);
    }
}

static void
delete_queue(pc_hub *hub, pc_hub_queue *queue)
{
    pc_map_take(&hub->queues, name_of(queue));
    pc_routes_unbind(&hub->routes, queue);
    empty(queue);
    queue->deleted = true;
    notify(queue);
    unref(queue);
}

/* --- messages --- */

static size_t
lane_of(const pc_message *message)
{
    int priority = message->priority < 0 ? 0 : message->priority;
    return priority < PC_HUB_PRIORITIES ? (size_t)priority : PC_HUB_PRIORITIES - 1;
}

static pc_hub_message *
new_message(const pc_message *from)
{
    pc_hub_message *copy = pc_alloc(sizeof *copy + pc_message_slices_size(from));
    if (copy != NULL) {
        pc_link_init(&copy->link);
        copy->queue = NULL;
        pc_message_copy_to(&copy->message, from, copy->bytes);
        copy->message.redelivered = false;
        copy->message.tag = 0;
    }
    return copy;
}

static void
enqueue(pc_hub_queue *queue, pc_hub_message *m)
{
    m->queue = queue;
    pc_list_put_back(&queue->lanes[lane_of(&m->message)], &m->link);
    queue->ready++;
    notify(queue);
}

static void
choose(void *ctx, void *target)
{
    pc_link *targets = ctx;
    pc_hub_queue *queue = target;
    if (!pc_link_in(&queue->chosen)) {
        pc_list_put_back(targets, &queue->chosen);
    }
}

static int
route(pc_hub *hub, const pc_message *message, pc_link *targets, pc_err *err)
{
    if (message->exchange.len > 0) {
        return pc_routes_find(&hub->routes, message->exchange, message->routing_key, choose,
                              targets, err);
    }
    pc_hub_queue *queue = pc_map_get(&hub->queues, message->routing_key);
    if (queue != NULL) {
        choose(targets, queue);
    }
    return 0;
}

static void
free_copies(pc_link *copies)
{
    pc_link *link = NULL;
    while ((link = pc_list_take_front(copies)) != NULL) {
        pc_free(PC_CONTAINER_OF(link, pc_hub_message, link));
    }
}

/* Adds copies of the first one until there is one for each target: all before any is queued,
 * so that a publish that fails for want of memory reaches nobody. */
static int
multiply(pc_link *copies, const pc_link *targets, pc_err *err)
{
    const pc_hub_message *first = PC_CONTAINER_OF(copies->next, pc_hub_message, link);
    const pc_link *at = targets->next->next;
    for (; at != targets; at = at->next) {
        pc_hub_message *copy = new_message(&first->message);
        if (copy == NULL) {
            return pc_fail_nomem(err);
        }
        pc_list_put_back(copies, &copy->link);
    }
    return 0;
}

/* `copies` holds one copy of the message; it is empty afterwards when all went well. */
static int
distribute(pc_hub *hub, pc_link *copies, bool mandatory, pc_err *err)
{
    pc_link targets;
    pc_link_init(&targets);
    const pc_message *message = &PC_CONTAINER_OF(copies->next, pc_hub_message, link)->message;
    int rc = route(hub, message, &targets, err);
    if (rc == 0 && pc_list_empty(&targets) && mandatory) {
        rc = pc_fail(err, PC_ENOTFOUND, "no queue takes routing key %.*s of exchange \"%.*s\"",
                     (int)message->routing_key.len, message->routing_key.ptr,
                     (int)message->exchange.len, message->exchange.ptr);
    }
    if (rc == 0 && !pc_list_empty(&targets)) {
        rc = multiply(copies, &targets, err);
    }
    pc_link *link = NULL;
    while ((link = pc_list_take_front(&targets)) != NULL) {
        if (rc == 0) {
            enqueue(PC_CONTAINER_OF(link, pc_hub_queue, chosen),
                    PC_CONTAINER_OF(pc_list_take_front(copies), pc_hub_message, link));
        }
    }
    return rc;
}

static int
publish_locked(pc_hub *hub, const pc_message *message, bool mandatory, pc_err *err)
{
    if (check_open(hub, err) != 0) {
        return -1;
    }
    pc_hub_message *copy = new_message(message);
    if (copy == NULL) {
        return pc_fail_nomem(err);
    }
    pc_link copies;
    pc_link_init(&copies);
    pc_list_put_back(&copies, &copy->link);
    int rc = distribute(hub, &copies, mandatory, err);
    free_copies(&copies);
    return rc;
}

int
pc_hub_publish(pc_hub *hub, const pc_message *message, bool mandatory, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    int rc = publish_locked(hub, message, mandatory, err);
    pthread_mutex_unlock(&hub->lock);
    return rc;
}

int
pc_hub_publish_many(pc_hub *hub, const pc_outgoing *messages, size_t n, size_t *done, pc_err *err)
{
    int rc = 0;
    *done = 0;
    pthread_mutex_lock(&hub->lock);
    while (rc == 0 && *done < n) {
        const pc_outgoing *next = &messages[*done];
        rc = publish_locked(hub, &next->message, next->mandatory, err);
        *done += rc == 0;
    }
    pthread_mutex_unlock(&hub->lock);
    return rc;
}

static pc_hub_message *
dequeue(pc_hub_queue *queue)
{
    for (int i = PC_HUB_PRIORITIES - 1; i >= 0 && queue->ready > 0; i--) {
        pc_link *link = pc_list_take_front(&queue->lanes[i]);
        if (link != NULL) {
            queue->ready--;
            queue->refs++;
            return PC_CONTAINER_OF(link, pc_hub_message, link);
        }
    }
    return NULL;
}

pc_hub_message *
pc_hub_take(pc_hub *hub, const pc_hub_sub *sub)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_message *message = dequeue(sub->queue);
    pthread_mutex_unlock(&hub->lock);
    return message;
}

bool
pc_hub_is_deleted(pc_hub *hub, const pc_hub_sub *sub)
{
    pthread_mutex_lock(&hub->lock);
    bool deleted = sub->queue->deleted;
    pthread_mutex_unlock(&hub->lock);
    return deleted;
}

int
pc_hub_take_from(pc_hub *hub, const char *name, pc_hub_message **out, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_queue *queue = find_queue(hub, name, err);
    *out = queue == NULL ? NULL : dequeue(queue);
    pthread_mutex_unlock(&hub->lock);
    return queue == NULL ? -1 : 0;
}

void
pc_hub_requeue(pc_hub *hub, pc_hub_message *m)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_queue *queue = m->queue;
    if (queue->deleted) {
        pc_free(m);
    } else {
        m->message.redelivered = true;
        pc_list_put_front(&queue->lanes[lane_of(&m->message)], &m->link);
        queue->ready++;
        notify(queue);
    }
    unref(queue);
    pthread_mutex_unlock(&hub->lock);
}

void
pc_hub_drop(pc_hub *hub, pc_hub_message *m)
{
    pthread_mutex_lock(&hub->lock);
    unref(m->queue);
    pthread_mutex_unlock(&hub->lock);
    pc_free(m);
}

/* --- consumers --- */

int
pc_hub_subscribe(pc_hub *hub, pc_hub_sub *sub, const char *name, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_queue *queue = find_queue(hub, name, err);
    if (queue != NULL) {
        sub->queue = queue;
        pc_list_put_back(&queue->subs, &sub->link);
        queue->sub_count++;
        queue->refs++;
        sub->notify(sub->ctx);
    }
    pthread_mutex_unlock(&hub->lock);
    return queue == NULL ? -1 : 0;
}

void
pc_hub_unsubscribe(pc_hub *hub, pc_hub_sub *sub)
{
    pc_hub_queue *queue = sub->queue;
    if (queue == NULL) {
        return;
    }
    pthread_mutex_lock(&hub->lock);
    pc_link_remove(&sub->link);
    sub->queue = NULL;
    queue->sub_count--;
    if (queue->auto_delete && queue->sub_count == 0 && !queue->deleted) {
        delete_queue(hub, queue);
    }
    unref(queue);
    pthread_mutex_unlock(&hub->lock);
}

/* --- administration --- */

int
pc_hub_size(pc_hub *hub, const char *name, uint64_t *messages, uint64_t *consumers, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    const pc_hub_queue *queue = find_queue(hub, name, err);
    if (queue != NULL) {
        *messages = queue->ready;
        *consumers = queue->sub_count;
    }
    pthread_mutex_unlock(&hub->lock);
    return queue == NULL ? -1 : 0;
}

int
pc_hub_purge(pc_hub *hub, const char *name, uint64_t *messages, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_queue *queue = find_queue(hub, name, err);
    if (queue != NULL) {
        *messages = empty(queue);
    }
    pthread_mutex_unlock(&hub->lock);
    return queue == NULL ? -1 : 0;
}

int
pc_hub_remove(pc_hub *hub, const char *name, pc_err *err)
{
    pthread_mutex_lock(&hub->lock);
    pc_hub_queue *queue = find_queue(hub, name, err);
    if (queue != NULL) {
        delete_queue(hub, queue);
    }
    pthread_mutex_unlock(&hub->lock);
    return queue == NULL ? -1 : 0;
}

/* --- results --- */

int
pc_hub_put_doc(pc_hub *hub, pc_slice id, pc_slice text, bool success, double expires, pc_err *err)
{
    pc_mono now = pc_mono_now();
    pc_mono until = PC_MONO_NEVER;
    if (expires > 0 && expires < 1e9) {  // 30 years are for ever
        until = pc_mono_add(now, (int64_t)(expires * (double)PC_NS_PER_SEC));
    }
    pthread_mutex_lock(&hub->lock);
    int rc = pc_docs_put(&hub->docs, id, text, success, until, now, err);
    pthread_mutex_unlock(&hub->lock);
    return rc;
}
