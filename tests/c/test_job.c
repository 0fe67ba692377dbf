/* SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "harness.h"
#include "work/job.h"

static void
make_message(pc_message *message, const char *headers, const char *body)
{
    pc_message_init(message);
    message->headers_kind = PC_HEADERS_JSON;
    message->headers = pc_slice_str(headers);
    message->body = pc_slice_str(body);
    message->content_type = pc_slice_str("application/json");
    message->reply_to = pc_slice_str("answers");
    message->tag = 77;
    message->redelivered = true;
}

static pc_job *
make(const char *headers, const char *body, pc_spec *spec, pc_err *err)
{
    pc_message message;
    pc_head head;
    pc_buf scratch, text;
    pc_job *job = NULL;

    pc_buf_init(&scratch);
    pc_buf_init(&text);
    make_message(&message, headers, body);
    if (pc_head_read(&message, &head, &text, err) == 0) {
        job = pc_job_new(&message, &head, spec, &scratch, err);
    }
    pc_buf_fini(&scratch);
    pc_buf_fini(&text);
    return job;
}

static void
check_id(const pc_job *job, const char *want)
{
    PC_ASSERT(pc_slice_is(pc_job_id(job), want), "%.*s", (int)pc_job_id(job).len, pc_job_id(job).ptr);
}

void
test_job_keeps_the_message(void)
{
    pc_spec spec = {.name = NULL};
    pc_message back;
    pc_job *job = make("{\"task\": \"a\", \"id\": \"one\", \"timelimit\": [3, 1.5], \"ignore_result\": true, "
                       "\"eta\": \"2030-01-01T00:00:00\", \"expires\": \"2031-01-01T00:00:00+00:00\"}",
                       "[[], {}, {}]", &spec, NULL);

    PC_ASSERT(job != NULL);
    check_id(job, "one");
    PC_ASSERT(job->spec == &spec && job->tag == 77 && job->redelivered && job->slot == NULL);
    PC_ASSERT(job->time_limit == 3.0f && job->soft_time_limit == 1.5f && job->ignore_result == 1);
    PC_ASSERT(job->has_eta && job->has_expires && job->expires.us > job->eta.us);
    PC_ASSERT(!job->settled && !job->stale && job->timer.node.place == 0 && !pc_link_in(&job->link));
    PC_ASSERT_INT(pc_job_message(job, &back, NULL), 0);
    PC_ASSERT(pc_slice_is(back.body, "[[], {}, {}]") && pc_slice_is(back.reply_to, "answers"));
    PC_ASSERT_INT(pc_job_frame(job).len, job->frame_len);
    pc_job_free(job);
    pc_job_free(NULL);
}

void
test_job_without_options(void)
{
    pc_spec spec = {.name = NULL};
    pc_job *job = make("{\"task\": \"a\", \"id\": \"x\"}", "", &spec, NULL);

    PC_ASSERT(job != NULL);
    PC_ASSERT(isnan(job->time_limit) && isnan(job->soft_time_limit) && job->ignore_result == -1);
    PC_ASSERT(!job->has_eta && !job->has_expires);
    pc_job_free(job);
}

/* Not a part of the headers' bytes as it stands there. */
void
test_id_with_escapes(void)
{
    pc_spec spec = {.name = NULL};
    pc_job *job = make("{\"id\": \"caf\\u00e9\\n\", \"task\": \"a\"}", "body", &spec, NULL);

    PC_ASSERT(job != NULL);
    check_id(job, "caf\xc3\xa9\n");
    pc_message back;
    PC_ASSERT_INT(pc_job_message(job, &back, NULL), 0);
    PC_ASSERT(pc_slice_is(back.body, "body"));
    pc_job_free(job);
}

void
test_id_too_long(void)
{
    static char headers[70100];
    pc_spec spec = {.name = NULL};
    pc_err err = {0};

    for (int len = 65535; len <= 65536; len++) {
        strcpy(headers, "{\"task\": \"a\", \"id\": \"");
        memset(headers + strlen("{\"task\": \"a\", \"id\": \""), 'i', (size_t)len);
        strcpy(headers + strlen("{\"task\": \"a\", \"id\": \"") + len, "\"}");
        pc_job *job = make(headers, "", &spec, &err);
        if (len == 65535) {
            PC_ASSERT(job != NULL && pc_job_id(job).len == 65535 && pc_job_id(job).ptr[65534] == 'i');
        } else {
            PC_ASSERT(job == NULL && err.code == PC_EDATA);
        }
        pc_job_free(job);
    }
}

static int
make_and_free(void *arg)
{
    pc_spec spec = {.name = NULL};
    pc_err err = {0};
    pc_job *job = make(arg, "[]", &spec, &err);

    if (job == NULL) {
        PC_ASSERT_INT(err.code, PC_ENOMEM);
        return -1;
    }
    pc_job_free(job);
    return 0;
}

void
test_job_out_of_memory(void)
{
    char plain[] = "{\"task\": \"a\", \"id\": \"plain\"}";
    char escaped[] = "{\"task\": \"a\", \"id\": \"\\u0041\"}";

    PC_ASSERT(PC_OOM(make_and_free, plain) >= 2);
    PC_ASSERT(PC_OOM(make_and_free, escaped) >= 2);
}
