/* SPDX-License-Identifier: BSD-3-Clause */
/* Delay queues by themselves: what of them lives how long. The way there and back is in test_amqp_source.c. */
#include "io/amqp_park.h"

#include <stdio.h>

#include "amqp_fixture.h"
#include "harness.h"

typedef struct garage {
    pc_amqp_park park;
    pc_loop *loop;
    int acked;
    int requeued;
    size_t declaring;  // declarations under way when the last one was settled
} garage;

static void
on_settle(void *ctx, uint64_t tag, pc_settle how)
{
    garage *g = ctx;
    const pc_amqp_conn *conn = &g->park.link.conn;
    PC_ASSERT(tag == 7 || tag == 8);
    g->acked += how == PC_ACK;
    g->requeued += how == PC_REQUEUE;
    g->declaring = conn->wanted_end - conn->wanted_first;
}

static void
park_one(garage *g, const char *queue, uint64_t tag)
{
    pc_err err = {0};
    pc_queue from = amqp_queue(queue);
    pc_message message = amqp_message(queue, "far", 3);
    message.tag = tag;
    PC_ASSERT(pc_amqp_park_put(&g->park, &message, &from, PC_NS_PER_SEC, &err) == 0, "%s", err.msg);
}

/* The queue expires, and takes what is in it along, some time after it was declared last. A broker with an alarm
 * keeps a message waiting for long between the two: then it is declared again before the original goes. */
void
test_amqp_park_renews_the_queue_of_a_message_that_was_held_up(void)
{
    pc_broker_config direct = amqp_config();
    pc_broker_config config = direct;
    pc_err err = {0};
    char queue[64];
    char delayed[96];
    garage g = {.loop = pc_loop_new(NULL)};
    amqp_queue_name(queue, "pc-test");
    snprintf(delayed, sizeof delayed, "pyceleryc.delay.1.%s", queue);
    pc_producer *producer = amqp_producer(&direct);
    amqp_relay *relay = amqp_relay_start(&direct, &config.port);
    config.host = "127.0.0.1";
    pc_amqp_park_init(&g.park, g.loop, &config, on_settle, &g, NULL);
    park_one(&g, queue, 7);
    amqp_turn_until(g.loop, &g.acked, 1);
    PC_ASSERT_INT(g.declaring, 0);
    amqp_relay_freeze(relay, true, false);
    park_one(&g, queue, 8);
    amqp_turn_for(g.loop, 0.6);
    PC_ASSERT_INT(g.acked, 1);
    amqp_relay_freeze(relay, false, false);
    amqp_turn_until(g.loop, &g.acked, 2);
    PC_ASSERT_INT(g.declaring, 1);
    amqp_turn_for(g.loop, 0.1);
    PC_ASSERT(!pc_amqp_park_busy(&g.park) && g.requeued == 0);
    pc_amqp_park_fini(&g.park);
    amqp_relay_stop(relay);
    PC_ASSERT(producer->ops->remove(producer, delayed, in_seconds(5), &err) == 0, "%s", err.msg);
    amqp_producer_end(producer, queue);
    pc_loop_free(g.loop);
}
