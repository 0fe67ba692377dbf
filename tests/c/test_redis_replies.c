/* SPDX-License-Identifier: BSD-3-Clause */
/* pc_store_redis where results are messages to reply queues. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "io/redis_conn.h"
#include "io/redis_replies.h"
#include "redis_shelf.h"
#include "wire/envelope.h"

static void
open_store(redis_shelf *f, const redis_server *server, double expires, const char *steps)
{
    *f = (redis_shelf){.config = redis_rig_config(server)};
    f->broker = (pc_broker_config){.scheme = "redis",
                                   .host = f->config.host,
                                   .port = f->config.port,
                                   .db = f->config.db,
                                   .key_prefix = f->config.key_prefix,
                                   .priority_steps = steps,
                                   .connect_timeout = 4};
    f->config.broker = &f->broker;
    f->config.expires = expires;
    redis_shelf_open(f);
}

static int
put(redis_shelf *f, const char *reply_to, const char *correlation_id, pc_slice document)
{
    pc_store_item item = {.id = pc_slice_str("id"),
                          .document = document,
                          .content_type = pc_slice_str("application/json"),
                          .content_encoding = pc_slice_str("utf-8"),
                          .reply_to = pc_slice_str(reply_to),
                          .correlation_id = pc_slice_str(correlation_id)};
    return redis_shelf_put(f, &item, NULL);
}

/* The oldest message of a list. */
static void
expect(const redis_shelf *f, const char *list, const char *correlation_id, const char *document)
{
    pc_buf scratch;
    pc_message message;
    pc_slice tag;
    pc_err err = {0};
    pc_reply *text = redis_rig_do(&f->config, "RPOP %s%s", f->config.key_prefix, list);
    PC_ASSERT_INT(text->type, PC_REPLY_STRING);
    pc_buf_init(&scratch);
    PC_ASSERT(pc_envelope_read(text->text, &message, &tag, &scratch, &err) == 0, "%s", err.msg);
    PC_ASSERT(pc_slice_is(message.correlation_id, correlation_id));
    PC_ASSERT(pc_slice_is(message.body, document));
    PC_ASSERT(pc_slice_is(message.content_type, "application/json"));
    PC_ASSERT_INT(message.delivery_mode, 1);
    PC_ASSERT_INT(tag.len, PC_UUID_LEN);
    pc_buf_fini(&scratch);
    pc_reply_free(text);
}

void
test_redis_replies_go_to_who_wants_them(void)
{
    redis_shelf f;
    open_store(&f, NULL, 100, NULL);
    PC_ASSERT_INT(put(&f, "a", "1", pc_slice_str("one")), 0);
    PC_ASSERT_INT(put(&f, "", "2", pc_slice_str("nobody")), 0);
    PC_ASSERT_INT(put(&f, "b", "", pc_slice_str("three")), 0);
    PC_ASSERT_INT(put(&f, "a", "4", pc_slice_str("four")), 0);
    PC_ASSERT_INT(f.stored, 0);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.refused, 0);
    long long ttl = redis_rig_int(&f.config, "TTL %sa", f.config.key_prefix);
    PC_ASSERT(ttl > 90 && ttl <= 100, "TTL %lld", ttl);
    expect(&f, "a", "1", "one");
    expect(&f, "a", "4", "four");
    expect(&f, "b", "id", "three");
    pc_reply *keys = redis_rig_do(&f.config, "KEYS %s*", f.config.key_prefix);
    PC_ASSERT_INT(keys->len, 0);
    pc_reply_free(keys);
    PC_ASSERT_INT(put(&f, "", "5", pc_slice_str("nobody")), 0);
    redis_shelf_settle(&f, 10);
    redis_shelf_close(&f);
}

void
test_redis_replies_stay_for_ever_if_told(void)
{
    redis_shelf f;
    open_store(&f, NULL, 0, "2,5");
    PC_ASSERT_INT(put(&f, "a", "1", pc_slice_str("one")), 0);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(redis_rig_int(&f.config, "TTL %sa\x06\x16""2", f.config.key_prefix), -1);
    expect(&f, "a\x06\x16""2", "1", "one");
    redis_shelf_close(&f);
}

void
test_redis_replies_that_cannot_be_sent_are_reported(void)
{
    redis_shelf f;
    pc_slice huge = {"x", PC_REDIS_VALUE_MAX + 1};  // never looked at
    open_store(&f, NULL, 100, NULL);
    pc_reply_free(redis_rig_do(&f.config, "SET %stext x", f.config.key_prefix));
    PC_ASSERT_INT(put(&f, "a", "1", huge), 0);
    PC_ASSERT_INT(put(&f, "", "1", huge), 0);
    PC_ASSERT_INT(put(&f, "text", "2", pc_slice_str("two")), 0);
    PC_ASSERT_INT(put(&f, "a", "3", pc_slice_str("three")), 0);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.refused, 2);
    PC_ASSERT(strstr(f.why.msg, "WRONGTYPE") != NULL, "%s", f.why.msg);
    expect(&f, "a", "3", "three");
    redis_shelf_close(&f);
}

void
test_redis_replies_outlast_a_killed_server(void)
{
    static const char *const options[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    enum { N = 3000 };
    redis_server server = {0};
    redis_shelf f;
    char text[24];
    bool seen[N] = {false};
    redis_server_start(&server, options, NULL);
    open_store(&f, &server, 100, NULL);
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "%d", i);
        PC_ASSERT_INT(put(&f, "a", text, pc_slice_str(text)), 0);
        PC_ASSERT(i % 1000 != 0 || pc_loop_step(f.loop, redis_rig_in(1), NULL) >= 0);
    }
    redis_server_kill(&server);
    redis_server_start(&server, options, NULL);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.refused, 0);
    pc_reply *all = redis_rig_do(&f.config, "LRANGE %sa 0 -1", f.config.key_prefix);
    for (size_t i = 0; i < all->len; i++) {
        pc_buf scratch;
        pc_message message;
        pc_slice tag;
        pc_buf_init(&scratch);
        PC_ASSERT_INT(pc_envelope_read(all->children[i]->text, &message, &tag, &scratch, NULL), 0);
        snprintf(text, sizeof text, "%.*s", (int)message.correlation_id.len, message.correlation_id.ptr);
        seen[atoi(text)] = true;
        pc_buf_fini(&scratch);
    }
    pc_reply_free(all);
    for (int i = 0; i < N; i++) {
        PC_ASSERT(seen[i], "number %d is lost", i);
    }
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_replies_survive_failing_allocations(void)
{
    for (long n = 1; n <= 60; n++) {
        redis_shelf f;
        open_store(&f, NULL, 100, NULL);
        pc_mem_fail_after(n);
        for (int i = 0; i < 10; i++) {
            (void)put(&f, "a", "1", pc_slice_str("one"));
            PC_ASSERT(pc_loop_step(f.loop, (pc_mono){0}, NULL) >= 0);
        }
        redis_shelf_settle(&f, 10);
        pc_mem_fail_after(-1);
        PC_ASSERT(redis_rig_int(&f.config, "LLEN %sa", f.config.key_prefix) >= (long long)f.put);
        redis_shelf_close(&f);
    }
}
