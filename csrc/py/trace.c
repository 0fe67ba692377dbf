/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/trace.h"

#include <limits.h>

#include "py/args.h"
#include "py/error.h"
#include "py/json.h"
#include "py/lazy.h"
#include "py/message.h"
#include "py/run.h"
#include "py/saferepr.h"
#include "py/soft_limit.h"

/* --- a message --------------------------------------------------------- */

static bool
is_json(const pc_message *message, const pc_head *head)
{
    return head->compression.ptr == NULL && pc_slice_is(message->content_type, "application/json")
           && (message->content_encoding.ptr == NULL || pc_slice_is(message->content_encoding, "utf-8"));
}

static PyObject *
decode_body(py_tracer *self, const pc_message *message, const pc_head *head)
{
    if (is_json(message, head)) {
        return py_json_decode(self->state, message->body);
    }
    PyObject *type = py_str_or_none(message->content_type);
    PyObject *encoding = py_str_or_none(message->content_encoding);
    PyObject *compression = py_str_or_none(head->compression);
    PyObject *decoded = NULL;
    if (type != NULL && encoding != NULL && compression != NULL) {
        decoded = PyObject_CallMethod(self->hooks, "decode", "y#OOO", message->body.ptr,
                                      (Py_ssize_t)message->body.len, type, encoding, compression);
    }
    Py_XDECREF(type);
    Py_XDECREF(encoding);
    Py_XDECREF(compression);
    return decoded;
}

/* [args, kwargs] of the body of a chain's task, whose links stay text. NULL, without an exception: the whole is to be read. */
static PyObject *
decode_links(py_run *at)
{
    py_state *state = at->self->state;

    if (at->task->flags & PY_TASK_GENERAL || !is_json(at->message, at->head) || !pc_embed_split(at->message->body, &at->links)) {
        return NULL;
    }
    PyObject *args = py_json_decode(state, at->links.args);
    PyObject *kwargs = args == NULL ? NULL : py_json_decode(state, at->links.kwargs);
    PyObject *body = kwargs == NULL ? NULL : PyTuple_Pack(2, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    if (body == NULL) {
        PyErr_Clear();  // what is wrong is said of the whole body
        at->links = (pc_links){0};
    }
    return body;
}

/* Checks [args, kwargs, embed] and lends its parts to the run. */
static int
unpack_body(py_run *at, PyObject *body)
{
    PyObject *parts[3] = {NULL, NULL, at->links.embed.ptr == NULL ? Py_None : NULL};

    if ((!PyList_Check(body) && !PyTuple_Check(body)) || PySequence_Fast_GET_SIZE(body) < 2
        || PySequence_Fast_GET_SIZE(body) > 3) {
        PyErr_SetString(PyExc_ValueError, "the message body is not [args, kwargs, embed]");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(body); i++) {
        parts[i] = PySequence_Fast_GET_ITEM(body, i);  // borrowed
    }
    if (!PyList_Check(parts[0]) && !PyTuple_Check(parts[0])) {
        PyErr_SetString(PyExc_ValueError, "the positional arguments in the message are not a list");
        return -1;
    }
    if (!PyDict_Check(parts[1]) || (parts[2] != NULL && parts[2] != Py_None && !PyDict_Check(parts[2]))) {
        PyErr_SetString(PyExc_ValueError, "the keyword arguments or the embedded options in the message are not a map");
        return -1;
    }
    at->args = parts[0];
    at->kwargs = parts[1];
    at->embed = parts[2];
    return 0;
}

/* An exception is set: the message can't be run. */
static void
bad_message(py_run *at)
{
    py_state *state = at->self->state;
    PyObject *error = py_run_take_exception();
    PyObject *headers = py_headers_to_dict(state, at->message);
    PyObject *properties = headers == NULL ? NULL : py_properties(state, at->message);
    PyObject *info = properties == NULL ? NULL : py_delivery_info(state, at->message);

    at->outcome->state = PC_FAILURE;
    at->outcome->flags = PC_OUT_UNDECODABLE;
    PyObject *result = NULL;
    if (info != NULL) {
        result = PyObject_CallMethod(at->self->hooks, "bad_message", "OOOOy#", error, headers, properties,
                                     info, at->message->body.ptr, (Py_ssize_t)at->message->body.len);
    }
    if (py_run_take_outcome(at, result) < 0) {
        PyErr_WriteUnraisable(at->self->hooks);
    }
    Py_DECREF(error);
    Py_XDECREF(headers);
    Py_XDECREF(properties);
    Py_XDECREF(info);
}

/* A new reference: the task may be registered anew while it runs in another thread. */
static py_record *
find_record(py_tracer *self, const pc_head *head)
{
    PyObject *name = py_key(self->state, head->task);

    if (name == NULL) {
        return NULL;
    }
    PyObject *found = PyDict_GetItemWithError(self->records, name);  // borrowed
    if (found == NULL && !PyErr_Occurred()) {
        PyErr_SetObject(PyExc_KeyError, name);
    }
    Py_DECREF(name);
    return (py_record *)Py_XNewRef(found);
}

int
py_run_read(py_run *at, py_letter *letter, pc_slice frame)
{
    pc_err err = {0};

    at->message = &letter->message;
    at->head = &letter->head;
    pc_buf_init(&letter->scratch);
    *at->outcome = (pc_outcome){.state = PC_FAILURE, .want_notes = at->outcome->want_notes, .offer = at->outcome->offer,
                                .offer_to = at->outcome->offer_to};
    if (pc_message_unpack(frame, &letter->message, &err) < 0) {
        at->outcome->flags = PC_OUT_UNDECODABLE;
        return -1;
    }
    if (pc_head_read(&letter->message, &letter->head, &letter->scratch, &err) < 0) {
        py_raise(at->self->state, &err);
        goto fail;
    }
    at->task = find_record(at->self, at->head);
    if (at->task != NULL) {
        PyObject *body = decode_links(at);
        letter->body = body != NULL ? body : decode_body(at->self, at->message, at->head);
    }
    if (letter->body == NULL || unpack_body(at, letter->body) < 0) {
        goto fail;
    }
    at->request = py_lazy_new(at->self->state, at->message, at->args, at->kwargs, at->embed, at->links.embed,
                              at->self->make_request, at->self->hostname);
    if (at->request != NULL) {
        return 0;
    }

fail:
    bad_message(at);
    return -1;
}

void
py_run_forget(py_run *at, py_letter *letter)
{
    if (at->request != NULL) {
        py_lazy_detach(at->request);
    }
    Py_CLEAR(at->request);
    Py_CLEAR(at->value);
    Py_CLEAR(letter->body);
    Py_CLEAR(at->task);
    pc_buf_fini(&letter->scratch);
}

void
py_tracer_run(PyObject *self, pc_slice frame, pc_outcome *outcome, pc_buf *memory)
{
    py_letter letter = {.body = NULL};
    py_run at = {.self = (py_tracer *)self, .outcome = outcome, .memory = memory};

    py_run_open(&at);
    if (py_run_read(&at, &letter, frame) == 0) {
        py_run_task(&at);
    }
    py_run_forget(&at, &letter);
    py_run_close(&at);
}

/* --- Tracer ------------------------------------------------------------ */

/* Of tasks that say so; anything else has no say in events. */
static int
repr_max(PyObject *task)
{
    PyObject *value = PyObject_GetAttrString(task, "resultrepr_maxsize");
    long number = value == NULL ? -1 : PyLong_AsLong(value);

    Py_XDECREF(value);
    PyErr_Clear();
    return number < 1 || number > INT_MAX ? PY_REPR_MAX : (int)number;
}

static PyObject *
tracer_register(py_tracer *self, PyObject *args)
{
    PyObject *name, *task, *body, *stack;
    unsigned flags;

    if (!PyArg_ParseTuple(args, "UOOOI:register", &name, &task, &body, &stack, &flags)) {
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)self->state->record_type;
    py_record *made = (py_record *)type->tp_alloc(type, 0);
    if (made == NULL) {
        return NULL;
    }
    made->task = Py_NewRef(task);
    made->run = Py_NewRef(body);
    made->flags = flags;
    made->repr_max = repr_max(task);
    made->push = PyObject_GetAttrString(stack, "push");
    made->pop = PyObject_GetAttrString(stack, "pop");
    int rc = made->push == NULL || made->pop == NULL
                 ? -1 : PyDict_SetItem(self->records, name, (PyObject *)made);
    Py_DECREF(made);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
call_result(py_run *at, const pc_outcome *outcome)
{
    PyObject *document = Py_None;

    if (outcome->flags & PC_OUT_DOCUMENT) {
        return Py_BuildValue("(iO(iy#I))", (int)outcome->state, at->value, (int)outcome->state,
                             outcome->document.ptr, (Py_ssize_t)outcome->document.len,
                             outcome->flags & ~PC_OUT_DOCUMENT);
    }
    return Py_BuildValue("(iO(iOI))", (int)outcome->state, at->value == NULL ? Py_None : at->value,
                         (int)outcome->state, document, outcome->flags);
}

static PyObject *
tracer_call(py_tracer *self, PyObject *args)
{
    PyObject *name;
    pc_outcome outcome = {.state = PC_FAILURE};
    pc_buf memory;
    py_run at = {.self = self, .outcome = &outcome, .memory = &memory};

    if (!PyArg_ParseTuple(args, "UOOO!:call", &name, &at.request, &at.args, &PyDict_Type, &at.kwargs)) {
        return NULL;
    }
    at.task = (py_record *)PyDict_GetItemWithError(self->records, name);
    if (at.task == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetObject(PyExc_KeyError, name);
        }
        return NULL;
    }
    Py_INCREF(at.task);
    pc_buf_init(&memory);
    py_run_task(&at);
    PyObject *result = call_result(&at, &outcome);
    pc_buf_fini(&memory);
    Py_XDECREF(at.value);
    Py_DECREF(at.task);
    return result;
}

static PyObject *
tracer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *hooks, *make_request, *hostname, *stack;
    int utc;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "OOUpO:Tracer", &hooks, &make_request, &hostname, &utc, &stack)) {
        return NULL;
    }
    py_tracer *self = (py_tracer *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = py_state_of_type(type);
    self->hooks = Py_NewRef(hooks);
    self->make_request = Py_NewRef(make_request);
    self->hostname = Py_NewRef(hostname);
    self->utc = utc != 0;
    self->push = PyObject_GetAttrString(stack, "push");
    self->pop = PyObject_GetAttrString(stack, "pop");
    self->records = PyDict_New();
    if (self->push == NULL || self->pop == NULL || self->records == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
tracer_traverse(py_tracer *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->hooks);
    Py_VISIT(self->make_request);
    Py_VISIT(self->hostname);
    Py_VISIT(self->push);
    Py_VISIT(self->pop);
    Py_VISIT(self->records);
    return 0;
}

static int
tracer_clear(py_tracer *self)
{
    Py_CLEAR(self->hooks);
    Py_CLEAR(self->make_request);
    Py_CLEAR(self->hostname);
    Py_CLEAR(self->push);
    Py_CLEAR(self->pop);
    Py_CLEAR(self->records);
    return 0;
}

static void
tracer_dealloc(py_tracer *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)tracer_clear(self);
    py_scratches_fini(&self->scratches);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef tracer_methods[] = {
    {"register", (PyCFunction)tracer_register, METH_VARARGS, "Makes a task known."},
    {"offer", (PyCFunction)(void (*)(void))py_tracer_offer, METH_FASTCALL, "Has a link of a chain run next, if it can be."},
    {"call", (PyCFunction)tracer_call, METH_VARARGS, "Runs a task eagerly with a ready Context."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tracer_slots[] = {
    {Py_tp_doc, "Runs task messages in this process or thread."},
    {Py_tp_new, tracer_new},
    {Py_tp_dealloc, tracer_dealloc},
    {Py_tp_traverse, tracer_traverse},
    {Py_tp_clear, tracer_clear},
    {Py_tp_methods, tracer_methods},
    {0, NULL},
};

static PyType_Spec tracer_spec = {
    .name = "pyceleryc._core.Tracer",
    .basicsize = sizeof(py_tracer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tracer_slots,
};

static int
record_traverse(py_record *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->task);
    Py_VISIT(self->run);
    Py_VISIT(self->push);
    Py_VISIT(self->pop);
    return 0;
}

static int
record_clear(py_record *self)
{
    Py_CLEAR(self->task);
    Py_CLEAR(self->run);
    Py_CLEAR(self->push);
    Py_CLEAR(self->pop);
    return 0;
}

static void
record_dealloc(py_record *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)record_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot record_slots[] = {
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_traverse, record_traverse},
    {Py_tp_clear, record_clear},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "pyceleryc._core.TaskRecord",
    .basicsize = sizeof(py_record),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = record_slots,
};

int
py_trace_setup(PyObject *module)
{
    static const struct {
        const char *name;
        unsigned value;
    } flags[] = {
        {"TASK_ENTER", PY_TASK_ENTER},
        {"TASK_SUCCESS", PY_TASK_SUCCESS},
        {"TASK_LEAVE", PY_TASK_LEAVE},
        {"TASK_LOG", PY_TASK_LOG},
        {"TASK_IGNORE_RESULT", PY_TASK_IGNORE_RESULT},
        {"TASK_CUSTOM_CALL", PY_TASK_CUSTOM_CALL},
        {"TASK_COROUTINE", PY_TASK_COROUTINE},
        {"TASK_AROUND", PY_TASK_AROUND},
        {"TASK_LATE", PY_TASK_LATE},
        {"TASK_ONCE", PY_TASK_ONCE},
        {"OUT_REQUEUE", PC_OUT_REQUEUE},
        {"OUT_REFUSED", PC_OUT_REFUSED},
        {"OUT_UNDECODABLE", PC_OUT_UNDECODABLE},
    };
    py_state *state = py_state_of(module);

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (PyModule_AddIntConstant(module, flags[i].name, (long)flags[i].value) < 0) {
            return -1;
        }
    }
    if (py_type_add(module, &record_spec, &state->record_type, false) < 0) {
        return -1;
    }
    return py_type_add(module, &tracer_spec, &state->tracer_type, true);
}
