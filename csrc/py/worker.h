/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker machine as a Python object, and its doors to Python: hooks and runner. */
#ifndef PC_PY_WORKER_H
#define PC_PY_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "py/state.h"
#include "work/worker.h"

typedef struct py_worker {
    PyObject ob_base;
    py_state *state;
    PyObject *tracer;
    PyObject *hooks;
    PyObject *pending;       // an exception that has to leave run(), or NULL
    pc_worker *worker;
    pthread_mutex_t lock;    // guards the machine. The thread that turns its loop leaves it open while it sleeps
    _Atomic pthread_t holder;  // of the lock; 0: nobody
    unsigned depth;          // how often it holds it
    pid_t pid;               // who made it: in a fork of it there is nobody else
    pc_log log;
    pc_runner runner;
    const pc_child *child;   // in a pool's child
    pc_watch wakeup;
    pc_link attached;        // callbacks on the loop (attach.h)
    PyObject *config;        // kept alive: the machine points at its texts
    const char **accept;
    PyObject *lenders;       // kept alive
    PyObject *event_producer;  // kept alive while events leave through it
    Py_buffer clock;         // the app's logical clock; obj NULL: none
    unsigned long owner;     // thread that turns the loop
    bool stop_wanted;        // asked for by any thread, done by the loop's
    pc_stop stop_how;
    pc_mono stop_deadline;
    bool chain_shortcut;     // tasks may offer the next one of their chain
    bool turning;
    bool started;
} py_worker;

/* With the GIL, which is released for the wait; whoever has both took the lock first. */
void py_worker_hold(py_worker *self);
void py_worker_let_go(py_worker *self);
/* Without the GIL: the thread that turns the loop is busy with something else (`yes`), or back. */
void py_worker_sleeping(void *self, bool yes);
/* -1 with an exception when the worker is closed. */
int py_worker_check_open(py_worker *self);

/* runner.c: the doors of the pool */
void py_runner_fill(py_worker *self, pc_runner *runner);
/* events.c: the doors of the machine */
void py_events_fill(py_worker *self, pc_worker_hooks *hooks);
/* Calls hooks.<name>(*args) with the GIL held; steals nothing. NULL after an exception, which is reported, or kept in `pending`
 * when it is meant to end the program. */
PyObject *py_worker_call(py_worker *self, const char *name, const char *format, ...);
/* An exception is set: see above. */
void py_worker_report(py_worker *self);

/* job.c: a job, or a message that is none, as hooks see it; detach when the hook is over. */
PyObject *py_job_new(py_state *state, const pc_job *job);
PyObject *py_job_of_message(py_state *state, const pc_message *message);
void py_job_detach(PyObject *job);
int py_job_setup(PyObject *module);

int py_worker_setup(PyObject *module);

#endif
