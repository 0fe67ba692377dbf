/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/config.h"

#include "base/mem.h"
#include "io/redis_config.h"
#include "py/args.h"
#include "py/feed.h"
#include "py/hub.h"
#include "py/message.h"

typedef struct py_block {
    struct py_block *next;
    char data[];
} py_block;

typedef enum kind { TEXT, INT, REAL, FLAG, TABLE, TLS, SENTINELS, HUB, FEED, BROKER } kind;

typedef struct field {
    const char *key;
    size_t offset;
    kind kind;
} field;

#define BROKER_FIELD(name, kind) {#name, offsetof(pc_broker_config, name), kind}
#define STORE_FIELD(name, kind) {#name, offsetof(pc_store_config, name), kind}
#define TLS_FIELD(name, kind) {#name, offsetof(pc_tls_config, name), kind}
#define QUEUE_FIELD(name, kind) {#name, offsetof(pc_queue, name), kind}

static const field broker_fields[] = {
    BROKER_FIELD(scheme, TEXT),
    BROKER_FIELD(host, TEXT),
    BROKER_FIELD(port, INT),
    BROKER_FIELD(vhost, TEXT),
    BROKER_FIELD(user, TEXT),
    BROKER_FIELD(password, TEXT),
    BROKER_FIELD(login_method, TEXT),
    {"ssl", offsetof(pc_broker_config, tls), TLS},
    BROKER_FIELD(heartbeat, REAL),
    BROKER_FIELD(connect_timeout, REAL),
    BROKER_FIELD(client_name, TEXT),
    BROKER_FIELD(publish_timeout, REAL),
    BROKER_FIELD(window, INT),
    BROKER_FIELD(confirm, INT),
    BROKER_FIELD(synchronous, INT),
    BROKER_FIELD(unix_path, TEXT),
    {"sentinel", offsetof(pc_broker_config, sentinels), SENTINELS},
    BROKER_FIELD(db, INT),
    BROKER_FIELD(socket_timeout, REAL),
    BROKER_FIELD(visibility_timeout, REAL),
    BROKER_FIELD(lease, REAL),
    BROKER_FIELD(stalls, FLAG),
    BROKER_FIELD(key_prefix, TEXT),
    BROKER_FIELD(sep, TEXT),
    BROKER_FIELD(priority_steps, TEXT),
    BROKER_FIELD(queue_order, TEXT),
    BROKER_FIELD(unacked_key, TEXT),
    BROKER_FIELD(unacked_index_key, TEXT),
    BROKER_FIELD(unacked_mutex_key, TEXT),
    BROKER_FIELD(fanout_prefix, TEXT),
    BROKER_FIELD(fanout_plain, FLAG),
    BROKER_FIELD(hub, HUB),
    {"feed", 0, FEED},
    {NULL, 0, TEXT},
};

static const field store_fields[] = {
    STORE_FIELD(scheme, TEXT),
    STORE_FIELD(host, TEXT),
    STORE_FIELD(port, INT),
    STORE_FIELD(unix_path, TEXT),
    {"sentinel", offsetof(pc_store_config, sentinels), SENTINELS},
    STORE_FIELD(db, INT),
    STORE_FIELD(user, TEXT),
    STORE_FIELD(password, TEXT),
    {"ssl", offsetof(pc_store_config, tls), TLS},
    STORE_FIELD(key_prefix, TEXT),
    STORE_FIELD(connect_timeout, REAL),
    STORE_FIELD(socket_timeout, REAL),
    STORE_FIELD(expires, REAL),
    STORE_FIELD(path, TEXT),
    STORE_FIELD(broker, BROKER),
    STORE_FIELD(persistent, FLAG),
    STORE_FIELD(reply_queue, TEXT),
    STORE_FIELD(hub, HUB),
    {NULL, 0, TEXT},
};

static const field tls_fields[] = {
    TLS_FIELD(ca_file, TEXT),     TLS_FIELD(ca_path, TEXT),      TLS_FIELD(cert_file, TEXT),
    TLS_FIELD(key_file, TEXT),    TLS_FIELD(key_password, TEXT), TLS_FIELD(ciphers, TEXT),
    TLS_FIELD(server_name, TEXT), TLS_FIELD(verify, FLAG),       TLS_FIELD(check_hostname, FLAG),
    {NULL, 0, TEXT},
};

static const field sentinel_fields[] = {
    {"hosts", offsetof(pc_redis_sentinels, hosts), TEXT},
    {"master_name", offsetof(pc_redis_sentinels, master_name), TEXT},
    {"user", offsetof(pc_redis_sentinels, user), TEXT},
    {"password", offsetof(pc_redis_sentinels, password), TEXT},
    {"ssl", offsetof(pc_redis_sentinels, tls), TLS},
    {NULL, 0, TEXT},
};

static const field queue_fields[] = {
    QUEUE_FIELD(name, TEXT),
    QUEUE_FIELD(exchange, TEXT),
    QUEUE_FIELD(exchange_type, TEXT),
    QUEUE_FIELD(routing_key, TEXT),
    QUEUE_FIELD(durable, FLAG),
    QUEUE_FIELD(exclusive, FLAG),
    QUEUE_FIELD(auto_delete, FLAG),
    QUEUE_FIELD(no_ack, FLAG),
    QUEUE_FIELD(no_declare, FLAG),
    QUEUE_FIELD(exchange_durable, FLAG),
    QUEUE_FIELD(exchange_auto_delete, FLAG),
    QUEUE_FIELD(passive, FLAG),
    QUEUE_FIELD(queue_arguments, TABLE),
    QUEUE_FIELD(exchange_arguments, TABLE),
    QUEUE_FIELD(binding_arguments, TABLE),
    QUEUE_FIELD(consumer_arguments, TABLE),
    {NULL, 0, TEXT},
};

void
py_config_init(py_config *config, py_state *state)
{
    config->state = state;
    config->blocks = NULL;
    config->lenders = NULL;
}

void
py_config_fini(py_config *config)
{
    for (py_block *it = config->blocks; it != NULL;) {
        py_block *next = it->next;
        pc_free(it);
        it = next;
    }
    config->blocks = NULL;
    Py_CLEAR(config->lenders);
}

static void *
own(py_config *config, size_t size)
{
    py_block *block = pc_alloc(sizeof *block + size);
    if (block == NULL) {
        return PyErr_NoMemory();
    }
    block->next = config->blocks;
    config->blocks = block;
    return block->data;
}

static int
fill_text(py_config *config, const char *key, PyObject *value, const char **out)
{
    const char *text;
    if (py_cstring(value, key, &text) < 0) {
        return -1;
    }
    char *copy = own(config, strlen(text) + 1);
    if (copy == NULL) {
        return -1;
    }
    strcpy(copy, text);
    *out = copy;
    return 0;
}

static int
fill_table(py_config *config, PyObject *value, pc_slice *out)
{
    pc_buf packed;
    pc_slice table;
    pc_buf_init(&packed);
    int rc = py_dict_pack(config->state, value, PC_HEADERS_TABLE, &packed, &table);
    char *copy = rc < 0 ? NULL : own(config, table.len);
    if (copy != NULL) {
        memcpy(copy, table.ptr, table.len);
        *out = pc_slice_of(copy, table.len);
    }
    pc_buf_fini(&packed);
    return copy == NULL ? -1 : 0;
}

static int fill(py_config *config, PyObject *mapping, const field *fields, void *out);

/* What is not said is checked: nobody turns verification off by forgetting a key. */
static int
fill_tls(py_config *config, PyObject *value, const pc_tls_config **out)
{
    pc_tls_config *tls = own(config, sizeof *tls);
    if (tls == NULL) {
        return -1;
    }
    *tls = (pc_tls_config){.verify = true, .check_hostname = true};
    *out = tls;
    return fill(config, value, tls_fields, tls);
}

static int
fill_sentinels(py_config *config, PyObject *value, const pc_redis_sentinels **out)
{
    pc_redis_sentinels *sentinels = own(config, sizeof *sentinels);
    if (sentinels == NULL) {
        return -1;
    }
    *sentinels = (pc_redis_sentinels){.hosts = NULL};
    *out = sentinels;
    return fill(config, value, sentinel_fields, sentinels);
}

static int
fill_broker(py_config *config, PyObject *value, const pc_broker_config **out)
{
    pc_broker_config *broker = own(config, sizeof *broker);
    if (broker == NULL) {
        return -1;
    }
    *out = broker;
    return py_config_broker(config, value, broker);
}

static int
keep(py_config *config, PyObject *lender)
{
    if (config->lenders == NULL) {
        config->lenders = PyList_New(0);
    }
    return config->lenders == NULL ? -1 : PyList_Append(config->lenders, lender);
}

static int
fill_hub(py_config *config, PyObject *value, struct pc_hub **out)
{
    *out = py_hub_get(config->state, value);
    return *out == NULL ? -1 : keep(config, value);
}

static int
fill_feed(py_config *config, PyObject *value, pc_broker_config *out)
{
    return py_feed_fill(config->state, value, out) < 0 ? -1 : keep(config, value);
}

static int
fill_field(py_config *config, const field *it, PyObject *value, void *out)
{
    void *to = (char *)out + it->offset;
    switch (it->kind) {
    case TEXT:
        return fill_text(config, it->key, value, to);
    case INT:
        return py_int(value, to);
    case REAL:
        return py_real_or_none(value, to);
    case FLAG:
        return py_flag(value, to);
    case TABLE:
        return fill_table(config, value, to);
    case TLS:
        return fill_tls(config, value, to);
    case SENTINELS:
        return fill_sentinels(config, value, to);
    case HUB:
        return fill_hub(config, value, to);
    case FEED:
        return fill_feed(config, value, out);
    case BROKER:
        return fill_broker(config, value, to);
    }
    return 0;
}

/* A new reference; NULL without an exception when the dict lacks it or has None. */
static PyObject *
look_up(PyObject *dict, const char *key)
{
    PyObject *name = PyUnicode_FromString(key);
    PyObject *value = name == NULL ? NULL : PyDict_GetItemWithError(dict, name);  // borrowed
    Py_XDECREF(name);
    return value == Py_None ? NULL : Py_XNewRef(value);
}

static int
fill(py_config *config, PyObject *mapping, const field *fields, void *out)
{
    PyObject *dict = py_mapping(mapping, "the configuration");
    int rc = dict == NULL ? -1 : 0;
    for (const field *it = fields; rc == 0 && it->key != NULL; it++) {
        PyObject *value = look_up(dict, it->key);
        if (value != NULL) {
            rc = fill_field(config, it, value, out);
            Py_DECREF(value);
        } else if (PyErr_Occurred()) {
            rc = -1;
        }
    }
    Py_XDECREF(dict);
    return rc;
}

int
py_config_broker(py_config *config, PyObject *mapping, pc_broker_config *out)
{
    *out = (pc_broker_config){.connect_timeout = 4.0, .publish_timeout = 30.0};
    return fill(config, mapping, broker_fields, out);
}

int
py_config_store(py_config *config, PyObject *mapping, pc_store_config *out)
{
    *out = (pc_store_config){
        .key_prefix = "", .connect_timeout = 4.0, .socket_timeout = 120.0};
    return fill(config, mapping, store_fields, out);
}

int
py_config_queue(py_config *config, PyObject *mapping, pc_queue *out)
{
    *out = (pc_queue){.name = NULL};
    if (fill(config, mapping, queue_fields, out) < 0) {
        return -1;
    }
    if (out->name == NULL) {
        PyErr_SetString(PyExc_ValueError, "a queue needs a name");
        return -1;
    }
    return 0;
}
