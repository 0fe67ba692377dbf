/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_reader.h"

#include <hiredis/hiredis.h>

#include "base/mem.h"

#define KEEP (1024 * 1024)  // free input buffer hiredis may keep

struct pc_redis_reader {
    redisReader *hiredis;
};

/* hiredis takes NULL for "memory is out" and gives the reader's error back. */
static void *
attach(const redisReadTask *task, pc_reply *reply)
{
    if (reply != NULL && task->parent != NULL) {
        pc_reply *parent = task->parent->obj;
        parent->children[task->idx] = reply;
    }
    return reply;
}

static void *
create_string(const redisReadTask *task, char *text, size_t len)
{
    pc_reply_type type = task->type == REDIS_REPLY_ERROR    ? PC_REPLY_ERROR
                         : task->type == REDIS_REPLY_STATUS ? PC_REPLY_STATUS
                                                            : PC_REPLY_STRING;
    pc_reply *reply = len < SIZE_MAX / 2 ? pc_reply_new(type, len + 1) : NULL;
    if (reply != NULL) {
        char *copy = (char *)(reply + 1);
        memcpy(copy, text, len);
        copy[len] = '\0';
        reply->text = pc_slice_of(copy, len);
    }
    return attach(task, reply);
}

#if HIREDIS_MAJOR < 1
static void *
create_array(const redisReadTask *task, int len)
{
    return attach(task, len < 0 ? NULL : pc_reply_array((size_t)len));
}
#else
static void *
create_array(const redisReadTask *task, size_t len)
{
    return attach(task, pc_reply_array(len));
}

/* Never asked for (that would be RESP3), but hiredis would invent pointers without them. */
static void *
create_double(const redisReadTask *task, double value, char *text, size_t len)
{
    (void)value;
    return create_string(task, text, len);
}
#endif

static void *
create_integer(const redisReadTask *task, long long value)
{
    pc_reply *reply = pc_reply_new(PC_REPLY_INTEGER, 0);
    if (reply != NULL) {
        reply->integer = value;
    }
    return attach(task, reply);
}

#if HIREDIS_MAJOR >= 1
static void *
create_bool(const redisReadTask *task, int value)
{
    return create_integer(task, value);
}
#endif

static void *
create_nil(const redisReadTask *task)
{
    return attach(task, pc_reply_new(PC_REPLY_NIL, 0));
}

static void
free_object(void *reply)
{
    pc_reply_free(reply);
}

static const redisReplyObjectFunctions creators = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
    .freeObject = free_object,
};

pc_redis_reader *
pc_redis_reader_new(pc_err *err)
{
    // hiredis takes the table as writable and never writes it
    redisReplyObjectFunctions *table = (redisReplyObjectFunctions *)(uintptr_t)&creators;
    pc_redis_reader *reader = pc_zalloc(sizeof *reader);
    if (reader != NULL) {
        reader->hiredis = redisReaderCreateWithFunctions(table);
    }
    if (reader == NULL || reader->hiredis == NULL) {
        pc_free(reader);
        pc_fail_nomem(err);
        return NULL;
    }
    reader->hiredis->maxbuf = KEEP;
    return reader;
}

void
pc_redis_reader_free(pc_redis_reader *reader)
{
    if (reader != NULL) {
        redisReaderFree(reader->hiredis);
        pc_free(reader);
    }
}

int
pc_redis_reader_feed(pc_redis_reader *reader, pc_slice bytes, pc_err *err)
{
    return redisReaderFeed(reader->hiredis, bytes.ptr, bytes.len) == REDIS_OK ? 0
                                                                              : pc_fail_nomem(err);
}

int
pc_redis_reader_next(pc_redis_reader *reader, pc_reply **reply, pc_err *err)
{
    void *object = NULL;
    if (redisReaderGetReply(reader->hiredis, &object) != REDIS_OK) {
        return reader->hiredis->err == REDIS_ERR_OOM
                   ? pc_fail_nomem(err)
                   : pc_fail(err, PC_EPROTO, "%s", reader->hiredis->errstr);
    }
    *reply = object;
    return 0;
}
