/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/message.h"

#include "py/args.h"
#include "py/builder.h"
#include "py/error.h"
#include "py/json.h"
#include "wire/bridge.h"
#include "wire/json.h"
#include "wire/result.h"

typedef struct text_property {
    size_t name;   // in py_state
    size_t slice;  // in pc_message
} text_property;

#define TEXT(name) {offsetof(py_state, str_##name), offsetof(pc_message, name)}

static const text_property text_properties[PY_PROPERTY_TEXTS] = {
    TEXT(content_type), TEXT(content_encoding), TEXT(correlation_id), TEXT(reply_to),
    TEXT(expiration),   TEXT(message_id),       TEXT(type),           TEXT(user_id),
    TEXT(app_id),       TEXT(cluster_id),
};

/* borrowed */
static PyObject *
name_of(py_state *state, const text_property *property)
{
    return *(PyObject **)(void *)((char *)state + property->name);
}

/* ------------------------------------------------------------------ core → Python */

static PyObject *
table_to_dict(py_state *state, const pc_message *message)
{
    py_builder builder;
    pc_err err = {.code = PC_OK};
    PyObject *made = NULL;
    py_builder_init(&builder, state, false);
    if (pc_message_visit_headers(message, &py_builder_visit, &builder, &err) == 0) {
        made = py_builder_take(&builder);
    } else {
        py_raise(state, &err);
    }
    py_builder_fini(&builder);
    return made;
}

PyObject *
py_headers_to_dict(py_state *state, const pc_message *message)
{
    PyObject *made = NULL;
    switch (message->headers_kind) {
    case PC_HEADERS_NONE:
        return PyDict_New();
    case PC_HEADERS_TABLE:
        made = table_to_dict(state, message);
        break;
    case PC_HEADERS_JSON:
        made = py_json_decode(state, message->headers);
        break;
    }
    if (made != NULL && !PyDict_Check(made)) {
        PyErr_SetString(state->bad_data, "the message's headers are no mapping");
        Py_CLEAR(made);
    }
    return made;
}

/* Sets dict[key] and consumes the value, which may be NULL after a failure. */
static int
put_item(PyObject *dict, PyObject *key, PyObject *value)
{
    int rc = value == NULL ? -1 : PyDict_SetItem(dict, key, value);
    Py_XDECREF(value);
    return rc;
}

/* Properties from strangers may be any bytes. */
static PyObject *
make_text(pc_slice text)
{
    return PyUnicode_DecodeUTF8(text.len == 0 ? "" : text.ptr, (Py_ssize_t)text.len,
                                "surrogateescape");
}

static int
put_text_properties(py_state *state, const pc_message *message, PyObject *dict)
{
    for (size_t i = 0; i < PY_PROPERTY_TEXTS; i++) {
        const text_property *it = &text_properties[i];
        pc_slice text = *(const pc_slice *)(const void *)((const char *)message + it->slice);
        if (text.ptr != NULL && put_item(dict, name_of(state, it), make_text(text)) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
put_number_properties(py_state *state, const pc_message *message, PyObject *dict)
{
    if (message->timestamp >= 0
        && put_item(dict, state->str_timestamp, PyLong_FromLongLong(message->timestamp)) < 0) {
        return -1;
    }
    if (message->delivery_mode != 0
        && put_item(dict, state->str_delivery_mode, PyLong_FromLong(message->delivery_mode))
               < 0) {
        return -1;
    }
    if (message->priority >= 0) {
        return put_item(dict, state->str_priority, PyLong_FromLong(message->priority));
    }
    return 0;
}

PyObject *
py_properties(py_state *state, const pc_message *message)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL || put_text_properties(state, message, dict) < 0
        || put_number_properties(state, message, dict) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

PyObject *
py_delivery_info(py_state *state, const pc_message *message)
{
    PyObject *dict = PyDict_New();
    PyObject *priority = message->priority < 0 ? Py_NewRef(Py_None)
                                               : PyLong_FromLong(message->priority);
    if (dict == NULL) {
        Py_XDECREF(priority);
        return NULL;
    }
    if (put_item(dict, state->str_priority, priority) < 0
        || put_item(dict, state->str_exchange, make_text(message->exchange)) < 0
        || put_item(dict, state->str_routing_key, make_text(message->routing_key)) < 0
        || put_item(dict, state->str_redelivered, PyBool_FromLong(message->redelivered)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* ------------------------------------------------------------------ Python → properties */

static int
fill_text(py_state *state, const text_property *property, PyObject *value, pc_message *message)
{
    pc_slice *slice = (pc_slice *)(void *)((char *)message + property->slice);
    const char *name = PyUnicode_AsUTF8(name_of(state, property));
    return name == NULL ? -1 : py_text_or_none(value, name, slice);
}

/* A new reference, or NULL: without an exception when the dict lacks it or has None. */
static PyObject *
look_up(PyObject *dict, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(dict, name);  // borrowed
    return value == Py_None ? NULL : Py_XNewRef(value);
}

/* Leaves *out alone when the mapping lacks the property. */
static int
fill_number(PyObject *properties, PyObject *name, int64_t *out)
{
    PyObject *value = look_up(properties, name);
    int rc = value == NULL ? 0 : py_integer(value, out);
    Py_XDECREF(value);
    return rc < 0 || PyErr_Occurred() ? -1 : 0;
}

static int
fill_numbers(py_state *state, PyObject *properties, pc_message *message)
{
    int64_t mode = 0;
    int64_t priority = -1;
    message->timestamp = -1;
    if (fill_number(properties, state->str_timestamp, &message->timestamp) < 0
        || fill_number(properties, state->str_delivery_mode, &mode) < 0
        || fill_number(properties, state->str_priority, &priority) < 0) {
        return -1;
    }
    if (mode < 0 || mode > 2 || priority < -1 || priority > 255) {
        PyErr_SetString(PyExc_ValueError, "delivery_mode must be 1 or 2, priority 0 to 255");
        return -1;
    }
    message->delivery_mode = (int)mode;
    message->priority = (int)priority;
    return 0;
}

static int
fill_properties(py_state *state, PyObject *properties, pc_message *message, py_texts *texts)
{
    for (size_t i = 0; i < PY_PROPERTY_TEXTS; i++) {
        const text_property *it = &text_properties[i];
        texts->held[i] = look_up(properties, name_of(state, it));
        if (texts->held[i] == NULL ? PyErr_Occurred() != NULL
                                   : fill_text(state, it, texts->held[i], message) < 0) {
            return -1;
        }
    }
    return fill_numbers(state, properties, message);
}

int
py_properties_fill(py_state *state, PyObject *properties, pc_message *message,
                   py_texts *texts)
{
    PyObject *dict = py_mapping(properties, "properties");
    int rc = dict == NULL ? -1 : fill_properties(state, dict, message, texts);
    Py_XDECREF(dict);
    return rc;
}

void
py_texts_drop(py_texts *texts)
{
    for (size_t i = 0; i < PY_PROPERTY_TEXTS; i++) {
        Py_CLEAR(texts->held[i]);
    }
}

/* ------------------------------------------------------------------ Python → headers */

typedef struct feed {
    py_state *state;
    pc_headers_kind kind;
    pc_sink *sink;
    pc_err err;
} feed;

static int feed_value(feed *f, PyObject *obj);

/* Through kombu's JSON, so that a receiver finds what its own JSON decoder would understand. */
static int
feed_unusual(feed *f, PyObject *obj)
{
    pc_bridge bridge = {f->sink, &f->err};
    pc_buf text;
    pc_buf_init(&text);
    int rc = py_json_encode_kombu(f->state, obj, &text);
    if (rc == 0) {
        rc = pc_json_visit(pc_buf_slice(&text), &pc_bridge_visit, &bridge, &f->err);
    }
    pc_buf_fini(&text);
    return rc;
}

static int
feed_bytes(feed *f, PyObject *obj)
{
    pc_slice data = pc_slice_of(PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    if (f->kind != PC_HEADERS_TABLE) {
        return feed_unusual(f, obj);
    }
    return f->sink->ops->string(f->sink, data, &f->err);
}

static int
feed_int(feed *f, PyObject *obj)
{
    int64_t value;
    return py_integer(obj, &value) < 0 ? -1 : f->sink->ops->integer(f->sink, value, &f->err);
}

static int
feed_str(feed *f, PyObject *obj)
{
    pc_slice text;
    return py_text(obj, "text", &text) < 0 ? -1
                                           : f->sink->ops->string(f->sink, text, &f->err);
}

/* The list is looked at anew each time: kombu may run somebody's code, which may change it. */
static int
feed_items(feed *f, PyObject *items)
{
    if (f->sink->ops->array_start(f->sink, &f->err) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        int rc = feed_value(f, item);
        Py_DECREF(item);
        if (rc < 0) {
            return -1;
        }
    }
    return f->sink->ops->array_end(f->sink, &f->err);
}

static int
feed_pair(feed *f, PyObject *key, PyObject *value)
{
    pc_slice name;
    if (py_text(key, "a header's name", &name) < 0
        || f->sink->ops->key(f->sink, name, &f->err) < 0) {
        return -1;
    }
    return feed_value(f, value);
}

static int
feed_dict(feed *f, PyObject *dict)
{
    PyObject *key;    // borrowed
    PyObject *value;  // borrowed
    Py_ssize_t at = 0;
    if (f->sink->ops->map_start(f->sink, &f->err) < 0) {
        return -1;
    }
    while (PyDict_Next(dict, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        int rc = feed_pair(f, key, value);
        Py_DECREF(key);
        Py_DECREF(value);
        if (rc < 0) {
            return -1;
        }
    }
    return f->sink->ops->map_end(f->sink, &f->err);
}

static int
feed_value(feed *f, PyObject *obj)
{
    const pc_sink_ops *ops = f->sink->ops;
    if (PyUnicode_Check(obj)) {
        return feed_str(f, obj);
    }
    if (obj == Py_None) {
        return ops->null(f->sink, &f->err);
    }
    if (PyBool_Check(obj)) {
        return ops->boolean(f->sink, obj == Py_True, &f->err);
    }
    if (PyLong_Check(obj)) {
        return feed_int(f, obj);
    }
    if (PyFloat_Check(obj)) {
        return ops->real(f->sink, PyFloat_AS_DOUBLE(obj), &f->err);
    }
    if (PyDict_Check(obj)) {
        return feed_dict(f, obj);
    }
    if (PyList_Check(obj) || PyTuple_Check(obj)) {
        return feed_items(f, obj);
    }
    return PyBytes_Check(obj) ? feed_bytes(f, obj) : feed_unusual(f, obj);
}

/* The sinks refuse documents that are nested too deep, so the recursion ends. */
int
py_dict_to_sink(py_state *state, PyObject *mapping, pc_headers_kind kind, pc_sink *sink)
{
    feed f = {.state = state, .kind = kind, .sink = sink};
    PyObject *dict = py_mapping(mapping, "the table");
    if (dict == NULL) {
        return -1;
    }
    int rc = feed_dict(&f, dict);
    if (rc < 0) {
        py_raise(state, &f.err);
    }
    Py_DECREF(dict);
    return rc;
}

void
py_packer_init(py_packer *packer, pc_headers_kind kind, pc_buf *out)
{
    packer->kind = kind;
    packer->out = out;
    if (kind == PC_HEADERS_TABLE) {
        pc_table_out_init(&packer->as.table, out);
        packer->sink = &packer->as.table.sink;
    } else {
        pc_json_out_init(&packer->as.json, out);
        packer->sink = &packer->as.json.sink;
    }
}

pc_slice
py_packer_slice(const py_packer *packer)
{
    size_t skip = packer->kind == PC_HEADERS_TABLE ? 4 : 0;  // a table begins with its length
    return pc_slice_of(pc_buf_ptr(packer->out) + skip, pc_buf_len(packer->out) - skip);
}

/* Integers beyond 64 bits and half surrogate pairs: JSON can, our sinks can't. Clears the exception then. */
static bool
only_python_can(pc_headers_kind kind)
{
    bool can = kind == PC_HEADERS_JSON
               && (PyErr_ExceptionMatches(PyExc_OverflowError) || PyErr_ExceptionMatches(PyExc_UnicodeEncodeError));
    if (can) {
        PyErr_Clear();
    }
    return can;
}

static int
pack_by_kombu(py_state *state, PyObject *mapping, pc_buf *out)
{
    pc_buf_reset(out, SIZE_MAX);
    return py_json_encode_kombu(state, mapping, out);
}

int
py_dict_pack(py_state *state, PyObject *mapping, pc_headers_kind kind, pc_buf *out,
             pc_slice *packed)
{
    py_packer packer;
    py_packer_init(&packer, kind, out);
    if (py_dict_to_sink(state, mapping, kind, packer.sink) < 0
        && (!only_python_can(kind) || pack_by_kombu(state, mapping, out) < 0)) {
        return -1;
    }
    *packed = py_packer_slice(&packer);
    return 0;
}

/* ------------------------------------------------------------------ functions of the module */

enum { TASK, ID, SHADOW, ETA, EXPIRES, GROUP, GROUP_INDEX, RETRIES, TIME_LIMIT,
       SOFT_TIME_LIMIT, ROOT_ID, PARENT_ID, ARGSREPR, KWARGSREPR, ORIGIN, IGNORE_RESULT,
       NESTING, FIELDS };

static int
read_texts(PyObject *const *args, pc_task_fields *fields)
{
    const struct { int index; const char *name; pc_slice *out; } texts[] = {
        {SHADOW, "shadow", &fields->shadow}, {ETA, "eta", &fields->eta},
        {EXPIRES, "expires", &fields->expires}, {GROUP, "group", &fields->group},
        {ROOT_ID, "root_id", &fields->root_id}, {PARENT_ID, "parent_id", &fields->parent_id},
        {ARGSREPR, "argsrepr", &fields->argsrepr},
        {KWARGSREPR, "kwargsrepr", &fields->kwargsrepr}, {ORIGIN, "origin", &fields->origin},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (py_text_or_none(args[texts[i].index], texts[i].name, texts[i].out) < 0) {
            return -1;
        }
    }
    if (py_text(args[TASK], "task", &fields->task) < 0) {
        return -1;
    }
    return py_text(args[ID], "id", &fields->id);
}

static int
read_fields(PyObject *const *args, pc_task_fields *fields)
{
    fields->has_group_index = args[GROUP_INDEX] != Py_None;
    if (fields->has_group_index && py_integer(args[GROUP_INDEX], &fields->group_index) < 0) {
        return -1;
    }
    if (read_texts(args, fields) < 0 || py_integer(args[RETRIES], &fields->retries) < 0
        || py_real_or_none(args[TIME_LIMIT], &fields->time_limit) < 0
        || py_real_or_none(args[SOFT_TIME_LIMIT], &fields->soft_time_limit) < 0
        || py_flag(args[IGNORE_RESULT], &fields->ignore_result) < 0) {
        return -1;
    }
    return py_integer(args[NESTING], &fields->replaced_task_nesting);
}

int
py_fields_write(const pc_task_fields *fields, pc_sink *sink, pc_err *err)
{
    if (sink->ops->map_start(sink, err) < 0
        || pc_proto2_write(fields, pc_slice_of(NULL, 0), sink, err) < 0) {
        return -1;
    }
    return sink->ops->map_end(sink, err);
}

static PyObject *
task_headers(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    py_state *state = py_state_of(module);
    pc_task_fields fields;
    py_sink sink;
    pc_err err;
    PyObject *made = NULL;
    pc_task_fields_init(&fields);
    if (py_arity("task_headers", nargs, FIELDS) < 0 || read_fields(args, &fields) < 0) {
        return NULL;
    }
    py_sink_init(&sink, state);
    if (py_fields_write(&fields, &sink.sink, &err) == 0) {
        made = py_sink_take(&sink);
    } else {
        py_raise(state, &err);
    }
    py_sink_fini(&sink);
    return made;
}

static PyObject *
iso_to_timestamp(PyObject *module, PyObject *text)
{
    pc_slice iso;
    pc_wall when;
    pc_err err;
    if (py_text(text, "the time", &iso) < 0) {
        return NULL;
    }
    if (pc_wall_parse(iso, &when, NULL, &err) < 0) {
        return py_raise(py_state_of(module), &err);
    }
    return PyFloat_FromDouble((double)when.us / (double)PC_US_PER_SEC);
}

static PyMethodDef methods[] = {
    {"task_headers", (PyCFunction)(void (*)(void))task_headers, METH_FASTCALL,
     "The protocol-2 headers of a task message as a dict."},
    {"iso_to_timestamp", iso_to_timestamp, METH_O,
     "Unix time of an ISO-8601 text; without offset it is UTC."},
    {NULL, NULL, 0, NULL},
};

static int
add_states(PyObject *module)
{
    PyObject *states = PyTuple_New(PC_STATE_COUNT);
    for (int i = 0; states != NULL && i < PC_STATE_COUNT; i++) {
        PyObject *name = PyUnicode_InternFromString(pc_state_name((pc_state)i));
        if (name == NULL) {
            Py_CLEAR(states);
            break;
        }
        PyTuple_SET_ITEM(states, i, name);
    }
    int rc = states == NULL ? -1 : PyModule_AddObjectRef(module, "STATES", states);
    Py_XDECREF(states);
    return rc;
}

int
py_message_setup(PyObject *module)
{
    return add_states(module) < 0 ? -1 : PyModule_AddFunctions(module, methods);
}
