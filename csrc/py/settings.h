/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's configuration dict as the core's struct. */
#ifndef PC_PY_SETTINGS_H
#define PC_PY_SETTINGS_H

#include "py/config.h"
#include "work/worker.h"

#define PY_ACCEPT_MAX 64

typedef struct py_settings {
    pc_worker_config worker;  // its texts are the dict's and `config`'s
    pc_broker_config broker;
    pc_store_config store;
    const char *accept[PY_ACCEPT_MAX + 1];
} py_settings;

int py_settings_read(PyObject *mapping, py_config *config, py_settings *out);

/* One entry of a dict, `missing` when it is not there or None. A value of the wrong type sets an
 * exception. The texts and the object are borrowed. */
PyObject *py_get(PyObject *mapping, const char *name);
long py_get_long(PyObject *mapping, const char *name, long missing);
double py_get_double(PyObject *mapping, const char *name, double missing);
bool py_get_bool(PyObject *mapping, const char *name, bool missing);
const char *py_get_text(PyObject *mapping, const char *name, const char *missing);

#endif
