/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_login.h"

#include "io/amqp_frame.h"
#include "wire/table.h"

/* ---- the server's properties ---- */

typedef struct finder {
    pc_amqp_server *server;
    int depth;
    pc_slice key;
} finder;

static int
enter(void *ctx)
{
    ((finder *)ctx)->depth++;
    return 0;
}

static int
leave(void *ctx)
{
    ((finder *)ctx)->depth--;
    return 0;
}

static int
note_key(void *ctx, pc_slice name)
{
    ((finder *)ctx)->key = name;
    return 0;
}

static int
read_number(const char **at, const char *end)
{
    int value = 0;
    while (*at < end && **at >= '0' && **at <= '9' && value < 100000) {
        value = value * 10 + (*(*at)++ - '0');
    }
    return value;
}

static int
note_text(void *ctx, pc_slice text)
{
    finder *find = ctx;
    if (find->depth != 1) {
        return 0;
    }
    if (pc_slice_is(find->key, "product")) {
        find->server->rabbitmq = pc_slice_is(text, "RabbitMQ");
    } else if (pc_slice_is(find->key, "version")) {
        const char *at = text.ptr;
        const char *end = text.ptr + text.len;
        find->server->version_major = read_number(&at, end);
        at += at < end && *at == '.';
        find->server->version_minor = read_number(&at, end);
    }
    return 0;
}

int
pc_amqp_server_read(pc_slice properties, pc_amqp_server *server, pc_err *err)
{
    static const pc_visit visit = {
        .string = note_text,
        .key = note_key,
        .map_start = enter,
        .map_end = leave,
        .array_start = enter,
        .array_end = leave,
    };
    *server = (pc_amqp_server){0};
    finder find = {.server = server};
    return pc_table_visit(properties, &visit, &find, err);
}

bool
pc_amqp_server_global_qos(const pc_amqp_server *server)
{
    return server->rabbitmq && server->version_major == 3 && server->version_minor >= 3;
}

/* ---- our answer ---- */

static int
put_text(pc_sink *sink, const char *key, const char *text, pc_err *err)
{
    return sink->ops->key(sink, pc_slice_str(key), err) < 0 ||
                   sink->ops->string(sink, pc_slice_str(text), err) < 0
               ? -1
               : 0;
}

static int
put_capabilities(pc_sink *sink, pc_err *err)
{
    static const char *const names[] = {"consumer_cancel_notify", "connection.blocked",
                                        "basic.nack", "publisher_confirms",
                                        "authentication_failure_close"};
    if (sink->ops->key(sink, pc_slice_str("capabilities"), err) < 0 ||
        sink->ops->map_start(sink, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (sink->ops->key(sink, pc_slice_str(names[i]), err) < 0 ||
            sink->ops->boolean(sink, 1, err) < 0) {
            return -1;
        }
    }
    return sink->ops->map_end(sink, err);
}

static int
put_properties(pc_buf *out, const pc_broker_config *config, pc_err *err)
{
    pc_table_out table;
    pc_table_out_init(&table, out);
    pc_sink *sink = &table.sink;
    if (sink->ops->map_start(sink, err) < 0 || put_text(sink, "product", "pyceleryc", err) < 0 ||
        put_text(sink, "platform", "C", err) < 0) {
        return -1;
    }
    if (config->client_name != NULL &&
        put_text(sink, "connection_name", config->client_name, err) < 0) {
        return -1;
    }
    return put_capabilities(sink, err) < 0 ? -1 : sink->ops->map_end(sink, err);
}

static pc_slice
text_of(const char *text, const char *otherwise)
{
    return pc_slice_str(text == NULL ? otherwise : text);
}

static int
put_plain(pc_buf *out, pc_slice user, pc_slice password, pc_err *err)
{
    return pc_buf_put_u8(out, 0, err) < 0 || pc_buf_put_slice(out, user, err) < 0 ||
                   pc_buf_put_u8(out, 0, err) < 0 || pc_buf_put_slice(out, password, err) < 0
               ? -1
               : 0;
}

/* A table without its length. */
static int
put_amqplain(pc_buf *out, pc_slice user, pc_slice password, pc_err *err)
{
    static const char login[] = "\5LOGINS";
    static const char secret[] = "\10PASSWORDS";
    return pc_buf_put(out, login, sizeof login - 1, err) < 0 ||
                   pc_buf_put_u32(out, (uint32_t)user.len, err) < 0 ||
                   pc_buf_put_slice(out, user, err) < 0 ||
                   pc_buf_put(out, secret, sizeof secret - 1, err) < 0 ||
                   pc_buf_put_u32(out, (uint32_t)password.len, err) < 0 ||
                   pc_buf_put_slice(out, password, err) < 0
               ? -1
               : 0;
}

static int
put_response(pc_buf *out, const pc_broker_config *config, const char *method, pc_err *err)
{
    pc_slice user = text_of(config->user, "guest");
    pc_slice password = text_of(config->password, "guest");
    if (strcmp(method, "PLAIN") == 0) {
        return put_plain(out, user, password, err);
    }
    if (strcmp(method, "AMQPLAIN") == 0) {
        return put_amqplain(out, user, password, err);
    }
    if (strcmp(method, "EXTERNAL") == 0) {
        return 0;
    }
    return pc_fail(err, PC_EUNSUP, "login method %s is not known: use PLAIN, AMQPLAIN or EXTERNAL",
                   method);
}

/* `offered` are words with a space between. */
static bool
is_offered(pc_slice offered, const char *method)
{
    size_t len = strlen(method);
    for (size_t i = 0; i + len <= offered.len; i++) {
        bool starts = i == 0 || offered.ptr[i - 1] == ' ';
        bool ends = i + len == offered.len || offered.ptr[i + len] == ' ';
        if (starts && ends && memcmp(offered.ptr + i, method, len) == 0) {
            return true;
        }
    }
    return false;
}

int
pc_amqp_login_write(pc_buf *out, const pc_broker_config *config, pc_slice mechanisms, pc_err *err)
{
    const char *method = config->login_method == NULL ? "PLAIN" : config->login_method;
    if (!is_offered(mechanisms, method)) {
        return pc_fail(err, PC_EUNSUP, "the server does not offer login method %s, only %.*s",
                       method, (int)(mechanisms.len < 100 ? mechanisms.len : 100), mechanisms.ptr);
    }
    pc_buf table;
    pc_buf response;
    pc_buf_init(&table);
    pc_buf_init(&response);
    int rc = -1;
    if (put_properties(&table, config, err) == 0 &&
        put_response(&response, config, method, err) == 0) {
        pc_slice content = pc_slice_of(pc_buf_ptr(&table) + 4, pc_buf_len(&table) - 4);
        rc = pc_amqp_write_start_ok(out, content, pc_slice_str(method), pc_buf_slice(&response),
                                    err);
    }
    pc_buf_fini(&response);
    pc_buf_fini(&table);
    return rc;
}
