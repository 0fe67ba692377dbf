/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/store.h"

const pc_store_ops *
pc_store_find(const char *scheme)
{
    static const pc_store_ops *const all[] = {&pc_store_redis, &pc_store_rpc, &pc_store_sqlite,
                                              &pc_store_memory};
    for (size_t i = 0; scheme != NULL && i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->scheme, scheme) == 0) {
            return all[i];
        }
    }
    return NULL;
}

const pc_results_ops *
pc_results_find(const char *scheme)
{
    static const pc_results_ops *const all[] = {&pc_results_redis, &pc_results_rpc,
                                                &pc_results_sqlite, &pc_results_memory};
    for (size_t i = 0; scheme != NULL && i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->scheme, scheme) == 0) {
            return all[i];
        }
    }
    return NULL;
}
