/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/order.h"

#include "base/mem.h"
#include "py/args.h"
#include "py/error.h"
#include "py/json.h"
#include "py/message.h"
#include "py/saferepr.h"
#include "wire/embed.h"
#include "wire/proto2.h"

#define SPARE_MAX 4  // as many threads send at a time without allocating
#define KEEP ((size_t)64 << 10)  // a larger buffer is not kept for the next message

enum { TASK, EXCHANGE, ROUTING_KEY, ORIGIN, TEXTS };

/* Immutable once made, so any thread may use it. */
typedef struct py_template {
    PyObject_HEAD
    PyObject *held[TEXTS];  // owners of `text`
    pc_slice text[TEXTS];
    int delivery_mode;
    int priority;
    double time_limit;
    double soft_time_limit;
    bool ignore_result;
} py_template;

static int
fill_template(py_template *self, PyObject *args)
{
    static const char *const names[TEXTS] = {"task", "exchange", "routing_key", "origin"};
    for (int i = 0; i < TEXTS; i++) {
        self->held[i] = Py_NewRef(PyTuple_GET_ITEM(args, i));
        if (py_text(self->held[i], names[i], &self->text[i]) < 0) {
            return -1;
        }
    }
    if (py_int(PyTuple_GET_ITEM(args, 4), &self->delivery_mode) < 0
        || py_int(PyTuple_GET_ITEM(args, 5), &self->priority) < 0
        || py_real_or_none(PyTuple_GET_ITEM(args, 6), &self->time_limit) < 0
        || py_real_or_none(PyTuple_GET_ITEM(args, 7), &self->soft_time_limit) < 0) {
        return -1;
    }
    return py_flag(PyTuple_GET_ITEM(args, 8), &self->ignore_result);
}

static PyObject *
template_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "TaskTemplate() takes no keyword arguments");
        return NULL;
    }
    if (py_arity("TaskTemplate", PyTuple_GET_SIZE(args), 9) < 0) {
        return NULL;
    }
    py_template *self = (py_template *)(void *)type->tp_alloc(type, 0);
    if (self != NULL && fill_template(self, args) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
template_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    for (int i = 0; i < TEXTS; i++) {
        Py_CLEAR(((py_template *)(void *)obj)->held[i]);
    }
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyType_Slot template_slots[] = {
    {Py_tp_new, template_new},
    {Py_tp_dealloc, template_dealloc},
    {Py_tp_doc, "What is the same in every message of a task sent with the same options."},
    {0, NULL},
};

static PyType_Spec template_spec = {
    .name = "pyceleryc._core.TaskTemplate",
    .basicsize = sizeof(py_template),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = template_slots,
};

int
py_template_setup(PyObject *module)
{
    return py_type_add(module, &template_spec, &py_state_of(module)->template_type, true);
}

/* ------------------------------------------------------------------ scratch */

py_scratch *
py_scratch_new(void)
{
    py_scratch *scratch = pc_alloc(sizeof *scratch);
    if (scratch != NULL) {
        scratch->next = NULL;
        pc_buf_init(&scratch->body);
        pc_buf_init(&scratch->headers);
        pc_buf_init(&scratch->argsrepr);
        pc_buf_init(&scratch->kwargsrepr);
    }
    return scratch;
}

void
py_scratch_free(py_scratch *scratch)
{
    if (scratch != NULL) {
        pc_buf_fini(&scratch->body);
        pc_buf_fini(&scratch->headers);
        pc_buf_fini(&scratch->argsrepr);
        pc_buf_fini(&scratch->kwargsrepr);
        pc_free(scratch);
    }
}

py_scratch *
py_scratch_take(py_scratches *scratches)
{
    py_scratch *scratch = scratches->spare;
    if (scratch == NULL) {
        scratch = py_scratch_new();
        if (scratch == NULL) {
            PyErr_NoMemory();
        }
        return scratch;
    }
    scratches->spare = scratch->next;
    scratches->n--;
    return scratch;
}

void
py_scratch_give_back(py_scratches *scratches, py_scratch *scratch)
{
    if (scratches->n == SPARE_MAX) {
        py_scratch_free(scratch);
        return;
    }
    scratch->next = scratches->spare;
    scratches->spare = scratch;
    scratches->n++;
}

void
py_scratches_fini(py_scratches *scratches)
{
    while (scratches->spare != NULL) {
        py_scratch *next = scratches->spare->next;
        py_scratch_free(scratches->spare);
        scratches->spare = next;
    }
    scratches->n = 0;
}

static void
reset(py_scratch *scratch)
{
    pc_buf_reset(&scratch->body, KEEP);
    pc_buf_reset(&scratch->headers, KEEP);
    pc_buf_reset(&scratch->argsrepr, KEEP);
    pc_buf_reset(&scratch->kwargsrepr, KEEP);
}

/* ------------------------------------------------------------------ the message */

static int
put_text(py_state *state, pc_buf *out, const char *text)
{
    pc_err err;
    if (pc_buf_put_str(out, text, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    return 0;
}

/* A text is JSON already: the members of a chord's header share it. */
static int
put_embed(py_state *state, PyObject *embed, pc_buf *out)
{
    pc_slice text;
    pc_err err;
    if (embed == Py_None) {
        return put_text(state, out, PC_EMBED_NONE);
    }
    if (!PyUnicode_Check(embed)) {
        return py_json_encode(state, embed, out);
    }
    if (py_text(embed, "embed", &text) < 0) {
        return -1;
    }
    if (pc_buf_put_slice(out, text, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    return 0;
}

/* [args, kwargs, embed] (PROTOCOL §3.1.3) */
static int
make_body(py_state *state, PyObject *const *args, pc_buf *out)
{
    if (put_text(state, out, "[") < 0 || py_json_encode(state, args[PY_SEND_ARGS], out) < 0
        || put_text(state, out, ", ") < 0
        || py_json_encode(state, args[PY_SEND_KWARGS], out) < 0
        || put_text(state, out, ", ") < 0) {
        return -1;
    }
    return put_embed(state, args[PY_SEND_EMBED], out) < 0 ? -1 : put_text(state, out, "]");
}

/* The repr given by the caller, else one made of `obj`. */
static int
make_repr(py_state *state, PyObject *given, const char *name, PyObject *obj, pc_buf *out,
          pc_slice *repr)
{
    if (given != Py_None) {
        return py_text(given, name, repr);
    }
    if (py_saferepr(state, obj, PY_REPR_MAX, out) < 0) {
        return -1;
    }
    *repr = pc_buf_slice(out);
    return 0;
}

static int
make_id(py_order *order, py_state *state, PyObject *given, pc_slice *id)
{
    pc_err err;
    if (given != Py_None) {
        return py_text(given, "task_id", id);
    }
    if (pc_uuid4(order->id, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    *id = pc_slice_of(order->id, PC_UUID_LEN);
    return 0;
}

static int
read_fields(py_order *order, py_state *state, PyObject *const *args, pc_task_fields *fields)
{
    if (make_id(order, state, args[PY_SEND_TASK_ID], &fields->id) < 0
        || py_text_or_none(args[PY_SEND_ROOT_ID], "root_id", &fields->root_id) < 0
        || py_text_or_none(args[PY_SEND_PARENT_ID], "parent_id", &fields->parent_id) < 0
        || py_text_or_none(args[PY_SEND_ETA], "eta", &fields->eta) < 0
        || py_text_or_none(args[PY_SEND_EXPIRES], "expires", &fields->expires) < 0
        || py_integer(args[PY_SEND_RETRIES], &fields->retries) < 0) {
        return -1;
    }
    if (fields->root_id.ptr == NULL) {
        fields->root_id = fields->id;
    }
    return 0;
}

static int
read_place(PyObject *const *args, pc_task_fields *fields)
{
    int64_t index;
    if (py_text_or_none(args[PY_SEND_GROUP], "group", &fields->group) < 0) {
        return -1;
    }
    fields->has_group_index = args[PY_SEND_GROUP_INDEX] != Py_None;
    if (fields->has_group_index && py_integer(args[PY_SEND_GROUP_INDEX], &index) < 0) {
        return -1;
    }
    fields->group_index = fields->has_group_index ? index : 0;
    return 0;
}

static int
read_reprs(py_state *state, PyObject *const *args, py_scratch *scratch,
           pc_task_fields *fields)
{
    if (make_repr(state, args[PY_SEND_ARGSREPR], "argsrepr", args[PY_SEND_ARGS],
                  &scratch->argsrepr, &fields->argsrepr)
        < 0) {
        return -1;
    }
    return make_repr(state, args[PY_SEND_KWARGSREPR], "kwargsrepr", args[PY_SEND_KWARGS],
                     &scratch->kwargsrepr, &fields->kwargsrepr);
}

static void
apply_template(const py_template *template, pc_task_fields *fields, pc_message *message)
{
    fields->task = template->text[TASK];
    fields->origin = template->text[ORIGIN];
    fields->time_limit = template->time_limit;
    fields->soft_time_limit = template->soft_time_limit;
    fields->ignore_result = template->ignore_result;
    message->exchange = template->text[EXCHANGE];
    message->routing_key = template->text[ROUTING_KEY];
    message->delivery_mode = template->delivery_mode;
    message->priority = template->priority;
}

static int
make_headers(py_state *state, const pc_task_fields *fields, pc_headers_kind kind, pc_buf *out,
             pc_message *message)
{
    py_packer packer;
    pc_err err;
    py_packer_init(&packer, kind, out);
    if (py_fields_write(fields, packer.sink, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    message->headers_kind = kind;
    message->headers = py_packer_slice(&packer);
    return 0;
}

static int
read_due(py_order *order, py_state *state, pc_slice eta)
{
    pc_err err;
    order->due = (pc_wall){0};
    order->has_due = eta.ptr != NULL;
    if (order->has_due && pc_wall_parse(eta, &order->due, NULL, &err) < 0) {
        py_raise(state, &err);
        return -1;
    }
    return 0;
}

int
py_order_make(py_order *order, py_state *state, pc_headers_kind kind, PyObject *const *args,
              Py_ssize_t nargs, py_scratch *scratch)
{
    pc_message *message = &order->message;
    pc_task_fields fields;
    if (!Py_IS_TYPE(args[PY_SEND_TEMPLATE], (PyTypeObject *)state->template_type)) {
        PyErr_SetString(PyExc_TypeError, "send() needs a TaskTemplate first");
        return -1;
    }
    reset(scratch);
    pc_message_init(message);
    pc_task_fields_init(&fields);
    apply_template((const py_template *)(void *)args[PY_SEND_TEMPLATE], &fields, message);
    if (read_fields(order, state, args, &fields) < 0
        || (nargs == PY_SEND_MEMBER_COUNT && read_place(args, &fields) < 0)
        || make_body(state, args, &scratch->body) < 0
        || read_reprs(state, args, scratch, &fields) < 0
        || make_headers(state, &fields, kind, &scratch->headers, message) < 0
        || read_due(order, state, fields.eta) < 0
        || py_text(args[PY_SEND_REPLY_TO], "reply_to", &message->reply_to) < 0
        || py_text_or_none(args[PY_SEND_EXPIRATION], "expiration", &message->expiration) < 0) {
        return -1;
    }
    message->content_type = pc_slice_str("application/json");
    message->content_encoding = pc_slice_str("utf-8");
    message->correlation_id = fields.id;
    message->body = pc_buf_slice(&scratch->body);
    return 0;
}

PyObject *
py_order_id(const py_order *order, PyObject *const *args)
{
    if (args[PY_SEND_TASK_ID] != Py_None) {
        return Py_NewRef(args[PY_SEND_TASK_ID]);
    }
    return PyUnicode_FromStringAndSize(order->id, PC_UUID_LEN);
}
