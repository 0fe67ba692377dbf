/* SPDX-License-Identifier: BSD-3-Clause */
/* Configuration dicts as the structs of the core. One py_config owns all the strings, tables and
 * objects that the structs filled with its help point to. The core copies the configurations it is given, so
 * the py_config may go after create(); only `lenders` must be kept as long as the created object. */
#ifndef PC_PY_CONFIG_H
#define PC_PY_CONFIG_H

#include "io/store.h"
#include "py/state.h"

typedef struct py_config {
    py_state *state;
    struct py_block *blocks;  // owned memory
    PyObject *lenders;        // list of Hub and Feed objects, or NULL
} py_config;

void py_config_init(py_config *config, py_state *state);
void py_config_fini(py_config *config);

/* Each fills the struct from a mapping with the keys of the struct's members (TLS: `ssl`), or
 * leaves what is missing or None at its default. -1 with an exception: a value of the wrong type,
 * named. */
int py_config_broker(py_config *config, PyObject *mapping, pc_broker_config *out);
int py_config_store(py_config *config, PyObject *mapping, pc_store_config *out);
int py_config_queue(py_config *config, PyObject *mapping, pc_queue *out);

#endif
