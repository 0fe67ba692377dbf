/* SPDX-License-Identifier: BSD-3-Clause */
/* What producers leave under way is finished without another call. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "amqp_fixture.h"
#include "harness.h"
#include "redis_sink.h"

static void
rig_init(amqp_rig *r)
{
    pc_err err = {0};
    amqp_rig_init(r, 1, 0);
    int rc = r->producer->ops->connect(r->producer, in_seconds(5), &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

static void
must_publish(pc_producer *producer, const char *queue, int n)
{
    pc_err err = {0};
    for (int i = 0; i < n; i++) {
        pc_message message = amqp_message(queue, "1", 1);
        int rc = producer->ops->publish(producer, &message, false, (pc_wall){0}, false,
                                        in_seconds(5), &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
    }
}

static void
must_publish_many(pc_producer *producer, const char *queue)
{
    pc_err err = {0};
    size_t done = 0;
    pc_outgoing one = {.message = amqp_message(queue, "1", 1)};
    int rc = producer->ops->publish_many(producer, &one, 1, in_seconds(5), &done, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
}

static void
wait_for_size(amqp_rig *r, int wanted)
{
    pc_mono deadline = in_seconds(15);
    while (amqp_rig_size(r) < wanted && pc_mono_now().ns < deadline.ns) {
        usleep(10000);
    }
    PC_ASSERT_INT(amqp_rig_size(r), wanted);
}

static void
wait_until_confirmed(pc_producer *producer)
{
    pc_mono deadline = in_seconds(15);
    while (producer->ops->unconfirmed(producer) > 0 && pc_mono_now().ns < deadline.ns) {
        usleep(10000);
    }
    PC_ASSERT_INT(producer->ops->unconfirmed(producer), 0);
}

/* The program is busy with something else after its last publish: the minder does it all. */
void
test_minder_sends_lost_messages_again(void)
{
    amqp_rig r;
    rig_init(&r);
    amqp_relay_freeze(r.relay, true, false);
    must_publish(r.producer, r.queue, 100);
    PC_ASSERT_INT(amqp_rig_size(&r), 0);
    amqp_relay_cut(r.relay);
    amqp_relay_freeze(r.relay, false, false);
    wait_for_size(&r, 100);
    wait_until_confirmed(r.producer);
    amqp_rig_fini(&r);
}

/* What waits for the confirm of a message that goes alone leaves with it, not at the next look. */
void
test_minder_hurries_for_what_is_held_back(void)
{
    enum { ROUNDS = 40 };
    amqp_rig r;
    pc_err err = {0};
    rig_init(&r);
    pc_mono start = pc_mono_now();
    for (int i = 1; i <= ROUNDS; i++) {
        pc_message odd = amqp_message(r.queue, "1", 1);
        odd.expiration = pc_slice_str("0000600000");
        int rc = r.producer->ops->publish(r.producer, &odd, false, (pc_wall){0}, false, in_seconds(5), &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
        must_publish(r.producer, r.queue, 1);
        while (amqp_rig_size(&r) < 2 * i) {
            usleep(1000);
        }
    }
    PC_ASSERT(pc_mono_now().ns - start.ns < ROUNDS * 50 * PC_NS_PER_MS);
    amqp_rig_fini(&r);
}

/* As around a fork: paused there is nobody, resumed it goes on; what a batch left counts, too. */
void
test_minder_pauses_for_a_fork(void)
{
    amqp_rig r;
    rig_init(&r);
    amqp_relay_freeze(r.relay, false, true);
    must_publish(r.producer, r.queue, 10);
    wait_for_size(&r, 10);
    pc_minder *minder = r.producer->ops->minder(r.producer);
    pc_minder_stop(minder);
    PC_ASSERT(!minder->running && !minder->joinable);
    amqp_relay_cut(r.relay);
    amqp_relay_freeze(r.relay, false, false);
    usleep(300000);  // three of its looks
    PC_ASSERT_INT(amqp_rig_size(&r), 10);
    pc_minder_resume(minder);
    PC_ASSERT(minder->running);
    wait_for_size(&r, 20);  // nobody had seen the confirms
    wait_until_confirmed(r.producer);
    amqp_rig_fini(&r);
}

/* It ends itself when there is nothing to do, and comes back. */
void
test_minder_comes_and_goes(void)
{
    amqp_rig r;
    rig_init(&r);
    pc_minder *minder = r.producer->ops->minder(r.producer);
    pc_mono deadline = in_seconds(15);
    for (int round = 1; round <= 2; round++) {
        must_publish(r.producer, r.queue, 5);
        wait_until_confirmed(r.producer);
        wait_for_size(&r, 5 * round);
        for (bool running = true; running && pc_mono_now().ns < deadline.ns; usleep(10000)) {
            pc_pump_lock(minder->pump);
            running = minder->running;
            pc_pump_unlock(minder->pump);
        }
        PC_ASSERT(!minder->running);
    }
    amqp_rig_fini(&r);
}

/* The connection broke while nobody looked, with a confirm unread: a batch that is taken over then is sent, too. */
void
test_minder_sends_a_batch_after_an_idle_cut(void)
{
    amqp_rig r;
    rig_init(&r);
    must_publish(r.producer, r.queue, 1);
    pc_minder_stop(r.producer->ops->minder(r.producer));
    wait_for_size(&r, 1);
    amqp_relay_cut(r.relay);
    usleep(50000);
    must_publish_many(r.producer, r.queue);
    wait_until_confirmed(r.producer);
    PC_ASSERT(amqp_rig_size(&r) >= 2);
    amqp_rig_fini(&r);
}

void
test_minder_sends_a_batch_to_redis_after_an_idle_cut(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config store = redis_rig_config(&server);
    pc_broker_config config = redis_sink_config(&store);
    pc_producer *producer = redis_sink_producer(&config);
    must_publish(producer, "q", 1);
    pc_minder_stop(producer->ops->minder(producer));
    usleep(50000);
    (void)redis_rig_int(&store, "CLIENT KILL TYPE normal SKIPME yes");
    usleep(50000);
    must_publish_many(producer, "q");
    wait_until_confirmed(producer);
    PC_ASSERT(redis_rig_int(&store, "LLEN %sq", store.key_prefix) >= 2);
    producer->ops->destroy(producer);
    redis_rig_clean(&store);
    redis_server_kill(&server);
}
