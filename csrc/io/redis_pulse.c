/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/redis_pulse.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/park.h"
#include "io/redis_client.h"
#include "io/redis_script.h"
#include "wire/real.h"

#define ANSWER_NS (2 * PC_NS_PER_SEC)  // at most; the end of the worker may wait for it
#define NAME "pyceleryc-pulse"

struct pc_redis_pulse {
    pthread_mutex_t lock;
    pc_park park;
    pthread_t thread;
    pid_t owner;  // a forked child has no such thread
    bool running;
    bool stopping;
    bool watching;      // there is a lease
    bool ended;         // by somebody else
    unsigned leases;    // begun so far: an answer may be about an earlier one
    pc_mono turned;     // when the loop did so last
    pc_mono tried;      // when the thread did
    pc_mono renewed;    // and was told that the lease is there
    int64_t pause_ns;   // a third of a lease
    pc_redis_client *next;    // to be used from now on; NULL: no other
    // the thread's
    pc_redis_client *client;
    pc_buf workers;
    char *id;
    char lease[PC_REAL_MAX];  // in seconds
    size_t lease_len;
};

static pc_redis_client *
new_client(const pc_broker_config *config, pc_err *err)
{
    pc_redis_config redis = pc_redis_broker_config(config);
    redis.client_name = NAME;
    return pc_redis_client_new(&redis, err);
}

// ---- the thread ----

static int
renew(pc_redis_pulse *p, pc_mono deadline, bool *there)
{
    pc_reply *reply = NULL;
    pc_slice words[] = {pc_slice_str("EVAL"),       pc_slice_str(pc_redis_question_text(PC_ASK_PULSE)),
                        pc_slice_str("1"),          pc_buf_slice(&p->workers),
                        pc_slice_str(p->id),        pc_slice_of(p->lease, p->lease_len)};
    pc_redis_cmd eval = {sizeof words / sizeof words[0], words};
    if (pc_redis_client_run(p->client, &eval, 1, 0, &reply, deadline, NULL, NULL) < 0) {
        return -1;
    }
    *there = reply->children[0]->integer != 0;
    pc_reply_free(reply);
    return 0;
}

static void
use_next_client(pc_redis_pulse *p)
{
    (void)pthread_mutex_lock(&p->lock);
    pc_redis_client *old = p->next != NULL ? p->client : NULL;
    p->client = p->next != NULL ? p->next : p->client;
    p->next = NULL;
    (void)pthread_mutex_unlock(&p->lock);
    pc_redis_client_free(old);
}

/* The time noted is that of the question: the lease lasts at least that long. */
static void
beat(pc_redis_pulse *p, unsigned lease)
{
    pc_mono now = pc_mono_now();
    bool there = false;
    int64_t patience = p->pause_ns < ANSWER_NS ? p->pause_ns : ANSWER_NS;
    use_next_client(p);
    int rc = renew(p, pc_mono_add(now, patience), &there);
    (void)pthread_mutex_lock(&p->lock);
    p->tried = now;
    if (rc == 0 && lease == p->leases) {
        p->ended = !there;
        p->renewed = there ? now : p->renewed;
    }
    (void)pthread_mutex_unlock(&p->lock);
}

static pc_mono
next_beat(const pc_redis_pulse *p)
{
    if (!p->watching || p->ended) {
        return PC_MONO_NEVER;
    }
    return pc_mono_add(p->turned.ns > p->tried.ns ? p->turned : p->tried, p->pause_ns);
}

static void *
serve(void *arg)
{
    pc_redis_pulse *p = arg;
    while (true) {
        (void)pthread_mutex_lock(&p->lock);
        bool stopping = p->stopping;
        pc_mono due = next_beat(p);
        unsigned lease = p->leases;
        (void)pthread_mutex_unlock(&p->lock);
        if (stopping) {
            return NULL;
        }
        if (pc_mono_now().ns >= due.ns) {
            beat(p, lease);
        } else {
            (void)pc_park_sleep(&p->park, due);
        }
    }
}

static int
start(pc_redis_pulse *p, pc_err *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&p->thread, NULL, serve, p);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    p->running = rc == 0;
    return rc == 0 ? 0 : pc_fail(err, PC_ENOMEM, "cannot start a thread that renews the worker's lease");
}

// ---- the loop's side ----

int
pc_redis_pulse_begin(pc_redis_pulse *p, pc_err *err)
{
    (void)pthread_mutex_lock(&p->lock);
    p->watching = true;
    p->ended = false;
    p->leases++;
    p->turned = p->renewed = pc_mono_now();
    (void)pthread_mutex_unlock(&p->lock);
    pc_park_wake(&p->park);
    return p->running ? 0 : start(p, err);
}

void
pc_redis_pulse_end(pc_redis_pulse *p)
{
    if (p->owner != getpid()) {
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->watching = p->ended = false;
    p->leases++;
    (void)pthread_mutex_unlock(&p->lock);
}

bool
pc_redis_pulse_turn(pc_redis_pulse *p, pc_mono now, pc_mono *alive)
{
    (void)pthread_mutex_lock(&p->lock);
    bool ended = p->ended;
    p->turned = now;
    if (p->renewed.ns > alive->ns) {
        *alive = p->renewed;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return !ended;
}

int
pc_redis_pulse_redirect(pc_redis_pulse *p, const pc_broker_config *config, pc_err *err)
{
    pc_redis_client *next = new_client(config, err);
    if (next == NULL) {
        return -1;
    }
    (void)pthread_mutex_lock(&p->lock);
    pc_redis_client *unused = p->next;
    p->next = next;
    (void)pthread_mutex_unlock(&p->lock);
    pc_redis_client_free(unused);
    return 0;
}

// ---- life ----

pc_redis_pulse *
pc_redis_pulse_new(const pc_broker_config *config, pc_slice workers, const char *id, double lease,
                   pc_err *err)
{
    pc_redis_pulse *p = pc_zalloc(sizeof *p);
    if (p == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    pc_park_init(&p->park);
    pc_buf_init(&p->workers);
    p->owner = getpid();
    p->pause_ns = (int64_t)(lease / 3 * (double)PC_NS_PER_SEC);
    p->lease_len = pc_real_format(lease, p->lease);
    p->id = pc_strdup(id, strlen(id));
    p->client = new_client(config, err);
    if (p->client == NULL || pc_buf_put_slice(&p->workers, workers, err) < 0) {
        goto fail;
    }
    if (p->id == NULL) {
        pc_fail_nomem(err);
        goto fail;
    }
    return p;
fail:
    pc_redis_pulse_free(p);
    return NULL;
}

void
pc_redis_pulse_abandon(pc_redis_pulse *p)
{
    pc_redis_client_abandon(p->client);
}

static void
stop(pc_redis_pulse *p)
{
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_mutex_unlock(&p->lock);
    pc_park_wake(&p->park);
    (void)pthread_join(p->thread, NULL);
}

void
pc_redis_pulse_free(pc_redis_pulse *p)
{
    if (p == NULL) {
        return;
    }
    if (p->running && p->owner == getpid()) {
        stop(p);
    }
    if (p->owner == getpid()) {
        (void)pthread_mutex_destroy(&p->lock);
    }
    pc_redis_client_free(p->client);
    pc_redis_client_free(p->next);
    pc_buf_fini(&p->workers);
    pc_free(p->id);
    pc_free(p);
}
