/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/pool.h"

#include <string.h>

#define SKIP_BITS 6  // after many refusals one offer in 64 is made

bool
pc_asking_skips(pc_asking *asking)
{
    bool skips = asking->skip > 0;

    asking->skip -= skips;
    return skips;
}

bool
pc_asking_note(pc_asking *asking, bool granted)
{
    asking->refused = granted ? 0 : asking->refused + 1;
    unsigned bits = asking->refused < SKIP_BITS ? asking->refused : SKIP_BITS;
    asking->skip = granted ? 0 : (1u << bits) - 2;
    return granted;
}

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
