/* SPDX-License-Identifier: BSD-3-Clause */
/* Counters and their text; and the probe of a worker while its loop stands still. */
#include "work/metrics.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comma.h"
#include "harness.h"
#include "worker_world.h"

static char *
text_of(pc_metrics *metrics)
{
    pc_buf out;

    pc_buf_init(&out);
    PC_ASSERT(pc_metrics_write(metrics, &out, NULL) == 0 && pc_buf_put_u8(&out, 0, NULL) == 0);
    char *copy = strdup(pc_buf_ptr(&out));
    pc_buf_fini(&out);
    return copy;
}

static void
expect(const char *text, const char *line)
{
    char whole[256];

    snprintf(whole, sizeof whole, "\n%s\n", line);
    PC_ASSERT(strstr(text, whole) != NULL, "no %s in:\n%s", line, text);
}

void
test_text(void)
{
    pc_metrics *metrics = pc_metrics_new(NULL);
    pc_task_metrics *task = pc_metrics_task(metrics, "a\"b\\c\nd", NULL);

    PC_ASSERT(pc_metrics_task(metrics, "never.came", NULL) != NULL);
    pc_count_add(&task->states[PC_RECEIVED], 3);
    pc_count_add(&task->states[PC_SUCCESS], 2);
    pc_histogram_add(&task->run, 1000000);      // on the bound: in the bucket
    pc_histogram_add(&task->run, 3600LL * 1000000000);
    pc_histogram_add(&task->run, -5);
    pc_metrics_depth(metrics, "celery", 7);
    pc_metrics_depth(metrics, "celery", 5);
    pc_gauge_set(metrics, PC_GAUGE_HELD, 12);
    char *text = text_of(metrics);
    expect(text, "pyceleryc_tasks_total{task=\"a\\\"b\\\\c\\nd\",state=\"RECEIVED\"} 3");
    expect(text, "pyceleryc_tasks_total{task=\"a\\\"b\\\\c\\nd\",state=\"SUCCESS\"} 2");
    expect(text, "pyceleryc_task_run_seconds_bucket{task=\"a\\\"b\\\\c\\nd\",le=\"0.001\"} 2");
    expect(text, "pyceleryc_task_run_seconds_bucket{task=\"a\\\"b\\\\c\\nd\",le=\"600\"} 2");
    expect(text, "pyceleryc_task_run_seconds_bucket{task=\"a\\\"b\\\\c\\nd\",le=\"+Inf\"} 3");
    expect(text, "pyceleryc_task_run_seconds_count{task=\"a\\\"b\\\\c\\nd\"} 3");
    expect(text, "pyceleryc_task_run_seconds_sum{task=\"a\\\"b\\\\c\\nd\"} 3600.001");
    expect(text, "pyceleryc_queue_messages{queue=\"celery\"} 5");
    expect(text, "pyceleryc_tasks_eta 12");
    PC_ASSERT(strstr(text, "never.came") == NULL);
    free(text);
    pc_metrics_free(metrics);
}

void
test_text_ignores_locale(void)
{
    comma_locale();
    test_text();
}

static int
try_text(void *arg)
{
    pc_buf out;

    pc_buf_init(&out);
    int rc = pc_metrics_write(arg, &out, NULL);
    pc_buf_fini(&out);
    return rc;
}

void
test_text_without_memory(void)
{
    pc_metrics *metrics = pc_metrics_new(NULL);

    PC_ASSERT(PC_OOM(try_text, metrics) > 0);
    pc_metrics_free(metrics);
}

/* --- a worker ------------------------------------------------------------ */

static char answer[65536];

static int
get(int port, const char *path)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char request[128];
    size_t len = 0;
    ssize_t got = 0;

    snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
    PC_ASSERT(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    PC_ASSERT(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0);
    while ((got = recv(fd, answer + len, sizeof answer - 1 - len, 0)) > 0) {
        len += (size_t)got;
    }
    answer[len] = '\0';
    close(fd);
    PC_ASSERT(len > 12, "%s", answer);
    return atoi(answer + 9);
}

/* The loop is not turned between the questions: the answers come from the probe's own thread. */
void
test_probe_of_a_worker(void)
{
    rig r;

    rig_init(&r, "prefork", 2);
    rig_task(&r, "task", true);
    int port = pc_worker_http(r.worker, "127.0.0.1", 0, NULL);
    PC_ASSERT(port > 0);
    PC_ASSERT(pc_worker_http(r.worker, "127.0.0.1", 0, NULL) < 0);
    PC_ASSERT_INT(get(port, "/livez"), 200);
    PC_ASSERT_INT(get(port, "/readyz"), 503);
    rig_start(&r);
    PC_ASSERT_INT(get(port, "/readyz"), 200);
    PC_ASSERT_INT(get(port, "/nothing"), 404);
    rig_send(&r, 1, "task", "ok");
    rig_send(&r, 2, "task", "fail");
    rig_send(&r, 3, "task", "exit:1");
    rig_send_with(&r, 4, "task", "ok", rig_eta(60000));
    rig_send_with(&r, 5, "task", "ok", rig_expires(-10));
    rig_send(&r, 6, "unknown", "ok");
    RIG_UNTIL(&r, r.settled == 5);
    rig_send(&r, 7, "task", "gate");
    RIG_UNTIL(&r, rig_seen(&r, "accepted:t7"));
    rig_turn(&r, 1);
    PC_ASSERT_INT(get(port, "/metrics"), 200);
    expect(answer, "pyceleryc_tasks_total{task=\"task\",state=\"RECEIVED\"} 6");
    expect(answer, "pyceleryc_tasks_total{task=\"task\",state=\"STARTED\"} 4");
    expect(answer, "pyceleryc_tasks_total{task=\"task\",state=\"SUCCESS\"} 1");
    expect(answer, "pyceleryc_tasks_total{task=\"task\",state=\"FAILURE\"} 2");
    expect(answer, "pyceleryc_tasks_total{task=\"task\",state=\"REVOKED\"} 1");
    expect(answer, "pyceleryc_messages_discarded_total{reason=\"unknown_task\"} 1");
    expect(answer, "pyceleryc_task_wait_seconds_count{task=\"task\"} 4");
    expect(answer, "pyceleryc_task_run_seconds_count{task=\"task\"} 2");
    expect(answer, "pyceleryc_tasks_eta 1");
    expect(answer, "pyceleryc_pool_busy 1");
    expect(answer, "pyceleryc_pool_size 2");
    atomic_store(&r.shared->open, 1);
    RIG_UNTIL(&r, r.settled == 6);
    rig_break(&r);
    RIG_UNTIL(&r, r.ready == 2);
    PC_ASSERT_INT(get(port, "/metrics"), 200);
    expect(answer, "pyceleryc_broker_reconnects_total 1");
    (void)rig_stop(&r, PC_STOP_WARM, 4000);
    PC_ASSERT_INT(get(port, "/readyz"), 503);
    rig_free(&r);
}
