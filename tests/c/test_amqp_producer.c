/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing to a real RabbitMQ, through a relay where something has to go wrong. */
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amqp_fixture.h"
#include "base/mem.h"
#include "harness.h"

static int
publish(pc_producer *producer, const char *queue, const char *body, double seconds, pc_err *err)
{
    pc_message message = amqp_message(queue, body, strlen(body));
    return producer->ops->publish(producer, &message, false, (pc_wall){0}, false,
                                  in_seconds(seconds), err);
}

static void
must_publish(amqp_rig *r, int n)
{
    pc_err err = {0};
    for (int i = 0; i < n; i++) {
        char body[16];
        snprintf(body, sizeof body, "%d", i);
        PC_ASSERT(publish(r->producer, r->queue, body, 5, &err) == 0, "%s", err.msg);
    }
}

static void
must_flush(amqp_rig *r)
{
    pc_err err = {0};
    PC_ASSERT(r->producer->ops->flush(r->producer, in_seconds(10), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(r->producer->ops->unconfirmed(r->producer), 0);
}

void
test_amqp_publish_with_each_kind_of_confirm(void)
{
    for (int confirm = 0; confirm <= 2; confirm++) {
        amqp_rig r;
        amqp_rig_init(&r, confirm, 0);
        must_publish(&r, 300);
        PC_ASSERT(confirm == 1 || r.producer->ops->unconfirmed(r.producer) == 0);
        must_flush(&r);
        pc_mono deadline = in_seconds(5);
        while (amqp_rig_size(&r) < 300 && pc_mono_now().ns < deadline.ns) {
            usleep(10000);
        }
        PC_ASSERT_INT(amqp_rig_size(&r), 300);
        amqp_rig_fini(&r);
    }
}

/* The broker's answers stay in the relay: the messages are there, but nobody knows. After the cut
 * they are sent again, so each is there twice, in order. */
void
test_amqp_unconfirmed_messages_are_sent_again_after_a_cut(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    PC_ASSERT(r.producer->ops->connect(r.producer, in_seconds(5), &err) == 0, "%s", err.msg);
    amqp_relay_freeze(r.relay, false, true);
    must_publish(&r, 100);
    while (amqp_rig_size(&r) < 100) {
        usleep(10000);
    }
    PC_ASSERT_INT(r.producer->ops->unconfirmed(r.producer), 100);
    amqp_relay_cut(r.relay);
    amqp_relay_freeze(r.relay, false, false);
    must_flush(&r);
    PC_ASSERT_INT(amqp_rig_size(&r), 200);
    amqp_rig_fini(&r);
}

/* Bytes of a message lie in the relay when it is cut: nothing was lost, everything arrives once. */
void
test_amqp_messages_that_never_reached_the_broker_are_sent_again(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    PC_ASSERT(r.producer->ops->connect(r.producer, in_seconds(5), &err) == 0, "%s", err.msg);
    amqp_relay_freeze(r.relay, true, false);
    must_publish(&r, 100);
    amqp_relay_cut(r.relay);
    amqp_relay_freeze(r.relay, false, false);
    must_publish(&r, 50);
    must_flush(&r);
    PC_ASSERT_INT(amqp_rig_size(&r), 150);
    amqp_rig_fini(&r);
}

void
test_amqp_a_connection_lost_while_idle_is_noticed_before_the_next_publish(void)
{
    for (int confirm = 0; confirm <= 1; confirm++) {
        amqp_rig r;
        amqp_rig_init(&r, confirm, 0);
        must_publish(&r, 1);
        must_flush(&r);
        usleep(50000);
        amqp_relay_cut(r.relay);
        usleep(50000);
        must_publish(&r, 1);
        must_flush(&r);
        pc_mono deadline = in_seconds(5);
        while (amqp_rig_size(&r) < 2 && pc_mono_now().ns < deadline.ns) {
            usleep(10000);
        }
        PC_ASSERT_INT(amqp_rig_size(&r), 2);
        amqp_rig_fini(&r);
    }
}

void
test_amqp_a_full_window_ends_in_an_error_at_the_deadline(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 20);
    must_publish(&r, 1);
    must_flush(&r);
    amqp_relay_freeze(r.relay, false, true);
    must_publish(&r, 20);
    pc_mono before = pc_mono_now();
    PC_ASSERT_INT(publish(r.producer, r.queue, "x", 0.3, &err), -1);
    PC_ASSERT(err.code == PC_EFULL, "%s", err.msg);
    int64_t took = pc_mono_now().ns - before.ns;
    PC_ASSERT(took > 250 * PC_NS_PER_MS && took < 5 * PC_NS_PER_SEC);
    amqp_relay_freeze(r.relay, false, false);
    must_publish(&r, 5);
    must_flush(&r);
    PC_ASSERT_INT(amqp_rig_size(&r), 26);
    amqp_rig_fini(&r);
}

/* The relay stops reading: TCP fills up, publish must not hang. */
void
test_amqp_a_broker_that_stops_reading_ends_in_an_error(void)
{
    for (int confirm = 0; confirm <= 1; confirm++) {
        amqp_rig r;
        pc_err err = {0};
        amqp_rig_init(&r, confirm, 0);
        must_publish(&r, 1);
        must_flush(&r);
        amqp_relay_freeze(r.relay, true, false);
        size_t len = 900 * 1024;
        char *body = pc_zalloc(len);
        PC_ASSERT(body != NULL);
        pc_message message = amqp_message(r.queue, body, len);
        int rc = 0;
        int sent = 0;
        for (; rc == 0 && sent < 200; sent++) {
            rc = r.producer->ops->publish(r.producer, &message, false, (pc_wall){0}, false,
                                          in_seconds(0.3), &err);
        }
        PC_ASSERT(rc == -1 && err.code == PC_EFULL, "%d: %s", rc, err.msg);
        amqp_relay_freeze(r.relay, false, false);
        must_flush(&r);
        pc_mono deadline = in_seconds(10);
        while (amqp_rig_size(&r) < sent && pc_mono_now().ns < deadline.ns) {
            usleep(10000);
        }
        PC_ASSERT_INT(amqp_rig_size(&r), sent);  // the one before, and all but the last
        pc_free(body);
        amqp_rig_fini(&r);
    }
}

void
test_amqp_without_a_broker_publish_fails_at_its_deadline_or_at_once(void)
{
    pc_broker_config config = amqp_config();
    pc_err err = {0};
    config.port = 1;
    pc_producer *producer = amqp_producer(&config);
    pc_mono before = pc_mono_now();
    PC_ASSERT_INT(publish(producer, "q", "x", 0.4, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    PC_ASSERT(strstr(err.msg, "127.0.0.1:1") != NULL, "%s", err.msg);
    PC_ASSERT(pc_mono_now().ns - before.ns > 300 * PC_NS_PER_MS);
    PC_ASSERT_INT(producer->ops->unconfirmed(producer), 0);
    producer->ops->destroy(producer);

    config = amqp_config();
    config.password = "wrong";
    producer = amqp_producer(&config);
    before = pc_mono_now();
    for (int i = 0; i < 2; i++) {
        PC_ASSERT_INT(publish(producer, "q", "x", 8, &err), -1);
        PC_ASSERT(err.code == PC_EAUTH, "%s", err.msg);
    }
    PC_ASSERT(pc_mono_now().ns - before.ns < 5 * PC_NS_PER_SEC);
    producer->ops->destroy(producer);
}

/* What makes RabbitMQ close the channel: only that message is refused, and nothing that was under way comes twice. */
void
test_amqp_a_poisonous_message_is_refused_and_the_others_arrive_once(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    for (int i = 0; i < 10; i++) {
        pc_message poison = amqp_message(r.queue, "x", 1);
        poison.expiration = i % 2 == 0 ? pc_slice_str("soon") : (pc_slice){0};
        poison.exchange = pc_slice_str(i % 2 == 0 ? "" : "no-such-exchange");
        must_publish(&r, 50);
        int rc = r.producer->ops->publish(r.producer, &poison, false, (pc_wall){0}, false, in_seconds(5), &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
        must_publish(&r, 50);
        PC_ASSERT_INT(r.producer->ops->flush(r.producer, in_seconds(10), &err), -1);
        PC_ASSERT_INT(err.code, i % 2 == 0 ? PC_EDATA : PC_ENOTFOUND);
        must_flush(&r);
        PC_ASSERT_INT(amqp_rig_size(&r), 100 * (i + 1));
    }
    amqp_rig_fini(&r);
}

void
test_amqp_a_refused_message_fails_its_own_publish_when_confirms_are_awaited(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 2, 0);
    pc_message poison = amqp_message(r.queue, "x", 1);
    poison.exchange = pc_slice_str("no-such-exchange");
    int rc = r.producer->ops->publish(r.producer, &poison, false, (pc_wall){0}, false,
                                      in_seconds(5), &err);
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT(err.code == PC_ENOTFOUND && strstr(err.msg, "no-such-exchange") != NULL, "%s",
              err.msg);
    must_publish(&r, 3);
    PC_ASSERT_INT(amqp_rig_size(&r), 3);
    amqp_rig_fini(&r);
}

void
test_amqp_nacked_messages_are_sent_until_there_is_room(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    char name[64];
    amqp_queue_name(name, "pc-test");
    pc_queue small = amqp_queue(name);
    // x-max-length 1, x-overflow reject-publish
    static const char args[] = "\14x-max-lengthI\0\0\0\1\12x-overflowS\0\0\0\16reject-publish";
    small.queue_arguments = pc_slice_of(args, sizeof args - 1);
    PC_ASSERT(r.producer->ops->declare(r.producer, &small, in_seconds(5), &err) == 0, "%s",
              err.msg);
    PC_ASSERT_INT(publish(r.producer, name, "1", 5, &err), 0);
    must_flush(&r);
    PC_ASSERT_INT(publish(r.producer, name, "2", 5, &err), 0);
    PC_ASSERT_INT(r.producer->ops->flush(r.producer, in_seconds(0.4), &err), -1);
    PC_ASSERT_INT(r.producer->ops->unconfirmed(r.producer), 1);
    uint64_t purged = 0;
    PC_ASSERT(r.direct->ops->purge(r.direct, name, &purged, in_seconds(5), &err) == 0, "%s",
              err.msg);
    PC_ASSERT_INT(purged, 1);
    must_flush(&r);
    PC_ASSERT_INT(r.producer->ops->remove(r.producer, name, in_seconds(5), &err), 0);
    amqp_rig_fini(&r);
}

void
test_amqp_mandatory_messages_without_a_queue_come_back(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    pc_message message = amqp_message("no-such-queue", "x", 1);
    int rc = r.producer->ops->publish(r.producer, &message, true, (pc_wall){0}, false,
                                      in_seconds(5), &err);
    PC_ASSERT_INT(rc, 0);
    must_flush(&r);
    amqp_rig_fini(&r);
}

/* The broker's memory alarm, as the broker would tell it. */
void
test_amqp_a_blocked_connection_is_back_pressure(void)
{
    static const char blocked[] = "\1\0\0\0\0\0\x0f\0\x0a\0\x3c\x0alow memory\xce";
    static const char unblocked[] = "\1\0\0\0\0\0\4\0\x0a\0\x3d\xce";
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    must_publish(&r, 1);
    must_flush(&r);
    amqp_relay_inject(r.relay, blocked, sizeof blocked - 1);
    PC_ASSERT_INT(publish(r.producer, r.queue, "x", 0.2, &err), -1);
    PC_ASSERT(err.code == PC_EFULL && strstr(err.msg, "low memory") != NULL, "%s", err.msg);
    amqp_relay_inject(r.relay, unblocked, sizeof unblocked - 1);
    must_publish(&r, 1);
    must_flush(&r);
    PC_ASSERT_INT(amqp_rig_size(&r), 2);
    amqp_rig_fini(&r);
}

/* The connection is cut again and again, in mid-frame too; every message must arrive at least once.
 */
static void *
cut_often(void *arg)
{
    amqp_rig *r = arg;
    for (int i = 0; i < 12; i++) {
        usleep(20000);
        amqp_relay_cut(r->relay);
    }
    return NULL;
}

static void
drain(amqp_rig *r, int *seen, int n)
{
    pc_err err = {0};
    pc_message message;
    pc_buf memory;
    bool found = true;
    pc_buf_init(&memory);
    while (found) {
        int rc = r->direct->ops->get(r->direct, r->queue, &found, &message, &memory, in_seconds(5),
                                     &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
        int id = 0;
        for (size_t i = 0; found && i < message.body.len; i++) {
            id = id * 10 + (message.body.ptr[i] - '0');
        }
        PC_ASSERT(id >= 0 && id < n);
        seen[id] += found;
    }
    pc_buf_fini(&memory);
}

void
test_amqp_nothing_is_lost_while_the_connection_is_cut_again_and_again(void)
{
    enum { N = 3000 };
    int seen[N] = {0};
    amqp_rig r;
    pthread_t thread;
    amqp_rig_init(&r, 1, 500);
    PC_ASSERT_INT(pthread_create(&thread, NULL, cut_often, &r), 0);
    must_publish(&r, N);
    must_flush(&r);
    pthread_join(thread, NULL);
    drain(&r, seen, N);
    for (int i = 0; i < N; i++) {
        PC_ASSERT(seen[i] > 0, "message %d is lost", i);
    }
    amqp_rig_fini(&r);
}

/* ---- fork, memory ---- */

void
test_amqp_a_forked_child_leaves_the_parents_connection_alone(void)
{
    amqp_rig r;
    pc_err err = {0};
    int status = -1;
    amqp_rig_init(&r, 1, 0);
    must_publish(&r, 10);
    pc_minder_stop(r.producer->ops->minder(r.producer));
    pid_t pid = fork();
    if (pid == 0) {
        r.producer->ops->abandon(r.producer);
        r.producer->ops->destroy(r.producer);
        pc_producer *own = pc_producer_amqp.create(&r.config, NULL, &err);
        bool sent = own != NULL && publish(own, r.queue, "child", 5, &err) == 0 &&
                    own->ops->close(own, in_seconds(5), &err) == 0;
        _exit(sent ? 0 : 1);
    }
    PC_ASSERT_INT(waitpid(pid, &status, 0), pid);
    PC_ASSERT_INT(status, 0);
    must_publish(&r, 10);
    must_flush(&r);
    PC_ASSERT_INT(amqp_rig_size(&r), 21);
    amqp_rig_fini(&r);
}

static int
make_producer(void *arg)
{
    pc_broker_config config = {.host = "h", .confirm = 1};
    (void)arg;
    pc_producer *producer = pc_producer_amqp.create(&config, NULL, NULL);
    if (producer == NULL) {
        return -1;
    }
    producer->ops->destroy(producer);
    return 0;
}

void
test_amqp_producer_survives_the_lack_of_memory(void)
{
    PC_ASSERT(PC_OOM(make_producer, NULL) > 3);
}

/* ---- questions ---- */

void
test_amqp_size_purge_get_and_remove(void)
{
    amqp_rig r;
    pc_err err = {0};
    uint64_t messages = 0;
    uint64_t consumers = 0;
    amqp_rig_init(&r, 1, 0);
    must_publish(&r, 5);
    PC_ASSERT_INT(r.producer->ops->size(r.producer, "no-such-queue", &messages, &consumers,
                                        in_seconds(5), &err),
                  -1);
    PC_ASSERT(err.code == PC_ENOTFOUND && strstr(err.msg, "no-such-queue") != NULL, "%s", err.msg);
    PC_ASSERT_INT(
        r.producer->ops->size(r.producer, r.queue, &messages, &consumers, in_seconds(5), &err), 0);
    PC_ASSERT_INT(messages, 5);
    PC_ASSERT_INT(consumers, 0);
    pc_message message;
    pc_buf memory;
    pc_buf_init(&memory);
    bool found = false;
    PC_ASSERT_INT(
        r.producer->ops->get(r.producer, r.queue, &found, &message, &memory, in_seconds(5), &err),
        0);
    PC_ASSERT(found && pc_slice_is(message.body, "0"));
    PC_ASSERT_INT(r.producer->ops->purge(r.producer, r.queue, &messages, in_seconds(5), &err), 0);
    PC_ASSERT_INT(messages, 4);
    PC_ASSERT_INT(
        r.producer->ops->get(r.producer, r.queue, &found, &message, &memory, in_seconds(5), &err),
        0);
    PC_ASSERT(!found);
    PC_ASSERT_INT(r.producer->ops->remove(r.producer, r.queue, in_seconds(5), &err), 0);
    PC_ASSERT_INT(
        r.producer->ops->get(r.producer, r.queue, &found, &message, &memory, in_seconds(5), &err),
        -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    pc_buf_fini(&memory);
    amqp_rig_fini(&r);
}

void
test_amqp_an_answer_that_comes_too_late_is_skipped(void)
{
    amqp_rig r;
    pc_err err = {0};
    uint64_t messages = 0;
    uint64_t consumers = 0;
    amqp_rig_init(&r, 1, 0);
    must_publish(&r, 3);
    must_flush(&r);
    amqp_relay_freeze(r.relay, false, true);
    PC_ASSERT_INT(
        r.producer->ops->size(r.producer, r.queue, &messages, &consumers, in_seconds(0.2), &err),
        -1);
    PC_ASSERT(err.code == PC_ETIMEOUT, "%s", err.msg);
    amqp_relay_freeze(r.relay, false, false);
    PC_ASSERT_INT(r.producer->ops->purge(r.producer, r.queue, &messages, in_seconds(5), &err), 0);
    PC_ASSERT_INT(messages, 3);
    PC_ASSERT_INT(
        r.producer->ops->size(r.producer, r.queue, &messages, &consumers, in_seconds(5), &err), 0);
    PC_ASSERT_INT(messages, 0);
    amqp_rig_fini(&r);
}

void
test_amqp_a_declaration_is_made_again_after_a_reconnect(void)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    pc_queue what = amqp_queue(r.queue);
    for (int i = 0; i < 3; i++) {
        PC_ASSERT_INT(r.producer->ops->declare(r.producer, &what, in_seconds(5), &err), 0);
    }
    PC_ASSERT_INT(r.direct->ops->remove(r.direct, r.queue, in_seconds(5), &err), 0);
    amqp_relay_cut(r.relay);
    usleep(30000);
    PC_ASSERT(r.producer->ops->declare(r.producer, &what, in_seconds(5), &err) == 0, "%s", err.msg);
    PC_ASSERT_INT(amqp_rig_size(&r), 0);
    amqp_rig_fini(&r);
}

/* ---- threads ---- */

typedef struct crowd {
    amqp_rig *r;
    int n;
} crowd;

static void *
publish_some(void *arg)
{
    crowd *c = arg;
    must_publish(c->r, c->n);
    return NULL;
}

void
test_amqp_threads_share_a_producer(void)
{
    for (int confirm = 1; confirm <= 2; confirm++) {
        amqp_rig r;
        pthread_t threads[4];
        amqp_rig_init(&r, confirm, 100);
        crowd c = {&r, confirm == 1 ? 1000 : 100};
        for (int i = 0; i < 4; i++) {
            PC_ASSERT_INT(pthread_create(&threads[i], NULL, publish_some, &c), 0);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
        must_flush(&r);
        PC_ASSERT_INT(amqp_rig_size(&r), 4 * c.n);
        amqp_rig_fini(&r);
    }
}

/* ---- figures ---- */

void
bench_amqp_publish(long n)
{
    amqp_rig r;
    pc_err err = {0};
    amqp_rig_init(&r, 1, 0);
    must_publish(&r, 1);
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        PC_ASSERT(publish(r.direct, r.queue, "[[1, 2], {}, {}]", 10, &err) == 0, "%s", err.msg);
    }
    PC_ASSERT(r.direct->ops->flush(r.direct, in_seconds(10), &err) == 0, "%s", err.msg);
    amqp_rig_fini(&r);
}
