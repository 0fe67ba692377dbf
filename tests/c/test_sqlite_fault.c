/* SPDX-License-Identifier: BSD-3-Clause */
/* The SQLite broker in trouble: paths, full disk, locks, removed files, no memory. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "io/sqlite_db.h"
#include "sqlite_rig.h"

static void
expect_failure(const char *path, pc_code code, const char *part)
{
    pc_err err = {0};
    pc_broker_config config = sq_config_for(path);
    pc_producer *producer = sq_out->create(&config, NULL, &err);
    PC_ASSERT_INT(sq_out->connect(producer, sq_after_ms(200), &err), -1);
    PC_ASSERT(err.code == code && strstr(err.msg, part) != NULL, "code %d: %s", err.code, err.msg);
    sq_out->destroy(producer);
    sq_rig *self = sq_make_rig(path);
    PC_ASSERT_INT(sq_in->connect(self->source, NULL), 0);
    PC_ASSERT_INT(self->down, 0);
    PC_ASSERT(sq_turn_until(self, &self->down, 1, 3000));
    PC_ASSERT(strstr(self->why.msg, part) != NULL, "%s", self->why.msg);
    sq_in->destroy(self->source);
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
    sq_end_producer(sq_make_producer());
    FILE *file = fopen(SQ_DB, "r+");
    fseek(file, 63, SEEK_SET);  // user_version, big-endian, in the file's header
    fputc(PC_SQL_VERSION + 1, file);
    fclose(file);
    expect_failure(SQ_DB, PC_EDATA, "version");
}

void
test_sqlite_removed_file(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(1);
    sq_turn_for(self, 20);
    sq_send_numbers(producer, 1, 2);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 1000));
    PC_ASSERT_INT(system("rm -rf q.db*"), 0);
    PC_ASSERT(sq_turn_until(self, &self->down, 1, 4000));
    PC_ASSERT(strstr(self->why.msg, "removed") != NULL, "%s", self->why.msg);
    sq_send_numbers(producer, 2, 3);                           // into a new file
    sq_in->settle(self->source, self->tags[0], PC_ACK, NULL);  // void
    PC_ASSERT_INT(sq_in->connect(self->source, NULL), 0);
    PC_ASSERT(sq_turn_until(self, &self->got, 2, 3000));
    PC_ASSERT_INT(self->numbers[1], 2);
    PC_ASSERT_INT(self->up, 2);
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* Without its lease a worker is dead to the others: it starts anew. */
void
test_sqlite_removed_leases(void)
{
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(1);
    sq_send_numbers(producer, 1, 2);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 1000));
    PC_ASSERT_INT(system("rm -rf q.db.d"), 0);
    PC_ASSERT(sq_turn_until(self, &self->down, 1, 4000));
    PC_ASSERT_INT(sq_in->connect(self->source, NULL), 0);
    PC_ASSERT(sq_turn_until(self, &self->got, 2, 3000));
    PC_ASSERT(self->redelivered[1]);
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* Somebody cleaned up, and for a while no other lock file can be made. */
void
test_sqlite_lock_file_cannot_be_made(void)
{
    pc_err err = {0};
    pc_producer *producer = sq_make_producer();
    sq_send_numbers(producer, 1, 2);
    PC_ASSERT_INT(unlink(SQ_DB "-lock"), 0);
    PC_ASSERT_INT(mkdir(SQ_DB "-lock", 0755), 0);
    for (int i = 0; i < 2; i++) {
        PC_ASSERT_INT(sq_send_with(producer, "q", "2", -1, 0, &err), -1);
        PC_ASSERT(err.code == PC_EIO && strstr(err.msg, SQ_DB "-lock") != NULL, "%d %s", err.code, err.msg);
    }
    PC_ASSERT_INT(rmdir(SQ_DB "-lock"), 0);
    sq_send_numbers(producer, 2, 3);
    PC_ASSERT_INT(sq_ready_in(producer, "q"), 2);
    sq_end_producer(producer);
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
    while (sent < 1000 && sq_send_with(producer, "full", body, -1, 0, err) == 0) {
        sent++;
    }
    return sent;
}

/* Settled while the disk is full, or when that has been reported: after the trouble the messages must not come again. */
void
test_sqlite_full_disk(void)
{
    pc_err err = {0};
    signal(SIGXFSZ, SIG_IGN);
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(3);
    sq_send_numbers(producer, 1, 4);
    PC_ASSERT(sq_turn_until(self, &self->got, 3, 1000));
    limit_files(2 << 20);
    int sent = fill_up(producer, &err);
    PC_ASSERT(sent > 10 && sent < 1000, "%d", sent);
    PC_ASSERT(err.code == PC_EIO && strstr(err.msg, "free some space") != NULL, "%d %s", err.code,
              err.msg);
    PC_ASSERT_INT(sq_ready_in(producer, "full"), sent);
    limit_files(4096);  // not even a frame of the WAL
    sq_in->settle(self->source, self->tags[0], PC_ACK, NULL);
    PC_ASSERT(sq_turn_until(self, &self->down, 1, 8000));
    PC_ASSERT(strstr(self->why.msg, "free some space") != NULL, "%s", self->why.msg);
    sq_in->settle(self->source, self->tags[1], PC_ACK, NULL);
    sq_in->settle(self->source, self->tags[2], PC_REQUEUE, NULL);  // it goes back anyway
    limit_files(RLIM_INFINITY);
    PC_ASSERT_INT(sq_in->connect(self->source, NULL), 0);
    PC_ASSERT(sq_turn_until(self, &self->got, 4, 3000));
    sq_in->settle(self->source, self->tags[2], PC_ACK, NULL);  // too late
    sq_send_numbers(producer, 4, 5);
    PC_ASSERT(sq_turn_until(self, &self->got, 5, 3000));
    PC_ASSERT_INT(self->numbers[3], 3);
    PC_ASSERT_INT(self->numbers[4], 4);
    sq_end_rig(self);
    sq_end_producer(producer);
}

/* Somebody holds the writer lock: a publish ends at its deadline, a source waits and goes on. */
void
test_sqlite_locked(void)
{
    pc_err err = {0};
    pc_producer *producer = sq_make_producer();
    sq_rig *self = sq_start_rig(0);
    sq_turn_for(self, 20);
    pc_sqlite *other = pc_sqlite_open(SQ_DB, PC_SQLITE_NORMAL, sq_after_ms(1000), &err);
    PC_ASSERT(other != NULL, "%s", err.msg);
    PC_ASSERT_INT(pc_sqlite_begin(other, sq_after_ms(100), &err), 0);
    pc_message message;
    pc_message_init(&message);
    message.routing_key = pc_slice_str("q");
    message.body = pc_slice_str("1");
    pc_mono start = pc_mono_now();
    PC_ASSERT_INT(
        sq_out->publish(producer, &message, false, (pc_wall){0}, false, sq_after_ms(100), &err),
        -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(pc_mono_now().ns - start.ns < 5 * PC_NS_PER_SEC);
    sq_add_queue(self, "q");
    pc_queue queue = {.name = "r"};
    PC_ASSERT_INT(sq_in->add_queue(self->source, &queue, &err), -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    pc_sqlite_rollback(other);
    sq_send_numbers(producer, 5, 6);
    PC_ASSERT(sq_turn_until(self, &self->got, 1, 2000));
    PC_ASSERT_INT(self->down, 0);
    pc_sqlite_close(other);
    sq_end_rig(self);
    sq_end_producer(producer);
}

static int
publish_once(void *arg)
{
    pc_broker_config config = sq_config_for(SQ_DB);
    (void)arg;
    pc_producer *producer = sq_out->create(&config, NULL, NULL);
    if (producer == NULL) {
        return -1;
    }
    pc_queue queue = {.name = "q", .exchange = "e", .exchange_type = "topic", .routing_key = "#"};
    int rc = sq_out->declare(producer, &queue, sq_after_ms(1000), NULL);
    rc = rc < 0 ? rc : sq_send_with(producer, "q", "1", -1, 0, NULL);
    sq_out->destroy(producer);
    return rc;
}

static int
consume_once(void *arg)
{
    sq_rig *self = arg;
    pc_broker_config config = sq_config_for(SQ_DB);
    pc_source_hooks hooks = sq_hooks(self);
    pc_queue queue = {.name = "q"};
    self->up = self->down = self->got = 0;
    self->loop = pc_loop_new(NULL);
    if (self->loop == NULL) {
        return -1;
    }
    self->source = sq_in->create(&config, self->loop, &hooks, NULL, NULL);
    int rc = self->source == NULL ? -1 : sq_in->add_queue(self->source, &queue, NULL);
    rc = rc < 0 ? rc : sq_in->connect(self->source, NULL);
    pc_mono until = sq_after_ms(3000);
    while (rc >= 0 && self->down == 0 && self->got == 0 && pc_mono_now().ns < until.ns) {
        (void)pc_loop_prepare(self->loop, until);
        rc = pc_loop_wait(self->loop, self->down + self->got > 0 ? 0 : 1, NULL);
        (void)pc_loop_dispatch(self->loop);
    }
    sq_in->destroy(self->source);
    pc_loop_free(self->loop);
    return rc >= 0 && self->got > 0 ? 0 : -1;
}

void
test_sqlite_out_of_memory(void)
{
    PC_ASSERT(PC_OOM(publish_once, NULL) > 3);
    sq_rig *self = calloc(1, sizeof *self);
    PC_ASSERT(PC_OOM(consume_once, self) > 3);
    free(self);
}
