/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/amqp_settled.h"

#include "base/uuid.h"

#define MASK (PC_AMQP_SETTLED_MAX - 1u)
#define ON_ITS_WAY (1 * PC_NS_PER_SEC)  // until the broker has read what we wrote
#define KEEP (300 * PC_NS_PER_SEC)      // the broker may take its time to find that the old connection is gone
#define BODY_MAX 1024u                  // that is looked at

#define COUNT_KEY "\20x-delivery-count"
#define COUNT_LEN (sizeof COUNT_KEY - 1)

void
pc_amqp_settled_init(pc_amqp_settled *s)
{
    s->end = s->written = s->doubts = 0;
    s->waiting = 0;
    (void)pc_random(&s->seed, sizeof s->seed, NULL);
}

/* Both halves of the product: each message pays for this. */
static uint64_t
mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t
mix_text(uint64_t hash, pc_slice text)
{
    uint64_t words[4];
    uint64_t other = ~hash;  // two products at a time
    size_t at = 0;
    for (; text.len - at >= sizeof words; at += sizeof words) {
        memcpy(words, text.ptr + at, sizeof words);
        hash = mix(words[0], words[1] ^ hash);
        other = mix(words[2], words[3] ^ other);
    }
    memset(words, 0, sizeof words);
    if (at < text.len) {
        memcpy(words, text.ptr + at, text.len - at);
    }
    return mix(mix(words[0], words[1] ^ hash), mix(words[2], words[3] ^ other) ^ text.len);
}

/* Quorum queues sort the table and count in it, under a name that comes last unless there are strange ones. */
static pc_slice
without_count(pc_slice headers)
{
    static const struct {
        char type;
        size_t size;
    } kinds[] = {{'l', 8}, {'I', 4}, {'s', 2}, {'b', 1}, {'i', 4}, {'u', 2}, {'B', 1}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t len = COUNT_LEN + 1 + kinds[i].size;
        if (headers.len < len) {
            continue;
        }
        const char *at = headers.ptr + headers.len - len;
        if (at[COUNT_LEN] == kinds[i].type && memcmp(at, COUNT_KEY, COUNT_LEN) == 0) {
            return pc_slice_of(headers.ptr, headers.len - len);
        }
    }
    return headers;
}

uint64_t
pc_amqp_settled_print(const pc_amqp_settled *s, const pc_message *message)
{
    pc_slice body = message->body;
    uint64_t hash = s->seed ^ body.len;
    body.len = body.len < BODY_MAX ? body.len : BODY_MAX;
    hash = mix_text(hash, message->correlation_id);
    hash = mix_text(hash, message->routing_key);
    hash = mix_text(hash, without_count(message->headers));
    return mix_text(hash, body) | 1;  // 0 is none
}

void
pc_amqp_settled_note_one(pc_amqp_settled *s, uint64_t print)
{
    s->notes[s->end++ & MASK] = (pc_amqp_settled_note){.print = print};
}

static uint64_t
oldest(const pc_amqp_settled *s)
{
    return s->end > PC_AMQP_SETTLED_MAX ? s->end - PC_AMQP_SETTLED_MAX : 0;
}

void
pc_amqp_settled_flushed(pc_amqp_settled *s, pc_mono now)
{
    uint64_t first = oldest(s);
    for (uint64_t n = s->written > first ? s->written : first; n < s->end; n++) {
        s->notes[n & MASK].left = now;
    }
    s->written = s->end;
}

void
pc_amqp_settled_too_late(pc_amqp_settled *s, uint64_t print, pc_mono now)
{
    s->doubtful[s->doubts++ & MASK] = print;
    s->waiting = s->waiting < PC_AMQP_SETTLED_MAX ? s->waiting + 1 : s->waiting;
    s->until = pc_mono_add(now, KEEP);
}

void
pc_amqp_settled_lost(pc_amqp_settled *s, pc_mono heard, pc_mono now)
{
    for (uint64_t n = oldest(s); n < s->end; n++) {
        const pc_amqp_settled_note *note = &s->notes[n & MASK];
        if (n >= s->written || note->left.ns > heard.ns - ON_ITS_WAY) {
            pc_amqp_settled_too_late(s, note->print, now);
        }
    }
    s->end = s->written = 0;
}

bool
pc_amqp_settled_take(pc_amqp_settled *s, const pc_message *message, pc_mono now)
{
    if (s->waiting == 0 || now.ns > s->until.ns) {
        s->waiting = 0;
        s->doubts = 0;
        return false;
    }
    uint64_t print = pc_amqp_settled_print(s, message);
    uint64_t first = s->doubts > PC_AMQP_SETTLED_MAX ? s->doubts - PC_AMQP_SETTLED_MAX : 0;
    for (uint64_t n = first; n < s->doubts; n++) {
        if (s->doubtful[n & MASK] == print) {
            s->doubtful[n & MASK] = 0;
            s->waiting--;
            return true;
        }
    }
    return false;
}
