/* SPDX-License-Identifier: BSD-3-Clause */
/* The consumers of an AMQP source, and the trial of those that are added while others are consumed: one at a
 * time, so that it is known whom a refusal means. */
#include <stdio.h>

#include "base/mem.h"
#include "io/amqp_copy.h"
#include "io/amqp_declare.h"
#include "io/amqp_source.h"

typedef pc_amqp_consumer consumer;
typedef pc_amqp_source source;

void
pc_amqp_consumer_free(source *src, consumer *c)
{
    if (c != NULL) {
        src->trial = src->trial == c ? NULL : src->trial;
        pc_link_remove(&c->link);
        pc_free(c->queue);
        pc_free(c);
    }
}

consumer *
pc_amqp_consumer_new(source *src, const pc_queue *queue, pc_err *err)
{
    consumer *c = pc_zalloc(sizeof *c);
    if (c == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    pc_link_init(&c->link);
    c->queue = pc_amqp_copy_queue(queue, err);
    if (c->queue == NULL || pc_amqp_refuses_global_qos(queue, &c->per_consumer_qos, err) < 0) {
        pc_amqp_consumer_free(src, c);
        return NULL;
    }
    c->tag_len = (size_t)snprintf(c->tag, sizeof c->tag, "pc%u", ++src->serial);
    c->number = src->serial;
    return c;
}

static bool
has_tag(const consumer *c, pc_slice tag)
{
    return c->tag_len == tag.len && memcmp(c->tag, tag.ptr, tag.len) == 0;
}

consumer *
pc_amqp_consumer_of_tag(const source *src, pc_slice tag)
{
    for (pc_link *at = src->consumers.next; at != &src->consumers; at = at->next) {
        consumer *c = PC_CONTAINER_OF(at, consumer, link);
        if (has_tag(c, tag)) {
            return c;
        }
    }
    return NULL;
}

consumer *
pc_amqp_consumer_named(const source *src, const char *name)
{
    for (pc_link *at = src->consumers.next; at != &src->consumers; at = at->next) {
        consumer *c = PC_CONTAINER_OF(at, consumer, link);
        if (!c->leaving && strcmp(c->queue->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

bool
pc_amqp_consumer_waits(const source *src, const consumer *c)
{
    return c->on_trial && c != src->trial;
}

int
pc_amqp_consumer_write(source *src, const consumer *c, pc_amqp_reply *done, pc_err *err)
{
    unsigned declared = 0;
    if (pc_amqp_declare(&src->conn, c->queue, done, src, &declared, err) < 0 ||
        pc_amqp_write_consume(&src->conn.stream.out, PC_AMQP_CHANNEL, pc_slice_str(c->queue->name),
                              pc_slice_of(c->tag, c->tag_len), c->queue->no_ack,
                              c->queue->consumer_arguments, err) < 0 ||
        pc_amqp_conn_want(&src->conn, PC_AMQP_CONSUME_OK, done, src, err) < 0) {
        return -1;
    }
    src->trial_alone = false;
    src->awaited += declared + 1;
    pc_stream_flush(&src->conn.stream);
    return 0;
}

// ---- the trial ----

int
pc_amqp_trial_begin(source *src, consumer *c, pc_amqp_reply *done, pc_err *err)
{
    bool alone = src->awaited == 0 && src->looked == 0;
    if (pc_amqp_consumer_write(src, c, done, err) < 0) {
        return -1;
    }
    src->trial = c;
    src->trial_alone = alone;
    return 0;
}

static void
dismiss(source *src, consumer *c, const pc_err *why)
{
    pc_link_remove(&c->link);  // the hook may add the same queue again
    if (!c->leaving && src->base.hooks.refused != NULL) {
        src->base.hooks.refused(src->base.hooks.ctx, c->queue->name, why);
    }
    pc_amqp_consumer_free(src, c);
}

static consumer *
first_waiting(const source *src)
{
    for (pc_link *at = src->consumers.next; at != &src->consumers; at = at->next) {
        consumer *c = PC_CONTAINER_OF(at, consumer, link);
        if (c->on_trial) {
            return c;
        }
    }
    return NULL;
}

void
pc_amqp_trial_next(source *src, pc_amqp_reply *done)
{
    consumer *c = NULL;
    pc_err err = {0};
    while (src->is_up && !src->paused && src->trial == NULL && (c = first_waiting(src)) != NULL) {
        if (pc_amqp_trial_begin(src, c, done, &err) < 0) {
            dismiss(src, c, &err);
        }
    }
}

void
pc_amqp_trial_passed(source *src, pc_slice tag)
{
    if (src->trial != NULL && has_tag(src->trial, tag)) {
        src->trial->on_trial = false;
        src->trial = NULL;
        pc_loop_defer(src->loop, &src->flush);
    }
}

static bool
sets_up(uint32_t culprit)
{
    return culprit == PC_AMQP_EXCHANGE_DECLARE || culprit == PC_AMQP_QUEUE_DECLARE ||
           culprit == PC_AMQP_QUEUE_BIND || culprit == PC_AMQP_CONSUME;
}

/* With others under way it may be innocent: it is tried again, by itself. */
void
pc_amqp_trial_blame(source *src, uint32_t culprit, pc_err *why)
{
    consumer *c = src->trial;
    src->trial = NULL;
    if (c != NULL && src->trial_alone && sets_up(culprit) && !pc_amqp_wants_no_global_qos(why)) {
        pc_err told = *why;
        pc_fail(why, PC_EIO, "%s: closed by the broker over queue %.80s, which it refuses", src->conn.name,
                c->queue->name);
        dismiss(src, c, &told);
    }
}
