/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/probe.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/httpd.h"

struct pc_probe {
    pc_metrics *metrics;
    pc_loop *loop;
    pc_httpd *server;
    pthread_t thread;
    pid_t owner;  // a forked child has no such thread
    bool running;
    _Atomic bool quit;
};

static void
respond_ready(const pc_probe *probe, pc_httpd_answer *answer)
{
    static const char *const reasons[] = {
        [PC_NOT_STARTED] = "not connected to the broker yet\n",
        [PC_CONSUMING] = "ok\n",
        [PC_DISCONNECTED] = "the connection to the broker is lost\n",
        [PC_STOPPING] = "shutting down\n",
    };
    int phase = atomic_load(&probe->metrics->phase);

    answer->status = phase == PC_CONSUMING ? 200 : 503;
    answer->body = pc_slice_str(reasons[phase]);
}

static void
respond_metrics(const pc_probe *probe, pc_httpd_answer *answer)
{
    pc_err err = {0};

    pc_count_add(&probe->metrics->scrapes, 1);
    if (pc_metrics_write(probe->metrics, answer->memory, &err) < 0) {
        answer->status = 500;
        answer->body = pc_slice_str("out of memory\n");
        return;
    }
    answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
    answer->body = pc_buf_slice(answer->memory);
}

static void
respond(void *ctx, const pc_http_request *request, pc_httpd_answer *answer)
{
    const pc_probe *probe = ctx;

    if (pc_slice_is(request->path, "/livez")) {
        answer->body = pc_slice_str("ok\n");
    } else if (pc_slice_is(request->path, "/readyz")) {
        respond_ready(probe, answer);
    } else if (pc_slice_is(request->path, "/metrics")) {
        respond_metrics(probe, answer);
    } else {
        answer->status = 404;
        answer->body = pc_slice_str("there are /livez, /readyz and /metrics\n");
    }
}

static void *
serve(void *arg)
{
    pc_probe *probe = arg;

    while (!atomic_load(&probe->quit)) {
        if (pc_loop_step(probe->loop, PC_MONO_NEVER, NULL) < 0) {
            break;
        }
    }
    return NULL;
}

static int
start_thread(pc_probe *probe, pc_err *err)
{
    sigset_t all, before;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&probe->thread, NULL, serve, probe);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return pc_fail(err, PC_ENOMEM, "cannot start a thread for the HTTP probes");
    }
    probe->running = true;
    return 0;
}

pc_probe *
pc_probe_new(pc_metrics *metrics, const char *host, int port, pc_err *err)
{
    pc_probe *probe = pc_zalloc(sizeof(*probe));

    if (probe == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    probe->metrics = metrics;
    probe->owner = getpid();
    if ((probe->loop = pc_loop_new(err)) == NULL
        || (probe->server = pc_httpd_new(probe->loop, host, port, respond, probe, err)) == NULL
        || start_thread(probe, err) < 0) {
        goto fail;
    }
    return probe;

fail:
    pc_probe_free(probe);
    return NULL;
}

void
pc_probe_free(pc_probe *probe)
{
    if (probe == NULL) {
        return;
    }
    if (probe->running && getpid() == probe->owner) {
        atomic_store(&probe->quit, true);
        pc_loop_wake(probe->loop);
        (void)pthread_join(probe->thread, NULL);
    }
    pc_httpd_free(probe->server);
    pc_loop_free(probe->loop);
    pc_free(probe);
}

int
pc_probe_port(const pc_probe *probe)
{
    return pc_httpd_port(probe->server);
}

void
pc_probe_abandon(pc_probe *probe)
{
    pc_httpd_abandon(probe->server);
}
