/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing into the process's own hub: immediate, so that nothing is ever unconfirmed. */
#include "base/mem.h"
#include "io/memory_hub.h"

typedef struct producer {
    pc_producer base;
    pc_hub *hub;
} producer;

static pc_hub *
hub_of(pc_producer *base)
{
    return PC_CONTAINER_OF(base, producer, base)->hub;
}

static pc_producer *
create(const pc_broker_config *config, const pc_log *log, pc_err *err)
{
    if (config->hub == NULL) {
        pc_fail(err, PC_EDATA, "the memory broker needs a hub");
        return NULL;
    }
    producer *p = pc_zalloc(sizeof *p);
    if (p == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    p->base = (pc_producer){.ops = &pc_producer_memory, .log = log};
    p->hub = config->hub;
    return &p->base;
}

static int
do_nothing(pc_producer *base, pc_mono deadline, pc_err *err)
{
    (void)base;
    (void)deadline;
    (void)err;
    return 0;
}

/* The worker holds back what is not due yet: `due` means nothing here. */
static int
publish(pc_producer *base, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline, pc_err *err)
{
    (void)due;
    (void)has_due;
    (void)deadline;
    return pc_hub_publish(hub_of(base), message, mandatory, err);
}

static int
publish_many(pc_producer *base, const pc_outgoing *messages, size_t n, pc_mono deadline,
             size_t *done, pc_err *err)
{
    (void)deadline;
    return pc_hub_publish_many(hub_of(base), messages, n, done, err);
}

static size_t
unconfirmed(pc_producer *base)
{
    (void)base;
    return 0;
}

static int
declare(pc_producer *base, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    return pc_hub_declare(hub_of(base), queue, err);
}

static int
size(pc_producer *base, const char *queue, uint64_t *messages, uint64_t *consumers,
     pc_mono deadline, pc_err *err)
{
    (void)deadline;
    return pc_hub_size(hub_of(base), queue, messages, consumers, err);
}

static int
purge(pc_producer *base, const char *queue, uint64_t *messages, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    return pc_hub_purge(hub_of(base), queue, messages, err);
}

static int
remove_queue(pc_producer *base, const char *queue, pc_mono deadline, pc_err *err)
{
    (void)deadline;
    return pc_hub_remove(hub_of(base), queue, err);
}

static int
get(pc_producer *base, const char *queue, bool *found, pc_message *message, pc_buf *memory,
    pc_mono deadline, pc_err *err)
{
    (void)deadline;
    pc_hub *hub = hub_of(base);
    pc_hub_message *m = NULL;
    *found = false;
    pc_buf_reset(memory, SIZE_MAX);
    if (pc_hub_take_from(hub, queue, &m, err) != 0) {
        return -1;
    }
    if (m == NULL) {
        return 0;
    }
    size_t len = pc_message_slices_size(&m->message);
    char *room = pc_buf_reserve(memory, len, err);
    if (room == NULL) {
        pc_hub_requeue(hub, m);
        return -1;
    }
    pc_message_copy_to(message, &m->message, room);
    pc_buf_commit(memory, len);
    pc_hub_drop(hub, m);
    *found = true;
    return 0;
}

static void
abandon(pc_producer *base)
{
    (void)base;  // holds no descriptor
}

static void
destroy(pc_producer *base)
{
    if (base != NULL) {
        pc_free(PC_CONTAINER_OF(base, producer, base));
    }
}

const pc_producer_ops pc_producer_memory = {
    .scheme = "memory",
    .headers_kind = PC_HEADERS_JSON,
    .create = create,
    .connect = do_nothing,
    .publish = publish,
    .publish_many = publish_many,
    .flush = do_nothing,
    .unconfirmed = unconfirmed,
    .declare = declare,
    .size = size,
    .purge = purge,
    .remove = remove_queue,
    .get = get,
    .close = do_nothing,
    .abandon = abandon,
    .destroy = destroy,
};
