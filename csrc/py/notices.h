/* SPDX-License-Identifier: BSD-3-Clause */
/* What the core wants logged where no Python may run (in a thread of its own, in a call without the GIL): kept
 * until somebody who has the GIL passes by. */
#ifndef PC_PY_NOTICES_H
#define PC_PY_NOTICES_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/log.h"
#include "py/state.h"

typedef struct py_notices {
    pc_log log;         // for the core; copied by nobody, so this must outlive what it was given to
    PyObject *take;     // take(level, text); NULL: there is no log
    atomic_bool any;
    pthread_mutex_t lock;
    // guarded by it
    pc_buf kept;        // level, length, text; again and again
    unsigned long lost; // more than may be kept
} py_notices;

/* `take` may be None. */
int py_notices_init(py_notices *notices, PyObject *take);
void py_notices_fini(py_notices *notices);
/* What the core is to be given; NULL when nobody wants to know. */
const pc_log *py_notices_log(const py_notices *notices);

void py_notices_hand_out(py_notices *notices);

/* With the GIL. An exception that is set stays. */
static inline void
py_notices_pass(py_notices *notices)
{
    if (atomic_load_explicit(&notices->any, memory_order_relaxed)) {
        py_notices_hand_out(notices);
    }
}

#endif
