/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_reply.h"

#include "base/mem.h"

#define MAX_CHILDREN ((size_t)1 << 26)

pc_reply *
pc_reply_new(pc_reply_type type, size_t extra)
{
    pc_reply *reply = pc_alloc(sizeof *reply + extra);
    if (reply != NULL) {
        *reply = (pc_reply){.type = type};
    }
    return reply;
}

pc_reply *
pc_reply_array(size_t len)
{
    if (len > MAX_CHILDREN) {
        return NULL;
    }
    pc_reply *reply = pc_reply_new(PC_REPLY_ARRAY, len * sizeof(pc_reply *));
    if (reply != NULL) {
        reply->len = len;
        reply->children = (pc_reply **)(void *)(reply + 1);
        memset(reply->children, 0, len * sizeof(pc_reply *));
    }
    return reply;
}

void
pc_reply_free(pc_reply *reply)
{
    if (reply == NULL) {
        return;
    }
    for (size_t i = 0; i < reply->len; i++) {
        pc_reply_free(reply->children[i]);
    }
    pc_free(reply);
}

static const struct {
    const char *start;
    pc_code code;
} error_codes[] = {
    {"LOADING", PC_EIO},
    {"READONLY", PC_EIO},
    {"MASTERDOWN", PC_EIO},
    {"CLUSTERDOWN", PC_EIO},
    {"TRYAGAIN", PC_EIO},
    {"BUSY", PC_EIO},
    {"MISCONF", PC_EIO},  // the server cannot write its snapshot
    {"NOREPLICAS", PC_EIO},
    {"ERR max number of clients", PC_EIO},
    {"OOM", PC_EFULL},
    {"NOAUTH", PC_EAUTH},
    {"WRONGPASS", PC_EAUTH},
    {"NOPERM", PC_EAUTH},
    {"DENIED", PC_EAUTH},
    {"ERR invalid password", PC_EAUTH},
    {"ERR Client sent AUTH", PC_EAUTH},
    {"ERR AUTH", PC_EAUTH},
    {"NOSCRIPT", PC_ENOTFOUND},
    {"MOVED", PC_EUNSUP},
    {"ASK", PC_EUNSUP},
    {"CROSSSLOT", PC_EUNSUP},
};

pc_code
pc_redis_code(pc_slice text)
{
    static const char in_script[] = "ERR Error running script";
    // before Redis 7 an error inside a script comes wrapped: "…: @user_script: 1: -OOM …"
    if (text.len > sizeof in_script && memcmp(text.ptr, in_script, sizeof in_script - 1) == 0) {
        const char *inner = memmem(text.ptr, text.len, " -", 2);
        if (inner != NULL) {
            size_t skip = (size_t)(inner + 2 - text.ptr);
            text = pc_slice_of(inner + 2, text.len - skip);
        }
    }
    for (size_t i = 0; i < sizeof error_codes / sizeof *error_codes; i++) {
        size_t len = strlen(error_codes[i].start);
        if (text.len >= len && memcmp(text.ptr, error_codes[i].start, len) == 0) {
            return error_codes[i].code;
        }
    }
    return PC_EDATA;
}
