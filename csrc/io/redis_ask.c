/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions over the connection of a redis_sender. */
#include "base/mem.h"
#include "io/redis_sender.h"

#define OOM_PAUSE (100 * PC_NS_PER_MS)

/* On the heap: a thread that gives up leaves it to the answer. */
typedef struct call {
    pc_link link;
    pc_redis_sender *sender;
    bool done;
    bool orphan;
    bool lost;
    pc_err err;
    pc_reply *reply;
} call;

static void
lose_call(call *q, const pc_err *why)
{
    pc_link_remove(&q->link);
    if (q->orphan) {
        pc_free(q);
        return;
    }
    q->done = q->lost = true;
    q->err = *why;
}

static void
on_call_answer(void *ctx, const pc_reply *reply, const pc_err *why)
{
    call *q = ctx;
    if (why != NULL) {
        lose_call(q, why);
        return;
    }
    pc_link_remove(&q->link);
    if (q->orphan) {
        pc_free(q);
        return;
    }
    q->done = true;
    if (pc_redis_check(q->sender->conn, reply, &q->err) == 0) {
        q->reply = pc_redis_take_reply(q->sender->conn);
    }
}

static int
is_answered(void *ctx)
{
    return ((const call *)ctx)->done;
}

/* Frees the call, or leaves it behind. */
static int
finish_call(call *q, pc_reply **reply, bool *lost, pc_mono deadline, pc_err *err)
{
    pc_err why = {0};
    if (pc_pump_wait(q->sender->pump, is_answered, q, deadline, NULL, &why) < 0 && !q->done) {
        q->orphan = true;
        return pc_fail(err, why.code, "%s: no answer: %s", pc_redis_where(q->sender->conn),
                       why.msg);
    }
    *lost = q->lost;
    *reply = q->reply;
    int rc = q->reply != NULL ? 0 : pc_fail(err, q->err.code, "%s", q->err.msg);
    pc_free(q);
    return rc;
}

static int
ask_once(pc_redis_sender *s, pc_redis_args *args, pc_reply **reply, bool *lost, pc_mono deadline,
         pc_err *err)
{
    if (pc_redis_sender_connect(s, deadline, err) < 0) {
        return -1;
    }
    call *q = pc_zalloc(sizeof *q);
    if (q == NULL) {
        return pc_fail_nomem(err);
    }
    q->sender = s;
    pc_link_init(&q->link);
    if (pc_redis_args_send(args, s->conn, on_call_answer, q, err) < 0) {
        pc_free(q);
        return -1;
    }
    pc_list_put_back(&s->calls, &q->link);
    return finish_call(q, reply, lost, deadline, err);
}

/* The connection was closed from our side: no answer comes. */
void
pc_redis_calls_lose(pc_link *calls, const pc_err *why)
{
    while (!pc_list_empty(calls)) {
        lose_call(PC_CONTAINER_OF(calls->next, call, link), why);
    }
}

static int
is_never(void *ctx)
{
    (void)ctx;
    return 0;
}

/* Whether the question is worth asking again, and it is time to. */
static bool
waited(pc_redis_sender *s, bool lost, pc_mono deadline, const pc_err *why)
{
    pc_mono when = pc_mono_add(pc_mono_now(), OOM_PAUSE);
    if (why->code == PC_EFULL) {
        (void)pc_pump_wait(s->pump, is_never, NULL, when.ns < deadline.ns ? when : deadline, NULL, NULL);
        return true;
    }
    if (!lost && why->code == PC_EIO && pc_redis_is_up(s->conn)) {
        pc_redis_sender_give_up(s, why);  // LOADING, READONLY: another connection may do better
        return true;
    }
    return lost;
}

int
pc_redis_sender_ask(pc_redis_sender *s, pc_redis_args *args, bool again, pc_reply **reply,
                    pc_mono deadline, pc_err *err)
{
    pc_err why;
    bool lost;
    do {
        lost = false;
        why = (pc_err){0};
        if (ask_once(s, args, reply, &lost, deadline, &why) == 0) {
            return 0;
        }
    } while (again && pc_mono_now().ns < deadline.ns && waited(s, lost, deadline, &why)
             && pc_mono_now().ns < deadline.ns);
    return pc_fail(err, why.code, "%s", why.msg);
}
