/* SPDX-License-Identifier: BSD-3-Clause */
/* What the module owns: its exception classes and types, the Python functions it calls, and
 * interned strings. There is one per module object, so nothing here is global. Objects of our
 * types keep a pointer to it; it lives as long as their type does. Touched with the GIL only.
 *
 * The members are listed once, below, and the lists are expanded for the struct, for traverse
 * and for clear. Who needs a member adds it to a list and sets it in its py_<noun>_setup(). */
#ifndef PC_PY_STATE_H
#define PC_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/buf.h"

#define PY_STATE_OBJECTS(X) \
    X(core_error)           \
    X(connection_lost)      \
    X(access_refused)       \
    X(timeout)              \
    X(window_full)          \
    X(not_found)            \
    X(bad_data)             \
    X(unsupported)          \
    X(json_dumps)           \
    X(json_loads)           \
    X(json_hook)            \
    X(saferepr)             \
    X(epoch)                \
    X(timedelta)            \
    X(decimal)              \
    X(hub_type)             \
    X(template_type)        \
    X(batch_type)           \
    X(producer_type)        \
    X(results_type)         \
    X(redis_type)           \
    X(record_type)          \
    X(tracer_type)          \
    X(lazy_type)            \
    X(job_type)             \
    X(feed_type)            \
    X(line_type)            \
    X(line_run_type)        \
    X(worker_type)          \
    X(confirming)

/* Interned strings; the member of `exchange` is str_exchange. */
#define PY_STATE_NAMES(X) \
    X(content_type)       \
    X(content_encoding)   \
    X(correlation_id)     \
    X(reply_to)           \
    X(expiration)         \
    X(message_id)         \
    X(type)               \
    X(user_id)            \
    X(app_id)             \
    X(cluster_id)         \
    X(timestamp)          \
    X(delivery_mode)      \
    X(priority)           \
    X(exchange)           \
    X(routing_key)        \
    X(redelivered)        \
    X(items)              \
    X(__type__)           \
    X(__value__)

#define PY_KEY_SLOTS 256
#define PY_KEY_MAX 64  // longer keys are not cached

#define PY_MEMBER(name) PyObject *name;
#define PY_NAME(name) PyObject *str_##name;

typedef struct py_state {
    PY_STATE_OBJECTS(PY_MEMBER)
    PY_STATE_NAMES(PY_NAME)
    struct py_run *open;  // runs of messages whose outcome is not decided, of all threads
    uint64_t published;  // messages sent by our producers: the tracer flushes when it grew
    PyObject *keys[PY_KEY_SLOTS];  // recent dict keys by hash; NULL: free
} py_state;

static inline py_state *
py_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* The state behind one of our types (they cannot be subclassed). */
static inline py_state *
py_state_of_type(PyTypeObject *type)
{
    return PyType_GetModuleState(type);
}

/* Makes the interned strings. */
int py_state_setup(PyObject *module);
int py_state_traverse(PyObject *module, visitproc visit, void *arg);
int py_state_clear(PyObject *module);

/* A str for a dict key, from the cache if it is there. UnicodeDecodeError when it is not UTF-8. */
PyObject *py_key(py_state *state, pc_slice name);

/* Makes a type from its spec, keeps it in *slot and, unless it is to be hidden (public false),
 * adds it to the module. */
int py_type_add(PyObject *module, PyType_Spec *spec, PyObject **slot, bool public);

#endif
