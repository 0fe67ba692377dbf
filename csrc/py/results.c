/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/results.h"

#include "base/mem.h"
#include "io/store.h"
#include "py/args.h"
#include "py/config.h"
#include "py/error.h"

/* A signal may be taken by another thread; then no call of ours is interrupted, and its handler
 * waits until this thread looks. */
#define SLICE_NS (PC_NS_PER_SEC / 4)

typedef struct py_results {
    PyObject_HEAD
    py_state *state;
    pc_results *results;  // NULL only while it is made
    PyObject *lenders;       // keeps them alive; or NULL
    double timeout;
    bool closed;
} py_results;

static py_results *
of(PyObject *obj)
{
    return (py_results *)(void *)obj;
}

static int
create(py_results *self, PyObject *mapping)
{
    py_config config;
    pc_store_config store;
    pc_err err;
    int rc = -1;
    py_config_init(&config, self->state);
    if (py_config_store(&config, mapping, &store) < 0) {
        goto done;
    }
    const pc_results_ops *ops = store.scheme == NULL ? NULL : pc_results_find(store.scheme);
    if (ops == NULL) {
        PyErr_Format(self->state->unsupported, "no driver for result store scheme \"%s\"",
                     store.scheme == NULL ? "" : store.scheme);
        goto done;
    }
    self->timeout = store.socket_timeout;
    self->lenders = Py_XNewRef(config.lenders);
    Py_BEGIN_ALLOW_THREADS
    self->results = ops->create(&store, NULL, &err);
    Py_END_ALLOW_THREADS
    if (self->results == NULL) {
        py_raise(self->state, &err);
        goto done;
    }
    rc = 0;
done:
    py_config_fini(&config);
    return rc;
}

static PyObject *
results_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Results() takes no keyword arguments");
        return NULL;
    }
    if (py_arity("Results", PyTuple_GET_SIZE(args), 1) < 0) {
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    of(self)->state = py_state_of_type(type);
    if (create(of(self), PyTuple_GET_ITEM(args, 0)) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static void
results_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    pc_results *results = of(obj)->results;
    if (results != NULL) {
        Py_BEGIN_ALLOW_THREADS
        results->ops->destroy(results);
        Py_END_ALLOW_THREADS
    }
    Py_CLEAR(of(obj)->lenders);
    type->tp_free(obj);
    Py_DECREF(type);
}

static int
begin(py_results *self, const char *function, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (self->closed) {
        pc_err err;
        pc_fail(&err, PC_ESTATE, "%s(): closed by abandon(); make a new object", function);
        py_raise(self->state, &err);
        return -1;
    }
    return py_arity(function, nargs, wanted);
}

/* What the methods that begin with (id, timeout) have in common. */
static int
begin_id(py_results *self, const char *function, PyObject *const *args, Py_ssize_t nargs,
         pc_slice *id, pc_mono *deadline)
{
    if (begin(self, function, nargs, 2) < 0 || py_text(args[0], "id", id) < 0) {
        return -1;
    }
    return py_deadline(args[1], self->timeout, deadline);
}

static PyObject *
make_document(const pc_buf *out)
{
    return PyBytes_FromStringAndSize(pc_buf_len(out) == 0 ? NULL : pc_buf_ptr(out),
                                     (Py_ssize_t)pc_buf_len(out));
}

enum { ID, STATE, DOCUMENT, CONTENT_TYPE, CONTENT_ENCODING, REPLY_TO, CORRELATION_ID, TIMEOUT,
       SET_COUNT };

static int
read_item(PyObject *const *args, pc_store_item *item, Py_buffer *document)
{
    pc_slice state;
    if (py_text(args[STATE], "state", &state) < 0
        || py_text(args[ID], "id", &item->id) < 0
        || py_text(args[CONTENT_TYPE], "content_type", &item->content_type) < 0
        || py_text(args[CONTENT_ENCODING], "content_encoding", &item->content_encoding) < 0
        || py_text_or_none(args[REPLY_TO], "reply_to", &item->reply_to) < 0
        || py_text_or_none(args[CORRELATION_ID], "correlation_id", &item->correlation_id) < 0) {
        return -1;
    }
    item->state = pc_state_of(state);
    return py_bytes(args[DOCUMENT], document, &item->document);
}

static PyObject *
results_set(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    pc_store_item item;
    Py_buffer document = {.obj = NULL};
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin(self, "set", nargs, SET_COUNT) < 0
        || py_deadline(args[TIMEOUT], self->timeout, &deadline) < 0
        || read_item(args, &item, &document) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->set(results, &item, deadline, &err);
    Py_END_ALLOW_THREADS
    py_bytes_done(&document);
    return rc < 0 ? py_raise(self->state, &err) : Py_NewRef(Py_None);
}

static PyObject *
results_get(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    pc_slice id;
    pc_buf out;
    bool found = false;
    pc_mono deadline;
    pc_err err;
    PyObject *made = NULL;
    int rc;
    if (begin_id(self, "get", args, nargs, &id, &deadline) < 0) {
        return NULL;
    }
    pc_buf_init(&out);
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->get(results, id, &out, &found, deadline, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        py_raise(self->state, &err);
    } else {
        made = found ? make_document(&out) : Py_NewRef(Py_None);
    }
    pc_buf_fini(&out);
    return made;
}

static PyObject *
results_watch(PyObject *obj, PyObject *text)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    pc_slice id;
    pc_err err;
    int rc;
    if (begin(self, "watch", 1, 1) < 0 || py_text(text, "id", &id) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->watch(results, id, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? py_raise(self->state, &err) : Py_NewRef(Py_None);
}

/* Texts of a list or tuple, lent by its members. */
static int
read_ids(PyObject *sequence, pc_slice *out)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        if (py_text(PySequence_Fast_GET_ITEM(sequence, i), "id", &out[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
watch_all(py_results *self, const pc_slice *ids, size_t n)
{
    pc_results *results = self->results;
    pc_err err;
    int rc = 0;
    Py_BEGIN_ALLOW_THREADS
    if (results->ops->watch_many != NULL) {
        rc = results->ops->watch_many(results, ids, n, &err);
    } else {
        for (size_t i = 0; rc == 0 && i < n; i++) {
            rc = results->ops->watch(results, ids[i], &err);
        }
    }
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        py_raise(self->state, &err);
    }
    return rc;
}

static PyObject *
results_watch_many(PyObject *obj, PyObject *iterable)
{
    py_results *self = of(obj);
    int rc = -1;
    if (begin(self, "watch_many", 1, 1) < 0) {
        return NULL;
    }
    // A tuple of our own: nobody can change it while the GIL is released.
    PyObject *ids = PySequence_Tuple(iterable);
    if (ids == NULL) {
        return NULL;
    }
    size_t n = (size_t)PyTuple_GET_SIZE(ids);
    pc_slice *texts = pc_alloc((n + 1) * sizeof *texts);
    if (texts == NULL) {
        PyErr_NoMemory();
    } else if (read_ids(ids, texts) == 0) {
        rc = watch_all(self, texts, n);
    }
    pc_free(texts);
    Py_DECREF(ids);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
results_unwatch(PyObject *obj, PyObject *text)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    pc_slice id;
    if (begin(self, "unwatch", 1, 1) < 0 || py_text(text, "id", &id) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    results->ops->unwatch(results, id);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

/* Waits for one slice of time at most. 1: nothing yet, go on. */
static int
wait_slice(py_results *self, pc_slice id, pc_buf *out, pc_mono deadline)
{
    pc_results *results = self->results;
    pc_mono until = pc_mono_add(pc_mono_now(), SLICE_NS);
    bool last = until.ns >= deadline.ns;
    bool eintr = false;
    pc_err err;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->wait(results, id, out, last ? deadline : until, &eintr, &err);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        return 0;
    }
    if (eintr || (err.code == PC_ETIMEOUT && !last)) {
        return PyErr_CheckSignals() < 0 ? -1 : 1;
    }
    py_raise(self->state, &err);
    return -1;
}

static PyObject *
results_wait(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_results *self = of(obj);
    pc_slice id;
    pc_mono deadline = PC_MONO_NEVER;
    pc_buf out;
    int rc;
    if (begin(self, "wait", nargs, 2) < 0 || py_text(args[0], "id", &id) < 0
        || (args[1] != Py_None && py_deadline(args[1], 0, &deadline) < 0)) {
        return NULL;
    }
    pc_buf_init(&out);
    do {
        pc_buf_reset(&out, SIZE_MAX);
        rc = wait_slice(self, id, &out, deadline);
    } while (rc == 1);
    PyObject *made = rc < 0 ? NULL : make_document(&out);
    pc_buf_fini(&out);
    return made;
}

/* As wait_slice(). */
static int
news_slice(py_results *self, uint64_t *seen, pc_mono deadline)
{
    pc_results *results = self->results;
    pc_mono until = pc_mono_add(pc_mono_now(), SLICE_NS);
    bool last = until.ns >= deadline.ns;
    bool eintr = false;
    pc_err err;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->news(results, seen, last ? deadline : until, &eintr, &err);
    Py_END_ALLOW_THREADS
    if (rc == 0) {
        return 0;
    }
    if (eintr || (err.code == PC_ETIMEOUT && !last)) {
        return PyErr_CheckSignals() < 0 ? -1 : 1;
    }
    if (err.code == PC_ETIMEOUT) {
        return 0;
    }
    py_raise(self->state, &err);
    return -1;
}

/* (seen, timeout) */
static PyObject *
results_news(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_results *self = of(obj);
    int64_t given;
    pc_mono deadline = PC_MONO_NEVER;
    int rc;
    if (begin(self, "news", nargs, 2) < 0 || py_integer(args[0], &given) < 0
        || (args[1] != Py_None && py_deadline(args[1], 0, &deadline) < 0)) {
        return NULL;
    }
    if (self->results->ops->news == NULL) {
        return Py_NewRef(Py_None);
    }
    uint64_t seen = (uint64_t)given;
    do {
        rc = news_slice(self, &seen, deadline);
    } while (rc == 1);
    return rc < 0 ? NULL : PyLong_FromUnsignedLongLong(seen);
}

static PyObject *
results_forget(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    pc_slice id;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin_id(self, "forget", args, nargs, &id, &deadline) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = results->ops->forget(results, id, deadline, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? py_raise(self->state, &err) : Py_NewRef(Py_None);
}

static PyObject *
results_abandon(PyObject *obj, PyObject *ignored)
{
    py_results *self = of(obj);
    pc_results *results = self->results;
    (void)ignored;
    if (!self->closed) {
        self->closed = true;
        Py_BEGIN_ALLOW_THREADS
        results->ops->abandon(results);
        Py_END_ALLOW_THREADS
    }
    return Py_NewRef(Py_None);
}

#define FAST(name, doc) \
    {#name, (PyCFunction)(void (*)(void))results_##name, METH_FASTCALL, doc}

static PyMethodDef methods[] = {
    FAST(set, "Stores a document."),
    FAST(get, "The stored document, or None."),
    {"watch", results_watch, METH_O, "Announces interest in an id."},
    {"watch_many", results_watch_many, METH_O, "Announces interest in ids."},
    FAST(news, "Waits until anything has happened to any watched id."),
    FAST(wait, "The next document of an id."),
    {"unwatch", results_unwatch, METH_O, "Ends interest in an id."},
    FAST(forget, "Deletes what is stored for an id."),
    {"abandon", results_abandon, METH_NOARGS, "In a forked child: forgets the connection."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, results_new},
    {Py_tp_dealloc, results_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Thread-safe client of a result store."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Results",
    .basicsize = sizeof(py_results),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int
py_results_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->results_type, true);
}
