/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side: pc_store_redis. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "harness.h"
#include "io/redis_conn.h"
#include "io/redis_meta.h"
#include "redis_shelf.h"

#define SUCCESS "{\"status\": \"SUCCESS\", \"result\": 4}"
#define STARTED "{\"status\": \"STARTED\", \"result\": null}"

#define BYTES(literal) {literal, sizeof literal - 1}

static void
put(redis_shelf *f, const char *id, pc_slice document)
{
    pc_store_item item = {.id = pc_slice_str(id), .document = document};
    pc_err err = {0};
    PC_ASSERT(redis_shelf_put(f, &item, &err) == 0, "%s", err.msg);
}

static void
put_text(redis_shelf *f, const char *id, const char *document)
{
    put(f, id, pc_slice_str(document));
}

static void
turn_until(redis_shelf *f, const int *counter, int want, double seconds)
{
    pc_mono end = redis_rig_in(seconds);
    while (*counter < want && pc_mono_now().ns < end.ns) {
        PC_ASSERT(pc_loop_step(f->loop, end, NULL) >= 0);
    }
    PC_ASSERT(*counter >= want, "%d of %d; down: %s", *counter, want, f->down.msg);
}

void
test_redis_store_writes_with_expiry(void)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    redis_shelf_open(&f);
    put_text(&f, "a", SUCCESS);
    PC_ASSERT_INT(pc_store_redis.pending(f.store), 1);
    redis_shelf_settle(&f, 5);
    redis_rig_expect(&f.config, "a", SUCCESS);
    long long ttl = redis_rig_int(&f.config, "TTL %scelery-task-meta-a", f.config.key_prefix);
    PC_ASSERT(ttl > 90 && ttl <= 100, "TTL %lld", ttl);
    PC_ASSERT_INT(f.downs + f.ups, 0);
    redis_shelf_close(&f);
}

void
test_redis_store_for_ever_and_with_a_joined_prefix(void)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    char prefix[100];
    const char *given = f.config.key_prefix;
    snprintf(prefix, sizeof prefix, "%sapp", given);
    f.config.expires = 0;
    f.config.key_prefix = prefix;
    redis_shelf_open(&f);
    put_text(&f, "a", SUCCESS);
    redis_shelf_settle(&f, 5);
    PC_ASSERT_INT(redis_rig_int(&f.config, "TTL %s_celery-task-meta-a", prefix), -1);
    f.config.key_prefix = given;
    redis_shelf_close(&f);
}

void
test_redis_store_short_expiry_is_one_second(void)
{
    char text[PC_REDIS_TTL_MAX];
    PC_ASSERT(pc_slice_is(pc_redis_meta_ttl(0.2, text), "1"));
    PC_ASSERT(pc_slice_is(pc_redis_meta_ttl(86400.9, text), "86400"));
    PC_ASSERT(pc_slice_is(pc_redis_meta_ttl(-1, text), "0"));
    PC_ASSERT(pc_slice_is(pc_redis_meta_ttl(1e300, text), "3000000000"));
}

/* stored first, then another state: the first stays when it is a SUCCESS, whatever the
 * serializer. */
void
test_redis_store_never_replaces_success(void)
{
    static const struct {
        pc_slice document;
        int stays;
    } rows[] = {
        {BYTES(SUCCESS), 1},
        {BYTES("{\"status\":\"SUCCESS\"}"), 1},
        {BYTES(STARTED), 0},
        {BYTES("{\"status\": \"FAILURE\", \"result\": \"SUCCESS\"}"), 0},
        // pickle protocol 4 and 2, msgpack
        {BYTES("\x80\x04\x95\x30\0\0\0\0\0\0\0}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94\x8c\x06result\x94K\x04u."), 1},
        {BYTES("\x80\x02}q\0(X\x06\0\0\0statusq\x01X\x07\0\0\0SUCCESSq\x02u."), 1},
        {BYTES("\x80\x04\x95\x30\0\0\0\0\0\0\0}\x94(\x8c\x06status\x94\x8c\x07STARTED\x94\x8c\x06result\x94\x8c\x07SUCCESSu."), 0},
        {BYTES("\x87\xa6status\xa7SUCCESS\xa6result\x04"), 1},
        {BYTES("\x87\xa6status\xa7" "FAILURE\xa6result\xa7SUCCESS"), 0},
        {BYTES("children: []\ndate_done: '2026-11-20T07:49:01.705409+00:00'\nresult: 4\nstatus: SUCCESS\n"), 1},
        {BYTES("children: []\nresult: |\n  status: SUCCESS\nstatus: STARTED\n"), 0},
        {BYTES(""), 0},
    };
    redis_shelf f = {.config = redis_rig_config(NULL)};
    redis_shelf_open(&f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char id[24];
        snprintf(id, sizeof id, "%zu", i);
        put(&f, id, rows[i].document);
        put_text(&f, id, "next");
        redis_shelf_settle(&f, 5);
        pc_reply *got = redis_rig_do(&f.config, "GET %scelery-task-meta-%s", f.config.key_prefix, id);
        PC_ASSERT(pc_slice_is(got->text, "next") != rows[i].stays, "row %zu", i);
        pc_reply_free(got);
    }
    PC_ASSERT_INT(f.refused, 0);
    redis_shelf_close(&f);
}

void
test_redis_store_too_large_keeps_its_place(void)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    pc_slice huge = {"x", PC_REDIS_VALUE_MAX + 1};  // never looked at
    redis_shelf_open(&f);
    put(&f, "first", huge);
    PC_ASSERT_INT(f.stored, 0);
    put_text(&f, "a", SUCCESS);
    put(&f, "b", huge);
    put(&f, "c", huge);
    put_text(&f, "d", SUCCESS);
    put(&f, "last", huge);
    redis_shelf_settle(&f, 5);
    PC_ASSERT_INT(f.refused, 4);
    PC_ASSERT_INT(f.why.code, PC_ELIMIT);
    redis_rig_expect(&f.config, "a", SUCCESS);
    redis_rig_expect(&f.config, "d", SUCCESS);
    redis_rig_expect(&f.config, "b", NULL);
    put(&f, "alone", huge);
    redis_shelf_settle(&f, 5);
    redis_shelf_close(&f);
}

void
test_redis_store_wrong_type_is_reported(void)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    redis_shelf_open(&f);
    redis_rig_int(&f.config, "RPUSH %scelery-task-meta-b x", f.config.key_prefix);
    put_text(&f, "a", SUCCESS);
    put_text(&f, "b", SUCCESS);
    put_text(&f, "c", SUCCESS);
    redis_shelf_settle(&f, 5);
    PC_ASSERT_INT(f.refused, 1);
    PC_ASSERT_INT(f.why.code, PC_EDATA);
    PC_ASSERT(strstr(f.why.msg, "WRONGTYPE") != NULL, "%s", f.why.msg);
    redis_rig_expect(&f.config, "c", SUCCESS);
    redis_shelf_close(&f);
}

static void
put_numbered(redis_shelf *f, int n)
{
    for (int i = 0; i < n; i++) {
        char id[24], document[60];
        snprintf(id, sizeof id, "%zu", f->put);
        snprintf(document, sizeof document, "{\"status\": \"SUCCESS\", \"result\": %zu}", f->put);
        put_text(f, id, document);
    }
}

static void
expect_numbered(const redis_shelf *f)
{
    char id[24], document[60];
    for (size_t i = 0; i < f->put; i += 1 + f->put / 50) {
        snprintf(id, sizeof id, "%zu", i);
        snprintf(document, sizeof document, "{\"status\": \"SUCCESS\", \"result\": %zu}", i);
        redis_rig_expect(&f->config, id, document);
    }
    pc_reply *keys = redis_rig_do(&f->config, "KEYS %s*", f->config.key_prefix);
    PC_ASSERT_INT(keys->len, f->put);
    pc_reply_free(keys);
}

void
test_redis_store_kill_and_restart(void)
{
    redis_server server = {0};
    static const char *const options[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    redis_server_start(&server, options, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    redis_shelf_open(&f);
    put_numbered(&f, 500);
    redis_shelf_settle(&f, 5);
    put_numbered(&f, 5000);
    for (int i = 0; i < 3; i++) {  // written, some answered
        PC_ASSERT(pc_loop_step(f.loop, redis_rig_in(1), NULL) >= 0);
    }
    redis_server_kill(&server);
    turn_until(&f, &f.downs, 1, 5);
    PC_ASSERT_INT(f.down.code, PC_EIO);
    put_numbered(&f, 500);
    redis_server_start(&server, options, NULL);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.downs, 1);
    PC_ASSERT_INT(f.ups, 1);
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_store_nobody_there_at_first(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    redis_server_kill(&server);
    redis_shelf f = {.config = redis_rig_config(&server)};
    redis_shelf_open(&f);
    put_numbered(&f, 10);
    turn_until(&f, &f.downs, 1, 5);
    redis_server_start(&server, NULL, NULL);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.downs, 1);
    PC_ASSERT_INT(f.ups, 1);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_store_wrong_password_is_told_once(void)
{
    static const char *const options[] = {"--requirepass", "geheim", NULL};
    redis_server server = {0};
    redis_server_start(&server, options, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    f.config.password = "falsch";
    redis_shelf_open(&f);
    put_numbered(&f, 3);
    turn_until(&f, &f.downs, 1, 5);
    PC_ASSERT_INT(f.down.code, PC_EAUTH);
    PC_ASSERT(strstr(f.down.msg, "falsch") == NULL, "%s", f.down.msg);
    f.config.password = "geheim";
    // the server learns the other password: the store gets in by itself
    pc_reply_free(redis_rig_do(&f.config, "CONFIG SET requirepass falsch"));
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.downs, 1);
    f.config.password = "falsch";
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_store_waits_out_oom(void)
{
    static const char *const options[] = {"--maxmemory", "1", "--maxmemory-policy", "noeviction",
                                          NULL};
    redis_server server = {0};
    redis_server_start(&server, options, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    redis_shelf_open(&f);
    put_numbered(&f, 300);
    turn_until(&f, &f.downs, 1, 5);
    PC_ASSERT_INT(f.down.code, PC_EFULL);
    PC_ASSERT_INT(f.stored, 0);
    PC_ASSERT(strstr(f.down.msg, "OOM") != NULL, "%s", f.down.msg);
    pc_reply_free(redis_rig_do(&f.config, "CONFIG SET maxmemory 0"));
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.downs, 1);
    PC_ASSERT_INT(f.ups, 1);
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_store_script_flushed(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    redis_shelf_open(&f);
    put_numbered(&f, 100);
    redis_shelf_settle(&f, 5);
    for (int round = 0; round < 5; round++) {
        pc_reply_free(redis_rig_do(&f.config, "SCRIPT FLUSH"));
        put_numbered(&f, 100);
        PC_ASSERT(pc_loop_step(f.loop, redis_rig_in(1), NULL) >= 0);
        put_numbered(&f, 100);
        redis_shelf_settle(&f, 5);
    }
    PC_ASSERT_INT(f.downs, 0);
    PC_ASSERT_INT(f.refused, 0);
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

void
test_redis_store_silent_server(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    f.config.socket_timeout = 0.2;
    redis_shelf_open(&f);
    put_numbered(&f, 10);
    redis_shelf_settle(&f, 5);
    redis_server_signal(&server, SIGSTOP);
    put_numbered(&f, 10);
    turn_until(&f, &f.downs, 1, 5);
    PC_ASSERT(strstr(f.down.msg, "no answer") != NULL, "%s", f.down.msg);
    redis_server_signal(&server, SIGCONT);
    redis_shelf_settle(&f, 10);
    PC_ASSERT_INT(f.ups, 1);
    f.config.socket_timeout = 10;
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

/* A server that reads its file for two seconds. */
void
test_redis_store_waits_for_loading(void)
{
    static const char *const slow[] = {
        "--appendonly", "yes", "--key-load-delay", "1000", "--loading-process-events-interval-bytes",
        "1024", NULL};
    static const char *const fast[] = {"--appendonly", "yes", NULL};
    redis_server server = {0};
    redis_server_start(&server, fast, NULL);
    redis_shelf f = {.config = redis_rig_config(&server)};
    redis_shelf_open(&f);
    put_numbered(&f, 1500);
    redis_shelf_settle(&f, 5);
    pc_reply_free(redis_rig_do(&f.config, "BGREWRITEAOF"));
    while (true) {
        pc_reply *info = redis_rig_do(&f.config, "INFO persistence");
        bool done = strstr(info->text.ptr, "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0") != NULL;
        pc_reply_free(info);
        if (done) {
            break;
        }
    }
    redis_server_kill(&server);
    turn_until(&f, &f.downs, 1, 5);
    redis_server_start(&server, slow, "Reading RDB base file");
    put_numbered(&f, 10);
    redis_shelf_settle(&f, 15);
    PC_ASSERT_INT(f.downs, 1);
    PC_ASSERT_INT(f.ups, 1);
    expect_numbered(&f);
    redis_shelf_close(&f);
    redis_server_kill(&server);
}

/* Whichever allocation fails: put() says so, or the store recovers by itself; nothing is lost. */
void
test_redis_store_survives_failing_allocations(void)
{
    for (long n = 1; n <= 40; n++) {
        redis_shelf f = {.config = redis_rig_config(NULL)};
        pc_store_hooks hooks = redis_shelf_hooks(&f);
        pc_err err = {0};
        f.loop = pc_loop_new(NULL);
        pc_mem_fail_after(n);
        f.store = pc_store_redis.create(&f.config, f.loop, &hooks, NULL, &err);
        PC_ASSERT(f.store != NULL || err.code == PC_ENOMEM, "%ld: %s", n, err.msg);
        for (int i = 0; f.store != NULL && i < 10; i++) {
            pc_store_item item = {.id = pc_slice_str("a"), .document = pc_slice_str(SUCCESS)};
            (void)redis_shelf_put(&f, &item, &err);
            PC_ASSERT(pc_loop_step(f.loop, (pc_mono){0}, NULL) >= 0);
        }
        if (f.store != NULL) {
            redis_shelf_settle(&f, 5);
        }
        pc_mem_fail_after(-1);
        redis_shelf_close(&f);
    }
}

void
test_redis_store_50000(void)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    f.config.expires = 15;
    redis_shelf_open(&f);
    for (int i = 0; i < 50; i++) {
        put_numbered(&f, 1000);
        PC_ASSERT(pc_loop_step(f.loop, redis_rig_in(1), NULL) >= 0);
    }
    redis_shelf_settle(&f, 15);
    PC_ASSERT_INT(f.downs, 0);
    pc_store_redis.destroy(f.store);
    pc_loop_free(f.loop);
    pc_reply *gone = redis_rig_do(
        &f.config, "EVAL local\tn=0;for\t_,k\tin\tipairs(redis.call('KEYS',ARGV[1]..'*'))do\tn=n+redis.call('DEL',k)end;return\tn 0 %s",
        f.config.key_prefix);
    PC_ASSERT_INT(gone->integer, 50000);
    pc_reply_free(gone);
    redis_rig_clean(&f.config);
}

/* The figures of the harness include the deletion of the keys; the printed ones do not. */
void
bench_redis_store_put(long n)
{
    redis_shelf f = {.config = redis_rig_config(NULL)};
    f.config.expires = 10;
    redis_shelf_open(&f);
    put_numbered(&f, 1);
    redis_shelf_settle(&f, 5);
    struct timespec from, to;
    pc_mono begin = pc_mono_now();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    ct_reset_timer();
    char document[200];
    memset(document, 'x', sizeof document);
    memcpy(document, SUCCESS, sizeof SUCCESS - 2);
    for (long i = 0; i < n; i++) {
        char id[40];
        int len = snprintf(id, sizeof id, "5f0bd4f3-6cd3-4e94-9b3c-%012ld", i);
        pc_store_item item = {.id = {id, (size_t)len}, .document = {document, sizeof document}};
        PC_ASSERT(pc_store_redis.put(f.store, &item, (void *)(uintptr_t)f.put++, NULL) == 0);
        if (i % 64 == 63) {
            PC_ASSERT(pc_loop_step(f.loop, (pc_mono){0}, NULL) >= 0);
        }
    }
    redis_shelf_settle(&f, 60);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    if (n > 1000) {
        double wall = (double)(pc_mono_now().ns - begin.ns);
        printf("    %ld puts, our CPU %.0f ns each, %.0f per second\n", n, ns / (double)n,
               (double)n / wall * 1e9);
    }
    pc_store_redis.destroy(f.store);
    pc_loop_free(f.loop);
    pc_reply_free(redis_rig_do(
        &f.config, "EVAL for\t_,k\tin\tipairs(redis.call('KEYS',ARGV[1]..'*'))do\tredis.call('DEL',k)end 0 %s",
        f.config.key_prefix));
    redis_rig_clean(&f.config);
}
