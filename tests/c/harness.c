/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. One parent, up to `jobs` children, one child for each test. A child leads its own
 * process group, so that what a test leaves running dies with it. The parent sleeps in
 * sigtimedwait until a child ends or the next deadline; it shares nothing with the children
 * but the file that takes their output. */
#include "harness.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define MAX_JOBS 16
#define MAX_OOM 100000
#define BENCH_NS 200000000LL // a figure is taken over at least this long

typedef struct {
    const ct_case *test; // NULL: the slot is free
    pid_t pid;
    FILE *output;
    long long deadline; // ns, monotonic
    bool timed_out;
    char dir[PATH_MAX];
} slot;

typedef struct {
    char **parts; // parts of names; none selects all
    int nparts;
    int jobs;
    bool verbose, list, bench;
    long timeout; // s
    sigset_t signals;
    int passed, failed;
    slot slots[MAX_JOBS];
} runner;

static struct timespec bench_start; // of the one benchmark that runs in this process

static long long
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void
die(const char *what)
{
    fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- assertions ---- */

static void
fail_test(void)
{
    fflush(NULL);
    _exit(1); // not exit: a leak report would hide the reason
}

void
ct_check(const char *file, int line, const char *text, int ok, const char *fmt, ...)
{
    if (ok) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    printf("%s:%d: not true: %s", file, line, text);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    fail_test();
}

void
ct_check_int(const char *file, int line, const char *text, long long got, long long want)
{
    if (got == want) {
        return;
    }
    printf("%s:%d: %s is %lld, not %lld\n", file, line, text, got, want);
    fail_test();
}

void
ct_check_str(const char *file, int line, const char *text, const char *got, const char *want)
{
    if (got == want || (got && want && strcmp(got, want) == 0)) {
        return;
    }
    printf("%s:%d: %s differs\n  got  %s\n  want %s\n", file, line, text,
           got ? got : "(null)", want ? want : "(null)");
    fail_test();
}

static void
print_bytes(const char *label, const unsigned char *bytes, size_t len, size_t from)
{
    printf("  %s", label);
    for (size_t i = from; i < len && i < from + 16; i++) {
        printf(" %02x", bytes[i]);
    }
    printf("  |");
    for (size_t i = from; i < len && i < from + 16; i++) {
        putchar(bytes[i] >= 32 && bytes[i] < 127 ? bytes[i] : '.');
    }
    printf("|\n");
}

void
ct_check_mem(const char *file, int line, const char *text, const void *got, const void *want,
             size_t len)
{
    const unsigned char *a = got, *b = want;
    if (len == 0 || (a && b && memcmp(a, b, len) == 0)) {
        return;
    }
    if (!a || !b) {
        printf("%s:%d: %s: got %p, want %p\n", file, line, text, got, want);
        fail_test();
        return;
    }
    size_t at = 0;
    while (a[at] == b[at]) {
        at++;
    }
    printf("%s:%d: %s differs from byte %zu of %zu\n", file, line, text, at, len);
    print_bytes("got ", a, len, at);
    print_bytes("want", b, len, at);
    fail_test();
}

/* ---- failing allocations ---- */

/* Was the failure that was armed with `n` used up? When it was not, one of the next `n`
 * allocations takes it. */
static bool
failure_fired(long n)
{
    bool fired = true;
    for (long i = 0; i < n && fired; i++) {
        void *probe = pc_alloc(1);
        fired = probe != NULL;
        pc_free(probe);
    }
    pc_mem_fail_after(-1);
    return fired;
}

long
ct_oom(const char *file, int line, const char *text, int (*fn)(void *), void *arg)
{
    long before = pc_mem_live();
    for (long n = 1; n < MAX_OOM; n++) {
        pc_mem_fail_after(n);
        int rc = fn(arg);
        bool fired = failure_fired(n);
        long left = pc_mem_live() - before;
        ct_check(file, line, text, left == 0,
                 ": %ld blocks left after allocation %ld failed (returned %d)", left, n, rc);
        ct_check(file, line, text, rc == 0 || fired, ": returned %d without a failure", rc);
        if (rc == 0 && !fired) {
            return n - 1;
        }
    }
    ct_check(file, line, text, 0, ": still failing after %d allocations", MAX_OOM);
    return -1;
}

/* ---- one child ---- */

static int
remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

static void
child_main(runner *run, const slot *me)
{
    setpgid(0, 0);
    sigprocmask(SIG_UNBLOCK, &run->signals, NULL);
    int fd = fileno(me->output);
    if (chdir(me->dir) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
        _exit(2);
    }
    long before = pc_mem_live();
    me->test->test();
    long left = pc_mem_live() - before;
    ct_check(me->test->file, 0, "no block is left at the end", left == 0, ": %ld", left);
    exit(0); // not _exit: LeakSanitizer looks now
}

static void
begin(runner *run, slot *me, const ct_case *test)
{
    const char *base = getenv("TMPDIR");
    *me = (slot){.test = test, .deadline = now_ns() + run->timeout * 1000000000LL};
    snprintf(me->dir, sizeof me->dir, "%s/pc-ct-XXXXXX", base ? base : "/tmp");
    me->output = tmpfile();
    if (!me->output || !mkdtemp(me->dir)) {
        die("temporary file or directory");
    }
    fflush(NULL);
    me->pid = fork();
    if (me->pid < 0) {
        die("fork");
    }
    if (me->pid == 0) {
        child_main(run, me);
    }
    setpgid(me->pid, me->pid); // whoever comes first; the kill below needs it
}

static void
print_output(FILE *output)
{
    char chunk[4096];
    size_t len;
    rewind(output);
    while ((len = fread(chunk, 1, sizeof chunk, output)) > 0) {
        fwrite(chunk, 1, len, stdout);
    }
}

static void
report(runner *run, const slot *me, int status)
{
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    run->passed += ok;
    run->failed += !ok;
    if (ok && !run->verbose) {
        return;
    }
    printf("%s %s:%s", ok ? "ok  " : "FAIL", me->test->file, me->test->name);
    if (me->timed_out) {
        printf(" (longer than %ld s)", run->timeout);
    } else if (WIFSIGNALED(status)) {
        printf(" (%s)", strsignal(WTERMSIG(status)));
    }
    printf("\n");
    if (!ok) {
        print_output(me->output);
    }
}

static void
end(runner *run, slot *me, int status)
{
    kill(-me->pid, SIGKILL); // what the test left running
    report(run, me, status);
    fclose(me->output);
    nftw(me->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    me->test = NULL;
}

/* ---- the parent ---- */

static slot *
free_slot(runner *run)
{
    for (int i = 0; i < run->jobs; i++) {
        if (!run->slots[i].test) {
            return &run->slots[i];
        }
    }
    return NULL;
}

static void
reap(runner *run)
{
    for (int i = 0; i < run->jobs; i++) {
        slot *me = &run->slots[i];
        int status;
        if (me->test && waitpid(me->pid, &status, WNOHANG) == me->pid) {
            end(run, me, status);
        }
    }
}

static void
kill_overdue(runner *run)
{
    for (int i = 0; i < run->jobs; i++) {
        slot *me = &run->slots[i];
        if (me->test && !me->timed_out && now_ns() >= me->deadline) {
            me->timed_out = true;
            kill(-me->pid, SIGKILL);
        }
    }
}

static void
kill_all(runner *run)
{
    for (int i = 0; i < run->jobs; i++) {
        if (run->slots[i].test) {
            end(run, &run->slots[i], SIGKILL);
        }
    }
}

/* Sleeps until a child ends; looks at the deadlines four times a second. */
static void
wait_a_while(runner *run)
{
    const struct timespec quarter = {.tv_nsec = 250000000};
    int sig = sigtimedwait(&run->signals, NULL, &quarter);
    if (sig == SIGINT || sig == SIGTERM) {
        kill_all(run);
        exit(130);
    }
    reap(run);
    kill_overdue(run);
}

static bool
busy(const runner *run)
{
    for (int i = 0; i < run->jobs; i++) {
        if (run->slots[i].test) {
            return true;
        }
    }
    return false;
}

static bool
selected(const runner *run, const ct_case *test)
{
    if (run->bench ? !test->bench : !test->test) {
        return false;
    }
    char full[512];
    snprintf(full, sizeof full, "%s:%s", test->file, test->name);
    for (int i = 0; i < run->nparts; i++) {
        if (strstr(full, run->parts[i])) {
            return true;
        }
    }
    return run->nparts == 0;
}

static int
run_tests(runner *run)
{
    sigemptyset(&run->signals);
    sigaddset(&run->signals, SIGCHLD);
    sigaddset(&run->signals, SIGINT);
    sigaddset(&run->signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &run->signals, NULL);
    for (const ct_case *test = ct_cases; test->name; test++) {
        if (!selected(run, test)) {
            continue;
        }
        slot *me;
        while (!(me = free_slot(run))) {
            wait_a_while(run);
        }
        begin(run, me, test);
    }
    while (busy(run)) {
        wait_a_while(run);
    }
    printf("%d passed, %d failed\n", run->passed, run->failed);
    return run->failed || !run->passed;
}

/* ---- benchmarks ---- */

void
ct_reset_timer(void)
{
    clock_gettime(CLOCK_MONOTONIC, &bench_start);
}

static void
run_bench(const ct_case *test)
{
    for (long n = 1;; n *= 2) {
        ct_reset_timer();
        test->bench(n);
        long long ns = now_ns() - (bench_start.tv_sec * 1000000000LL + bench_start.tv_nsec);
        if (ns >= BENCH_NS || n > LONG_MAX / 4) {
            printf("%-24s %-36s %12.1f ns\n", test->file, test->name,
                   (double)ns / (double)n);
            return;
        }
    }
}

static void
for_selected(const runner *run, void (*visit)(const ct_case *))
{
    for (const ct_case *test = ct_cases; test->name; test++) {
        if (selected(run, test)) {
            visit(test);
        }
    }
}

static void
list_one(const ct_case *test)
{
    printf("%s:%s\n", test->file, test->name);
}

/* ---- command line ---- */

static long
number(const char *text, long fallback, long low, long high)
{
    long value = text ? strtol(text, NULL, 10) : fallback;
    return value < low ? low : value > high ? high : value;
}

int
main(int argc, char **argv)
{
    runner run = {.jobs = 2, .timeout = number(getenv("CT_TIMEOUT"), 20, 1, 86400)};
    for (int opt; (opt = getopt(argc, argv, "vlbj:")) != -1;) {
        switch (opt) {
        case 'v': run.verbose = true; break;
        case 'l': run.list = true; break;
        case 'b': run.bench = true; break;
        case 'j': run.jobs = (int)number(optarg, 2, 1, MAX_JOBS); break;
        default: return 2;
        }
    }
    run.parts = argv + optind;
    run.nparts = argc - optind;
    if (run.list || run.bench) {
        for_selected(&run, run.list ? list_one : run_bench);
        return 0;
    }
    return run_tests(&run);
}
