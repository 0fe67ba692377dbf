/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/builder.h"

#include "base/mem.h"

#define SHORT_NUMBER 64

void
py_builder_init(py_builder *builder, py_state *state, bool is_json)
{
    builder->state = state;
    builder->is_json = is_json;
    builder->undecodable = false;
    builder->len = 0;
    builder->cap = PY_BUILDER_INLINE;
    builder->values = builder->few;
}

void
py_builder_fini(py_builder *builder)
{
    while (builder->len > 0) {
        Py_XDECREF(builder->values[--builder->len]);
    }
    if (builder->values != builder->few) {
        pc_free(builder->values);
    }
    builder->values = builder->few;
}

PyObject *
py_builder_take(py_builder *builder)
{
    if (builder->len != 1 || builder->values[0] == NULL) {
        PyErr_SetString(PyExc_SystemError, "the document is not complete");
        return NULL;
    }
    builder->len = 0;
    return builder->values[0];
}

static int
grow(py_builder *b)
{
    size_t cap = b->cap * 2;
    PyObject **old = b->values == b->few ? NULL : b->values;
    PyObject **made = pc_realloc(old, cap * sizeof *made);
    if (made == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (old == NULL) {
        memcpy(made, b->few, sizeof b->few);
    }
    b->values = made;
    b->cap = cap;
    return 0;
}

/* Consumes `value`, also on failure. */
static int
push(py_builder *b, PyObject *value)
{
    if (b->len == b->cap && grow(b) < 0) {
        Py_XDECREF(value);
        return -1;
    }
    b->values[b->len++] = value;
    return 0;
}

/* Like push, but NULL means that the value could not be made. */
static int
put(py_builder *b, PyObject *value)
{
    return value == NULL ? -1 : push(b, value);
}

/* Where the values of the innermost open container start. */
static size_t
find_base(const py_builder *b)
{
    size_t base = b->len;
    while (b->values[base - 1] != NULL) {
        base--;
    }
    return base;
}

/* Replaces the innermost container's values by the container. The values are gone from the
 * stack: the caller has moved or dropped them. */
static int
close_with(py_builder *b, size_t base, PyObject *container)
{
    b->len = base - 1;
    return put(b, container);
}

static int
on_null(void *ctx)
{
    return push(ctx, Py_NewRef(Py_None));
}

static int
on_boolean(void *ctx, int value)
{
    return push(ctx, Py_NewRef(value ? Py_True : Py_False));
}

static int
on_integer(void *ctx, int64_t value)
{
    return put(ctx, PyLong_FromLongLong(value));
}

static int
on_real(void *ctx, double value)
{
    return put(ctx, PyFloat_FromDouble(value));
}

static bool
is_whole(pc_slice text)
{
    return memchr(text.ptr, '.', text.len) == NULL && memchr(text.ptr, 'e', text.len) == NULL
           && memchr(text.ptr, 'E', text.len) == NULL;
}

static PyObject *
make_long_number(pc_slice text)
{
    PyObject *digits = PyUnicode_FromStringAndSize(text.ptr, (Py_ssize_t)text.len);
    PyObject *made = NULL;
    if (digits != NULL) {
        made = is_whole(text) ? PyLong_FromUnicodeObject(digits, 10)
                              : PyFloat_FromString(digits);
    }
    Py_XDECREF(digits);
    return made;
}

static int
on_number(void *ctx, pc_slice text)
{
    char plain[SHORT_NUMBER];
    if (text.len >= sizeof plain || is_whole(text)) {
        return put(ctx, make_long_number(text));
    }
    memcpy(plain, text.ptr, text.len);
    plain[text.len] = '\0';
    double value = PyOS_string_to_double(plain, NULL, NULL);
    return value == -1.0 && PyErr_Occurred() ? -1 : on_real(ctx, value);
}

/* What to do with text that Python could not decode: AMQP lets it be bytes. */
static int
put_undecodable(py_builder *b, pc_slice text)
{
    if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        return -1;
    }
    PyErr_Clear();  // handled here, or told by `undecodable`
    if (b->is_json) {
        b->undecodable = true;
        return -1;
    }
    return put(b, PyBytes_FromStringAndSize(text.ptr, (Py_ssize_t)text.len));
}

static int
on_string(void *ctx, pc_slice text)
{
    PyObject *made = PyUnicode_DecodeUTF8(text.ptr, (Py_ssize_t)text.len, NULL);
    return made == NULL ? put_undecodable(ctx, text) : push(ctx, made);
}

static int
on_key(void *ctx, pc_slice name)
{
    py_builder *b = ctx;
    PyObject *made = py_key(b->state, name);
    return made == NULL ? put_undecodable(b, name) : push(b, made);
}

static int
on_bytes(void *ctx, pc_slice data)
{
    return put(ctx, PyBytes_FromStringAndSize(data.ptr, (Py_ssize_t)data.len));
}

/* A naive datetime in UTC, as AMQP clients for Python give it. */
static int
on_timestamp(void *ctx, int64_t seconds)
{
    py_builder *b = ctx;
    PyObject *delta = PyObject_CallFunction(b->state->timedelta, "iL", 0, (long long)seconds);
    PyObject *made = delta == NULL ? NULL : PyNumber_Add(b->state->epoch, delta);
    Py_XDECREF(delta);
    return put(b, made);
}

static int
on_decimal(void *ctx, uint8_t scale, int32_t value)
{
    py_builder *b = ctx;
    PyObject *whole = PyObject_CallFunction(b->state->decimal, "i", (int)value);
    PyObject *made =
        whole == NULL ? NULL : PyObject_CallMethod(whole, "scaleb", "i", -(int)scale);
    Py_XDECREF(whole);
    return put(b, made);
}

static int
on_start(void *ctx)
{
    return push(ctx, NULL);
}

static int
on_array_end(void *ctx)
{
    py_builder *b = ctx;
    size_t base = find_base(b);
    PyObject *list = PyList_New((Py_ssize_t)(b->len - base));
    if (list == NULL) {
        return -1;
    }
    for (size_t i = base; i < b->len; i++) {
        PyList_SET_ITEM(list, (Py_ssize_t)(i - base), b->values[i]);
    }
    return close_with(b, base, list);
}

/* The later of two equal keys wins and keeps the place of the first, as in Python. */
static PyObject *
make_dict(const py_builder *b, size_t base)
{
    PyObject *dict = PyDict_New();
    if (dict == NULL) {
        return NULL;
    }
    for (size_t i = base; i + 1 < b->len; i += 2) {
        if (PyDict_SetItem(dict, b->values[i], b->values[i + 1]) < 0) {
            Py_DECREF(dict);
            return NULL;
        }
    }
    return dict;
}

/* kombu's envelope of a type that JSON lacks: exactly these two keys. */
static int
is_typed(py_builder *b, PyObject *dict)
{
    if (!b->is_json || PyDict_GET_SIZE(dict) != 2) {
        return 0;
    }
    int has_type = PyDict_Contains(dict, b->state->str___type__);
    return has_type == 1 ? PyDict_Contains(dict, b->state->str___value__) : has_type;
}

static int
on_map_end(void *ctx)
{
    py_builder *b = ctx;
    size_t base = find_base(b);
    PyObject *dict = make_dict(b, base);
    if (dict == NULL) {
        return -1;
    }
    for (size_t i = base; i < b->len; i++) {
        Py_DECREF(b->values[i]);
    }
    b->len = base;
    int typed = is_typed(b, dict);
    if (typed == 0) {
        return close_with(b, base, dict);
    }
    PyObject *value = typed < 0 ? NULL : PyObject_CallOneArg(b->state->json_hook, dict);
    Py_DECREF(dict);
    return close_with(b, base, value);
}

const pc_visit py_builder_visit = {
    .null = on_null,
    .boolean = on_boolean,
    .integer = on_integer,
    .number = on_number,
    .real = on_real,
    .string = on_string,
    .bytes = on_bytes,
    .timestamp = on_timestamp,
    .decimal = on_decimal,
    .map_start = on_start,
    .key = on_key,
    .map_end = on_map_end,
    .array_start = on_start,
    .array_end = on_array_end,
};

/* ------------------------------------------------------------------ as a sink */

static py_builder *
of(pc_sink *sink)
{
    return &((py_sink *)(void *)sink)->builder;
}

static int
check(int rc, pc_err *err)
{
    return rc < 0 ? pc_fail(err, PC_ESTATE, "a Python object could not be made") : 0;
}

static int
put_null(pc_sink *sink, pc_err *err)
{
    return check(on_null(of(sink)), err);
}

static int
put_boolean(pc_sink *sink, int value, pc_err *err)
{
    return check(on_boolean(of(sink), value), err);
}

static int
put_integer(pc_sink *sink, int64_t value, pc_err *err)
{
    return check(on_integer(of(sink), value), err);
}

static int
put_real(pc_sink *sink, double value, pc_err *err)
{
    return check(on_real(of(sink), value), err);
}

static int
put_string(pc_sink *sink, pc_slice utf8, pc_err *err)
{
    return check(on_string(of(sink), utf8), err);
}

static int
put_key(pc_sink *sink, pc_slice name, pc_err *err)
{
    return check(on_key(of(sink), name), err);
}

static int
put_start(pc_sink *sink, pc_err *err)
{
    return check(on_start(of(sink)), err);
}

static int
put_map_end(pc_sink *sink, pc_err *err)
{
    return check(on_map_end(of(sink)), err);
}

static int
put_array_end(pc_sink *sink, pc_err *err)
{
    return check(on_array_end(of(sink)), err);
}

static const pc_sink_ops ops = {
    .null = put_null,
    .boolean = put_boolean,
    .integer = put_integer,
    .real = put_real,
    .string = put_string,
    .map_start = put_start,
    .key = put_key,
    .map_end = put_map_end,
    .array_start = put_start,
    .array_end = put_array_end,
};

void
py_sink_init(py_sink *sink, py_state *state)
{
    sink->sink.ops = &ops;
    py_builder_init(&sink->builder, state, false);
}

void
py_sink_fini(py_sink *sink)
{
    py_builder_fini(&sink->builder);
}

PyObject *
py_sink_take(py_sink *sink)
{
    return py_builder_take(&sink->builder);
}

int
py_builder_setup(PyObject *module)
{
    py_state *state = py_state_of(module);
    PyObject *datetime = PyImport_ImportModule("datetime");
    PyObject *decimal = PyImport_ImportModule("decimal");
    if (datetime != NULL && decimal != NULL) {
        state->epoch = PyObject_CallMethod(datetime, "datetime", "iii", 1970, 1, 1);
        state->timedelta = PyObject_GetAttrString(datetime, "timedelta");
        state->decimal = PyObject_GetAttrString(decimal, "Decimal");
    }
    Py_XDECREF(datetime);
    Py_XDECREF(decimal);
    return state->epoch != NULL && state->timedelta != NULL && state->decimal != NULL ? 0 : -1;
}
