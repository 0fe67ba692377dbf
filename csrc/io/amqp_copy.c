/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_copy.h"

#include "base/mem.h"

static const size_t config_texts[] = {
    offsetof(pc_broker_config, scheme),      offsetof(pc_broker_config, host),
    offsetof(pc_broker_config, vhost),       offsetof(pc_broker_config, user),
    offsetof(pc_broker_config, password),    offsetof(pc_broker_config, login_method),
    offsetof(pc_broker_config, client_name),
};
static const size_t tls_texts[] = {
    offsetof(pc_tls_config, ca_file),      offsetof(pc_tls_config, ca_path),
    offsetof(pc_tls_config, cert_file),    offsetof(pc_tls_config, key_file),
    offsetof(pc_tls_config, key_password), offsetof(pc_tls_config, ciphers),
    offsetof(pc_tls_config, server_name),
};
static const size_t queue_texts[] = {
    offsetof(pc_queue, name),
    offsetof(pc_queue, exchange),
    offsetof(pc_queue, exchange_type),
    offsetof(pc_queue, routing_key),
};
static const size_t queue_tables[] = {
    offsetof(pc_queue, queue_arguments),
    offsetof(pc_queue, exchange_arguments),
    offsetof(pc_queue, binding_arguments),
    offsetof(pc_queue, consumer_arguments),
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static size_t
texts_size(const void *from, const size_t *offsets, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        const char *text = NULL;
        memcpy(&text, (const char *)from + offsets[i], sizeof text);
        size += text == NULL ? 0 : strlen(text) + 1;
    }
    return size;
}

/* Moves the texts that `to` points to into `memory`; returns what follows them. */
static char *
adopt_texts(void *to, const size_t *offsets, size_t n, char *memory)
{
    for (size_t i = 0; i < n; i++) {
        char *at = (char *)to + offsets[i];
        const char *text = NULL;
        memcpy(&text, at, sizeof text);
        if (text != NULL) {
            size_t size = strlen(text) + 1;
            memcpy(memory, text, size);
            memcpy(at, &memory, sizeof memory);
            memory += size;
        }
    }
    return memory;
}

pc_broker_config *
pc_amqp_copy_config(const pc_broker_config *from, pc_err *err)
{
    size_t size = sizeof *from + texts_size(from, config_texts, COUNT(config_texts));
    if (from->tls != NULL) {
        size += sizeof *from->tls + texts_size(from->tls, tls_texts, COUNT(tls_texts));
    }
    pc_broker_config *copy = pc_alloc(size);
    if (copy == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *copy = *from;
    char *memory = (char *)(copy + 1);
    if (from->tls != NULL) {
        pc_tls_config *tls = (pc_tls_config *)(void *)memory;
        *tls = *from->tls;
        copy->tls = tls;
        memory = adopt_texts(tls, tls_texts, COUNT(tls_texts), (char *)(tls + 1));
    }
    (void)adopt_texts(copy, config_texts, COUNT(config_texts), memory);
    return copy;
}

pc_queue *
pc_amqp_copy_queue(const pc_queue *from, pc_err *err)
{
    size_t size = sizeof *from + texts_size(from, queue_texts, COUNT(queue_texts)) +
                  from->queue_arguments.len + from->exchange_arguments.len +
                  from->binding_arguments.len + from->consumer_arguments.len;
    pc_queue *copy = pc_alloc(size);
    if (copy == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    *copy = *from;
    char *memory = adopt_texts(copy, queue_texts, COUNT(queue_texts), (char *)(copy + 1));
    for (size_t i = 0; i < COUNT(queue_tables); i++) {
        pc_slice *table = (pc_slice *)(void *)((char *)copy + queue_tables[i]);
        if (table->len > 0) {
            memcpy(memory, table->ptr, table->len);
        }
        table->ptr = memory;
        memory += table->len;
    }
    return copy;
}
