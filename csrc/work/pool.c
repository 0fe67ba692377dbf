/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/pool.h"

#include <string.h>

const pc_pool_ops *
pc_pool_find(const char *name)
{
    static const pc_pool_ops *const all[] = {
        &pc_pool_prefork, &pc_pool_threads, &pc_pool_asyncio, &pc_pool_solo};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}
