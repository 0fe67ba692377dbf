/* SPDX-License-Identifier: BSD-3-Clause */
/* DESIGN. The GIL is the lock: Python's thread writes records into `inbox` and rings; the loop takes the whole
 * inbox with the GIL and reads it without. Settlements of a turn of the loop go to Python as one list. */
#include "py/feed.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "py/args.h"
#include "py/delivery.h"
#include "py/error.h"

typedef enum kind { MESSAGE, UP, DOWN, REFUSED, CANCELLED } kind;

typedef struct order {
    uint64_t tag;
    pc_settle how;
} order;

typedef struct py_feed {
    PyObject ob_base;
    py_state *state;
    PyObject *target;
    int bell;           // eventfd
    bool taken;         // a source was made of it
    uint64_t last_tag;  // over all connections: a tag of a lost one means nothing to Python any more
    pc_buf inbox;       // records: kind, length, that many bytes
} py_feed;

typedef struct source {
    pc_source base;
    pc_loop *loop;
    py_feed *feed;    // kept alive by the worker
    pc_watch watch;
    pc_defer settle;
    pc_buf orders;    // of `order`
} source;

#define RECORD_HEAD (1 + 8)

static const pc_source_ops feed_ops;

static source *
cast(pc_source *base)
{
    return PC_CONTAINER_OF(base, source, base);
}

/* --- towards Python: entered with or without the GIL ---------------------- */

static void
say_why(pc_err *err)
{
    PyObject *type, *value, *trace;

    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value == NULL ? NULL : PyObject_Str(value);
    const char *chars = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    (void)pc_fail(err, PC_EIO, "%s", chars == NULL ? "the broker's transport failed" : chars);
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

/* Calls target.<name>(argument), which is consumed; without argument if it is NULL and no exception is set. */
static int
tell(source *s, const char *name, PyObject *argument, pc_err *err)
{
    PyObject *target = Py_XNewRef(s->feed->target);
    PyObject *done = NULL;

    if (target == NULL) {
        Py_XDECREF(argument);
        return pc_fail(err, PC_ESTATE, "the feed has no target any more");
    }
    if (!PyErr_Occurred()) {
        done = argument == NULL ? PyObject_CallMethod(target, name, NULL)
                                : PyObject_CallMethod(target, name, "O", argument);
    }
    if (done == NULL) {
        say_why(err);
    }
    Py_XDECREF(argument);
    Py_XDECREF(done);
    Py_DECREF(target);
    return done == NULL ? -1 : 0;
}

static int
tell_text(pc_source *base, const char *name, const char *text, pc_err *err)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int rc = tell(cast(base), name, text == NULL ? NULL : PyUnicode_FromString(text), err);

    PyGILState_Release(gil);
    return rc;
}

static int
connect_now(pc_source *base, pc_err *err)
{
    return tell_text(base, "connect", NULL, err);
}

static int
add_queue(pc_source *base, const pc_queue *queue, pc_err *err)
{
    return tell_text(base, "add", queue->name, err);
}

static int
drop_queue(pc_source *base, const char *name, pc_err *err)
{
    return tell_text(base, "drop", name, err);
}

static int
pause_now(pc_source *base, pc_err *err)
{
    return tell_text(base, "pause", NULL, err);
}

static int
prefetch(pc_source *base, unsigned count, pc_err *err)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int rc = tell(cast(base), "prefetch", PyLong_FromUnsignedLong(count), err);

    PyGILState_Release(gil);
    return rc;
}

static PyObject *
list_orders(const pc_buf *orders)
{
    size_t count = pc_buf_len(orders) / sizeof(order);
    PyObject *list = PyList_New((Py_ssize_t)count);

    for (size_t i = 0; list != NULL && i < count; i++) {
        order it;
        memcpy(&it, pc_buf_ptr(orders) + i * sizeof it, sizeof it);
        PyObject *pair = Py_BuildValue("(Ki)", (unsigned long long)it.tag, (int)it.how);
        if (pair == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
        }
    }
    return list;
}

static void
flush_orders(void *ctx)
{
    source *s = ctx;
    pc_err err = {0};

    if (pc_buf_len(&s->orders) == 0) {
        return;
    }
    PyGILState_STATE gil = PyGILState_Ensure();
    if (tell(s, "settle", list_orders(&s->orders), &err) < 0) {
        pc_log_write(s->base.log, PC_ERROR, "cannot settle messages: %s", err.msg);
    }
    PyGILState_Release(gil);
    pc_buf_reset(&s->orders, 1 << 16);
}

static int
settle(pc_source *base, uint64_t tag, pc_settle how, pc_err *err)
{
    source *s = cast(base);
    order it = {.tag = tag, .how = how};

    pc_loop_defer(s->loop, &s->settle);
    return pc_buf_put(&s->orders, &it, sizeof it, err);
}

static int
close_now(pc_source *base, pc_mono deadline, pc_err *err)
{
    source *s = cast(base);
    int64_t left = deadline.ns - pc_mono_now().ns;

    flush_orders(s);
    PyGILState_STATE gil = PyGILState_Ensure();
    int rc = tell(s, "close", PyFloat_FromDouble(left > 0 ? (double)left / 1e9 : 0.0), err);
    PyGILState_Release(gil);
    return rc;
}

/* --- from Python ----------------------------------------------------------- */

static void
hand_over(source *s, kind what, pc_slice data)
{
    const pc_source_hooks *hooks = &s->base.hooks;
    pc_err err = {0};
    pc_message message;

    switch (what) {
    case MESSAGE:
        if (pc_message_unpack(data, &message, &err) < 0) {
            pc_log_write(s->base.log, PC_ERROR, "a message of the feed: %s", err.msg);
            return;
        }
        hooks->message(hooks->ctx, &message);
        return;
    case UP:
        hooks->up(hooks->ctx);
        return;
    case CANCELLED:
        hooks->cancelled(hooks->ctx, data.ptr);
        return;
    case DOWN:
    case REFUSED:
        (void)pc_fail(&err, what == DOWN ? PC_EIO : PC_EAUTH, "%.*s", (int)data.len, data.ptr);
        hooks->down(hooks->ctx, &err);
        return;
    }
}

static void
rung(void *ctx, unsigned events)
{
    source *s = ctx;
    uint64_t count;

    (void)events;
    // Before the inbox is taken: what comes later rings again.
    ssize_t got = read(s->feed->bell, &count, sizeof count);
    (void)got;
    PyGILState_STATE gil = PyGILState_Ensure();
    pc_buf taken = s->feed->inbox;
    pc_buf_init(&s->feed->inbox);
    PyGILState_Release(gil);
    while (pc_buf_len(&taken) >= RECORD_HEAD) {
        const char *at = pc_buf_ptr(&taken);
        uint64_t len;
        memcpy(&len, at + 1, sizeof len);
        hand_over(s, (kind)at[0], pc_slice_of(at + RECORD_HEAD, (size_t)len));
        pc_buf_consume(&taken, RECORD_HEAD + (size_t)len);
    }
    pc_buf_fini(&taken);
}

/* --- the source's life ----------------------------------------------------- */

static pc_source *
create(const pc_broker_config *config, pc_loop *loop, const pc_source_hooks *hooks,
       const pc_log *log, pc_err *err)
{
    py_feed *feed = config->source_ctx;

    if (feed->taken) {
        pc_fail(err, PC_ESTATE, "a feed serves one worker");
        return NULL;
    }
    source *s = pc_zalloc(sizeof *s);
    if (s == NULL) {
        pc_fail_nomem(err);
        return NULL;
    }
    s->base = (pc_source){.ops = &feed_ops, .hooks = *hooks, .log = log, .global_qos = true};
    s->loop = loop;
    s->feed = feed;
    pc_buf_init(&s->orders);
    pc_defer_init(&s->settle, flush_orders, s);
    pc_watch_init(&s->watch, feed->bell, rung, s);
    if (pc_loop_watch(loop, &s->watch, PC_READ, err) < 0) {
        pc_free(s);
        return NULL;
    }
    feed->taken = true;
    return &s->base;
}

static void
silence(source *s)
{
    pc_loop_undefer(s->loop, &s->settle);
    if (s->watch.slot != 0) {
        pc_loop_unwatch(s->loop, &s->watch);
    }
}

/* The thread that consumes is the parent's, and so is what it holds. */
static void
abandon(pc_source *base)
{
    source *s = cast(base);

    silence(s);
    close(s->feed->bell);
    s->feed->bell = -1;
}

static void
destroy(pc_source *base)
{
    if (base != NULL) {
        source *s = cast(base);
        silence(s);
        pc_buf_fini(&s->orders);
        pc_free(s);
    }
}

static const pc_source_ops feed_ops = {
    .scheme = "kombu",
    .create = create,
    .connect = connect_now,
    .add_queue = add_queue,
    .drop_queue = drop_queue,
    .prefetch = prefetch,
    .settle = settle,
    .pause = pause_now,
    .close = close_now,
    .abandon = abandon,
    .destroy = destroy,
};

/* --- Feed ------------------------------------------------------------------ */

static PyObject *
record(py_feed *self, kind what, pc_slice data)
{
    char head[RECORD_HEAD];
    uint64_t len = data.len;
    uint64_t one = 1;
    pc_err err;

    head[0] = (char)what;
    memcpy(head + 1, &len, sizeof len);
    if (pc_buf_reserve(&self->inbox, sizeof head + data.len, &err) == NULL
        || pc_buf_put(&self->inbox, head, sizeof head, &err) < 0
        || pc_buf_put_slice(&self->inbox, data, &err) < 0) {
        return py_raise(self->state, &err);
    }
    ssize_t done = write(self->bell, &one, sizeof one);
    (void)done;  // fails only when the counter is full: it rings then, too
    return Py_NewRef(Py_None);
}

enum { EXCHANGE, ROUTING_KEY, BODY, HEADERS, PROPERTIES, REDELIVERED, PUSH_COUNT };

static PyObject *
push(py_feed *self, const py_delivery *delivery)
{
    pc_message message = delivery->out.message;
    pc_buf frame;
    pc_err err;
    PyObject *done = NULL;

    message.redelivered = delivery->out.mandatory;
    message.tag = self->last_tag + 1;
    pc_buf_init(&frame);
    if (pc_message_pack(&message, &frame, &err) < 0) {
        py_raise(self->state, &err);
    } else {
        done = record(self, MESSAGE, pc_buf_slice(&frame));
    }
    pc_buf_fini(&frame);
    if (done == NULL) {
        return NULL;
    }
    Py_DECREF(done);
    self->last_tag++;
    return PyLong_FromUnsignedLongLong(self->last_tag);
}

static PyObject *
feed_push(py_feed *self, PyObject *const *args, Py_ssize_t nargs)
{
    py_delivery delivery;
    PyObject *made = NULL;

    if (py_arity("push", nargs, PUSH_COUNT) < 0) {
        return NULL;
    }
    // the same as what is published, but for the flag: it says "redelivered" here
    PyObject *all[PY_PUBLISH_COUNT] = {
        [PY_PUBLISH_EXCHANGE] = args[EXCHANGE],     [PY_PUBLISH_ROUTING_KEY] = args[ROUTING_KEY],
        [PY_PUBLISH_BODY] = args[BODY],             [PY_PUBLISH_HEADERS] = args[HEADERS],
        [PY_PUBLISH_PROPERTIES] = args[PROPERTIES], [PY_PUBLISH_MANDATORY] = args[REDELIVERED],
        [PY_PUBLISH_DUE] = Py_None,                 [PY_PUBLISH_TIMEOUT] = Py_None,
    };
    if (py_delivery_read(&delivery, self->state, PC_HEADERS_JSON, all) == 0) {
        made = push(self, &delivery);
    }
    py_delivery_done(&delivery);
    return made;
}

static PyObject *
feed_up(py_feed *self, PyObject *unused)
{
    (void)unused;
    return record(self, UP, pc_slice_of("", 0));
}

static PyObject *
feed_down(py_feed *self, PyObject *args)
{
    const char *reason;
    Py_ssize_t len;
    int refused;

    if (!PyArg_ParseTuple(args, "s#p:down", &reason, &len, &refused)) {
        return NULL;
    }
    return record(self, refused ? REFUSED : DOWN, pc_slice_of(reason, (size_t)len));
}

static PyObject *
feed_cancelled(py_feed *self, PyObject *queue)
{
    const char *name;

    if (py_cstring(queue, "queue", &name) < 0) {
        return NULL;
    }
    return record(self, CANCELLED, pc_slice_of(name, strlen(name) + 1));
}

static PyObject *
feed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *target;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O:Feed", &target)) {
        return NULL;
    }
    py_feed *self = (py_feed *)(void *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = py_state_of_type(type);
    self->target = Py_NewRef(target);
    pc_buf_init(&self->inbox);
    self->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->bell < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
feed_traverse(py_feed *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->target);
    return 0;
}

static int
feed_clear(py_feed *self)
{
    Py_CLEAR(self->target);
    return 0;
}

static void
feed_dealloc(py_feed *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)feed_clear(self);
    if (self->bell >= 0) {
        close(self->bell);
    }
    pc_buf_fini(&self->inbox);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"push", (PyCFunction)(void (*)(void))feed_push, METH_FASTCALL, "A delivery; returns its tag."},
    {"up", (PyCFunction)feed_up, METH_NOARGS, "Connected and consuming."},
    {"down", (PyCFunction)feed_down, METH_VARARGS, "The connection is lost, or was refused."},
    {"cancelled", (PyCFunction)feed_cancelled, METH_O, "A queue is not consumed any more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Messages from a broker that Python talks to, for one worker."},
    {Py_tp_new, feed_new},
    {Py_tp_dealloc, feed_dealloc},
    {Py_tp_traverse, feed_traverse},
    {Py_tp_clear, feed_clear},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Feed",
    .basicsize = sizeof(py_feed),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int
py_feed_fill(py_state *state, PyObject *obj, pc_broker_config *config)
{
    if (!Py_IS_TYPE(obj, (PyTypeObject *)state->feed_type)) {
        PyErr_Format(PyExc_TypeError, "feed must be a Feed, not %.100s", Py_TYPE(obj)->tp_name);
        return -1;
    }
    config->source = &feed_ops;
    config->source_ctx = obj;
    return 0;
}

int
py_feed_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->feed_type, true);
}
