/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_fifo.h"

#include "base/mem.h"

#define MIN_CAP 64

int
pc_redis_fifo_reserve(pc_redis_fifo *fifo, pc_err *err)
{
    if (fifo->count < fifo->cap) {
        return 0;
    }
    size_t cap = fifo->cap == 0 ? MIN_CAP : fifo->cap * 2;
    pc_redis_expect *ring = pc_alloc(cap * sizeof *ring);
    if (ring == NULL) {
        return pc_fail_nomem(err);
    }
    for (size_t i = 0; i < fifo->count; i++) {
        ring[i] = fifo->ring[(fifo->first + i) & (fifo->cap - 1)];
    }
    pc_free(fifo->ring);
    fifo->ring = ring;
    fifo->cap = cap;
    fifo->first = 0;
    return 0;
}

void
pc_redis_fifo_put(pc_redis_fifo *fifo, pc_redis_expect expect)
{
    fifo->ring[(fifo->first + fifo->count) & (fifo->cap - 1)] = expect;
    fifo->count++;
}

pc_redis_expect
pc_redis_fifo_take(pc_redis_fifo *fifo)
{
    pc_redis_expect expect = fifo->ring[fifo->first];
    fifo->first = (fifo->first + 1) & (fifo->cap - 1);
    fifo->count--;
    return expect;
}

void
pc_redis_fifo_fini(pc_redis_fifo *fifo)
{
    pc_free(fifo->ring);
    *fifo = (pc_redis_fifo){0};
}
