/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/state.h"

#define INTERN(name)                                                \
    if (failed == 0) {                                              \
        state->str_##name = PyUnicode_InternFromString(#name);      \
        failed = state->str_##name == NULL ? -1 : 0;                \
    }
#define VISIT(name) Py_VISIT(state->name);
#define CLEAR(name) Py_CLEAR(state->name);
#define CLEAR_NAME(name) Py_CLEAR(state->str_##name);

int
py_state_setup(PyObject *module)
{
    py_state *state = py_state_of(module);
    int failed = 0;
    PY_STATE_NAMES(INTERN)
    return failed;
}

int
py_state_traverse(PyObject *module, visitproc visit, void *arg)
{
    py_state *state = py_state_of(module);
    PY_STATE_OBJECTS(VISIT)  // strings can be in no cycle
    return 0;
}

int
py_state_clear(PyObject *module)
{
    py_state *state = py_state_of(module);
    PY_STATE_OBJECTS(CLEAR)
    PY_STATE_NAMES(CLEAR_NAME)
    for (size_t i = 0; i < PY_KEY_SLOTS; i++) {
        Py_CLEAR(state->keys[i]);
    }
    return 0;
}

/* FNV-1a; false when a byte is not ASCII. */
static bool
hash_key(pc_slice name, size_t *slot)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c >= 0x80) {
            return false;
        }
        hash = (hash ^ c) * 16777619U;
    }
    *slot = (hash ^ hash >> 16) % PY_KEY_SLOTS;
    return true;
}

static bool
is_cached(PyObject *cached, pc_slice name)
{
    return cached != NULL && (size_t)PyUnicode_GET_LENGTH(cached) == name.len
           && memcmp(PyUnicode_1BYTE_DATA(cached), name.ptr, name.len) == 0;
}

PyObject *
py_key(py_state *state, pc_slice name)
{
    size_t slot;
    if (name.len == 0 || name.len > PY_KEY_MAX || !hash_key(name, &slot)) {
        return PyUnicode_DecodeUTF8(name.ptr, (Py_ssize_t)name.len, NULL);
    }
    if (is_cached(state->keys[slot], name)) {
        return Py_NewRef(state->keys[slot]);
    }
    PyObject *made = PyUnicode_FromStringAndSize(name.ptr, (Py_ssize_t)name.len);
    if (made == NULL) {
        return NULL;
    }
    // Not interned: an interned string of the documents' choice would live for ever on some versions.
    Py_XSETREF(state->keys[slot], Py_NewRef(made));
    return made;
}

int
py_type_add(PyObject *module, PyType_Spec *spec, PyObject **slot, bool public)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) {
        return -1;
    }
    Py_XSETREF(*slot, type);
    return public ? PyModule_AddType(module, (PyTypeObject *)type) : 0;
}
