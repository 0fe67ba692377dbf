/* SPDX-License-Identifier: BSD-3-Clause */
/* The contract of source and producer, on the in-memory broker. */
#include "harness.h"

#include <sys/wait.h>
#include <unistd.h>

#include "io/memory_hub.h"
#include "memory_world.h"

static const char *const one_queue[] = {"q", NULL};
static const char *const two_queues[] = {"q", "p", NULL};

/* --- broker --- */

void
test_memory_scheme_is_required_and_given(void)
{
    pc_err err = {0};
    pc_broker_config config = {.scheme = "memory"};
    PC_ASSERT(pc_producer_memory.create(&config, NULL, &err) == NULL);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_STR(pc_source_memory.scheme, "memory");
}

void
test_memory_delivers_in_order_and_settles(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    reader_turn(&r);
    PC_ASSERT_INT(r.up, 1);
    world_send_each(&w, "q", "abc");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abc");
    PC_ASSERT(!r.again[0]);
    reader_settle(&r, 0, PC_ACK);
    reader_settle(&r, 1, PC_REJECT);
    reader_settle(&r, 2, PC_REQUEUE);
    reader_settle(&r, 0, PC_REQUEUE);  // void by now
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abcc");
    PC_ASSERT(r.again[3]);
    reader_settle(&r, 3, PC_ACK);
    reader_turn(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 0);
    reader_stop(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 0);
    world_teardown(&w);
}

void
test_memory_settles_from_inside_message(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    r.settle = true;
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 1, NULL), 0);
    world_send_each(&w, "q", "abcdef");
    for (int i = 0; i < 6; i++) {
        reader_turn(&r);
    }
    PC_ASSERT_STR(reader_got(&r), "abcdef");
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_prefetch(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 2, NULL), 0);
    world_send_each(&w, "q", "abcde");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "ab");
    reader_settle(&r, 0, PC_ACK);
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abc");
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 4, NULL), 0);
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abcde");
    reader_stop(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 4);
    world_teardown(&w);
}

void
test_memory_close_gives_back_in_order(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 3, NULL), 0);
    world_send_each(&w, "q", "abcde");
    reader_turn(&r);
    reader_settle(&r, 1, PC_ACK);
    PC_ASSERT_INT(r.source->ops->close(r.source, in_ms(100), NULL), 0);
    reader_settle(&r, 0, PC_ACK);  // void
    reader_stop(&r);
    reader_start(&r, &w, one_queue);
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "acde");
    PC_ASSERT(r.again[0] && r.again[1] && !r.again[2]);
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_requeued_go_to_the_front_in_order(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 2, NULL), 0);
    world_send_each(&w, "q", "abc");
    reader_turn(&r);
    reader_settle(&r, 0, PC_REQUEUE);
    reader_settle(&r, 1, PC_REQUEUE);
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abab");
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_queues_take_turns(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, two_queues);
    world_send_each(&w, "q", "abc");
    world_send_each(&w, "p", "xyz");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "axbycz");
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_priorities(void)
{
    world w;
    reader r;
    world_setup(&w);
    world_declare(&w, "q", NULL, NULL, NULL);
    PC_ASSERT_INT(world_publish(&w, "", "q", "a0", 0, true), 0);
    PC_ASSERT_INT(world_publish(&w, "", "q", "b9", 9, true), 0);
    PC_ASSERT_INT(world_publish(&w, "", "q", "c-", -1, true), 0);
    PC_ASSERT_INT(world_publish(&w, "", "q", "d5", 5, true), 0);
    PC_ASSERT_INT(world_publish(&w, "", "q", "e255", 255, true), 0);
    PC_ASSERT_INT(world_publish(&w, "", "q", "f5", 5, true), 0);
    reader_start(&r, &w, one_queue);
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "b9e255d5f5a0c-");
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_pause_and_drop_queue(void)
{
    world w;
    reader r;
    world_setup(&w);
    reader_start(&r, &w, two_queues);
    reader_turn(&r);
    PC_ASSERT_INT(r.source->ops->drop_queue(r.source, "p", NULL), 0);
    PC_ASSERT_INT(r.source->ops->drop_queue(r.source, "p", NULL), -1);
    world_send_each(&w, "p", "x");
    world_send_each(&w, "q", "a");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "a");
    PC_ASSERT_INT(r.source->ops->pause(r.source, NULL), 0);
    world_send_each(&w, "q", "b");
    reader_turn(&r);
    PC_ASSERT_INT(r.got, 1);
    reader_settle(&r, 0, PC_REQUEUE);  // settling goes on
    reader_turn(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 2);
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_no_ack_counts_nothing(void)
{
    world w;
    reader r;
    pc_queue queue = {.name = "q", .no_ack = true};
    world_setup(&w);
    reader_start(&r, &w, (const char *const[]){NULL});
    PC_ASSERT_INT(r.source->ops->add_queue(r.source, &queue, NULL), 0);
    PC_ASSERT_INT(r.source->ops->add_queue(r.source, &queue, NULL), 0);
    PC_ASSERT_INT(r.source->ops->prefetch(r.source, 1, NULL), 0);
    world_send_each(&w, "q", "abc");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "abc");
    reader_settle(&r, 0, PC_REQUEUE);
    reader_stop(&r);
    PC_ASSERT_INT(world_ready(&w, "q"), 0);
    world_teardown(&w);
}

void
test_memory_deleted_queue_cancels_its_consumer(void)
{
    world w;
    reader r;
    pc_queue queue = {.name = "q"};
    world_setup(&w);
    reader_start(&r, &w, two_queues);
    world_send_each(&w, "q", "a");
    reader_turn(&r);
    world_send_each(&w, "q", "b");
    PC_ASSERT_INT(w.producer->ops->remove(w.producer, "q", soon, NULL), 0);
    PC_ASSERT_INT(w.producer->ops->remove(w.producer, "q", soon, NULL), -1);
    reader_turn(&r);
    PC_ASSERT_STR(r.cancelled, "q");
    PC_ASSERT_STR(reader_got(&r), "a");
    reader_settle(&r, 0, PC_REQUEUE);  // there is nowhere to go
    reader_turn(&r);
    PC_ASSERT_INT(world_publish(&w, "", "q", "c", -1, true), -1);
    PC_ASSERT_INT(r.source->ops->add_queue(r.source, &queue, NULL), 0);
    world_send_each(&w, "q", "d");
    reader_turn(&r);
    PC_ASSERT_STR(reader_got(&r), "ad");
    reader_stop(&r);
    world_teardown(&w);
}

void
test_memory_auto_delete_queue_goes_with_its_last_consumer(void)
{
    world w;
    reader r;
    pc_queue queue = {
        .name = "tmp", .auto_delete = true, .exchange = "x", .exchange_type = "fanout"};
    world_setup(&w);
    reader_start(&r, &w, one_queue);
    PC_ASSERT_INT(r.source->ops->add_queue(r.source, &queue, NULL), 0);
    PC_ASSERT_INT(world_publish(&w, "x", "", "a", -1, true), 0);
    PC_ASSERT_INT(r.source->ops->drop_queue(r.source, "tmp", NULL), 0);
    PC_ASSERT_INT(world_publish(&w, "x", "", "a", -1, true), -1);
    reader_stop(&r);
    world_teardown(&w);
}

/* --- routing --- */

void
test_memory_topic_patterns(void)
{
    static const struct {
        const char *pattern;
        const char *key;
        bool matches;
    } cases[] = {
        {"a.b", "a.b", true},   {"a.b", "a.c", false},   {"a.*", "a.b", true},
        {"a.*", "a", false},    {"a.*", "a.b.c", false}, {"#", "", true},
        {"#", "a.b.c", true},   {"a.#", "a", true},      {"a.#", "a.b.c", true},
        {"#.c", "a.b.c", true}, {"#.c", "c", true},      {"#.c", "a.b", false},
        {"*.#.z", "a.z", true}, {"*.#.z", "z", false},   {"a.#.b.#", "a.x.b", true},
        {"", "", true},         {"", "a", false},        {"*", "", false},
        {"a..b", "a..b", true}, {"a.*.b", "a..b", true}, {"ab", "a", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool got = pc_topic_match(pc_slice_str(cases[i].pattern), pc_slice_str(cases[i].key));
        PC_ASSERT(got == cases[i].matches, "%s and %s", cases[i].pattern, cases[i].key);
    }
}

void
test_memory_exchanges(void)
{
    world w;
    world_setup(&w);
    world_declare(&w, "d1", "direct", "direct", "k");
    world_declare(&w, "d2", "direct", NULL, "k");
    world_declare(&w, "d2", "direct", "direct", "k2");
    world_declare(&w, "t1", "topic", "topic", "task.#");
    world_declare(&w, "t1", "topic", "topic", "task.*");
    world_declare(&w, "t2", "topic", "topic", "*.created");
    world_declare(&w, "f1", "fan", "fanout", "");
    world_declare(&w, "f2", "fan", "fanout", "");
    world_declare(&w, "", "events", "topic", NULL);
    PC_ASSERT_INT(world_publish(&w, "direct", "k", "x", -1, true), 0);
    PC_ASSERT_INT(world_publish(&w, "direct", "k2", "x", -1, true), 0);
    PC_ASSERT_INT(world_publish(&w, "direct", "none", "x", -1, true), -1);
    PC_ASSERT_INT(world_publish(&w, "direct", "none", "x", -1, false), 0);
    PC_ASSERT_INT(world_publish(&w, "topic", "task.created", "x", -1, true), 0);
    PC_ASSERT_INT(world_publish(&w, "fan", "whatever", "x", -1, true), 0);
    PC_ASSERT_INT(world_publish(&w, "events", "x", "x", -1, false), 0);
    PC_ASSERT_INT(world_publish(&w, "nowhere", "x", "x", -1, false), -1);
    PC_ASSERT_INT(world_ready(&w, "d1"), 1);
    PC_ASSERT_INT(world_ready(&w, "d2"), 2);
    PC_ASSERT_INT(world_ready(&w, "t1"), 1);
    PC_ASSERT_INT(world_ready(&w, "t2"), 1);
    PC_ASSERT_INT(world_ready(&w, "f1") + world_ready(&w, "f2"), 2);
    world_teardown(&w);
}

void
test_memory_declare_refuses(void)
{
    world w;
    pc_err err = {0};
    world_setup(&w);
    const pc_producer_ops *ops = w.producer->ops;
    pc_queue queue = {.name = "h", .exchange = "h", .exchange_type = "headers"};
    PC_ASSERT_INT(ops->declare(w.producer, &queue, soon, &err), -1);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    world_declare(&w, "q", "x", "direct", "q");
    queue = (pc_queue){.name = "q", .exchange = "x", .exchange_type = "topic"};
    PC_ASSERT_INT(ops->declare(w.producer, &queue, soon, &err), -1);
    PC_ASSERT_INT(err.code, PC_ESTATE);
    queue = (pc_queue){.name = "unknown", .passive = true};
    PC_ASSERT_INT(ops->declare(w.producer, &queue, soon, &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    queue.name = "q";
    PC_ASSERT_INT(ops->declare(w.producer, &queue, soon, &err), 0);
    world_teardown(&w);
}

/* --- producer --- */

void
test_memory_get_size_purge(void)
{
    world w;
    pc_message message;
    pc_buf memory;
    bool found = true;
    uint64_t count = 0;
    pc_err err = {0};
    world_setup(&w);
    const pc_producer_ops *ops = w.producer->ops;
    pc_buf_init(&memory);
    PC_ASSERT_INT(ops->get(w.producer, "q", &found, &message, &memory, soon, &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    world_declare(&w, "q", NULL, NULL, NULL);
    PC_ASSERT_INT(ops->get(w.producer, "q", &found, &message, &memory, soon, NULL), 0);
    PC_ASSERT(!found);
    world_send_each(&w, "q", "abc");
    PC_ASSERT_INT(ops->unconfirmed(w.producer), 0);
    PC_ASSERT_INT(ops->flush(w.producer, soon, NULL), 0);
    PC_ASSERT_INT(world_ready(&w, "q"), 3);
    PC_ASSERT_INT(ops->get(w.producer, "q", &found, &message, &memory, soon, NULL), 0);
    PC_ASSERT(found && pc_slice_is(message.body, "a"));
    PC_ASSERT(pc_slice_is(message.routing_key, "q"));
    PC_ASSERT(pc_slice_is(message.headers, "{\"id\": \"1\"}"));
    PC_ASSERT_INT(ops->purge(w.producer, "q", &count, soon, NULL), 0);
    PC_ASSERT_INT(count, 2);
    PC_ASSERT_INT(world_ready(&w, "q"), 0);
    PC_ASSERT_INT(ops->purge(w.producer, "none", &count, soon, NULL), -1);
    PC_ASSERT_INT(ops->close(w.producer, soon, NULL), 0);
    pc_buf_fini(&memory);
    world_teardown(&w);
}

/* Forked while another thread was at work in it. What is published in a child of the pool would reach nobody. */
void
test_memory_is_new_in_a_forked_child(void)
{
    world w;
    world_setup(&w);
    world_declare(&w, "q", NULL, NULL, NULL);
    world_send_each(&w, "q", "ab");
    pthread_mutex_lock(&w.hub->lock);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        pc_hub_abandon(w.hub);
        PC_ASSERT_INT(world_publish(&w, "", "q", "x", 0, true), -1);
        world_declare(&w, "q", "x", "fanout", "");
        PC_ASSERT_INT(world_ready(&w, "q"), 0);
        PC_ASSERT_INT(world_publish(&w, "x", "", "x", 0, true), 0);
        PC_ASSERT_INT(world_ready(&w, "q"), 1);
        pc_hub_seal(w.hub);
        PC_ASSERT_INT(world_publish(&w, "x", "", "x", 0, true), -1);
        pc_queue other = {.name = "p"};
        pc_err err = {0};
        PC_ASSERT_INT(pc_hub_declare(w.hub, &other, &err), -1);
        PC_ASSERT_INT(err.code, PC_EUNSUP);
        _exit(0);
    }
    int status = 0;
    PC_ASSERT(waitpid(child, &status, 0) == child && status == 0, "%d", status);
    pthread_mutex_unlock(&w.hub->lock);
    PC_ASSERT_INT(world_ready(&w, "q"), 2);
    world_teardown(&w);
}
