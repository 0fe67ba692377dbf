/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/producer.h"

#include "io/broker.h"
#include "py/args.h"
#include "py/batch.h"
#include "py/config.h"
#include "py/delivery.h"
#include "py/error.h"
#include "py/message.h"
#include "py/notices.h"
#include "py/order.h"

typedef struct py_producer {
    PyObject_HEAD
    py_state *state;
    pc_producer *producer;  // NULL only while it is made
    PyObject *lenders;         // keeps them alive; or NULL
    double connect_timeout;
    double publish_timeout;
    bool closed;
    py_scratches scratches;
    py_notices notices;
} py_producer;

static py_producer *
of(PyObject *obj)
{
    return (py_producer *)(void *)obj;
}

/* ------------------------------------------------------------------ life */

/* Whether a signal handler has raised. Signals are the main interpreter's, and so is PyGILState. */
static int
interrupted(void)
{
    PyGILState_STATE state = PyGILState_Ensure();
    int rc = PyErr_Occurred() != NULL ? -1 : PyErr_CheckSignals();
    PyGILState_Release(state);
    return rc;
}

static int
create(py_producer *self, PyObject *mapping)
{
    py_config config;
    pc_broker_config broker;
    pc_err err;
    int rc = -1;
    py_config_init(&config, self->state);
    if (py_config_broker(&config, mapping, &broker) < 0) {
        goto done;
    }
    const pc_producer_ops *ops = broker.scheme == NULL ? NULL : pc_producer_find(broker.scheme);
    if (ops == NULL) {
        PyErr_Format(self->state->unsupported, "no driver for broker scheme \"%s\"",
                     broker.scheme == NULL ? "" : broker.scheme);
        goto done;
    }
    self->connect_timeout = broker.connect_timeout;
    self->publish_timeout = broker.publish_timeout;
    self->lenders = Py_XNewRef(config.lenders);
    broker.interrupted = PyInterpreterState_Get() == PyInterpreterState_Main() ? interrupted : NULL;
    Py_BEGIN_ALLOW_THREADS
    self->producer = ops->create(&broker, py_notices_log(&self->notices), &err);
    Py_END_ALLOW_THREADS
    if (self->producer == NULL) {
        py_raise(self->state, &err);
        goto done;
    }
    rc = 0;
done:
    py_config_fini(&config);
    return rc;
}

static PyObject *
producer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Producer() takes no keyword arguments");
        return NULL;
    }
    PyObject *mapping, *notice = Py_None;
    if (!PyArg_UnpackTuple(args, "Producer", 1, 2, &mapping, &notice)) {
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    of(self)->state = py_state_of_type(type);
    if (py_notices_init(&of(self)->notices, notice) < 0 || create(of(self), mapping) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static void
producer_dealloc(PyObject *obj)
{
    py_producer *self = of(obj);
    PyTypeObject *type = Py_TYPE(obj);
    pc_producer *producer = self->producer;
    if (producer != NULL) {
        Py_BEGIN_ALLOW_THREADS
        producer->ops->destroy(producer);
        Py_END_ALLOW_THREADS
    }
    py_scratches_fini(&self->scratches);
    py_notices_fini(&self->notices);
    Py_CLEAR(self->lenders);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* The first line of each method. */
static int
begin(py_producer *self, const char *function, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (self->closed) {
        pc_err err;
        pc_fail(&err, PC_ESTATE, "%s(): the producer is closed; make a new one", function);
        py_raise(self->state, &err);
        return -1;
    }
    return py_arity(function, nargs, wanted);
}

static PyObject *
finish(py_producer *self, int rc, const pc_err *err)
{
    py_notices_pass(&self->notices);
    // A handler may have raised although all is done.
    return rc < 0 || PyErr_Occurred() ? py_raise(self->state, err) : Py_NewRef(Py_None);
}

/* ------------------------------------------------------------------ publishing */

static int
publish(py_producer *self, const pc_message *message, bool mandatory, pc_wall due, bool has_due,
        pc_mono deadline)
{
    pc_producer *producer = self->producer;
    pc_err err;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->publish(producer, message, mandatory, due, has_due, deadline, &err);
    Py_END_ALLOW_THREADS
    self->state->published += rc == 0;
    py_notices_pass(&self->notices);
    if (rc < 0) {
        py_raise(self->state, &err);
    }
    return rc;
}

static PyObject *
send_with(py_producer *self, PyObject *const *args, py_scratch *scratch)
{
    py_order order;
    pc_mono deadline;
    if (py_order_make(&order, self->state, self->producer->ops->headers_kind, args, PY_SEND_COUNT,
                      scratch)
            < 0
        || py_deadline(args[PY_SEND_TIMEOUT], self->publish_timeout, &deadline) < 0
        || publish(self, &order.message, false, order.due, order.has_due, deadline) < 0) {
        return NULL;
    }
    return py_order_id(&order, args);
}

static PyObject *
producer_send(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    if (begin(self, "send", nargs, PY_SEND_COUNT) < 0) {
        return NULL;
    }
    py_scratch *scratch = py_scratch_take(&self->scratches);
    if (scratch == NULL) {
        return NULL;
    }
    PyObject *id = send_with(self, args, scratch);
    py_scratch_give_back(&self->scratches, scratch);
    return id;
}

static PyObject *
producer_publish(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    py_delivery it;
    pc_mono deadline;
    int rc = -1;
    if (begin(self, "publish", nargs, PY_PUBLISH_COUNT) < 0) {
        return NULL;
    }
    if (py_delivery_read(&it, self->state, self->producer->ops->headers_kind, args) == 0
        && py_deadline(args[PY_PUBLISH_TIMEOUT], self->publish_timeout, &deadline) == 0) {
        rc = publish(self, &it.out.message, it.out.mandatory, it.out.due, it.out.has_due,
                     deadline);
    }
    py_delivery_done(&it);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* (batch, timeout) */
static PyObject *
producer_publish_batch(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin(self, "publish_batch", nargs, 2) < 0
        || py_deadline(args[1], self->publish_timeout, &deadline) < 0) {
        return NULL;
    }
    pc_batch *batch = py_batch_lend(args[0], self->state, producer->ops->headers_kind);
    if (batch == NULL) {
        return NULL;
    }
    size_t before = batch->sent;
    Py_BEGIN_ALLOW_THREADS
    rc = pc_batch_publish(batch, producer, deadline, &err);
    Py_END_ALLOW_THREADS
    self->state->published += batch->sent - before;
    py_batch_return(args[0]);
    return finish(self, rc, &err);
}

bool
py_producer_can_confirm(py_state *state, PyObject *producer)
{
    return Py_IS_TYPE(producer, (PyTypeObject *)state->producer_type) && !of(producer)->closed
           && of(producer)->producer->ops->confirming != NULL;
}

int
py_producer_confirming(PyObject *producer)
{
    py_producer *self = of(producer);
    return self->closed ? -1 : self->producer->ops->confirming(self->producer);
}

pc_producer *
py_producer_core(py_state *state, PyObject *producer)
{
    if (!Py_IS_TYPE(producer, (PyTypeObject *)state->producer_type) || of(producer)->closed) {
        PyErr_SetString(PyExc_TypeError, "an open Producer is needed");
        return NULL;
    }
    return of(producer)->producer;
}

pc_headers_kind
py_producer_kind(PyObject *producer)
{
    return of(producer)->producer->ops->headers_kind;
}

/* ------------------------------------------------------------------ the connection */

typedef int until_op(pc_producer *producer, pc_mono deadline, pc_err *err);

static PyObject *
call_until(py_producer *self, const char *name, until_op *op, PyObject *timeout, double standard)
{
    pc_producer *producer = self->producer;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin(self, name, 1, 1) < 0 || py_deadline(timeout, standard, &deadline) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = op(producer, deadline, &err);
    Py_END_ALLOW_THREADS
    return finish(self, rc, &err);
}

static PyObject *
producer_connect(PyObject *obj, PyObject *timeout)
{
    py_producer *self = of(obj);
    return call_until(self, "connect", self->producer->ops->connect, timeout, self->connect_timeout);
}

static PyObject *
producer_flush(PyObject *obj, PyObject *timeout)
{
    py_producer *self = of(obj);
    return call_until(self, "flush", self->producer->ops->flush, timeout, self->publish_timeout);
}

static PyObject *
producer_unconfirmed(PyObject *obj, PyObject *ignored)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    size_t count = 0;
    (void)ignored;
    if (!self->closed) {
        Py_BEGIN_ALLOW_THREADS
        count = producer->ops->unconfirmed(producer);
        Py_END_ALLOW_THREADS
        py_notices_pass(&self->notices);
    }
    return PyLong_FromSize_t(count);
}

static PyObject *
producer_close(PyObject *obj, PyObject *timeout)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (py_deadline(timeout, self->publish_timeout, &deadline) < 0) {
        return NULL;
    }
    if (self->closed) {
        return Py_NewRef(Py_None);
    }
    self->closed = true;
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->close(producer, deadline, &err);
    Py_END_ALLOW_THREADS
    return finish(self, rc, &err);
}

/* Without the GIL: the thread may be in the middle of a look. */
static PyObject *
with_minder(py_producer *self, void (*call)(pc_minder *minder))
{
    pc_producer *producer = self->producer;
    if (!self->closed && producer->ops->minder != NULL) {
        Py_BEGIN_ALLOW_THREADS
        call(producer->ops->minder(producer));
        Py_END_ALLOW_THREADS
    }
    return Py_NewRef(Py_None);
}

static PyObject *
producer_pause(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    return with_minder(of(obj), pc_minder_stop);
}

static PyObject *
producer_resume(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    return with_minder(of(obj), pc_minder_resume);
}

static PyObject *
producer_abandon(PyObject *obj, PyObject *ignored)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    (void)ignored;
    if (!self->closed) {
        self->closed = true;
        Py_BEGIN_ALLOW_THREADS
        producer->ops->abandon(producer);
        Py_END_ALLOW_THREADS
    }
    return Py_NewRef(Py_None);
}

/* ------------------------------------------------------------------ queues */

static PyObject *
producer_declare(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    py_config config;
    pc_queue queue;
    pc_mono deadline;
    pc_err err;
    PyObject *done = NULL;
    if (begin(self, "declare", nargs, 2) < 0
        || py_deadline(args[1], self->publish_timeout, &deadline) < 0) {
        return NULL;
    }
    py_config_init(&config, self->state);
    if (py_config_queue(&config, args[0], &queue) == 0) {
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = producer->ops->declare(producer, &queue, deadline, &err);
        Py_END_ALLOW_THREADS
        done = finish(self, rc, &err);
    }
    py_config_fini(&config);
    return done;
}

/* What the methods (queue, timeout) have in common. */
static int
begin_queue(py_producer *self, const char *function, PyObject *const *args, Py_ssize_t nargs,
            const char **queue, pc_mono *deadline)
{
    if (begin(self, function, nargs, 2) < 0 || py_cstring(args[0], "queue", queue) < 0) {
        return -1;
    }
    return py_deadline(args[1], self->publish_timeout, deadline);
}

static PyObject *
producer_size(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    const char *queue;
    uint64_t messages = 0;
    uint64_t consumers = 0;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin_queue(self, "size", args, nargs, &queue, &deadline) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->size(producer, queue, &messages, &consumers, deadline, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        return py_raise(self->state, &err);
    }
    return Py_BuildValue("KK", (unsigned long long)messages, (unsigned long long)consumers);
}

static PyObject *
producer_purge(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    const char *queue;
    uint64_t messages = 0;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin_queue(self, "purge", args, nargs, &queue, &deadline) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->purge(producer, queue, &messages, deadline, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? py_raise(self->state, &err) : PyLong_FromUnsignedLongLong(messages);
}

static PyObject *
producer_remove(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    const char *queue;
    pc_mono deadline;
    pc_err err;
    int rc;
    if (begin_queue(self, "remove", args, nargs, &queue, &deadline) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->remove(producer, queue, deadline, &err);
    Py_END_ALLOW_THREADS
    return finish(self, rc, &err);
}

/* (body, headers, properties, delivery_info) */
static PyObject *
make_parts(py_state *state, const pc_message *message)
{
    pc_slice bytes = message->body;
    PyObject *body = PyBytes_FromStringAndSize(bytes.ptr, (Py_ssize_t)bytes.len);
    PyObject *headers = body == NULL ? NULL : py_headers_to_dict(state, message);
    PyObject *properties = headers == NULL ? NULL : py_properties(state, message);
    PyObject *info = properties == NULL ? NULL : py_delivery_info(state, message);
    PyObject *parts =
        info == NULL ? NULL : PyTuple_Pack(4, body, headers, properties, info);
    Py_XDECREF(body);
    Py_XDECREF(headers);
    Py_XDECREF(properties);
    Py_XDECREF(info);
    return parts;
}

static PyObject *
producer_get(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_producer *self = of(obj);
    pc_producer *producer = self->producer;
    const char *queue;
    bool found = false;
    pc_message message;
    pc_buf memory;
    pc_mono deadline;
    pc_err err;
    PyObject *parts = NULL;
    int rc;
    if (begin_queue(self, "get", args, nargs, &queue, &deadline) < 0) {
        return NULL;
    }
    pc_buf_init(&memory);
    Py_BEGIN_ALLOW_THREADS
    rc = producer->ops->get(producer, queue, &found, &message, &memory, deadline, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        py_raise(self->state, &err);
    } else {
        parts = found ? make_parts(self->state, &message) : Py_NewRef(Py_None);
    }
    pc_buf_fini(&memory);
    return parts;
}

#define FAST(name, doc) \
    {#name, (PyCFunction)(void (*)(void))producer_##name, METH_FASTCALL, doc}

static PyMethodDef methods[] = {
    FAST(send, "Sends a task; returns its id."),
    FAST(publish, "Publishes one message."),
    FAST(publish_batch, "Publishes what a batch has collected and not published yet."),
    {"connect", producer_connect, METH_O, "Connects, if not connected."},
    {"flush", producer_flush, METH_O, "Waits until everything is confirmed."},
    {"unconfirmed", producer_unconfirmed, METH_NOARGS, "Messages not yet confirmed."},
    FAST(declare, "Declares a queue, its exchange and binding."),
    FAST(size, "(messages ready, consumers) of a queue."),
    FAST(purge, "Deletes the messages of a queue; returns how many."),
    FAST(remove, "Deletes a queue."),
    FAST(get, "Takes one message, or None."),
    {"close", producer_close, METH_O, "Flushes and closes."},
    {"pause", producer_pause, METH_NOARGS, "Before a fork: ends the producer's own thread."},
    {"resume", producer_resume, METH_NOARGS, "After it, in the parent."},
    {"abandon", producer_abandon, METH_NOARGS, "In a forked child: forgets the connection."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, producer_new},
    {Py_tp_dealloc, producer_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Thread-safe publisher on one connection."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Producer",
    .basicsize = sizeof(py_producer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int
py_producer_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->producer_type, true);
}
