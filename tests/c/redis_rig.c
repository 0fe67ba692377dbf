/* SPDX-License-Identifier: BSD-3-Clause */
#include "redis_rig.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/uuid.h"
#include "harness.h"
#include "io/redis_meta.h"

#define MAX_ARGS 40
#define DB 9

int
redis_rig_free_port(void)
{
    // Not one that the kernel gives to outgoing connections: another process might get it before the server does.
    for (;;) {
        uint16_t any;
        PC_ASSERT(getrandom(&any, sizeof any, 0) == sizeof any);
        struct sockaddr_in at = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)(10000 + any % 22000)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        PC_ASSERT(fd >= 0);
        int rc = bind(fd, (struct sockaddr *)&at, sizeof at);
        close(fd);
        if (rc == 0) {
            return ntohs(at.sin_port);
        }
    }
}

static void
run_server(const redis_server *server, const char *const *options, int out)
{
    char port[16];
    snprintf(port, sizeof port, "%d", server->port);
    const char *argv[MAX_ARGS] = {"redis-server", "--port", port,   "--bind", "127.0.0.1",
                                  "--save",       "",       "--dir", ".",     "--logfile", ""};
    int n = 11;
    for (; options != NULL && *options != NULL && n < MAX_ARGS - 1; options++) {
        argv[n++] = *options;
    }
    dup2(out, STDOUT_FILENO);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void
await_log(const redis_server *server, const char *ready)
{
    char log[16384];
    size_t len = 0;
    do {
        ssize_t got = read(server->out, log + len, sizeof log - 1 - len);
        PC_ASSERT(got > 0, "redis-server doesn't start; is it installed? %.*s", (int)len, log);
        len += (size_t)got;
        log[len] = '\0';
    } while (strstr(log, ready) == NULL);
}

void
redis_server_start(redis_server *server, const char *const *options, const char *ready)
{
    int pipes[2];
    PC_ASSERT(pipe(pipes) == 0);
    server->port = server->port == 0 ? redis_rig_free_port() : server->port;
    server->out = pipes[0];
    server->pid = fork();
    PC_ASSERT(server->pid >= 0);
    if (server->pid == 0) {
        close(pipes[0]);
        run_server(server, options, pipes[1]);
    }
    close(pipes[1]);
    await_log(server, ready == NULL ? "Ready to accept connections" : ready);
}

void
redis_server_signal(const redis_server *server, int signal)
{
    PC_ASSERT(kill(server->pid, signal) == 0);
}

void
redis_server_kill(redis_server *server)
{
    redis_server_signal(server, SIGKILL);
    PC_ASSERT(waitpid(server->pid, NULL, 0) == server->pid);
    close(server->out);
}

static int
common_port(char *host, size_t size)
{
    static const char scheme[] = "redis://";
    const char *text = getenv("PYCELERYC_TEST_REDIS");
    const char *at = text == NULL || *text == '\0' ? "127.0.0.1:6379" : text;
    at += strncmp(at, scheme, sizeof scheme - 1) == 0 ? sizeof scheme - 1 : 0;
    const char *colon = strrchr(at, ':');
    PC_ASSERT(colon != NULL && (size_t)(colon - at) < size,
              "PYCELERYC_TEST_REDIS must be redis://host:port, not %s", at);
    snprintf(host, size, "%.*s", (int)(colon - at), at);
    return atoi(colon + 1);
}

pc_store_config
redis_rig_config(const redis_server *server)
{
    char host[100] = "127.0.0.1", prefix[80], uuid[PC_UUID_LEN + 1];
    int port = server == NULL ? common_port(host, sizeof host) : server->port;
    PC_ASSERT(pc_uuid4(uuid, NULL) == 0);
    snprintf(prefix, sizeof prefix, "pyceleryc-test-%s:", uuid);
    return (pc_store_config){
        .scheme = "redis",
        .host = pc_strdup(host, strlen(host)),
        .port = port,
        .db = DB,
        .key_prefix = pc_strdup(prefix, strlen(prefix)),
        .connect_timeout = 4,
        .socket_timeout = 10,
        .expires = 100,
    };
}

static pc_reply *
do_words(const pc_store_config *config, char *line)
{
    pc_slice argv[MAX_ARGS];
    pc_redis_cmd command = {0, argv};
    char *rest = NULL;
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        argv[command.argc++] = pc_slice_str(word);
    }
    pc_redis_config redis = pc_redis_meta_config(config);
    pc_err err = {0};
    pc_redis_client *client = pc_redis_client_new(&redis, &err);
    PC_ASSERT(client != NULL, "%s", err.msg);
    pc_reply *all = NULL;
    int rc = pc_redis_client_run(client, &command, 1, 0, &all, redis_rig_in(10), NULL, &err);
    PC_ASSERT(rc == 0, "Redis must run for this test: %s", err.msg);
    pc_redis_client_free(client);
    pc_reply *one = all->children[0];
    all->children[0] = NULL;
    pc_reply_free(all);
    return one;
}

pc_reply *
redis_rig_do(const pc_store_config *config, const char *fmt, ...)
{
    char line[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    return do_words(config, line);
}

long long
redis_rig_int(const pc_store_config *config, const char *fmt, ...)
{
    char line[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    pc_reply *reply = do_words(config, line);
    PC_ASSERT_INT(reply->type, PC_REPLY_INTEGER);
    long long value = reply->integer;
    pc_reply_free(reply);
    return value;
}

void
redis_rig_expect(const pc_store_config *config, const char *id, const char *want)
{
    pc_reply *reply = redis_rig_do(config, "GET %scelery-task-meta-%s", config->key_prefix, id);
    PC_ASSERT_STR(reply->text.ptr, want);
    pc_reply_free(reply);
}

pc_mono
redis_rig_in(double seconds)
{
    return pc_mono_add(pc_mono_now(), (int64_t)(seconds * 1e9));
}

void
redis_rig_clean(pc_store_config *config)
{
    pc_reply *keys = redis_rig_do(config, "KEYS %s*", config->key_prefix);
    for (size_t i = 0; i < keys->len; i++) {
        pc_reply_free(redis_rig_do(config, "DEL %s", keys->children[i]->text.ptr));
    }
    pc_reply_free(keys);
    pc_free((char *)(uintptr_t)config->host);
    pc_free((char *)(uintptr_t)config->key_prefix);
}
