/* SPDX-License-Identifier: BSD-3-Clause */
/* The connection (through the blocking client) and what replies mean. */
#include "io/redis_conn.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amqp_fixture.h"
#include "base/mem.h"
#include "harness.h"
#include "io/redis_meta.h"
#include "redis_rig.h"

static pc_redis_client *
client_of(const pc_store_config *config)
{
    pc_redis_config redis = pc_redis_meta_config(config);
    pc_err err = {0};
    pc_redis_client *client = pc_redis_client_new(&redis, &err);
    PC_ASSERT(client != NULL, "%s", err.msg);
    return client;
}

static int
run_one(pc_redis_client *client, const char *a, const char *b, const char *c, unsigned flags,
        pc_reply **out, pc_err *err)
{
    pc_slice argv[] = {pc_slice_str(a), pc_slice_str(b), pc_slice_str(c)};
    pc_redis_cmd command = {c != NULL ? 3 : b != NULL ? 2 : 1, argv};
    return pc_redis_client_run(client, &command, 1, flags, out, redis_rig_in(5), NULL, err);
}

void
test_redis_codes(void)
{
    static const struct {
        const char *text;
        pc_code code;
    } rows[] = {
        {"LOADING Redis is loading the dataset in memory", PC_EIO},
        {"READONLY You can't write against a read only replica.", PC_EIO},
        {"OOM command not allowed when used memory > 'maxmemory'.", PC_EFULL},
        {"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command",
         PC_EFULL},
        {"NOAUTH Authentication required.", PC_EAUTH},
        {"WRONGPASS invalid username-password pair", PC_EAUTH},
        {"ERR invalid password", PC_EAUTH},
        {"NOPERM this user has no permissions", PC_EAUTH},
        {"NOSCRIPT No matching script.", PC_ENOTFOUND},
        {"WRONGTYPE Operation against a key", PC_EDATA},
        {"ERR syntax error", PC_EDATA},
        {"ERR max number of clients reached", PC_EIO},
        {"", PC_EDATA},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PC_ASSERT(pc_redis_code(pc_slice_str(rows[i].text)) == rows[i].code, "%s", rows[i].text);
    }
}

void
test_redis_sha_is_of_the_script(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    pc_reply *out = NULL;
    PC_ASSERT_INT(run_one(client, "SCRIPT", "LOAD", pc_redis_meta_script, 0, &out, NULL), 0);
    PC_ASSERT_STR(out->children[0]->text.ptr, pc_redis_meta_sha);
    pc_reply_free(out);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}

void
test_redis_replies_as_a_tree(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    pc_slice argv[] = {pc_slice_str("EVAL"),
                       pc_slice_str("return {1, 'two', {3, false}, redis.status_reply('OK')}"),
                       pc_slice_str("0")};
    pc_slice echo[] = {pc_slice_str("ECHO"), pc_slice_of("a\0b", 3)};
    pc_redis_cmd commands[] = {{3, argv}, {2, echo}};
    pc_reply *out = NULL;
    pc_err err = {0};
    int rc = pc_redis_client_run(client, commands, 2, 0, &out, redis_rig_in(5), NULL, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    PC_ASSERT_INT(out->len, 2);
    const pc_reply *list = out->children[0];
    PC_ASSERT_INT(list->len, 4);
    PC_ASSERT_INT(list->children[0]->integer, 1);
    PC_ASSERT_STR(list->children[1]->text.ptr, "two");
    PC_ASSERT_INT(list->children[2]->children[1]->type, PC_REPLY_NIL);
    PC_ASSERT_INT(list->children[3]->type, PC_REPLY_STATUS);
    PC_ASSERT(pc_slice_eq(out->children[1]->text, pc_slice_of("a\0b", 3)));
    pc_reply_free(out);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}

void
test_redis_many_arguments_and_a_large_value(void)
{
    enum { N = 500, LARGE = 20 * 1000 * 1000 };
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    char *large = pc_zalloc(LARGE);
    pc_slice argv[N + 2];
    argv[0] = pc_slice_str("RPUSH");
    argv[1] = pc_slice_str(config.key_prefix);
    for (int i = 0; i < N; i++) {
        argv[i + 2] = pc_slice_str("x");
    }
    argv[2] = pc_slice_of(large, LARGE);
    pc_slice range[] = {pc_slice_str("LRANGE"), argv[1], pc_slice_str("0"), pc_slice_str("-1")};
    pc_redis_cmd commands[] = {{N + 2, argv}, {4, range}};
    pc_reply *out = NULL;
    pc_err err = {0};
    int rc = pc_redis_client_run(client, commands, 2, PC_REDIS_TRANSACTION, &out, redis_rig_in(10),
                                 NULL, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    PC_ASSERT_INT(out->children[0]->integer, N);
    PC_ASSERT_INT(out->children[1]->len, N);
    PC_ASSERT_INT(out->children[1]->children[0]->text.len, LARGE);
    pc_reply_free(out);
    pc_free(large);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}

void
test_redis_errors_of_commands(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    pc_reply *out = NULL;
    pc_err err = {0};
    PC_ASSERT_INT(run_one(client, "RPUSH", config.key_prefix, "x", 0, NULL, &err), 0);
    PC_ASSERT_INT(run_one(client, "GET", config.key_prefix, NULL, 0, &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT(strstr(err.msg, "WRONGTYPE") != NULL, "%s", err.msg);
    PC_ASSERT(strstr(err.msg, "/9:") != NULL, "%s", err.msg);
    PC_ASSERT(out == NULL);
    // refused while queued, refused when executed
    PC_ASSERT_INT(run_one(client, "NONSENSE", "1", NULL, PC_REDIS_TRANSACTION, &out, &err), -1);
    PC_ASSERT(strstr(err.msg, "NONSENSE") != NULL, "%s", err.msg);
    unsigned whole = PC_REDIS_TRANSACTION;
    PC_ASSERT_INT(run_one(client, "GET", config.key_prefix, NULL, whole, &out, &err), -1);
    PC_ASSERT_INT(err.code, PC_EDATA);
    PC_ASSERT_INT(run_one(client, "LLEN", config.key_prefix, NULL, whole, &out, &err), 0);
    PC_ASSERT_INT(out->children[0]->integer, 1);
    pc_reply_free(out);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}

void
test_redis_password(void)
{
    static const char *const options[] = {"--requirepass", "geheim", NULL};
    redis_server server = {0};
    redis_server_start(&server, options, NULL);
    pc_store_config config = redis_rig_config(&server);
    static const char *const wrong[] = {NULL, "falsch", "geheim"};
    for (int i = 0; i < 3; i++) {
        pc_err err = {0};
        config.password = wrong[i];
        pc_redis_client *client = client_of(&config);
        int rc = run_one(client, "PING", NULL, NULL, 0, NULL, &err);
        PC_ASSERT_INT(rc, i == 2 ? 0 : -1);
        PC_ASSERT(i == 2 || err.code == PC_EAUTH, "%s", err.msg);
        PC_ASSERT(strstr(err.msg, "falsch") == NULL, "%s", err.msg);
        PC_ASSERT(i == 2 || strstr(err.msg, "127.0.0.1:") != NULL, "%s", err.msg);
        pc_redis_client_free(client);
    }
    config.user = "default";
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_unix_socket_and_bad_database(void)
{
    static const char *const options[] = {"--unixsocket", "redis.sock", "--databases", "4", NULL};
    redis_server server = {0};
    redis_server_start(&server, options, NULL);
    pc_store_config config = redis_rig_config(&server);
    pc_store_config local = config;
    pc_err err = {0};
    local.unix_path = "redis.sock";
    pc_redis_client *client = client_of(&local);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), -1);
    PC_ASSERT(strstr(err.msg, "redis.sock/9") != NULL, "%s", err.msg);
    pc_redis_client_free(client);
    local.db = 3;
    client = client_of(&local);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), 0);
    pc_redis_client_free(client);
    config.db = 3;
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_tls(void)
{
    char port[16];
    redis_server server = {.port = redis_rig_free_port()};
    snprintf(port, sizeof port, "%d", server.port);
    const char *options[] = {"--port",         "0",        "--tls-port",          port,
                             "--tls-cert-file", "cert.pem", "--tls-key-file",      "key.pem",
                             "--tls-ca-cert-file", "cert.pem", "--tls-auth-clients", "no", NULL};
    PC_ASSERT(system("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2"
                     " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 2>openssl.log") == 0,
              "the openssl command is needed here");
    redis_server_start(&server, options, NULL);
    pc_store_config config = redis_rig_config(&server);
    pc_tls_config tls = {.ca_file = "cert.pem", .verify = true, .check_hostname = true};
    pc_err err = {0};
    config.tls = &tls;
    pc_redis_client *client = client_of(&config);
    int rc = run_one(client, "PING", NULL, NULL, 0, NULL, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    pc_redis_client_free(client);
    tls.ca_file = NULL;  // the system's authorities don't know this one
    client = client_of(&config);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), -1);
    PC_ASSERT(strstr(err.msg, "rediss 127.0.0.1:") != NULL, "%s", err.msg);
    pc_redis_client_free(client);
    tls.ca_file = "cert.pem";
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_nobody_there(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    redis_server_kill(&server);
    pc_store_config config = redis_rig_config(&server);
    pc_redis_client *client = client_of(&config);
    pc_err err = {0};
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    redis_server_start(&server, NULL, NULL);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), 0);
    // a connection that died while idle is replaced in silence
    redis_server_kill(&server);
    redis_server_start(&server, NULL, NULL);
    int rc = run_one(client, "PING", NULL, NULL, PC_REDIS_ONCE, NULL, &err);
    PC_ASSERT(rc == 0, "%s", err.msg);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

/* BRPOP keeps the group unanswered; then the connection is killed from aside. */
static void *
kill_blocked_client(void *arg)
{
    const pc_store_config *config = arg;
    bool blocked = false;
    while (!blocked) {
        pc_reply *info = redis_rig_do(config, "INFO clients");
        blocked = strstr(info->text.ptr, "blocked_clients:1") != NULL;
        pc_reply_free(info);
    }
    PC_ASSERT_INT(redis_rig_int(config, "CLIENT KILL TYPE normal SKIPME yes"), 1);
    return NULL;
}

/* What calls itself a Sentinel may be anything. */
void
test_redis_sentinel_that_talks_nonsense(void)
{
    static const char *const answers[] = {"*2\r\n:1\r\n:2\r\n", "*2\r\n$1\r\na\r\n$-1\r\n",
                                          "*2\r\n$1\r\na\r\n$2\r\nno\r\n", "*1\r\n$1\r\na\r\n", ":1\r\n",
                                          "*-1\r\n"};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        pc_err err = {0};
        char hosts[40];
        int port = 0;
        amqp_canned *server = amqp_canned_start(answers[i], strlen(answers[i]), &port);
        snprintf(hosts, sizeof hosts, "127.0.0.1:%d", port);
        pc_redis_sentinels sentinels = {.hosts = hosts, .master_name = "m"};
        pc_redis_config config = {.sentinels = &sentinels, .connect_timeout = 2};
        pc_redis_client *client = pc_redis_client_new(&config, &err);
        PC_ASSERT(client != NULL, "%s", err.msg);
        PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, PC_REDIS_ONCE, NULL, &err), -1);
        PC_ASSERT(err.code == PC_EIO && strstr(err.msg, "knows no master") != NULL, "%zu: %s", i, err.msg);
        pc_redis_client_free(client);
        amqp_canned_stop(server);
    }
}

void
test_redis_lost_in_the_middle(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config config = redis_rig_config(&server);
    pc_redis_client *client = client_of(&config);
    for (int once = 0; once < 2; once++) {
        pthread_t thread;
        pc_err err = {0};
        PC_ASSERT(pthread_create(&thread, NULL, kill_blocked_client, &config) == 0);
        int rc = run_one(client, "BRPOP", "nothing", "1", once ? PC_REDIS_ONCE : 0, NULL, &err);
        pthread_join(thread, NULL);
        PC_ASSERT(rc == (once ? -1 : 0), "%s", err.msg);
        PC_ASSERT(!once || err.code == PC_EIO, "%s", err.msg);
    }
    pc_redis_client_free(client);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

void
test_redis_deadline_leaves_the_client_usable(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    pc_slice argv[] = {pc_slice_str("BRPOP"), pc_slice_str(config.key_prefix), pc_slice_str("0.4")};
    pc_redis_cmd command = {3, argv};
    pc_err err = {0};
    int rc = pc_redis_client_run(client, &command, 1, 0, NULL, redis_rig_in(0.1), NULL, &err);
    PC_ASSERT_INT(rc, -1);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    PC_ASSERT(strstr(err.msg, "no answer") != NULL, "%s", err.msg);
    pc_reply *out = NULL;
    PC_ASSERT_INT(run_one(client, "ECHO", "hi", NULL, 0, &out, &err), 0);
    PC_ASSERT_STR(out->children[0]->text.ptr, "hi");
    pc_reply_free(out);
    // an orphan that is never answered goes with the client
    argv[2] = pc_slice_str("5");
    rc = pc_redis_client_run(client, &command, 1, 0, NULL, redis_rig_in(0.05), NULL, &err);
    PC_ASSERT_INT(err.code, PC_ETIMEOUT);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}

void
test_redis_silent_server_is_given_up(void)
{
    redis_server server = {0};
    redis_server_start(&server, NULL, NULL);
    pc_store_config config = redis_rig_config(&server);
    pc_store_config impatient = config;
    impatient.socket_timeout = 0.2;
    pc_redis_client *client = client_of(&impatient);
    pc_err err = {0};
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), 0);
    redis_server_signal(&server, SIGSTOP);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), -1);
    PC_ASSERT_INT(err.code, PC_EIO);
    PC_ASSERT(strstr(err.msg, "no answer for 0.2 s") != NULL, "%s", err.msg);
    redis_server_signal(&server, SIGCONT);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, &err), 0);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
    redis_server_kill(&server);
}

typedef struct counter {
    pc_redis_client *client;
    const char *key;
} counter;

static void *
count_up(void *arg)
{
    const counter *c = arg;
    for (int i = 0; i < 200; i++) {
        pc_reply *out = NULL;
        pc_slice incr[] = {pc_slice_str("INCR"), pc_slice_str(c->key)};
        pc_slice get[] = {pc_slice_str("GET"), pc_slice_str(c->key)};
        pc_redis_cmd commands[] = {{2, incr}, {2, get}};
        pc_err err = {0};
        int rc = pc_redis_client_run(c->client, commands, 2, PC_REDIS_TRANSACTION, &out,
                                     redis_rig_in(10), NULL, &err);
        PC_ASSERT(rc == 0, "%s", err.msg);
        PC_ASSERT_INT(atoll(out->children[1]->text.ptr), out->children[0]->integer);
        pc_reply_free(out);
    }
    return NULL;
}

void
test_redis_client_from_8_threads(void)
{
    pc_store_config config = redis_rig_config(NULL);
    counter c = {client_of(&config), config.key_prefix};
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) {
        PC_ASSERT(pthread_create(&threads[i], NULL, count_up, &c) == 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    PC_ASSERT_INT(redis_rig_int(&config, "INCR %s", config.key_prefix), 8 * 200 + 1);
    pc_redis_client_free(c.client);
    redis_rig_clean(&config);
}

static int
work_with_little_memory(void *arg)
{
    const pc_store_config *config = arg;
    pc_redis_config redis = pc_redis_meta_config(config);
    pc_reply *out = NULL;
    pc_err err = {0};
    pc_redis_client *client = pc_redis_client_new(&redis, &err);
    int rc = client == NULL
                 ? -1
                 : run_one(client, "ECHO", "x", NULL, PC_REDIS_TRANSACTION, &out, &err);
    PC_ASSERT(rc == 0 || err.code == PC_ENOMEM, "%s", err.msg);
    pc_reply_free(out);
    pc_redis_client_free(client);
    return rc;
}

void
test_redis_survives_failing_allocations(void)
{
    pc_store_config config = redis_rig_config(NULL);
    PC_ASSERT(PC_OOM(work_with_little_memory, &config) > 10);
    redis_rig_clean(&config);
}

void
test_redis_abandon_leaves_the_parent_alone(void)
{
    pc_store_config config = redis_rig_config(NULL);
    pc_redis_client *client = client_of(&config);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, 0, NULL, NULL), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pc_redis_client_abandon(client);
        pc_redis_client_free(client);
        _exit(0);
    }
    int status = -1;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
    PC_ASSERT_INT(run_one(client, "PING", NULL, NULL, PC_REDIS_ONCE, NULL, NULL), 0);
    pc_redis_client_free(client);
    redis_rig_clean(&config);
}
