/* SPDX-License-Identifier: BSD-3-Clause */
/* Broker and result store in one file: a worker that stores each result before it acknowledges. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "io/store.h"
#include "sqlite_rig.h"

#define TASKS 500

typedef struct worker {
    pc_source *source;
    pc_store *store;
    int done;
} worker;

static void
run_task(void *ctx, const pc_message *message)
{
    worker *self = ctx;
    pc_store_item item = {
        .id = message->correlation_id, .state = PC_SUCCESS, .document = message->body};
    PC_ASSERT_INT(pc_store_sqlite.put(self->store, &item, (void *)message->tag, NULL), 0);
}

static void
on_stored(void *ctx, void *cookie, const pc_err *why)
{
    worker *self = ctx;
    PC_ASSERT(why == NULL);
    PC_ASSERT_INT(sq_in->settle(self->source, (uint64_t)cookie, PC_ACK, NULL), 0);
    self->done++;
}

static void
on_up(void *ctx)
{
    (void)ctx;
}

static void
on_down(void *ctx, const pc_err *why)
{
    (void)ctx;
    PC_ASSERT(false, "%s", why->msg);
}

static void
on_cancelled(void *ctx, const char *queue)
{
    (void)ctx;
    (void)queue;
}

static void
work(int tasks)
{
    worker self = {0};
    pc_loop *loop = pc_loop_new(NULL);
    pc_broker_config broker = sq_config_for(SQ_DB);
    pc_store_config config = {.scheme = "sqlite", .path = SQ_DB, .expires = 3600};
    pc_source_hooks hooks = {run_task, on_up, on_down, on_cancelled, &self, NULL, NULL, NULL};
    pc_store_hooks store_hooks = {on_stored, on_down, on_up, &self};
    pc_queue queue = {.name = "q"};
    self.source = sq_in->create(&broker, loop, &hooks, NULL, NULL);
    self.store = pc_store_sqlite.create(&config, loop, &store_hooks, NULL, NULL);
    PC_ASSERT_INT(sq_in->add_queue(self.source, &queue, NULL), 0);
    PC_ASSERT_INT(sq_in->prefetch(self.source, 32, NULL), 0);
    PC_ASSERT_INT(sq_in->connect(self.source, NULL), 0);
    while (self.done < tasks) {
        int wait_ms = pc_loop_prepare(loop, PC_MONO_NEVER);
        PC_ASSERT_INT(pc_loop_wait(loop, self.done < tasks ? wait_ms : 0, NULL), 0);
        (void)pc_loop_dispatch(loop);
    }
    PC_ASSERT_INT(sq_in->close(self.source, sq_after_ms(1000), NULL), 0);
    sq_in->destroy(self.source);
    pc_store_sqlite.destroy(self.store);
    pc_loop_free(loop);
}

static void
expect_result(pc_results *results, int number)
{
    char id[16];
    pc_buf out;
    pc_err err = {0};
    pc_buf_init(&out);
    snprintf(id, sizeof id, "%d", number);
    PC_ASSERT(
        pc_results_sqlite.wait(results, pc_slice_str(id), &out, sq_after_ms(5000), NULL, &err) == 0,
        "%s: %s", id, err.msg);
    PC_ASSERT(pc_slice_is(pc_buf_slice(&out), id));
    pc_buf_fini(&out);
}

void
test_sqlite_one_file_for_broker_and_results(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        work(TASKS);
        _exit(0);
    }
    pc_store_config config = {.scheme = "sqlite", .path = SQ_DB};
    pc_results *results = pc_results_sqlite.create(&config, NULL, NULL);
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 0, TASKS - 10);
    for (int i = 0; i < TASKS - 10; i++) {
        expect_result(results, i);
    }
    for (int i = TASKS - 10; i < TASKS; i++) {  // one at a time: there and back
        sq_send_numbers(producer, i, i + 1);
        expect_result(results, i);
    }
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 0);
    pc_results_sqlite.destroy(results);
    sq_end_producer(producer);
}
