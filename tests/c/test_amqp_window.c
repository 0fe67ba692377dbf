/* SPDX-License-Identifier: BSD-3-Clause */
/* Bookkeeping without a broker: unconfirmed messages, delivery tags. */
#include <stdio.h>

#include "base/mem.h"
#include "harness.h"
#include "io/amqp_acks.h"
#include "io/amqp_frame.h"
#include "io/amqp_window.h"

#define HIGH ((size_t)1 << 20)

typedef struct log {
    char text[400];
    size_t len;
} log;

static void
on_settled(void *ctx, void *cookie, const pc_err *why)
{
    log *l = ctx;
    l->len += (size_t)snprintf(l->text + l->len, sizeof l->text - l->len, "%s%d ",
                               why == NULL ? "" : "!", (int)(intptr_t)cookie);
}

static int
put_with(pc_amqp_window *window, int n, const char *exchange, const char *expiration)
{
    pc_message message;
    char body[16];
    pc_message_init(&message);
    message.exchange = pc_slice_str(exchange);
    message.routing_key = pc_slice_str("");
    message.expiration = pc_slice_str(expiration);
    message.body = pc_slice_of(body, (size_t)snprintf(body, sizeof body, "<%d>", n));
    return pc_amqp_window_put(window, &message, false, 4096, (void *)(intptr_t)n, NULL);
}

static int
put(pc_amqp_window *window, int n)
{
    return put_with(window, n, "", "1000");
}

/* What is written now, as "<1><2>". */
static void
expect_sent(pc_amqp_window *window, const char *want)
{
    pc_buf out;
    char sent[400] = "";
    pc_buf_init(&out);
    PC_ASSERT_INT(pc_amqp_window_send(window, &out, HIGH, 4096, NULL), 0);
    pc_slice rest = pc_buf_slice(&out);
    pc_amqp_frame frame;
    while (rest.len > 0) {
        int64_t used = pc_amqp_frame_split(rest, 4096, &frame, NULL);
        PC_ASSERT(used > 0);
        if (frame.type == PC_AMQP_BODY) {
            strncat(sent, frame.payload.ptr, frame.payload.len);
        }
        rest = pc_slice_of(rest.ptr + used, rest.len - (size_t)used);
    }
    PC_ASSERT_STR(sent, want);
    pc_buf_fini(&out);
}

static void
start(pc_amqp_window *window, log *l, int n)
{
    *l = (log){0};
    pc_amqp_window_init(window, on_settled, l);
    for (int i = 1; i <= n; i++) {
        PC_ASSERT_INT(put(window, i), 0);
    }
}

void
test_amqp_window_confirms_single_and_multiple(void)
{
    pc_amqp_window window;
    log l;
    start(&window, &l, 5);
    expect_sent(&window, "<1><2><3><4><5>");
    pc_amqp_window_ack(&window, 2, false);
    PC_ASSERT_INT(window.open, 4);
    pc_amqp_window_ack(&window, 3, true);
    PC_ASSERT_STR(l.text, "2 1 3 ");
    pc_amqp_window_ack(&window, 3, false);   // again
    pc_amqp_window_ack(&window, 77, false);  // unknown
    PC_ASSERT_INT(window.open, 2);
    pc_amqp_window_ack(&window, 0, true);
    PC_ASSERT_INT(window.open, 0);
    PC_ASSERT_INT(window.open_bytes, 0);
    PC_ASSERT_INT(pc_buf_len(&window.frames), 0);
    pc_amqp_window_fini(&window);
}

void
test_amqp_window_sends_again_after_a_restart_without_the_settled(void)
{
    pc_amqp_window window;
    log l;
    start(&window, &l, 5);
    expect_sent(&window, "<1><2><3><4><5>");
    pc_amqp_window_ack(&window, 2, false);
    pc_amqp_window_ack(&window, 4, false);
    PC_ASSERT(!pc_amqp_window_restart(&window, NULL));
    PC_ASSERT_INT(put(&window, 6), 0);
    expect_sent(&window, "<1><3><5><6>");
    pc_amqp_window_ack(&window, 2, true);
    PC_ASSERT_STR(l.text, "2 4 1 3 ");
    pc_amqp_window_ack(&window, 4, true);
    PC_ASSERT_INT(window.open, 0);
    pc_amqp_window_fini(&window);
}

void
test_amqp_window_puts_nacked_messages_to_the_end(void)
{
    pc_amqp_window window;
    log l;
    start(&window, &l, 3);
    expect_sent(&window, "<1><2><3>");
    PC_ASSERT_INT(pc_amqp_window_nack(&window, 2, true, NULL), 0);
    PC_ASSERT_INT(window.open, 3);
    PC_ASSERT_INT(pc_amqp_window_under_way(&window), 1);
    expect_sent(&window, "<1><2>");
    pc_amqp_window_ack(&window, 5, true);
    PC_ASSERT_STR(l.text, "3 1 2 ");
    PC_ASSERT_INT(pc_buf_len(&window.frames), 0);
    pc_amqp_window_fini(&window);
}

void
test_amqp_window_finds_the_refused_message(void)
{
    pc_amqp_window window;
    pc_err why = {.code = PC_EDATA};
    log l;
    start(&window, &l, 3);
    expect_sent(&window, "<1><2><3>");
    PC_ASSERT(!pc_amqp_window_restart(&window, &why));
    PC_ASSERT_INT(put(&window, 4), 0);
    expect_sent(&window, "<1>");
    expect_sent(&window, "");
    pc_amqp_window_ack(&window, 1, false);
    expect_sent(&window, "<2>");
    PC_ASSERT(pc_amqp_window_restart(&window, &why));
    expect_sent(&window, "<3>");
    pc_amqp_window_ack(&window, 1, false);
    expect_sent(&window, "<4>");
    pc_amqp_window_ack(&window, 2, false);
    PC_ASSERT_STR(l.text, "1 !2 3 4 ");
    pc_amqp_window_fini(&window);
}

/* Nobody knows what was taken before a refusal: so it meets nobody else where it is likely. */
void
test_amqp_window_sends_alone_what_may_be_refused(void)
{
    pc_amqp_window window;
    pc_err why = {.code = PC_ENOTFOUND};
    log l;
    start(&window, &l, 1);
    PC_ASSERT_INT(put_with(&window, 2, "x", "1000"), 0);
    PC_ASSERT_INT(put(&window, 3), 0);
    PC_ASSERT_INT(put_with(&window, 4, "x", "1000"), 0);
    PC_ASSERT_INT(put_with(&window, 5, "", "soon"), 0);
    PC_ASSERT_INT(put(&window, 6), 0);
    expect_sent(&window, "<1>");
    PC_ASSERT(pc_amqp_window_holds(&window));
    pc_amqp_window_ack(&window, 1, false);
    expect_sent(&window, "<2>");
    pc_amqp_window_ack(&window, 2, false);
    expect_sent(&window, "<3><4>");  // x is known by now
    pc_amqp_window_ack(&window, 4, true);
    expect_sent(&window, "<5>");
    PC_ASSERT(pc_amqp_window_restart(&window, &why));
    expect_sent(&window, "<6>");
    PC_ASSERT(!pc_amqp_window_holds(&window));
    pc_amqp_window_prove(&window, pc_slice_str("y"));
    PC_ASSERT_INT(put_with(&window, 7, "y", ""), 0);
    expect_sent(&window, "<7>");
    PC_ASSERT(!pc_amqp_window_restart(&window, &why));  // one of them: x and y may be gone
    expect_sent(&window, "<6>");
    pc_amqp_window_ack(&window, 1, false);
    expect_sent(&window, "<7>");
    pc_amqp_window_ack(&window, 2, false);
    PC_ASSERT_INT(put(&window, 8), 0);
    PC_ASSERT_INT(put_with(&window, 9, "x", ""), 0);
    expect_sent(&window, "<8>");
    PC_ASSERT_STR(l.text, "1 2 3 4 !5 6 7 ");
    pc_amqp_window_fini(&window);
}

void
test_amqp_window_cancels_sent_and_unsent_messages(void)
{
    pc_amqp_window window;
    log l;
    start(&window, &l, 2);
    expect_sent(&window, "<1><2>");
    for (int i = 3; i <= 5; i++) {
        PC_ASSERT_INT(put(&window, i), 0);
    }
    pc_amqp_window_cancel(&window, (void *)2);
    pc_amqp_window_cancel(&window, (void *)4);
    pc_amqp_window_cancel(&window, (void *)9);
    expect_sent(&window, "<3><5>");
    pc_amqp_window_ack(&window, 4, true);
    PC_ASSERT_STR(l.text, "1 3 5 ");
    PC_ASSERT_INT(window.open, 0);
    PC_ASSERT_INT(window.open_bytes, 0);
    pc_amqp_window_fini(&window);
}

static int
use_window(void *arg)
{
    pc_amqp_window window;
    pc_buf out;
    log l = {0};
    (void)arg;
    pc_buf_init(&out);
    pc_amqp_window_init(&window, on_settled, &l);
    int rc = 0;
    pc_amqp_window_prove(&window, pc_slice_str("x"));
    pc_amqp_window_prove(&window, pc_slice_str("y"));
    for (int i = 0; i < 70 && rc == 0; i++) {
        rc = put_with(&window, 1, i % 2 == 0 ? "x" : "y", "");
    }
    rc = rc < 0 ? rc : pc_amqp_window_send(&window, &out, HIGH, 4096, NULL);
    rc = rc < 0 ? rc : pc_amqp_window_nack(&window, 60, true, NULL);
    pc_amqp_window_fini(&window);
    pc_buf_fini(&out);
    return rc;
}

void
test_amqp_window_survives_the_lack_of_memory(void)
{
    PC_ASSERT(PC_OOM(use_window, NULL) > 3);
}

static void
count(void *ctx, void *cookie, const pc_err *why)
{
    int *seen = ctx;
    (void)why;
    seen[(intptr_t)cookie]++;
}

/* Random confirms, nacks and restarts; each message must be settled exactly once. */
void
test_amqp_window_settles_each_message_once(void)
{
    enum { N = 3000 };
    int seen[N + 1] = {0};
    pc_amqp_window window;
    pc_buf out;
    uint32_t state = 7;
    uint64_t tag = 0;  // of the last message sent on this channel
    int next = 1;
    pc_amqp_window_init(&window, count, seen);
    pc_buf_init(&out);
    while (next <= N || window.open > 0) {
        state = state * 1664525u + 1013904223u;
        uint32_t dice = (state >> 10) % 100;
        uint64_t any = tag == 0 ? 0 : (state >> 3) % tag + 1;
        if (dice < 45 && next <= N) {
            PC_ASSERT_INT(put(&window, next++), 0);
        } else if (dice < 47) {
            (void)pc_amqp_window_restart(&window, NULL);
            tag = 0;
        } else if (dice < 60) {
            uint64_t before = window.unsent;
            PC_ASSERT_INT(pc_amqp_window_send(&window, &out, HIGH, 4096, NULL), 0);
            tag += window.unsent - before;
            pc_buf_reset(&out, SIZE_MAX);
        } else if (any > 0 && dice < 65) {
            PC_ASSERT_INT(pc_amqp_window_nack(&window, any, dice == 64, NULL), 0);
        } else if (any > 0) {
            pc_amqp_window_ack(&window, any,
                               dice > 96);  // multiple only a little, so that gaps form
        }
    }
    for (int i = 1; i <= N; i++) {
        PC_ASSERT(seen[i] == 1, "%d settled %d times", i, seen[i]);
    }
    PC_ASSERT_INT(window.open_bytes, 0);
    PC_ASSERT_INT(pc_buf_len(&window.frames), 0);
    pc_buf_fini(&out);
    pc_amqp_window_fini(&window);
}

/* ---- acks ---- */

static void
expect_acks(pc_amqp_acks *acks, pc_buf *out, const char *want)
{
    char text[200] = "";
    size_t len = 0;
    PC_ASSERT_INT(pc_amqp_acks_write(acks, out, NULL), 0);
    pc_slice rest = pc_buf_slice(out);
    pc_amqp_frame frame;
    while (rest.len > 0) {
        int64_t used = pc_amqp_frame_split(rest, 4096, &frame, NULL);
        const char *p = frame.payload.ptr;
        bool ack = pc_get_u32(p) == 0x003C0050;
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%d%s ", ack ? "a" : "r",
                                (int)pc_get_u64(p + 4), p[12] != 0 ? "+" : "");
        rest = pc_slice_of(rest.ptr + used, rest.len - (size_t)used);
    }
    PC_ASSERT_STR(text, want);
    pc_buf_reset(out, SIZE_MAX);
}

void
test_amqp_acks_join_the_prefix(void)
{
    pc_amqp_acks acks;
    pc_buf out;
    pc_buf_init(&out);
    pc_amqp_acks_init(&acks);
    for (uint64_t tag = 1; tag <= 9; tag++) {
        PC_ASSERT_INT(pc_amqp_acks_deliver(&acks, tag, tag == 4, 0, NULL), 0);
    }
    PC_ASSERT_INT(pc_amqp_acks_deliver(&acks, 11, false, 0, NULL), -1);
    pc_amqp_acks_settle(&acks, 3, PC_ACK, &out, NULL);
    expect_acks(&acks, &out, "a3 ");
    pc_amqp_acks_settle(&acks, 3, PC_ACK, &out, NULL);
    pc_amqp_acks_settle(&acks, 1, PC_ACK, &out, NULL);
    pc_amqp_acks_settle(&acks, 5, PC_REJECT, &out, NULL);
    pc_amqp_acks_settle(&acks, 2, PC_ACK, &out, NULL);
    pc_amqp_acks_settle(&acks, 8, PC_ACK, &out, NULL);
    // 3 is settled, 4 wanted no ack, 5 rejected: the prefix ends at 6, the last ack in it is 2
    expect_acks(&acks, &out, "r5 a2+ a8 ");
    PC_ASSERT_INT(acks.low, 6);
    pc_amqp_acks_settle(&acks, 6, PC_REQUEUE, &out, NULL);
    pc_amqp_acks_settle(&acks, 7, PC_ACK, &out, NULL);
    pc_amqp_acks_settle(&acks, 9, PC_ACK, &out, NULL);
    pc_amqp_acks_settle(&acks, 10, PC_ACK, &out, NULL);
    expect_acks(&acks, &out, "r6+ a9+ ");
    expect_acks(&acks, &out, "");
    PC_ASSERT_INT(acks.low, 10);
    pc_amqp_acks_fini(&acks);
    pc_buf_fini(&out);
}
