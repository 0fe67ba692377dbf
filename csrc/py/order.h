/* SPDX-License-Identifier: BSD-3-Clause */
/* TaskTemplate, and the making of one task message from a template and the arguments of
 * Producer.send(). */
#ifndef PC_PY_ORDER_H
#define PC_PY_ORDER_H

#include "base/clock.h"
#include "base/uuid.h"
#include "py/state.h"
#include "wire/message.h"

/* Memory of one send(), kept by the producer for the next. */
typedef struct py_scratch {
    struct py_scratch *next;
    pc_buf body;
    pc_buf headers;
    pc_buf argsrepr;
    pc_buf kwargsrepr;
} py_scratch;

py_scratch *py_scratch_new(void);
void py_scratch_free(py_scratch *scratch);

/* Those of a producer that are not in use; with the GIL only. */
typedef struct py_scratches {
    py_scratch *spare;
    int n;
} py_scratches;

/* NULL with an exception. */
py_scratch *py_scratch_take(py_scratches *scratches);
void py_scratch_give_back(py_scratches *scratches, py_scratch *scratch);
void py_scratches_fini(py_scratches *scratches);

/* Arguments of send() */
enum {
    PY_SEND_TEMPLATE,
    PY_SEND_TASK_ID,
    PY_SEND_ARGS,
    PY_SEND_KWARGS,
    PY_SEND_REPLY_TO,
    PY_SEND_ROOT_ID,
    PY_SEND_PARENT_ID,
    PY_SEND_RETRIES,
    PY_SEND_ETA,
    PY_SEND_EXPIRES,
    PY_SEND_EXPIRATION,
    PY_SEND_ARGSREPR,
    PY_SEND_KWARGSREPR,
    PY_SEND_EMBED,
    PY_SEND_TIMEOUT,
    PY_SEND_COUNT,
    // of Batch.send() only
    PY_SEND_GROUP = PY_SEND_COUNT,
    PY_SEND_GROUP_INDEX,
    PY_SEND_MEMBER_COUNT
};

typedef struct py_order {
    pc_message message;  // points into the scratch, the arguments and `id`
    pc_wall due;         // when has_due
    bool has_due;
    char id[PC_UUID_LEN + 1];
} py_order;

/* Makes the message of PY_SEND_COUNT or PY_SEND_MEMBER_COUNT arguments. The scratch and the
 * arguments must stay until it is published. */
int py_order_make(py_order *order, py_state *state, pc_headers_kind kind,
                  PyObject *const *args, Py_ssize_t nargs, py_scratch *scratch);
/* The id that send() returns. */
PyObject *py_order_id(const py_order *order, PyObject *const *args);

int py_template_setup(PyObject *module);

#endif
