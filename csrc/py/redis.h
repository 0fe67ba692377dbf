/* SPDX-License-Identifier: BSD-3-Clause */
/* Redis: blocking commands on one connection (io/redis_client.h) as a Python object. Any thread may
 * use it; the GIL is released while the core works. */
#ifndef PC_PY_REDIS_H
#define PC_PY_REDIS_H

#include "py/state.h"

int py_redis_setup(PyObject *module);

#endif
