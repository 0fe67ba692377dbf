/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/worker.h"

#include <unistd.h>

#include "py/args.h"
#include "py/attach.h"
#include "py/control.h"
#include "py/error.h"
#include "py/guard.h"
#include "py/settings.h"

/* --- one thread at a time ----------------------------------------------- */

/* The mutex is not a recursive one, which would not know its thread again in a fork of it; and whether this is a fork is
 * asked only when the lock is taken, since that is a system call, and there are six of these to a task. */
static bool
is_held_here(const py_worker *self)
{
    return atomic_load_explicit(&self->holder, memory_order_relaxed) == pthread_self();
}

static bool
try_lock(py_worker *self)
{
    if (!is_held_here(self)) {
        if (pthread_mutex_trylock(&self->lock) != 0) {
            return false;
        }
        atomic_store_explicit(&self->holder, pthread_self(), memory_order_relaxed);
    }
    self->depth++;
    return true;
}

/* Without the GIL. In a fork, who had the lock may not be here to let it go. */
static void
lock(py_worker *self)
{
    if (try_lock(self) || getpid() != self->pid) {
        return;
    }
    (void)pthread_mutex_lock(&self->lock);
    atomic_store_explicit(&self->holder, pthread_self(), memory_order_relaxed);
    self->depth++;
}

static void
unlock(py_worker *self)
{
    if (is_held_here(self) && --self->depth == 0) {
        atomic_store_explicit(&self->holder, 0, memory_order_relaxed);
        (void)pthread_mutex_unlock(&self->lock);
    }
}

void
py_worker_hold(py_worker *self)
{
    if (!try_lock(self)) {
        Py_BEGIN_ALLOW_THREADS
        lock(self);
        Py_END_ALLOW_THREADS
    }
}

void
py_worker_let_go(py_worker *self)
{
    unlock(self);
}

void
py_worker_sleeping(void *ctx, bool yes)
{
    (yes ? unlock : lock)(ctx);
}

/* --- life --------------------------------------------------------------- */

static void
write_log(void *ctx, pc_level level, const char *msg, size_t len)
{
    py_worker *self = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *text = PyUnicode_DecodeUTF8(msg, (Py_ssize_t)len, "replace");

    if (text == NULL) {
        py_worker_report(self);
    } else {
        Py_XDECREF(py_worker_call(self, "log", "(iN)", (int)level, text));
    }
    PyGILState_Release(gil);
}

static PyObject *
make(PyTypeObject *type, PyObject *config, PyObject *tracer, PyObject *hooks)
{
    py_worker *self = (py_worker *)type->tp_alloc(type, 0);
    pc_worker_hooks events;
    py_config memory;
    py_settings options;
    pc_err err = {0};

    if (self == NULL) {
        return NULL;
    }
    self->state = py_state_of_type(type);
    pc_link_init(&self->attached);
    self->pid = getpid();
    if (pthread_mutex_init(&self->lock, NULL) != 0) {
        PyErr_NoMemory();
        type->tp_free(self);
        Py_DECREF(type);
        return NULL;
    }
    self->tracer = Py_NewRef(tracer);
    self->hooks = Py_NewRef(hooks);
    self->config = Py_NewRef(config);
    self->log = (pc_log){(int)py_get_long(config, "log_level", PC_WARNING), write_log, self};
    self->chain_shortcut = py_get_bool(config, "chain_shortcut", true);
    py_runner_fill(self, &self->runner);
    py_events_fill(self, &events);
    events.sleeping = py_worker_sleeping;
    py_config_init(&memory, self->state);
    if (py_settings_read(config, &memory, &options) < 0) {
        goto fail;
    }
    self->lenders = Py_XNewRef(memory.lenders);
    self->accept = PyMem_Calloc(PY_ACCEPT_MAX + 1, sizeof(char *));
    if (self->accept == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    memcpy(self->accept, options.accept, sizeof(options.accept));
    options.worker.accept = options.worker.accept == NULL ? NULL : self->accept;
    self->worker = pc_worker_new(&options.worker, &self->runner, &events, &self->log, &err);
    if (self->worker == NULL) {
        py_raise(self->state, &err);
        goto fail;
    }
    py_config_fini(&memory);
    return (PyObject *)self;

fail:
    py_config_fini(&memory);
    Py_DECREF(self);
    return NULL;
}

static PyObject *
worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *config, *tracer, *hooks;
    py_state *state = py_state_of_type(type);

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O!O!O:Worker", &PyDict_Type, &config, state->tracer_type, &tracer, &hooks)) {
        return NULL;
    }
    return make(type, config, tracer, hooks);
}

static int
worker_traverse(py_worker *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->tracer);
    Py_VISIT(self->hooks);
    Py_VISIT(self->config);
    Py_VISIT(self->pending);
    Py_VISIT(self->lenders);
    Py_VISIT(self->event_producer);
    return 0;
}

static int
worker_clear(py_worker *self)
{
    Py_CLEAR(self->tracer);
    Py_CLEAR(self->hooks);
    Py_CLEAR(self->pending);
    return 0;
}

static void
free_machine(py_worker *self)
{
    py_worker_hold(self);
    pc_worker *worker = self->worker;
    if (worker != NULL) {
        py_attach_clear(self);
        self->worker = NULL;
        if (self->wakeup.slot != 0) {
            pc_loop_unwatch(pc_worker_loop(worker), &self->wakeup);
        }
        Py_BEGIN_ALLOW_THREADS
        pc_worker_free(worker);
        Py_END_ALLOW_THREADS
    }
    py_worker_let_go(self);
}

static void
worker_dealloc(py_worker *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    free_machine(self);
    (void)worker_clear(self);
    Py_CLEAR(self->config);
    Py_CLEAR(self->lenders);
    Py_CLEAR(self->event_producer);
    if (self->clock.obj != NULL) {
        PyBuffer_Release(&self->clock);
    }
    PyMem_Free(self->accept);
    (void)pthread_mutex_destroy(&self->lock);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- turning ------------------------------------------------------------ */

int
py_worker_check_open(py_worker *self)
{
    if (self->worker == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this worker is closed");
        return -1;
    }
    return 0;
}

static int
start(py_worker *self)
{
    pc_err err = {0};
    int rc;

    if (self->started) {
        return 0;
    }
    self->started = true;
    Py_BEGIN_ALLOW_THREADS
    lock(self);
    rc = pc_worker_start(self->worker, &err);
    unlock(self);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        py_raise(self->state, &err);
    }
    return rc;
}

static void
raise_pending(py_worker *self)
{
    PyObject *error = self->pending;

    self->pending = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
}

/* 1: go on, 0: stopped, -1: an exception is set. */
static int
turn(py_worker *self, pc_mono until)
{
    pc_err err = {0};
    int rc;

    bool stop = self->stop_wanted;
    self->stop_wanted = false;
    if (stop) {
        Py_XDECREF(py_worker_call(self, "stopping", "(i)", self->stop_how == PC_STOP_COLD));
    }
    Py_BEGIN_ALLOW_THREADS
    lock(self);
    if (stop) {
        pc_worker_stop(self->worker, self->stop_how, self->stop_deadline);
    }
    rc = pc_worker_turn(self->worker, until, &err);
    unlock(self);
    Py_END_ALLOW_THREADS
    if (self->pending != NULL) {
        raise_pending(self);
        return -1;
    }
    if (rc < 0) {
        py_raise(self->state, &err);
        return -1;
    }
    return PyErr_CheckSignals() < 0 ? -1 : rc;
}

static int
enter(py_worker *self)
{
    if (py_worker_check_open(self) < 0) {
        return -1;
    }
    if (self->turning) {
        PyErr_SetString(PyExc_RuntimeError, "this worker is running already");
        return -1;
    }
    self->turning = true;
    self->owner = PyThread_get_thread_ident();
    return 0;
}

static PyObject *
worker_run(py_worker *self, PyObject *unused)
{
    int rc = -1;

    (void)unused;
    if (enter(self) < 0) {
        return NULL;
    }
    if (start(self) == 0) {
        do {
            rc = turn(self, PC_MONO_NEVER);
        } while (rc == 1);
    }
    self->turning = false;
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
worker_step(py_worker *self, PyObject *max_wait)
{
    double seconds = PyFloat_AsDouble(max_wait);
    pc_mono until;
    int rc = -1;

    if ((seconds == -1.0 && PyErr_Occurred()) || enter(self) < 0) {
        return NULL;
    }
    if (start(self) == 0 && py_deadline_in(seconds, &until) == 0) {
        rc = turn(self, until);
    }
    self->turning = false;
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
worker_stop(py_worker *self, PyObject *args)
{
    int how;
    double timeout;

    if (!PyArg_ParseTuple(args, "id:stop", &how, &timeout) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_mono deadline = PC_MONO_NEVER;
    if (timeout >= 0 && timeout < 1e9) {
        deadline = pc_mono_add(pc_mono_now(), (int64_t)(timeout * 1e9));
    }
    if (!(self->stop_wanted && self->stop_how == PC_STOP_COLD)) {  // a cold stop is not taken back
        self->stop_how = how == 0 ? PC_STOP_WARM : PC_STOP_COLD;
        self->stop_deadline = deadline;
        self->stop_wanted = true;
    }
    pc_loop_wake(pc_worker_loop(self->worker));
    return Py_NewRef(Py_None);
}

static PyObject *
worker_wake(py_worker *self, PyObject *unused)
{
    (void)unused;
    if (py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_loop_wake(pc_worker_loop(self->worker));
    return Py_NewRef(Py_None);
}

static PyObject *
worker_close(py_worker *self, PyObject *unused)
{
    (void)unused;
    if (self->turning) {
        PyErr_SetString(PyExc_RuntimeError, "stop the worker before closing it");
        return NULL;
    }
    free_machine(self);
    return Py_NewRef(Py_None);
}

static void
drain_wakeup(void *ctx, unsigned events)
{
    py_worker *self = ctx;
    char bytes[256];

    (void)events;
    while (read(self->wakeup.fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {
    }
}

static PyObject *
worker_wakeup_fd(py_worker *self, PyObject *fd)
{
    long number = PyLong_AsLong(fd);
    pc_err err = {0};

    if ((number == -1 && PyErr_Occurred()) || py_worker_check_open(self) < 0) {
        return NULL;
    }
    pc_watch_init(&self->wakeup, (int)number, drain_wakeup, self);
    if (pc_loop_watch(pc_worker_loop(self->worker), &self->wakeup, PC_READ, &err) < 0) {
        return py_raise(self->state, &err);
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef worker_methods[] = {
    {"run", (PyCFunction)worker_run, METH_NOARGS, "Turns the loop until the worker is stopped."},
    {"step", (PyCFunction)worker_step, METH_O, "One turn of at most so many seconds."},
    {"stop", (PyCFunction)worker_stop, METH_VARARGS, "Asks for a warm (0) or cold (1) shutdown."},
    {"wake", (PyCFunction)worker_wake, METH_NOARGS, "Ends the current wait."},
    {"close", (PyCFunction)worker_close, METH_NOARGS, "Frees the machine."},
    {"wakeup_fd", (PyCFunction)worker_wakeup_fd, METH_O, "Wakes up when this descriptor is readable; drains it."},
    {"add_reader", (PyCFunction)py_guarded_add_reader, METH_VARARGS, "Calls back while a descriptor is readable."},
    {"remove_reader", (PyCFunction)py_guarded_remove_reader, METH_O, "Ends that."},
    {"call_later", (PyCFunction)py_guarded_call_later, METH_VARARGS, "Calls back once, after so many seconds."},
    {"task", (PyCFunction)py_guarded_task, METH_VARARGS, "Registers a task or changes its options."},
    {"add_queue", (PyCFunction)py_guarded_add_queue, METH_O, "Consumes another queue."},
    {"drop_queue", (PyCFunction)py_guarded_drop_queue, METH_O, "Stops consuming a queue."},
    {"revoke", (PyCFunction)py_guarded_revoke, METH_VARARGS, "Marks ids revoked."},
    {"jobs", (PyCFunction)py_guarded_jobs, METH_O, "Descriptions of active, reserved or scheduled jobs."},
    {"stats", (PyCFunction)py_guarded_stats, METH_NOARGS, "Counters."},
    {"redirect", (PyCFunction)py_guarded_redirect, METH_O, "Where the next attempt to connect goes."},
    {"prefetch", (PyCFunction)py_guarded_prefetch, METH_O, "Sets the prefetch count."},
    {"restart_pool", (PyCFunction)py_guarded_restart_pool, METH_NOARGS, "Replaces the processes of the pool."},
    {"resize", (PyCFunction)py_guarded_resize, METH_O, "Sets the size of the pool."},
    {"events_identity", (PyCFunction)py_guarded_events_identity, METH_VARARGS, "Who sends events."},
    {"events_on", (PyCFunction)py_guarded_events_on, METH_O, "Are events about tasks wanted?"},
    {"events_open", (PyCFunction)py_guarded_events_open, METH_O, "What events leave through."},
    {"events_close", (PyCFunction)py_guarded_events_close, METH_NOARGS, "No events leave any more."},
    {"event", (PyCFunction)py_guarded_event, METH_VARARGS, "Sends an event."},
    {"http", (PyCFunction)py_guarded_http, METH_VARARGS, "Answers probes and scrapers."},
    {"want", (PyCFunction)py_guarded_want, METH_VARARGS, "Which per-task hooks are called."},
    {"soft_due", (PyCFunction)py_worker_soft_due, METH_NOARGS,
     "In a pool's child: has the soft limit of the running task passed?"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, "The machine: source, schedule, pool, store, ack."},
    {Py_tp_new, worker_new},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_traverse, worker_traverse},
    {Py_tp_clear, worker_clear},
    {Py_tp_methods, worker_methods},
    {0, NULL},
};

static PyType_Spec worker_spec = {
    .name = "pyceleryc._core.Worker",
    .basicsize = sizeof(py_worker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = worker_slots,
};

int
py_worker_setup(PyObject *module)
{
    return py_type_add(module, &worker_spec, &py_state_of(module)->worker_type, true);
}
