/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite broker: every test has its own empty directory, so the file is always "q.db". */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/broker.h"
#include "io/sqlite_db.h"
#include "io/sqlite_queue.h"

#define DB "q.db"
#define LOG_MAX 20000

static const pc_producer_ops *const out = &pc_producer_sqlite;
static const pc_source_ops *const in = &pc_source_sqlite;

/* --- rig --- */

static pc_mono
after_ms(int64_t ms)
{
    return pc_mono_add(pc_mono_now(), ms * PC_NS_PER_MS);
}

static pc_broker_config
config_for(const char *path)
{
    return (pc_broker_config){.scheme = "sqlite", .vhost = path, .synchronous = PC_SQLITE_NORMAL};
}

static pc_producer *
make_producer(void)
{
    pc_err err = {0};
    pc_broker_config config = config_for(DB);
    pc_producer *producer = out->create(&config, NULL, &err);
    PC_ASSERT(producer != NULL, "%s", err.msg);
    PC_ASSERT(out->connect(producer, after_ms(5000), &err) == 0, "%s", err.msg);
    return producer;
}

static int
send_with(pc_producer *producer, const char *queue, const char *body, int priority, int64_t due_ms,
          pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.content_type = pc_slice_str("application/json");
    message.correlation_id = pc_slice_str(body);
    message.routing_key = pc_slice_str(queue);
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_str("{\"task\": \"add\"}");
    message.body = pc_slice_str(body);
    message.priority = priority;
    message.delivery_mode = 2;
    pc_wall due = {pc_wall_now().us + due_ms * 1000};
    return out->publish(producer, &message, false, due, due_ms != 0, after_ms(10000), err);
}

static void
send_text(pc_producer *producer, const char *queue, const char *body)
{
    pc_err err = {0};
    PC_ASSERT(send_with(producer, queue, body, -1, 0, &err) == 0, "%s", err.msg);
}

typedef struct rig {
    pc_loop *loop;
    pc_source *source;
    int got;  // deliveries
    uint64_t tags[LOG_MAX];
    int numbers[LOG_MAX];  // bodies as numbers
    bool redelivered[LOG_MAX];
    int up;
    int down;
    int cancelled;
    bool ack;  // settle at once
    pc_err why;
    pc_message last;  // without its bytes
    char text[64];
} rig;

static void
on_message(void *ctx, const pc_message *message)
{
    rig *self = ctx;
    char text[32] = "";
    size_t len = message->body.len < sizeof text - 1 ? message->body.len : sizeof text - 1;
    memcpy(text, message->body.ptr, len);
    int at = self->got % LOG_MAX;
    self->numbers[at] = atoi(text);
    self->tags[at] = message->tag;
    self->redelivered[at] = message->redelivered;
    self->got++;
    self->last = *message;
    snprintf(self->text, sizeof self->text, "%.*s", (int)message->correlation_id.len,
             message->correlation_id.ptr);
    if (self->ack) {
        PC_ASSERT_INT(in->settle(self->source, message->tag, PC_ACK, NULL), 0);
    }
}

static void
on_up(void *ctx)
{
    ((rig *)ctx)->up++;
}

static void
on_down(void *ctx, const pc_err *why)
{
    ((rig *)ctx)->down++;
    ((rig *)ctx)->why = *why;
}

static void
on_cancelled(void *ctx, const char *queue)
{
    (void)queue;
    ((rig *)ctx)->cancelled++;
}

static rig *
make_rig(const char *path)
{
    pc_err err = {0};
    rig *self = calloc(1, sizeof *self);
    pc_broker_config config = config_for(path);
    pc_source_hooks hooks = {on_message, on_up, on_down, on_cancelled, self};
    self->loop = pc_loop_new(&err);
    PC_ASSERT(self->loop != NULL, "%s", err.msg);
    self->source = in->create(&config, self->loop, &hooks, NULL, &err);
    PC_ASSERT(self->source != NULL, "%s", err.msg);
    return self;
}

/* Turns the loop until *counter reaches `want` or the time is over. Deliveries are made while the
 * turn is prepared: it must not sleep then. */
static bool
turn_until(rig *self, const int *counter, int want, int64_t ms)
{
    pc_mono until = after_ms(ms);
    while (*counter < want && pc_mono_now().ns < until.ns) {
        int wait_ms = pc_loop_prepare(self->loop, until);
        PC_ASSERT_INT(pc_loop_wait(self->loop, *counter >= want ? 0 : wait_ms, NULL), 0);
        (void)pc_loop_dispatch(self->loop);
    }
    return *counter >= want;
}

static void
turn_for(rig *self, int64_t ms)
{
    int never = 0;
    (void)turn_until(self, &never, 1, ms);
}

static void
add_queue(rig *self, const char *name)
{
    pc_err err = {0};
    pc_queue queue = {.name = name};
    PC_ASSERT(in->add_queue(self->source, &queue, &err) == 0, "%s", err.msg);
}

static rig *
start(unsigned prefetch, bool ack)
{
    rig *self = make_rig(DB);
    self->ack = ack;
    add_queue(self, "q");
    PC_ASSERT_INT(in->prefetch(self->source, prefetch, NULL), 0);
    PC_ASSERT_INT(in->connect(self->source, NULL), 0);
    PC_ASSERT_INT(self->up, 0);
    PC_ASSERT(turn_until(self, &self->up, 1, 5000));
    return self;
}

static rig *
start_rig(unsigned prefetch)
{
    return start(prefetch, false);
}

static void
end_rig(rig *self)
{
    pc_err err = {0};
    PC_ASSERT(in->close(self->source, after_ms(2000), &err) == 0, "%s", err.msg);
    in->destroy(self->source);
    pc_loop_free(self->loop);
    free(self);
}

static void
end_producer(pc_producer *producer)
{
    PC_ASSERT_INT(out->close(producer, after_ms(1000), NULL), 0);
    out->destroy(producer);
}

static uint64_t
ready_in(pc_producer *producer, const char *queue)
{
    uint64_t messages = 0;
    uint64_t consumers = 0;
    pc_err err = {0};
    PC_ASSERT(out->size(producer, queue, &messages, &consumers, after_ms(1000), &err) == 0, "%s",
              err.msg);
    return messages;
}

static void
send_numbers(pc_producer *producer, int from, int to)
{
    for (int i = from; i < to; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        send_text(producer, "q", text);
    }
}

/* --- one of each --- */

void
test_sqlite_keeps_message_and_order(void)
{
    pc_producer *producer = make_producer();
    send_numbers(producer, 0, 100);
    PC_ASSERT_INT(ready_in(producer, "q"), 100);
    rig *self = start_rig(0);
    PC_ASSERT(turn_until(self, &self->got, 100, 3000));
    for (int i = 0; i < 100; i++) {
        PC_ASSERT_INT(self->numbers[i], i);
        PC_ASSERT(!self->redelivered[i]);
    }
    PC_ASSERT_STR(self->text, "99");
    PC_ASSERT_INT(self->last.delivery_mode, 2);
    PC_ASSERT_INT(self->last.priority, -1);
    PC_ASSERT_INT(self->last.timestamp, -1);
    PC_ASSERT_INT(self->last.headers_kind, PC_HEADERS_JSON);
    PC_ASSERT(self->last.reply_to.ptr == NULL);
    for (int i = 0; i < 100; i++) {
        PC_ASSERT_INT(in->settle(self->source, self->tags[i], PC_ACK, NULL), 0);
    }
    end_rig(self);
    PC_ASSERT_INT(ready_in(producer, "q"), 0);
    end_producer(producer);
}

void
test_sqlite_unsettled_come_back(void)
{
    pc_producer *producer = make_producer();
    send_numbers(producer, 0, 4);
    rig *self = start_rig(0);
    PC_ASSERT(turn_until(self, &self->got, 4, 3000));
    in->settle(self->source, self->tags[0], PC_ACK, NULL);
    in->settle(self->source, self->tags[1], PC_REJECT, NULL);
    in->settle(self->source, self->tags[3], PC_REQUEUE, NULL);
    PC_ASSERT(turn_until(self, &self->got, 5, 3000));
    PC_ASSERT_INT(self->numbers[4], 3);
    PC_ASSERT(self->redelivered[4]);
    end_rig(self);  // 2 and 3 are given back
    PC_ASSERT_INT(ready_in(producer, "q"), 2);
    self = start_rig(0);
    PC_ASSERT(turn_until(self, &self->got, 2, 3000));
    PC_ASSERT_INT(self->numbers[0], 2);
    PC_ASSERT(self->redelivered[0]);
    end_rig(self);
    end_producer(producer);
}

void
test_sqlite_priority_first(void)
{
    pc_producer *producer = make_producer();
    const int priorities[] = {-1, 3, 9, 3, 0};
    for (int i = 0; i < 5; i++) {
        char text[2] = {(char)('0' + i), '\0'};
        PC_ASSERT_INT(send_with(producer, "q", text, priorities[i], 0, NULL), 0);
    }
    rig *self = start(2, true);
    PC_ASSERT(turn_until(self, &self->got, 5, 3000));
    const int want[] = {2, 1, 3, 0, 4};
    for (int i = 0; i < 5; i++) {
        PC_ASSERT_INT(self->numbers[i], want[i]);
    }
    end_rig(self);
    end_producer(producer);
}

void
test_sqlite_due_waits(void)
{
    pc_producer *producer = make_producer();
    rig *self = start_rig(0);
    turn_for(self, 20);
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(send_with(producer, "q", "1", -1, 300, NULL), 0);
    PC_ASSERT_INT(send_with(producer, "q", "2", -1, 150, NULL), 0);
    PC_ASSERT_INT(send_with(producer, "q", "3", -1, -500, NULL), 0);  // already due
    PC_ASSERT_INT(ready_in(producer, "q"), 1);
    PC_ASSERT(turn_until(self, &self->got, 1, 100));
    PC_ASSERT_INT(self->numbers[0], 3);
    PC_ASSERT(turn_until(self, &self->got, 3, 3000));
    int64_t ms = (pc_mono_now().ns - start.ns) / PC_NS_PER_MS;
    PC_ASSERT(ms >= 299 && ms < 600, "took %lld ms", (long long)ms);
    PC_ASSERT_INT(self->numbers[1], 2);
    PC_ASSERT_INT(self->numbers[2], 1);
    end_rig(self);
    end_producer(producer);
}

void
test_sqlite_prefetch_limits(void)
{
    pc_producer *producer = make_producer();
    send_numbers(producer, 0, 10);
    rig *self = start_rig(3);
    turn_for(self, 50);
    PC_ASSERT_INT(self->got, 3);
    PC_ASSERT_INT(ready_in(producer, "q"), 7);
    in->settle(self->source, self->tags[0], PC_ACK, NULL);
    turn_for(self, 50);
    PC_ASSERT_INT(self->got, 4);
    in->prefetch(self->source, 5, NULL);
    turn_for(self, 50);
    PC_ASSERT_INT(self->got, 6);
    in->pause(self->source, NULL);
    for (int i = 1; i < 6; i++) {
        in->settle(self->source, self->tags[i], PC_ACK, NULL);
    }
    turn_for(self, 50);
    PC_ASSERT_INT(self->got, 6);
    end_rig(self);
    PC_ASSERT_INT(ready_in(producer, "q"), 4);
    end_producer(producer);
}

void
test_sqlite_several_queues_share(void)
{
    pc_producer *producer = make_producer();
    for (int i = 0; i < 50; i++) {
        send_text(producer, "q", "1");
        send_text(producer, "r", "2");
    }
    rig *self = make_rig(DB);
    self->ack = true;
    add_queue(self, "q");
    add_queue(self, "r");
    in->prefetch(self->source, 10, NULL);
    in->connect(self->source, NULL);
    PC_ASSERT(turn_until(self, &self->got, 100, 3000));
    int of_r = 0;
    for (int i = 0; i < 50; i++) {
        of_r += self->numbers[i] == 2;
    }
    PC_ASSERT(of_r >= 15 && of_r <= 35, "%d of the first 50", of_r);
    PC_ASSERT_INT(in->drop_queue(self->source, "r", NULL), 0);
    send_text(producer, "r", "3");
    turn_for(self, 50);
    PC_ASSERT_INT(self->got, 100);
    end_rig(self);
    end_producer(producer);
}

void
test_sqlite_no_ack_queue(void)
{
    pc_producer *producer = make_producer();
    rig *self = make_rig(DB);
    pc_queue queue = {.name = "n", .no_ack = true, .auto_delete = true};
    PC_ASSERT_INT(in->add_queue(self->source, &queue, NULL), 0);
    in->prefetch(self->source, 1, NULL);
    in->connect(self->source, NULL);
    PC_ASSERT(turn_until(self, &self->up, 1, 3000));
    for (int i = 0; i < 5; i++) {
        send_text(producer, "n", "1");
    }
    PC_ASSERT(turn_until(self, &self->got, 5, 3000));
    turn_for(self, 20);
    PC_ASSERT_INT(ready_in(producer, "n"), 0);
    end_rig(self);
    uint64_t n;
    pc_err err = {0};
    PC_ASSERT_INT(out->size(producer, "n", &n, &n, after_ms(100), &err), -1);  // auto-deleted
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    end_producer(producer);
}

void
test_sqlite_removed_queue_is_cancelled(void)
{
    pc_producer *producer = make_producer();
    rig *self = start_rig(1);
    PC_ASSERT_INT(out->remove(producer, "q", after_ms(1000), NULL), 0);
    PC_ASSERT(turn_until(self, &self->cancelled, 1, 4000));
    add_queue(self, "q");
    send_text(producer, "q", "7");
    PC_ASSERT(turn_until(self, &self->got, 1, 2000));
    end_rig(self);
    end_producer(producer);
}

/* --- producer --- */

static int
send_to(pc_producer *producer, const char *exchange, const char *key, bool mandatory, pc_err *err)
{
    pc_message message;
    pc_message_init(&message);
    message.exchange = pc_slice_str(exchange);
    message.routing_key = pc_slice_str(key);
    message.body = pc_slice_str("x");
    return out->publish(producer, &message, mandatory, (pc_wall){0}, false, after_ms(1000), err);
}

void
test_sqlite_exchanges(void)
{
    pc_producer *producer = make_producer();
    pc_err err = {0};
    const pc_queue queues[] = {
        {.name = "d", .exchange = "direct", .exchange_type = "direct", .routing_key = "k"},
        {.name = "t1", .exchange = "topic", .exchange_type = "topic", .routing_key = "a.*"},
        {.name = "t2", .exchange = "topic", .exchange_type = "topic", .routing_key = "a.#"},
        {.name = "f1", .exchange = "fan", .exchange_type = "fanout"},
        {.name = "f2", .exchange = "fan", .exchange_type = "fanout"},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++) {
            PC_ASSERT(out->declare(producer, &queues[i], after_ms(1000), &err) == 0, "%s", err.msg);
        }
    }
    PC_ASSERT_INT(send_to(producer, "direct", "k", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "direct", "other", false, &err), 0);
    PC_ASSERT_INT(send_to(producer, "direct", "other", true, &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    PC_ASSERT_INT(send_to(producer, "topic", "a.b", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "topic", "a.b.c", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "fan", "whatever", true, &err), 0);
    PC_ASSERT_INT(send_to(producer, "nobody", "made", true, &err), 0);
    PC_ASSERT_INT(ready_in(producer, "d"), 1);
    PC_ASSERT_INT(ready_in(producer, "t1"), 1);
    PC_ASSERT_INT(ready_in(producer, "t2"), 2);
    PC_ASSERT_INT(ready_in(producer, "f1"), 1);
    PC_ASSERT_INT(ready_in(producer, "f2"), 1);
    PC_ASSERT_INT(ready_in(producer, "made"), 1);
    pc_queue headers = {.name = "h", .exchange = "h", .exchange_type = "headers"};
    PC_ASSERT_INT(out->declare(producer, &headers, after_ms(1000), &err), -1);
    PC_ASSERT_INT(err.code, PC_EUNSUP);
    end_producer(producer);
}

void
test_sqlite_topic_patterns(void)
{
    static const struct {
        const char *pattern;
        const char *key;
        bool match;
    } cases[] = {
        {"a.b", "a.b", true},
        {"a.*", "a.b", true},
        {"a.*", "a", false},
        {"a.*", "a.b.c", false},
        {"#", "", true},
        {"#", "a.b.c", true},
        {"a.#", "a", true},
        {"a.#", "a.b.c", true},
        {"#.c", "a.b.c", true},
        {"#.c", "c", true},
        {"#.c", "a.b", false},
        {"a.#.c", "a.c", true},
        {"a.#.c", "a.c.c", true},
        {"#.b.*", "a.b.b.c", true},
        {"*", "a", true},
        {"*", "a.b", false},
        {"#.#", "a", true},
        {"#.a.#.b", "x.a.y.b", true},
        {"#.a.#.b", "x.a.y", false},
        {"", "a", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool got =
            pc_sqlite_topic_match(pc_slice_str(cases[i].pattern), pc_slice_str(cases[i].key));
        PC_ASSERT(got == cases[i].match, "%s against %s", cases[i].pattern, cases[i].key);
    }
}

void
test_sqlite_get_purge_remove(void)
{
    pc_producer *producer = make_producer();
    pc_buf memory;
    pc_message message;
    bool found;
    uint64_t n = 0;
    pc_err err = {0};
    pc_buf_init(&memory);
    PC_ASSERT_INT(out->get(producer, "q", &found, &message, &memory, after_ms(100), &err), -1);
    PC_ASSERT_INT(err.code, PC_ENOTFOUND);
    send_numbers(producer, 10, 14);
    PC_ASSERT_INT(out->get(producer, "q", &found, &message, &memory, after_ms(1000), &err), 0);
    PC_ASSERT(found && pc_slice_is(message.body, "10"));
    PC_ASSERT(!message.redelivered);
    PC_ASSERT(pc_slice_is(message.headers, "{\"task\": \"add\"}"));
    PC_ASSERT_INT(out->purge(producer, "q", &n, after_ms(1000), &err), 0);
    PC_ASSERT_INT(n, 3);
    PC_ASSERT_INT(out->get(producer, "q", &found, &message, &memory, after_ms(1000), &err), 0);
    PC_ASSERT(!found);
    PC_ASSERT_INT(out->remove(producer, "q", after_ms(1000), &err), 0);
    PC_ASSERT_INT(out->remove(producer, "q", after_ms(1000), &err), 0);
    PC_ASSERT_INT(out->size(producer, "q", &n, &n, after_ms(1000), &err), -1);
    pc_buf_fini(&memory);
    end_producer(producer);
}

static void *
publish_many(void *ctx)
{
    send_numbers(ctx, 0, 500);
    return NULL;
}

void
test_sqlite_two_threads_publish(void)
{
    pc_producer *producer = make_producer();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        PC_ASSERT_INT(pthread_create(&threads[i], NULL, publish_many, producer), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    PC_ASSERT_INT(ready_in(producer, "q"), 1000);
    end_producer(producer);
}

/* --- several processes --- */

#define SENDERS 3
#define EACH 6700
#define TOTAL (SENDERS * EACH)

/* Counted in memory that all processes share. */
typedef struct tally {
    _Atomic int sum;
    _Atomic int seen[TOTAL];
} tally;

static void
consume_and_count(tally *shared)
{
    rig *self = start_rig(64);
    while (shared->sum < TOTAL) {
        (void)turn_until(self, &self->got, 1, 50);
        for (int i = 0; i < self->got; i++) {
            shared->seen[self->numbers[i]]++;
            shared->sum++;
            PC_ASSERT_INT(in->settle(self->source, self->tags[i], PC_ACK, NULL), 0);
        }
        self->got = 0;
    }
    end_rig(self);
}

static pid_t
fork_sender(int from)
{
    pid_t pid = fork();
    if (pid == 0) {
        pc_producer *producer = make_producer();
        send_numbers(producer, from, from + EACH);
        end_producer(producer);
        _exit(0);
    }
    return pid;
}

static pid_t
fork_consumer(tally *shared)
{
    pid_t pid = fork();
    if (pid == 0) {
        consume_and_count(shared);
        _exit(0);
    }
    return pid;
}

void
test_sqlite_many_processes_lose_and_double_nothing(void)
{
    tally *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PC_ASSERT(shared != MAP_FAILED);
    pid_t children[SENDERS + 2];
    for (int i = 0; i < SENDERS; i++) {
        children[i] = fork_sender(i * EACH);
    }
    children[SENDERS] = fork_consumer(shared);
    children[SENDERS + 1] = fork_consumer(shared);
    for (int i = 0; i < SENDERS + 2; i++) {
        int status;
        PC_ASSERT(waitpid(children[i], &status, 0) == children[i] && status == 0, "status %d",
                  status);
    }
    for (int i = 0; i < TOTAL; i++) {
        PC_ASSERT(shared->seen[i] == 1, "%d came %d times", i, shared->seen[i]);
    }
    pc_producer *producer = make_producer();
    PC_ASSERT_INT(ready_in(producer, "q"), 0);
    end_producer(producer);
    munmap(shared, sizeof *shared);
}

/* Publishes and counts until it is killed; what was counted must arrive. */
static pid_t
fork_endless_sender(_Atomic int *published)
{
    pid_t pid = fork();
    if (pid == 0) {
        pc_producer *producer = make_producer();
        for (int i = *published; i < TOTAL; i = *published) {
            send_numbers(producer, i, i + 1);
            (*published)++;
        }
        _exit(0);
    }
    return pid;
}

static void
kill_after(pid_t pid, long ms)
{
    struct timespec pause = {.tv_nsec = ms * PC_NS_PER_MS};
    nanosleep(&pause, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void
test_sqlite_kills_lose_nothing(void)
{
    size_t size = sizeof(tally) + sizeof(int);
    tally *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PC_ASSERT(shared != MAP_FAILED);
    _Atomic int *published = (_Atomic int *)(shared + 1);
    for (int i = 0; i < 12; i++) {
        pid_t sender = fork_endless_sender(published);
        pid_t consumer = fork_consumer(shared);
        kill_after(consumer, 30 + 7 * i);
        kill_after(sender, 3 + i);
    }
    rig *self = start_rig(64);
    pc_producer *producer = make_producer();
    while (self->got > 0 || ready_in(producer, "q") > 0) {
        for (int i = 0; i < self->got; i++) {
            shared->seen[self->numbers[i]]++;
            in->settle(self->source, self->tags[i], PC_ACK, NULL);
        }
        self->got = 0;
        (void)turn_until(self, &self->got, 1, 50);
    }
    PC_ASSERT(*published > 100, "%d", *published);
    for (int i = 0; i < *published; i++) {
        PC_ASSERT(shared->seen[i] >= 1, "%d of %d is lost", i, *published);
    }
    end_producer(producer);
    end_rig(self);
    munmap(shared, size);
}

/* A consumer that takes ten messages and sleeps; with a child of its own that holds all its
 * descriptors. */
static pid_t
fork_hoarder(int ready)
{
    pid_t pid = fork();
    if (pid == 0) {
        rig *self = start_rig(10);
        PC_ASSERT(turn_until(self, &self->got, 10, 5000));
        if (fork() == 0) {
            sleep(10);
            _exit(0);
        }
        PC_ASSERT(write(ready, "x", 1) == 1);
        turn_for(self, 20000);
        _exit(0);
    }
    return pid;
}

void
test_sqlite_dead_consumers_messages_come_back(void)
{
    pc_producer *producer = make_producer();
    send_numbers(producer, 0, 10);
    end_producer(producer);
    int pipes[2];
    char byte;
    PC_ASSERT_INT(pipe(pipes), 0);
    pid_t pid = fork_hoarder(pipes[1]);
    PC_ASSERT_INT(read(pipes[0], &byte, 1), 1);
    rig *self = start_rig(0);
    turn_for(self, 2500);  // long enough for a look at the living owner
    PC_ASSERT_INT(self->got, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    pc_mono start = pc_mono_now();
    PC_ASSERT(turn_until(self, &self->got, 10, 5000));
    int64_t ms = (pc_mono_now().ns - start.ns) / PC_NS_PER_MS;
    PC_ASSERT(ms < 3000, "took %lld ms", (long long)ms);
    for (int i = 0; i < 10; i++) {
        PC_ASSERT_INT(self->numbers[i], i);
        PC_ASSERT(self->redelivered[i]);
    }
    end_rig(self);
}

/* Two workers of one process see each other as alive, and the end of one gives its messages to the
 * other. */
void
test_sqlite_two_workers_in_one_process(void)
{
    pc_producer *producer = make_producer();
    send_numbers(producer, 0, 5);
    rig *first = start_rig(5);
    PC_ASSERT(turn_until(first, &first->got, 5, 3000));
    rig *second = start_rig(5);
    turn_for(second, 2500);
    PC_ASSERT_INT(second->got, 0);
    in->destroy(first->source);  // not closed in order
    PC_ASSERT(turn_until(second, &second->got, 5, 3000));
    pc_loop_free(first->loop);
    free(first);
    end_rig(second);
    end_producer(producer);
}

/* A child abandons what it inherited and opens its own; neither disturbs the other. */
void
test_sqlite_fork_abandons(void)
{
    pc_producer *producer = make_producer();
    rig *self = start_rig(0);
    turn_for(self, 20);
    send_numbers(producer, 0, 1);
    pid_t pid = fork();
    if (pid == 0) {
        in->abandon(self->source);
        in->destroy(self->source);
        out->abandon(producer);
        out->destroy(producer);
        pc_producer *own = make_producer();
        send_numbers(own, 1, 100);
        end_producer(own);
        _exit(0);
    }
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    PC_ASSERT(turn_until(self, &self->got, 100, 3000));
    send_numbers(producer, 100, 101);
    PC_ASSERT(turn_until(self, &self->got, 101, 3000));
    end_rig(self);
    end_producer(producer);
}

/* --- wake-ups --- */

static int
by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* Echoes: reads a byte, publishes the moment. */
static pid_t
fork_clock(int requests, int other_end)
{
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(other_end);
        pc_producer *producer = make_producer();
        while (read(requests, &byte, 1) == 1) {
            struct timespec pause = {.tv_nsec =
                                         2 * PC_NS_PER_MS};  // the other side has to fall asleep
            nanosleep(&pause, NULL);
            char text[32];
            snprintf(text, sizeof text, "%lld", (long long)pc_mono_now().ns);
            send_text(producer, "q", text);
        }
        end_producer(producer);
        _exit(0);
    }
    return pid;
}

#define WAKES 200

void
test_sqlite_wake_up_latency(void)
{
    int pipes[2];
    int64_t spans[WAKES];
    PC_ASSERT_INT(pipe(pipes), 0);
    pid_t pid = fork_clock(pipes[0], pipes[1]);
    close(pipes[0]);
    rig *self = start(0, true);
    for (int i = 0; i < WAKES; i++) {
        int want = self->got + 1;
        PC_ASSERT_INT(write(pipes[1], "x", 1), 1);
        PC_ASSERT(turn_until(self, &self->got, want, 3000));
        spans[i] = pc_mono_now().ns - strtoll(self->text, NULL, 10);
    }
    close(pipes[1]);
    waitpid(pid, NULL, 0);
    qsort(spans, WAKES, sizeof spans[0], by_value);
    printf("publish to delivery: p50 %lld us, p99 %lld us\n", (long long)spans[WAKES / 2] / 1000,
           (long long)spans[WAKES * 99 / 100] / 1000);
    PC_ASSERT(spans[WAKES / 2] < 500000, "p50 %lld ns", (long long)spans[WAKES / 2]);
    end_rig(self);
}

/* --- faults --- */

static void
expect_failure(const char *path, pc_code code, const char *part)
{
    pc_err err = {0};
    pc_broker_config config = config_for(path);
    pc_producer *producer = out->create(&config, NULL, &err);
    PC_ASSERT_INT(out->connect(producer, after_ms(200), &err), -1);
    PC_ASSERT(err.code == code && strstr(err.msg, part) != NULL, "code %d: %s", err.code, err.msg);
    out->destroy(producer);
    rig *self = make_rig(path);
    PC_ASSERT_INT(in->connect(self->source, NULL), 0);
    PC_ASSERT_INT(self->down, 0);
    PC_ASSERT(turn_until(self, &self->down, 1, 3000));
    PC_ASSERT(strstr(self->why.msg, part) != NULL, "%s", self->why.msg);
    in->destroy(self->source);
    pc_loop_free(self->loop);
    free(self);
}

void
test_sqlite_bad_paths(void)
{
    FILE *file = fopen("text.db", "w");
    for (int i = 0; i < 1000; i++) {
        fputs("this is not a database ", file);
    }
    fclose(file);
    PC_ASSERT_INT(system("sqlite3 other.db 'CREATE TABLE django(x)' 2>/dev/null || true"), 0);
    expect_failure("missing/q.db", PC_EIO, "missing/q.db");
    expect_failure("text.db", PC_EDATA, "text.db");
    expect_failure("", PC_EDATA, "sqlite:///queue.db");
    if (access("other.db", F_OK) == 0) {
        expect_failure("other.db", PC_EDATA, "another program");
    }
    expect_failure("/proc/q.db", PC_EIO, "/proc/q.db");
}

void
test_sqlite_newer_schema(void)
{
    end_producer(make_producer());
    FILE *file = fopen(DB, "r+");
    fseek(file, 63, SEEK_SET);  // user_version, big-endian, in the file's header
    fputc(PC_SQL_VERSION + 1, file);
    fclose(file);
    expect_failure(DB, PC_EDATA, "version");
}

void
test_sqlite_removed_file(void)
{
    pc_producer *producer = make_producer();
    rig *self = start_rig(1);
    turn_for(self, 20);
    send_numbers(producer, 1, 2);
    PC_ASSERT(turn_until(self, &self->got, 1, 1000));
    PC_ASSERT_INT(system("rm -rf q.db*"), 0);
    PC_ASSERT(turn_until(self, &self->down, 1, 4000));
    PC_ASSERT(strstr(self->why.msg, "removed") != NULL, "%s", self->why.msg);
    send_numbers(producer, 2, 3);                           // into a new file
    in->settle(self->source, self->tags[0], PC_ACK, NULL);  // void
    PC_ASSERT_INT(in->connect(self->source, NULL), 0);
    PC_ASSERT(turn_until(self, &self->got, 2, 3000));
    PC_ASSERT_INT(self->numbers[1], 2);
    PC_ASSERT_INT(self->up, 2);
    end_rig(self);
    end_producer(producer);
}

static void
limit_files(rlim_t bytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    PC_ASSERT_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int
fill_up(pc_producer *producer, pc_err *err)
{
    static char body[20001];
    int sent = 0;
    memset(body, 'x', sizeof body - 1);
    while (sent < 1000 && send_with(producer, "full", body, -1, 0, err) == 0) {
        sent++;
    }
    return sent;
}

/* Settled while the disk is full: after the trouble the message must not come again. */
void
test_sqlite_full_disk(void)
{
    pc_err err = {0};
    signal(SIGXFSZ, SIG_IGN);
    pc_producer *producer = make_producer();
    rig *self = start_rig(1);
    send_numbers(producer, 1, 2);
    PC_ASSERT(turn_until(self, &self->got, 1, 1000));
    limit_files(2 << 20);
    int sent = fill_up(producer, &err);
    PC_ASSERT(sent > 10 && sent < 1000, "%d", sent);
    PC_ASSERT(err.code == PC_EIO && strstr(err.msg, "free some space") != NULL, "%d %s", err.code,
              err.msg);
    PC_ASSERT_INT(ready_in(producer, "full"), sent);
    limit_files(4096);  // not even a frame of the WAL
    in->settle(self->source, self->tags[0], PC_ACK, NULL);
    PC_ASSERT(turn_until(self, &self->down, 1, 8000));
    PC_ASSERT(strstr(self->why.msg, "free some space") != NULL, "%s", self->why.msg);
    limit_files(RLIM_INFINITY);
    send_numbers(producer, 2, 3);
    PC_ASSERT_INT(in->connect(self->source, NULL), 0);
    PC_ASSERT(turn_until(self, &self->got, 2, 3000));
    PC_ASSERT_INT(self->numbers[1], 2);
    end_rig(self);
    end_producer(producer);
}

/* Somebody holds the writer lock: a publish ends at its deadline, a source waits and goes on. */
void
test_sqlite_locked(void)
{
    pc_err err = {0};
    pc_producer *producer = make_producer();
    rig *self = start_rig(0);
    turn_for(self, 20);
    pc_sqlite *other = pc_sqlite_open(DB, PC_SQLITE_NORMAL, after_ms(1000), &err);
    PC_ASSERT(other != NULL, "%s", err.msg);
    PC_ASSERT_INT(pc_sqlite_begin(other, after_ms(100), &err), 0);
    pc_message message;
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.body = pc_slice_str("1");
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(out->publish(producer, &message, false, (pc_wall){0}, false, after_ms(100), &err),
                  -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(pc_mono_now().ns - start.ns < 300 * PC_NS_PER_MS);
    add_queue(self, "q");
    pc_queue queue = {.name = "r"};
    PC_ASSERT_INT(in->add_queue(self->source, &queue, &err), -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    pc_sqlite_rollback(other);
    send_numbers(producer, 5, 6);
    PC_ASSERT(turn_until(self, &self->got, 1, 2000));
    PC_ASSERT_INT(self->down, 0);
    pc_sqlite_close(other);
    end_rig(self);
    end_producer(producer);
}

static int
publish_once(void *arg)
{
    pc_broker_config config = config_for(DB);
    (void)arg;
    pc_producer *producer = out->create(&config, NULL, NULL);
    if (producer == NULL) {
        return -1;
    }
    pc_queue queue = {.name = "q", .exchange = "e", .exchange_type = "topic", .routing_key = "#"};
    int rc = out->declare(producer, &queue, after_ms(1000), NULL);
    rc = rc < 0 ? rc : send_with(producer, "q", "1", -1, 0, NULL);
    out->destroy(producer);
    return rc;
}

static int
consume_once(void *arg)
{
    rig *self = arg;
    pc_broker_config config = config_for(DB);
    pc_source_hooks hooks = {on_message, on_up, on_down, on_cancelled, self};
    pc_queue queue = {.name = "q"};
    self->up = self->down = self->got = 0;
    self->loop = pc_loop_new(NULL);
    if (self->loop == NULL) {
        return -1;
    }
    self->source = in->create(&config, self->loop, &hooks, NULL, NULL);
    int rc = self->source == NULL ? -1 : in->add_queue(self->source, &queue, NULL);
    rc = rc < 0 ? rc : in->connect(self->source, NULL);
    pc_mono until = after_ms(3000);
    while (rc >= 0 && self->down == 0 && self->got == 0 && pc_mono_now().ns < until.ns) {
        (void)pc_loop_prepare(self->loop, until);
        rc = pc_loop_wait(self->loop, self->down + self->got > 0 ? 0 : 1, NULL);
        (void)pc_loop_dispatch(self->loop);
    }
    in->destroy(self->source);
    pc_loop_free(self->loop);
    return rc >= 0 && self->got > 0 ? 0 : -1;
}

void
test_sqlite_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(publish_once, NULL) > 3);
    rig *self = calloc(1, sizeof *self);
    PC_ASSERT(PC_OOM(consume_once, self) > 3);
    free(self);
}

/* --- rates --- */

void
bench_sqlite_publish(long n)
{
    pc_producer *producer = make_producer();
    ct_reset_timer();
    for (long i = 0; i < n; i++) {
        send_text(producer, "q", "1");
    }
    end_producer(producer);
}

static void
fill_queue(long n)
{
    pc_err err = {0};
    static const char headers[] = "{\"lang\": \"py\", \"task\": \"proj.add\"}";
    char body[90];
    char long_headers[500];
    pc_buf scratch;
    pc_sqlite_route route = {0};
    pc_sqlite *db = pc_sqlite_open(DB, PC_SQLITE_NORMAL, after_ms(1000), &err);
    PC_ASSERT(db != NULL, "%s", err.msg);
    memset(body, 'b', sizeof body);
    memset(long_headers, ' ', sizeof long_headers);
    memcpy(long_headers, headers, sizeof headers - 1);
    pc_buf_init(&scratch);
    pc_message message;
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.headers_kind = PC_HEADERS_JSON;
    message.headers = pc_slice_of(long_headers, sizeof long_headers);
    message.body = pc_slice_of(body, sizeof body);
    PC_ASSERT_INT(pc_sqlite_begin(db, after_ms(1000), &err), 0);
    for (long i = 0; i < n; i++) {
        PC_ASSERT_INT(pc_sqlite_queue_put(db, &message, 0, &scratch, &route, &err), 0);
    }
    PC_ASSERT_INT(pc_sqlite_commit(db, &err), 0);
    pc_sqlite_close(db);
    pc_buf_fini(&scratch);
}

static void
consume(long n, unsigned prefetch)
{
    fill_queue(n);
    rig *self = make_rig(DB);
    self->ack = true;
    add_queue(self, "q");
    in->prefetch(self->source, prefetch, NULL);
    in->connect(self->source, NULL);
    ct_reset_timer();
    PC_ASSERT(turn_until(self, &self->got, (int)n, 600000));
    end_rig(self);
}

void
bench_sqlite_consume_batch_64(long n)
{
    consume(n, 64);
}

void
bench_sqlite_consume_batch_8(long n)
{
    consume(n, 8);
}

void
bench_sqlite_consume_batch_1(long n)
{
    consume(n, 1);
}
