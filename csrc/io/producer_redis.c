/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing to Redis as kombu does (PROTOCOL §3.1.5, §3.6).
 *
 * DESIGN. Any thread may call; everything happens with the pump's lock held, which is released only
 * while somebody sleeps (see pump.h). Answers are taken in, and a lost connection is made again, while
 * somebody is inside a call, and by the minder. For the default exchange a message is one LPUSH; for a
 * named one a script looks its bindings up and pushes in one step; an exchange that was
 * declared here as fanout is a PUBLISH, which reaches who listens now. */
#include "base/map.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "io/broker.h"
#include "io/redis_names.h"
#include "io/redis_script.h"
#include "io/redis_sender.h"
#include "wire/envelope.h"

/* What was declared on this connection; the words of its SADD. */
typedef struct binding {
    bool sent;
    bool fanout;
    size_t queue_len;
    size_t exchange_len;
    size_t key_len;
    size_t member_len;
    char text[];  // key, member (together the key of the map), queue, exchange
} binding;

typedef struct producer {
    pc_producer base;
    pc_redis_sender sender;
    pc_redis_names names;
    pc_map declared;
    pc_map fanouts;  // exchange -> its binding
    pc_redis_args args;  // of publish(): used without sleeping in between
    pc_uuid_series tags;  // of deliveries; a forked child has a producer of its own
} producer;

static producer *
of(pc_producer *base)
{
    return (producer *)(void *)base;
}

// ---- bindings ----

static pc_slice
set_of(const binding *b)
{
    return pc_slice_of(b->text, b->key_len);
}

static pc_slice
member_of(const binding *b)
{
    return pc_slice_of(b->text + b->key_len, b->member_len);
}

static pc_slice
id_of(const binding *b)
{
    return pc_slice_of(b->text, b->key_len + b->member_len);
}

static pc_slice
queue_of(const binding *b)
{
    return pc_slice_of(b->text + b->key_len + b->member_len, b->queue_len);
}

static pc_slice
exchange_of(const binding *b)
{
    return pc_slice_of(b->text + b->key_len + b->member_len + b->queue_len, b->exchange_len);
}

static void
forget_declared(producer *p)
{
    size_t pos = 0;
    binding *b = NULL;
    while ((b = pc_map_next(&p->declared, &pos)) != NULL) {
        pc_free(b);
    }
    pc_map_fini(&p->declared);
    pc_map_init(&p->declared);
    pc_map_fini(&p->fanouts);
    pc_map_init(&p->fanouts);
}

/* The server may have started again without its data: what is declared next is sent again. What kind
 * an exchange is stays known. */
static void
on_down(void *ctx)
{
    producer *p = ctx;
    size_t pos = 0;
    binding *b = NULL;
    while ((b = pc_map_next(&p->declared, &pos)) != NULL) {
        b->sent = false;
    }
}

static binding *
new_binding(producer *p, const pc_queue *queue, pc_err *err)
{
    pc_buf text;
    size_t key_len = 0;
    size_t queue_len = strlen(queue->name);
    size_t exchange_len = strlen(queue->exchange);
    binding *b = NULL;
    pc_buf_init(&text);
    if (pc_redis_put_bindings(&p->names, pc_slice_str(queue->exchange), &text, err) < 0) {
        goto done;
    }
    key_len = pc_buf_len(&text);
    if (pc_redis_put_binding(&p->names, queue, &text, err) < 0) {
        goto done;
    }
    size_t member_len = pc_buf_len(&text) - key_len;
    if (pc_buf_put(&text, queue->name, queue_len, err) < 0
        || pc_buf_put(&text, queue->exchange, exchange_len, err) < 0) {
        goto done;
    }
    b = pc_alloc(sizeof *b + pc_buf_len(&text));
    if (b == NULL) {
        pc_fail_nomem(err);
        goto done;
    }
    *b = (binding){.queue_len = queue_len,
                   .exchange_len = exchange_len,
                   .key_len = key_len,
                   .member_len = member_len};
    b->fanout = pc_redis_is_fanout(queue);
    memcpy(b->text, pc_buf_ptr(&text), pc_buf_len(&text));
done:
    pc_buf_fini(&text);
    return b;
}

static int
change_binding(producer *p, const char *command, pc_slice set, pc_slice member, pc_mono deadline,
               pc_err *err)
{
    pc_redis_args args;
    pc_reply *reply = NULL;
    pc_redis_args_init(&args);
    pc_redis_args_str(&args, command);
    pc_redis_args_add(&args, set);
    pc_redis_args_add(&args, member);
    int rc = pc_redis_sender_ask(&p->sender, &args, true, &reply, deadline, err);
    pc_reply_free(reply);
    pc_redis_args_fini(&args);
    return rc;
}

static int
remember(producer *p, binding *b, pc_err *err)
{
    binding *known = pc_map_get(&p->declared, id_of(b));
    if (known != NULL) {
        known->sent = true;
        pc_free(b);
        return 0;
    }
    b->sent = true;
    if ((b->fanout && pc_map_put(&p->fanouts, exchange_of(b), b, NULL, err) < 0)
        || pc_map_put(&p->declared, id_of(b), b, NULL, err) < 0) {
        (void)pc_map_take(&p->fanouts, exchange_of(b));
        pc_free(b);
        return -1;
    }
    return 0;
}

static int
declare_locked(producer *p, binding *b, pc_mono deadline, pc_err *err)
{
    if (pc_redis_sender_refresh(&p->sender, err) < 0) {
        pc_free(b);
        return -1;
    }
    const binding *known = pc_map_get(&p->declared, id_of(b));
    // a fanout exchange needs none, but to know that it is one
    if (!b->fanout && (known == NULL || !known->sent)
        && change_binding(p, "SADD", set_of(b), member_of(b), deadline, err) < 0) {
        pc_free(b);
        return -1;
    }
    return remember(p, b, err);
}

static int
declare(pc_producer *base, const pc_queue *queue, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    if (queue->exchange == NULL || queue->exchange[0] == '\0' || queue->no_declare) {
        return 0;  // a list needs no declaration
    }
    binding *b = new_binding(p, queue, err);
    if (b == NULL) {
        return -1;
    }
    pc_pump_lock(p->sender.pump);
    int rc = declare_locked(p, b, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

// ---- publishing ----

static int
put_envelope(producer *p, const pc_message *message, pc_redis_args *args)
{
    char tag[PC_UUID_LEN + 1];
    if (pc_uuid_next(&p->tags, tag, &args->err) < 0) {
        return -1;
    }
    return pc_envelope_write(message, pc_slice_of(tag, PC_UUID_LEN), &args->text, &args->err);
}

static void
write_push(producer *p, const pc_message *message, int step)
{
    pc_redis_args *args = &p->args;
    pc_redis_args_str(args, "LPUSH");
    pc_redis_args_end(args, pc_redis_put_list(&p->names, message->routing_key, step, &args->text,
                                              &args->err));
    pc_redis_args_end(args, put_envelope(p, message, args));
}

static void
write_fanout(producer *p, const pc_message *message)
{
    pc_redis_args *args = &p->args;
    pc_redis_args_str(args, "PUBLISH");
    pc_redis_args_end(args, pc_redis_put_channel(&p->names, message->exchange, message->routing_key,
                                                 &args->text, &args->err));
    pc_redis_args_end(args, put_envelope(p, message, args));
}

static void
write_route(producer *p, const pc_message *message, int step)
{
    pc_redis_args *args = &p->args;
    pc_redis_eval_begin(PC_ASK_ROUTE, 1, args);
    pc_redis_args_end(args, pc_redis_put_bindings(&p->names, message->exchange, &args->text,
                                                  &args->err));
    pc_redis_args_add(args, p->names.prefix);
    pc_redis_args_add(args, p->names.sep);
    pc_redis_args_add(args, message->routing_key);
    pc_redis_args_end(args, pc_redis_put_suffix(&p->names, step, &args->text, &args->err));
    pc_redis_args_end(args, put_envelope(p, message, args));
}

/* Into p->args. */
static void
write_message(producer *p, const pc_message *message, bool *mandatory)
{
    int step = pc_redis_names_step(&p->names, message->priority);
    pc_redis_args_reset(&p->args);
    if (message->exchange.len == 0) {
        write_push(p, message, step);
    } else if (pc_map_get(&p->fanouts, message->exchange) != NULL) {
        write_fanout(p, message);
        *mandatory = false;
    } else {
        write_route(p, message, step);
    }
}

static int
publish(pc_producer *base, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    (void)due;
    (void)has_due;  // the worker holds it
    pc_pump_lock(p->sender.pump);
    write_message(p, message, &mandatory);
    int rc = pc_redis_sender_put(&p->sender, &p->args, mandatory, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

typedef struct many {
    producer *p;
    const pc_outgoing *messages;
} many;

static const pc_redis_args *
write_number(void *ctx, size_t i, bool *mandatory)
{
    const many *m = ctx;
    *mandatory = m->messages[i].mandatory;
    write_message(m->p, &m->messages[i].message, mandatory);
    return &m->p->args;
}

static int
publish_many(pc_producer *base, const pc_outgoing *messages, size_t n, pc_mono deadline,
             size_t *done, pc_err *err)
{
    producer *p = of(base);
    many m = {p, messages};
    const pc_redis_many all = {n, write_number, &m};
    pc_pump_lock(p->sender.pump);
    int rc = pc_redis_sender_put_many(&p->sender, &all, done, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
flush(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_redis_sender_flush(&p->sender, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static size_t
unconfirmed(pc_producer *base)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    size_t n = p->sender.open;
    pc_pump_unlock(p->sender.pump);
    return n;
}

static int
confirming(pc_producer *base)
{
    producer *p = of(base);
    int fd = -1;
    pc_pump_lock(p->sender.pump);
    if (p->sender.open > 0 && pc_pump_poll(p->sender.pump, NULL) == 0 && p->sender.open > 0) {
        fd = pc_loop_fd(pc_pump_loop(p->sender.pump));
    }
    pc_pump_unlock(p->sender.pump);
    return fd;
}

// ---- looking into queues ----

static int
ask_lists(producer *p, pc_question which, const char *queue, pc_reply **reply, pc_mono deadline,
          pc_err *err)
{
    pc_redis_args args;
    pc_redis_args_init(&args);
    pc_redis_eval_begin(which, p->names.nsteps, &args);
    for (size_t i = 0; i < p->names.nsteps; i++) {
        pc_redis_args_end(&args, pc_redis_put_list(&p->names, pc_slice_str(queue),
                                                   p->names.steps[i], &args.text, &args.err));
    }
    int rc = pc_redis_sender_ask(&p->sender, &args, which != PC_ASK_GET, reply, deadline, err);
    pc_redis_args_fini(&args);
    return rc;
}

static int
count(pc_producer *base, pc_question which, const char *queue, uint64_t *messages,
      pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_reply *reply = NULL;
    *messages = 0;
    pc_pump_lock(p->sender.pump);
    int rc = ask_lists(p, which, queue, &reply, deadline, err);
    pc_pump_unlock(p->sender.pump);
    if (rc == 0) {
        *messages = (uint64_t)reply->integer;
    }
    pc_reply_free(reply);
    return rc;
}

/* Redis doesn't know who consumes. */
static int
size(pc_producer *base, const char *queue, uint64_t *messages, uint64_t *consumers,
     pc_mono deadline, pc_err *err)
{
    *consumers = 0;
    return count(base, PC_ASK_SIZE, queue, messages, deadline, err);
}

static int
purge(pc_producer *base, const char *queue, uint64_t *messages, pc_mono deadline, pc_err *err)
{
    return count(base, PC_ASK_PURGE, queue, messages, deadline, err);
}

/* The binding that a queue has by default: to the exchange of its name. */
static int
unbind_default(producer *p, const char *name, pc_mono deadline, pc_err *err)
{
    pc_queue queue = {.name = name, .exchange = name, .routing_key = name};
    binding *b = new_binding(p, &queue, err);
    if (b == NULL) {
        return -1;
    }
    int rc = change_binding(p, "SREM", set_of(b), member_of(b), deadline, err);
    pc_free(b);
    return rc;
}

static binding *
take_declared(producer *p, const char *name)
{
    size_t pos = 0;
    binding *b = NULL;
    while ((b = pc_map_next(&p->declared, &pos)) != NULL) {
        if (pc_slice_is(queue_of(b), name)) {
            (void)pc_map_take(&p->declared, id_of(b));
            if (pc_map_get(&p->fanouts, exchange_of(b)) == b) {
                (void)pc_map_take(&p->fanouts, exchange_of(b));
            }
            return b;
        }
    }
    return NULL;
}

static int
remove_locked(producer *p, const char *queue, pc_mono deadline, pc_err *err)
{
    pc_reply *reply = NULL;
    binding *b = NULL;
    int rc = unbind_default(p, queue, deadline, err);
    while (rc == 0 && (b = take_declared(p, queue)) != NULL) {
        rc = change_binding(p, "SREM", set_of(b), member_of(b), deadline, err);
        pc_free(b);
    }
    rc = rc < 0 ? rc : ask_lists(p, PC_ASK_PURGE, queue, &reply, deadline, err);
    pc_reply_free(reply);
    return rc;
}

static int
remove_queue(pc_producer *base, const char *queue, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = remove_locked(p, queue, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

/* The message is copied behind its text, so that both live in `memory`. */
static int
read_message(pc_slice text, pc_message *message, pc_buf *memory, pc_err *err)
{
    pc_buf scratch;
    pc_slice tag;
    pc_message read;
    pc_buf_init(&scratch);
    int rc = pc_envelope_read(text, &read, &tag, &scratch, err);
    if (rc == 0) {
        char *to = pc_buf_reserve(memory, pc_message_slices_size(&read) + 1, err);
        rc = to == NULL ? -1 : 0;
        if (to != NULL) {
            pc_message_copy_to(message, &read, to);
        }
    }
    pc_buf_fini(&scratch);
    return rc;
}

/* A connection lost between question and answer may take the message with it: it was to be
 * acknowledged at once anyway. */
static int
get(pc_producer *base, const char *queue, bool *found, pc_message *message, pc_buf *memory,
    pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_reply *reply = NULL;
    *found = false;
    pc_buf_reset(memory, SIZE_MAX);
    pc_pump_lock(p->sender.pump);
    int rc = ask_lists(p, PC_ASK_GET, queue, &reply, deadline, err);
    pc_pump_unlock(p->sender.pump);
    if (rc == 0 && reply->type == PC_REPLY_STRING) {
        rc = read_message(reply->text, message, memory, err);
        *found = rc == 0;
    }
    pc_reply_free(reply);
    return rc;
}

// ---- life ----

static int
connect_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_redis_sender_connect(&p->sender, deadline, err);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static int
close_producer(pc_producer *base, pc_mono deadline, pc_err *err)
{
    producer *p = of(base);
    pc_pump_lock(p->sender.pump);
    int rc = pc_redis_sender_flush(&p->sender, deadline, err);
    pc_redis_sender_close(&p->sender);
    pc_pump_unlock(p->sender.pump);
    return rc;
}

static pc_minder *
minder(pc_producer *base)
{
    return &of(base)->sender.minder;
}

/* No lock: of the parent's threads only the one that forked is here. */
static void
abandon(pc_producer *base)
{
    pc_minder_forget(&of(base)->sender.minder);
    pc_redis_abandon(of(base)->sender.conn);
}

static void
destroy(pc_producer *base)
{
    if (base == NULL) {
        return;
    }
    producer *p = of(base);
    pc_redis_sender_fini(&p->sender);
    forget_declared(p);
    pc_map_fini(&p->declared);
    pc_map_fini(&p->fanouts);
    pc_redis_names_fini(&p->names);
    pc_redis_args_fini(&p->args);
    pc_free(p);
}

static pc_producer *
create(const pc_broker_config *config, const pc_log *log, pc_err *err)
{
    producer *p = pc_zalloc(sizeof *p);
    if (p == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    p->base = (pc_producer){&pc_producer_redis, log};
    pc_map_init(&p->declared);
    pc_map_init(&p->fanouts);
    pc_redis_args_init(&p->args);
    if (pc_redis_names_init(&p->names, config, err) < 0
        || pc_redis_sender_init(&p->sender, config, on_down, p, log, err) < 0) {
        destroy(&p->base);
        return NULL;
    }
    return &p->base;
}

const pc_producer_ops pc_producer_redis = {
    .scheme = "redis",
    .headers_kind = PC_HEADERS_JSON,
    .create = create,
    .connect = connect_producer,
    .publish = publish,
    .publish_many = publish_many,
    .flush = flush,
    .unconfirmed = unconfirmed,
    .confirming = confirming,
    .declare = declare,
    .size = size,
    .purge = purge,
    .remove = remove_queue,
    .get = get,
    .close = close_producer,
    .minder = minder,
    .abandon = abandon,
    .destroy = destroy,
};
