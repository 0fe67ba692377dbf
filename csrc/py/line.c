/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/line.h"

#include "py/args.h"
#include "py/run.h"
#include "py/soft_limit.h"
#include "py/worker.h"

#define BATCH 64

typedef struct run {
    PyObject ob_base;
    py_state *state;
    py_worker *worker;  // kept alive, for the line asks its runner
    PyObject *tracer;   // kept alive
    PyObject *live;     // whatever Python wants to keep here
    pc_line *line;
    pc_handed *at;      // NULL: handed in
    py_letter letter;
    py_run run;
} run;

typedef struct line {
    PyObject ob_base;
    py_worker *worker;
    pc_line *line;  // NULL: the thread has ended
} line;

/* --- Run ----------------------------------------------------------------- */

static int
check_open(const run *self)
{
    if (self->at == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this run is over");
        return -1;
    }
    return 0;
}

/* The job is not ours any more. Gives up the line's reference. */
static void
hand_in(run *self, bool lost)
{
    pc_handed *at = self->at;

    self->at = NULL;
    Py_CLEAR(self->live);
    py_run_forget(&self->run, &self->letter);
    Py_BEGIN_ALLOW_THREADS
    pc_line_hand_in(self->line, at, lost);
    Py_END_ALLOW_THREADS
    Py_DECREF(self);
}

static PyObject *
run_hand_in(run *self, PyObject *lost)
{
    bool yes;

    if (check_open(self) < 0 || py_flag(lost, &yes) < 0) {
        return NULL;
    }
    hand_in(self, yes);
    return Py_NewRef(Py_None);
}

static PyObject *
run_start(run *self, PyObject *unused)
{
    (void)unused;
    if (check_open(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    pc_line_start(self->line, self->at, false);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

static PyObject *
run_begin(run *self, PyObject *unused)
{
    (void)unused;
    if (check_open(self) < 0) {
        return NULL;
    }
    return py_run_is_over(&self->run) ? Py_NewRef(Py_None) : py_run_begin(&self->run);
}

static PyObject *
get_over(run *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->run.over);
}

static PyObject *
run_end_plainly(run *self, PyObject *value)
{
    if (check_open(self) < 0) {
        return NULL;
    }
    if (!py_run_ends_plainly(&self->run)) {
        return Py_NewRef(Py_False);
    }
    self->run.value = Py_NewRef(value);
    py_run_end(&self->run);
    return Py_NewRef(Py_True);
}

static PyObject *
run_end(run *self, PyObject *args)
{
    PyObject *value, *error;

    if (check_open(self) < 0 || !PyArg_ParseTuple(args, "OO:end", &value, &error)) {
        return NULL;
    }
    if (error == Py_None) {
        self->run.value = Py_NewRef(value);
    } else {
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(error)), Py_NewRef(error), PyException_GetTraceback(error));
    }
    py_run_end(&self->run);
    return Py_NewRef(Py_None);
}

static PyObject *
run_whole(run *self, PyObject *unused)
{
    (void)unused;
    if (check_open(self) < 0) {
        return NULL;
    }
    py_run_open(&self->run);
    Py_BEGIN_ALLOW_THREADS
    pc_line_start(self->line, self->at, true);
    Py_END_ALLOW_THREADS
    self->run.apart = false;
    py_run_task(&self->run);
    py_run_close(&self->run);
    return Py_NewRef(Py_None);
}

static PyObject *
run_has_sent(run *self, PyObject *unused)
{
    (void)unused;
    return check_open(self) < 0 ? NULL : PyBool_FromLong(py_run_has_sent(&self->run));
}

static bool
is_coroutine(const run *self)
{
    unsigned flags = self->run.task->flags;

    return (flags & PY_TASK_COROUTINE) && !(flags & PY_TASK_AROUND);
}

static PyObject *
get_plain(run *self, void *unused)
{
    (void)unused;
    return check_open(self) < 0 ? NULL : PyBool_FromLong(!is_coroutine(self));
}

static PyObject *
get_enters(run *self, void *unused)
{
    (void)unused;
    if (check_open(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong((self->run.task->flags & PY_TASK_ENTER) != 0 || py_run_looks_back(&self->run));
}

static PyObject *
get_title(run *self, void *unused)
{
    (void)unused;
    if (check_open(self) < 0) {
        return NULL;
    }
    const pc_head *head = self->run.head;
    PyObject *id = py_str_or_none(head->id);
    PyObject *name = py_str_or_none(head->task);
    PyObject *title = id == NULL || name == NULL ? NULL : PyUnicode_FromFormat("%U[%U]", name, id);
    Py_XDECREF(id);
    Py_XDECREF(name);
    return title;
}

static PyObject *
get_live(run *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->live == NULL ? Py_None : self->live);
}

static int
set_live(run *self, PyObject *value, void *unused)
{
    (void)unused;
    Py_XSETREF(self->live, Py_XNewRef(value));
    return 0;
}

static int
run_traverse(run *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->worker);
    Py_VISIT(self->tracer);
    Py_VISIT(self->live);
    Py_VISIT(self->run.task);
    Py_VISIT(self->run.request);
    Py_VISIT(self->run.value);
    Py_VISIT(self->letter.body);
    return 0;
}

/* The line holds a reference for as long as the job is in our hands: so it is over. */
static void
run_dealloc(run *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->live);
    Py_CLEAR(self->tracer);
    Py_CLEAR(self->worker);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef run_methods[] = {
    {"start", (PyCFunction)run_start, METH_NOARGS, "The task may do something from now on."},
    {"begin", (PyCFunction)run_begin, METH_NOARGS, "The first half: returns what the body returned, maybe a coroutine."},
    {"end_plainly", (PyCFunction)run_end_plainly, METH_O, "The other half, of a success; False: it may wait, and was not done."},
    {"end", (PyCFunction)run_end, METH_VARARGS, "The other half, with a value or an exception."},
    {"whole", (PyCFunction)run_whole, METH_NOARGS, "Both, in the calling thread."},
    {"has_sent", (PyCFunction)run_has_sent, METH_NOARGS, "Has anybody published anything since it began?"},
    {"hand_in", (PyCFunction)run_hand_in, METH_O, "It is over; True: by force."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef run_getset[] = {
    {"plain", (getter)get_plain, NULL, "Is it to be run as a whole, in a thread?", NULL},
    {"enters", (getter)get_enters, NULL, "May begin() wait?", NULL},
    {"over", (getter)get_over, NULL, "Has begin() found that there is nothing to do?", NULL},
    {"title", (getter)get_title, NULL, "name[id]", NULL},
    {"live", (getter)get_live, (setter)set_live, "Whatever the event loop's side keeps of it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot run_slots[] = {
    {Py_tp_doc, "A run of a task, in the hands of an event loop."},
    {Py_tp_dealloc, run_dealloc},
    {Py_tp_traverse, run_traverse},
    {Py_tp_methods, run_methods},
    {Py_tp_getset, run_getset},
    {0, NULL},
};

static PyType_Spec run_spec = {
    .name = "pyceleryc._core.Run",
    .basicsize = sizeof(run),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = run_slots,
};

/* --- Line ---------------------------------------------------------------- */

/* NULL without an exception: what it came to is handed in already. */
static run *
new_run(line *self, pc_handed *at)
{
    py_worker *worker = self->worker;
    PyTypeObject *type = (PyTypeObject *)worker->state->line_run_type;
    run *made = (run *)type->tp_alloc(type, 0);

    if (made == NULL) {
        at->outcome.flags = PC_OUT_REQUEUE;
        Py_BEGIN_ALLOW_THREADS
        pc_line_begin(self->line, at, NULL, false);
        pc_line_hand_in(self->line, at, false);
        Py_END_ALLOW_THREADS
        return NULL;
    }
    made->state = worker->state;
    made->worker = (py_worker *)Py_NewRef(worker);
    made->tracer = Py_NewRef(worker->tracer);
    made->line = self->line;
    made->at = at;
    made->run = (py_run){.self = (py_tracer *)worker->tracer, .outcome = &at->outcome, .memory = &at->memory, .apart = true};
    Py_INCREF(made);  // the line's, until hand_in()
    int rc = py_run_read(&made->run, &made->letter, pc_job_frame(at->job));
    bool plain = rc == 0 && !is_coroutine(made);
    Py_BEGIN_ALLOW_THREADS
    pc_line_begin(self->line, at, made, plain);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        hand_in(made, false);
        Py_CLEAR(made);
    }
    return made;
}

static int
append(PyObject *list, pc_line_word word, PyObject *what)
{
    static const char *const names[] = {"run", "soft", "kill", "quit"};
    PyObject *pair = Py_BuildValue("(sO)", names[word], what);
    int rc = pair == NULL ? -1 : PyList_Append(list, pair);

    Py_XDECREF(pair);
    return rc;
}

static int
put_item(line *self, const pc_line_item *item, PyObject *list)
{
    if (item->word == PC_LINE_QUIT) {
        return append(list, item->word, Py_None);
    }
    if (item->word != PC_LINE_RUN) {
        return item->at->run == NULL ? 0 : append(list, item->word, item->at->run);
    }
    run *made = new_run(self, item->at);
    if (made == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int rc = append(list, item->word, (PyObject *)made);
    if (rc < 0) {
        item->at->outcome.flags = PC_OUT_REQUEUE;
        hand_in(made, false);
    }
    Py_DECREF(made);
    return rc;
}

static int
check_line(const line *self)
{
    if (self->line == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this line is closed");
        return -1;
    }
    return 0;
}

static PyObject *
line_take(line *self, PyObject *unused)
{
    pc_line_item items[BATCH];
    size_t len;

    (void)unused;
    if (check_line(self) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    len = pc_line_take(self->line, items, BATCH);
    Py_END_ALLOW_THREADS
    for (size_t i = 0; i < len; i++) {
        if (put_item(self, &items[i], list) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);  // no memory: that one has failed, the others have not
        }
    }
    return list;
}

static PyObject *
line_fileno(line *self, PyObject *unused)
{
    (void)unused;
    return check_line(self) < 0 ? NULL : PyLong_FromLong(pc_line_fd(self->line));
}

static int
line_traverse(line *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->worker);
    return 0;
}

static void
line_dealloc(line *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->worker);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef line_methods[] = {
    {"fileno", (PyCFunction)line_fileno, METH_NOARGS, "Readable when there is something to take."},
    {"take", (PyCFunction)line_take, METH_NOARGS, "What there is to do: pairs of run, soft, kill or quit, and a Run."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot line_slots[] = {
    {Py_tp_doc, "What the machine has for an event loop to do."},
    {Py_tp_dealloc, line_dealloc},
    {Py_tp_traverse, line_traverse},
    {Py_tp_methods, line_methods},
    {0, NULL},
};

static PyType_Spec line_spec = {
    .name = "pyceleryc._core.Line",
    .basicsize = sizeof(line),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = line_slots,
};

/* --- doors of the pool ---------------------------------------------------- */

void
py_line_turn(void *ctx, pc_line *from)
{
    py_worker *worker = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyTypeObject *type = (PyTypeObject *)worker->state->line_type;
    line *self = (line *)type->tp_alloc(type, 0);

    if (self == NULL) {
        py_worker_report(worker);
    } else {
        self->worker = (py_worker *)Py_NewRef(worker);
        self->line = from;
        Py_XDECREF(py_worker_call(worker, "turn", "(O)", self));
        self->line = NULL;
        Py_DECREF(self);
    }
    PyGILState_Release(gil);
}

/* hooks.strike_run() gives the thread and the exception, or None. */
bool
py_line_strike(void *ctx, void *whose, bool soft)
{
    py_worker *worker = ctx;
    unsigned long thread;
    PyObject *exception;
    bool struck = false;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *answer = py_worker_call(worker, "strike_run", "(OO)", whose, soft ? Py_True : Py_False);

    if (answer != NULL && answer != Py_None) {
        if (PyArg_ParseTuple(answer, "kO:strike_run", &thread, &exception)) {
            struck = PyThreadState_SetAsyncExc(thread, exception) == 1;
        } else {
            py_worker_report(worker);
        }
    }
    Py_XDECREF(answer);
    PyGILState_Release(gil);
    return struck;
}

int
py_line_setup(PyObject *module)
{
    py_state *state = py_state_of(module);

    if (py_type_add(module, &line_spec, &state->line_type, true) < 0) {
        return -1;
    }
    return py_type_add(module, &run_spec, &state->line_run_type, true);
}
