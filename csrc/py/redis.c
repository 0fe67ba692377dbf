/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/redis.h"

#include "base/mem.h"
#include "io/redis_client.h"
#include "io/redis_meta.h"
#include "py/args.h"
#include "py/config.h"
#include "py/error.h"

typedef struct py_redis {
    PyObject_HEAD
    py_state *state;
    pc_redis_client *client;  // NULL only while it is made
    double timeout;
    bool closed;
} py_redis;

static py_redis *
of(PyObject *obj)
{
    return (py_redis *)(void *)obj;
}

/* ------------------------------------------------------------------ life */

static int
create(py_redis *self, PyObject *mapping)
{
    py_config config;
    pc_store_config store;
    pc_err err;
    py_config_init(&config, self->state);
    if (py_config_store(&config, mapping, &store) == 0) {
        const pc_redis_config redis = pc_redis_meta_config(&store);
        self->timeout = store.socket_timeout;
        self->client = pc_redis_client_new(&redis, &err);
        if (self->client == NULL) {
            py_raise(self->state, &err);
        }
    }
    py_config_fini(&config);
    return self->client == NULL ? -1 : 0;
}

static PyObject *
redis_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Redis() takes no keyword arguments");
        return NULL;
    }
    if (py_arity("Redis", PyTuple_GET_SIZE(args), 1) < 0) {
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
redis_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    pc_redis_client *client = of(obj)->client;
    Py_BEGIN_ALLOW_THREADS
    pc_redis_client_free(client);
    Py_END_ALLOW_THREADS
    type->tp_free(obj);
    Py_DECREF(type);
}

/* ------------------------------------------------------------------ commands */

typedef struct batch {
    pc_redis_cmd *commands;  // one block with the arguments behind
    size_t count;
    PyObject *held;          // list of what the arguments point into
} batch;

/* A str or bytes as it is, a number as its text; new reference. */
static PyObject *
make_argument(PyObject *value)
{
    if (PyUnicode_Check(value) || PyBytes_Check(value)) {
        return Py_NewRef(value);
    }
    if (PyLong_CheckExact(value) || PyFloat_CheckExact(value)) {
        return PyObject_Str(value);
    }
    PyErr_Format(PyExc_TypeError, "a Redis argument must be str, bytes, int or float, not %.100s",
                 Py_TYPE(value)->tp_name);
    return NULL;
}

static int
fill_argument(batch *it, PyObject *value, pc_slice *out)
{
    PyObject *made = make_argument(value);
    int rc = made == NULL ? -1 : PyList_Append(it->held, made);
    if (rc == 0 && PyBytes_Check(made)) {
        *out = pc_slice_of(PyBytes_AS_STRING(made), (size_t)PyBytes_GET_SIZE(made));
    } else if (rc == 0) {
        rc = py_text(made, "a Redis argument", out);
    }
    Py_XDECREF(made);
    return rc;
}

/* A list of the commands as tuples; *total receives the number of arguments. */
static PyObject *
make_tuples(PyObject *commands, size_t *total)
{
    PyObject *all = PySequence_List(commands);
    *total = 0;
    for (Py_ssize_t i = 0; all != NULL && i < PyList_GET_SIZE(all); i++) {
        PyObject *one = PySequence_Tuple(PyList_GET_ITEM(all, i));
        if (one != NULL && PyTuple_GET_SIZE(one) == 0) {
            PyErr_SetString(PyExc_ValueError, "an empty Redis command");
            Py_CLEAR(one);
        }
        if (one == NULL || PyList_SetItem(all, i, one) < 0) {
            Py_CLEAR(all);
            break;
        }
        *total += (size_t)PyTuple_GET_SIZE(one);
    }
    return all;
}

static int
fill_batch(batch *it, PyObject *all, pc_slice *argv)
{
    for (size_t i = 0; i < it->count; i++) {
        PyObject *one = PyList_GET_ITEM(all, (Py_ssize_t)i);  // borrowed
        size_t argc = (size_t)PyTuple_GET_SIZE(one);
        it->commands[i] = (pc_redis_cmd){argc, argv};
        for (size_t k = 0; k < argc; k++) {
            if (fill_argument(it, PyTuple_GET_ITEM(one, (Py_ssize_t)k), argv++) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static void
batch_fini(batch *it)
{
    pc_free(it->commands);
    Py_XDECREF(it->held);
}

static int
batch_init(batch *it, PyObject *commands)
{
    size_t total;
    PyObject *all = make_tuples(commands, &total);
    *it = (batch){NULL, 0, NULL};
    if (all == NULL) {
        return -1;
    }
    it->count = (size_t)PyList_GET_SIZE(all);
    it->held = PyList_New(0);
    it->commands = pc_alloc(it->count * sizeof *it->commands + total * sizeof(pc_slice));
    if (it->commands == NULL) {
        PyErr_NoMemory();
    }
    int rc = it->held == NULL || it->commands == NULL
                 ? -1
                 : fill_batch(it, all, (pc_slice *)(void *)(it->commands + it->count));
    Py_DECREF(all);
    return rc;
}

/* ------------------------------------------------------------------ replies */

static PyObject *make_reply(py_state *state, const pc_reply *reply);

static PyObject *
make_array(py_state *state, const pc_reply *reply)
{
    PyObject *list = PyList_New((Py_ssize_t)reply->len);
    for (size_t i = 0; list != NULL && i < reply->len; i++) {
        PyObject *item = make_reply(state, reply->children[i]);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

/* An error inside an array (of a script) is a value: an exception that nobody raises. */
static PyObject *
make_error(py_state *state, pc_slice text)
{
    PyObject *msg = PyUnicode_DecodeUTF8(text.ptr, (Py_ssize_t)text.len, "replace");
    PyObject *made = msg == NULL ? NULL : PyObject_CallOneArg(state->bad_data, msg);
    Py_XDECREF(msg);
    return made;
}

static PyObject *
make_reply(py_state *state, const pc_reply *reply)
{
    switch (reply->type) {
    case PC_REPLY_NIL:
        break;
    case PC_REPLY_STATUS:
    case PC_REPLY_STRING:
        return PyBytes_FromStringAndSize(reply->text.ptr, (Py_ssize_t)reply->text.len);
    case PC_REPLY_ERROR:
        return make_error(state, reply->text);
    case PC_REPLY_INTEGER:
        return PyLong_FromLongLong(reply->integer);
    case PC_REPLY_ARRAY:
        return make_array(state, reply);
    }
    return Py_NewRef(Py_None);
}

/* Not ended by signals: who runs commands again after a handler may have them executed twice. */
static PyObject *
run(py_redis *self, const batch *it, unsigned flags, pc_mono deadline)
{
    pc_redis_client *client = self->client;
    pc_reply *reply = NULL;
    pc_err err;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pc_redis_client_run(client, it->commands, it->count, flags, &reply, deadline, NULL, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        return py_raise(self->state, &err);
    }
    PyObject *made = make_reply(self->state, reply);
    pc_reply_free(reply);
    return made;
}

static PyObject *
redis_run(PyObject *obj, PyObject *const *args, Py_ssize_t nargs)
{
    py_redis *self = of(obj);
    batch it;
    bool transaction;
    pc_mono deadline;
    PyObject *made = NULL;
    if (self->closed) {
        PyErr_SetString(self->state->unsupported, "run(): closed by abandon(); make a new Redis");
        return NULL;
    }
    if (py_arity("run", nargs, 3) < 0 || py_flag(args[1], &transaction) < 0
        || py_deadline(args[2], self->timeout, &deadline) < 0) {
        return NULL;
    }
    if (batch_init(&it, args[0]) == 0) {
        made = it.count == 0 ? PyList_New(0)
                             : run(self, &it, transaction ? PC_REDIS_TRANSACTION : 0, deadline);
    }
    batch_fini(&it);
    return made;
}

static PyObject *
redis_abandon(PyObject *obj, PyObject *ignored)
{
    py_redis *self = of(obj);
    pc_redis_client *client = self->client;
    (void)ignored;
    if (!self->closed) {
        self->closed = true;
        Py_BEGIN_ALLOW_THREADS
        pc_redis_client_abandon(client);
        Py_END_ALLOW_THREADS
    }
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)(void (*)(void))redis_run, METH_FASTCALL,
     "Runs commands as one group; returns their replies."},
    {"abandon", redis_abandon, METH_NOARGS, "In a forked child: forgets the connection."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, redis_new},
    {Py_tp_dealloc, redis_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Thread-safe blocking Redis commands."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyceleryc._core.Redis",
    .basicsize = sizeof(py_redis),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int
py_redis_setup(PyObject *module)
{
    return py_type_add(module, &spec, &py_state_of(module)->redis_type, true);
}
