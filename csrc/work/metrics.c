/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/mem.h"
#include "wire/real.h"

#define NS 1e9

static const struct {
    int64_t ns;
    const char *text;
} bounds[PC_METRICS_BUCKETS - 1] = {
    {1000000, "0.001"},       {2500000, "0.0025"},     {5000000, "0.005"},      {10000000, "0.01"},
    {25000000, "0.025"},      {50000000, "0.05"},      {100000000, "0.1"},      {250000000, "0.25"},
    {500000000, "0.5"},       {1000000000, "1"},       {2500000000, "2.5"},     {10000000000, "10"},
    {30000000000, "30"},      {120000000000, "120"},   {600000000000, "600"},
};

pc_metrics *
pc_metrics_new(pc_err *err)
{
    pc_metrics *metrics = pc_zalloc(sizeof(*metrics));

    if (metrics == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    metrics->started = pc_wall_now();
    return metrics;
}

void
pc_metrics_free(pc_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    pc_task_metrics *at = atomic_load(&metrics->tasks);
    while (at != NULL) {
        pc_task_metrics *next = at->next;
        pc_free(at->name);
        pc_free(at);
        at = next;
    }
    pc_free(metrics);
}

pc_task_metrics *
pc_metrics_task(pc_metrics *metrics, const char *name, pc_err *err)
{
    pc_task_metrics *made = pc_zalloc(sizeof(*made));

    if (made == NULL || (made->name = pc_strdup(name, strlen(name))) == NULL) {
        pc_free(made);
        pc_fail_nomem(err);
        return NULL;
    }
    made->next = atomic_load_explicit(&metrics->tasks, memory_order_relaxed);
    atomic_store_explicit(&metrics->tasks, made, memory_order_release);
    return made;
}

void
pc_metrics_depth(pc_metrics *metrics, const char *queue, uint64_t messages)
{
    int len = atomic_load_explicit(&metrics->queues_len, memory_order_relaxed);

    for (int i = 0; i < len; i++) {
        if (strcmp(metrics->queues[i].name, queue) == 0) {
            atomic_store_explicit(&metrics->queues[i].messages, messages, memory_order_relaxed);
            return;
        }
    }
    if (len < PC_METRICS_QUEUES && strlen(queue) < sizeof(metrics->queues[len].name)) {
        memcpy(metrics->queues[len].name, queue, strlen(queue) + 1);
        atomic_store_explicit(&metrics->queues[len].messages, messages, memory_order_relaxed);
        atomic_store_explicit(&metrics->queues_len, len + 1, memory_order_release);
    }
}

void
pc_histogram_add(pc_histogram *histogram, int64_t ns)
{
    size_t i = 0;
    int64_t least = ns > 0 ? ns : 0;

    while (i < PC_METRICS_BUCKETS - 1 && least > bounds[i].ns) {
        i++;
    }
    pc_count_add(&histogram->buckets[i], 1);
    pc_count_add(&histogram->sum_ns, (uint64_t)least);
}

/* --- the text --------------------------------------------------------- */

typedef struct text {
    pc_buf *out;
    pc_err *err;
    bool failed;
} text;

#define PUT(text, ...) put_result((text), pc_buf_printf((text)->out, (text)->err, __VA_ARGS__))

static void
put_result(text *at, int rc)
{
    at->failed = at->failed || rc < 0;
}

/* `before`, the number, end of the line. printf's decimal point would be that of LC_NUMERIC. */
static void
number(text *at, const char *before, double value)
{
    char digits[PC_REAL_MAX];

    if (value == floor(value) && fabs(value) < 1e15) {
        PUT(at, "%s%lld\n", before, (long long)value);
    } else {
        size_t len = pc_real_format(value, digits);
        PUT(at, "%s%.*s\n", before, (int)len, digits);
    }
}

static uint64_t
get(const pc_count *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void
head(text *at, const char *name, const char *type, const char *help)
{
    PUT(at, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void
label(text *at, const char *value)
{
    for (; *value != '\0'; value++) {
        const char *escaped = *value == '\\' ? "\\\\" : *value == '"' ? "\\\"" : *value == '\n' ? "\\n" : NULL;
        put_result(at, escaped != NULL ? pc_buf_put_str(at->out, escaped, at->err)
                                       : pc_buf_put_u8(at->out, (uint8_t)*value, at->err));
    }
}

static void
single(text *at, const char *name, const char *type, const char *help, double value)
{
    head(at, name, type, help);
    PUT(at, "%s", name);
    number(at, " ", value);
}

static void
task_line(text *at, const char *name, const char *task, const char *more, double value)
{
    PUT(at, "%s{task=\"", name);
    label(at, task);
    PUT(at, "\"%s", more);
    number(at, "} ", value);
}

static void
histogram(text *at, const char *name, const char *task, const pc_histogram *what)
{
    char full[64];
    char more[32];
    uint64_t sum = 0;

    (void)snprintf(full, sizeof full, "%s_bucket", name);
    for (size_t i = 0; i < PC_METRICS_BUCKETS; i++) {
        sum += get(&what->buckets[i]);
        (void)snprintf(more, sizeof more, ",le=\"%s\"", i < PC_METRICS_BUCKETS - 1 ? bounds[i].text : "+Inf");
        task_line(at, full, task, more, (double)sum);
    }
    (void)snprintf(full, sizeof full, "%s_sum", name);
    task_line(at, full, task, "", (double)get(&what->sum_ns) / NS);
    (void)snprintf(full, sizeof full, "%s_count", name);
    task_line(at, full, task, "", (double)sum);
}

static bool
was_used(const pc_task_metrics *task)
{
    return get(&task->states[PC_RECEIVED]) > 0;
}

static void
tasks(text *at, pc_metrics *metrics)
{
    pc_task_metrics *first = atomic_load_explicit(&metrics->tasks, memory_order_acquire);
    char more[48];

    head(at, "pyceleryc_tasks_total", "counter", "Tasks that came into this state in this worker.");
    for (pc_task_metrics *task = first; task != NULL; task = task->next) {
        for (int state = 0; was_used(task) && state < PC_STATE_COUNT; state++) {
            if (state != PC_PENDING) {
                (void)snprintf(more, sizeof more, ",state=\"%s\"", pc_state_name((pc_state)state));
                task_line(at, "pyceleryc_tasks_total", task->name, more, (double)get(&task->states[state]));
            }
        }
    }
    head(at, "pyceleryc_tasks_requeued_total", "counter", "Tasks given back to the broker after they had started.");
    for (pc_task_metrics *task = first; task != NULL; task = task->next) {
        if (was_used(task)) {
            task_line(at, "pyceleryc_tasks_requeued_total", task->name, "", (double)get(&task->requeued));
        }
    }
    head(at, "pyceleryc_task_run_seconds", "histogram", "Run time of the task's body.");
    for (pc_task_metrics *task = first; task != NULL; task = task->next) {
        if (was_used(task)) {
            histogram(at, "pyceleryc_task_run_seconds", task->name, &task->run);
        }
    }
    head(at, "pyceleryc_task_wait_seconds", "histogram",
         "Time in this worker from the arrival, or the ETA, to the start.");
    for (pc_task_metrics *task = first; task != NULL; task = task->next) {
        if (was_used(task)) {
            histogram(at, "pyceleryc_task_wait_seconds", task->name, &task->wait);
        }
    }
}

static void
gauges(text *at, pc_metrics *metrics)
{
    static const struct {
        const char *name;
        const char *help;
    } rows[PC_GAUGE_COUNT] = {
        [PC_GAUGE_HELD] = {"pyceleryc_tasks_eta", "Tasks held until their ETA."},
        [PC_GAUGE_LIMITED] = {"pyceleryc_tasks_rate_limited", "Tasks that wait because of a rate limit."},
        [PC_GAUGE_READY] = {"pyceleryc_tasks_ready", "Tasks that wait for room in the pool."},
        [PC_GAUGE_IN_POOL] = {"pyceleryc_tasks_in_pool", "Tasks given to the pool and not over."},
        [PC_GAUGE_STORING] = {"pyceleryc_results_pending", "Results on their way to the result store."},
        [PC_GAUGE_PREFETCH] = {"pyceleryc_prefetch_count", "Unacknowledged messages asked of the broker; 0 is no limit."},
        [PC_GAUGE_POOL_SIZE] = {"pyceleryc_pool_size", "Processes or threads of the pool."},
        [PC_GAUGE_BUSY] = {"pyceleryc_pool_busy", "Processes or threads that run a task."},
    };

    for (int i = 0; i < PC_GAUGE_COUNT; i++) {
        int64_t value = atomic_load_explicit(&metrics->gauges[i], memory_order_relaxed);
        single(at, rows[i].name, "gauge", rows[i].help, (double)value);
    }
}

static void
broker(text *at, pc_metrics *metrics)
{
    static const char *const reasons[4] = {"unknown_task", "no_task", "headers", "refused"};
    int queues = atomic_load_explicit(&metrics->queues_len, memory_order_acquire);

    single(at, "pyceleryc_consuming", "gauge", "1 while the worker consumes from its broker.",
           atomic_load(&metrics->phase) == PC_CONSUMING);
    single(at, "pyceleryc_broker_reconnects_total", "counter", "Connections to the broker after the first.",
           (double)get(&metrics->reconnects));
    single(at, "pyceleryc_result_store_failures_total", "counter", "Results that could not be stored.",
           (double)get(&metrics->store_failures));
    head(at, "pyceleryc_messages_discarded_total", "counter", "Messages that were no runnable task.");
    for (int i = 0; i < 4; i++) {
        PUT(at, "pyceleryc_messages_discarded_total{reason=\"%s\"", reasons[i]);
        number(at, "} ", (double)get(&metrics->bad[i]));
    }
    head(at, "pyceleryc_queue_messages", "gauge", "Messages ready in a queue, when the broker last told.");
    for (int i = 0; i < queues; i++) {
        PUT(at, "pyceleryc_queue_messages{queue=\"");
        label(at, metrics->queues[i].name);
        number(at, "\"} ", (double)get(&metrics->queues[i].messages));
    }
}

/* --- the process ------------------------------------------------------ */

/* Resident bytes of a process, 0 when it is gone. */
static double
resident(pid_t pid)
{
    char path[64];
    char line[128];

    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t got = read(fd, line, sizeof line - 1);
    (void)close(fd);
    if (got <= 0) {
        return 0;
    }
    line[got] = '\0';
    char *second = strchr(line, ' ');
    return second == NULL ? 0 : (double)strtoull(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
}

static int
open_descriptors(void)
{
    DIR *list = opendir("/proc/self/fd");
    int n = -3;  // itself, "." and ".."

    if (list == NULL) {
        return 0;
    }
    while (readdir(list) != NULL) {
        n++;
    }
    (void)closedir(list);
    return n < 0 ? 0 : n;
}

static double
seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void
process(text *at, pc_metrics *metrics)
{
    struct rusage used = {0};
    double pool = 0;
    int pids = atomic_load_explicit(&metrics->pids_len, memory_order_acquire);

    (void)getrusage(RUSAGE_SELF, &used);
    for (int i = 0; i < pids; i++) {
        pool += resident(atomic_load_explicit(&metrics->pids[i], memory_order_relaxed));
    }
    single(at, "pyceleryc_pool_resident_memory_bytes", "gauge", "Resident memory of the pool's processes together.", pool);
    single(at, "process_resident_memory_bytes", "gauge", "Resident memory of the worker's main process.", resident(getpid()));
    single(at, "process_cpu_seconds_total", "counter", "Processor time of the worker's main process.",
           seconds(used.ru_utime) + seconds(used.ru_stime));
    single(at, "process_start_time_seconds", "gauge", "When the worker started, as Unix time.",
           (double)metrics->started.us / 1e6);
    single(at, "process_open_fds", "gauge", "Open file descriptors of the worker's main process.", open_descriptors());
}

int
pc_metrics_write(pc_metrics *metrics, pc_buf *out, pc_err *err)
{
    text at = {out, err, false};

    gauges(&at, metrics);
    broker(&at, metrics);
    process(&at, metrics);
    tasks(&at, metrics);
    return at.failed ? -1 : 0;
}
