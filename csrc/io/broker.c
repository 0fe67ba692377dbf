/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/broker.h"

const pc_source_ops *
pc_source_find(const char *scheme)
{
    static const pc_source_ops *const all[] = {&pc_source_amqp, &pc_source_redis,
                                               &pc_source_sqlite, &pc_source_memory};
    for (size_t i = 0; scheme != NULL && i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->scheme, scheme) == 0) {
            return all[i];
        }
    }
    return NULL;
}

const pc_producer_ops *
pc_producer_find(const char *scheme)
{
    static const pc_producer_ops *const all[] = {&pc_producer_amqp, &pc_producer_redis,
                                                 &pc_producer_sqlite, &pc_producer_memory};
    for (size_t i = 0; scheme != NULL && i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->scheme, scheme) == 0) {
            return all[i];
        }
    }
    return NULL;
}
