/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/job.h"

#include <string.h>

#include "base/mem.h"

/* Where the id stands in the packed headers, or 0 when the head's id is not a part of the
 * headers' bytes (it had escapes): then it is kept behind the frame. */
static uint32_t
find_id(const pc_message *message, const pc_head *head, pc_slice frame)
{
    pc_message packed;
    const char *from = message->headers.ptr;

    if (from == NULL || head->id.ptr < from
        || head->id.ptr + head->id.len > from + message->headers.len) {
        return 0;
    }
    if (pc_message_unpack(frame, &packed, NULL) < 0) {
        return 0;
    }
    return (uint32_t)(packed.headers.ptr - frame.ptr)
           + (uint32_t)(head->id.ptr - from);
}

static void
fill(pc_job *job, const pc_message *message, const pc_head *head)
{
    pc_link_init(&job->link);
    job->tag = message->tag;
    job->redelivered = message->redelivered;
    job->has_eta = head->has_eta;
    job->eta = head->eta;
    job->has_expires = head->has_expires;
    job->expires = head->expires;
    job->time_limit = head->time_limit;
    job->soft_time_limit = head->soft_time_limit;
    job->ignore_result = (int8_t)head->ignore_result;
}

pc_job *
pc_job_new(const pc_message *message, const pc_head *head, pc_spec *spec,
           pc_buf *scratch, pc_err *err)
{
    pc_buf_reset(scratch, 1 << 20);
    if (head->id.len > UINT16_MAX) {
        pc_fail(err, PC_EDATA, "the task id has %zu bytes, at most 65535 are allowed", head->id.len);
        return NULL;
    }
    if (pc_message_pack(message, scratch, err) < 0) {
        return NULL;
    }
    pc_slice frame = pc_buf_slice(scratch);
    if (frame.len > UINT32_MAX - UINT16_MAX) {
        pc_fail(err, PC_ELIMIT, "message of %zu bytes: too large", frame.len);
        return NULL;
    }
    uint32_t id_at = find_id(message, head, frame);
    size_t extra = id_at == 0 ? head->id.len : 0;
    pc_job *job = pc_alloc(sizeof(*job) + frame.len + extra);
    if (job == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    memset(job, 0, sizeof(*job));
    fill(job, message, head);
    job->spec = spec;
    memcpy(job->frame, frame.ptr, frame.len);
    job->frame_len = (uint32_t)frame.len;
    job->id_len = (uint16_t)head->id.len;
    job->id_at = id_at == 0 ? (uint32_t)frame.len : id_at;
    if (extra > 0) {
        memcpy(job->frame + frame.len, head->id.ptr, head->id.len);
    }
    return job;
}

void
pc_job_free(pc_job *job)
{
    pc_free(job);
}

static double
limit_of(const pc_job *job, double own, double default_value)
{
    return job->limits_fixed || own > 0 ? own : default_value;
}

void
pc_job_limits(const pc_job *job, double *hard, double *soft)
{
    *hard = limit_of(job, job->time_limit, job->spec->time_limit);
    *soft = limit_of(job, job->soft_time_limit, job->spec->soft_time_limit);
}

void
pc_job_fix_limits(pc_job *job)
{
    pc_job_limits(job, &job->time_limit, &job->soft_time_limit);
    job->limits_fixed = true;
}

pc_slice
pc_job_id(const pc_job *job)
{
    return pc_slice_of(job->frame + job->id_at, job->id_len);
}

pc_slice
pc_job_frame(const pc_job *job)
{
    return pc_slice_of(job->frame, job->frame_len);
}

int
pc_job_message(const pc_job *job, pc_message *out, pc_err *err)
{
    return pc_message_unpack(pc_job_frame(job), out, err);
}
