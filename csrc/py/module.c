/* SPDX-License-Identifier: BSD-3-Clause */
/* The extension module: what it consists of is the table below. Each part adds its types and
 * functions to the module in its py_<noun>_setup(). */
#include "base/mem.h"
#include "py/batch.h"
#include "py/builder.h"
#include "py/error.h"
#include "py/feed.h"
#include "py/hub.h"
#include "py/json.h"
#include "py/line.h"
#include "py/message.h"
#include "py/order.h"
#include "py/producer.h"
#include "py/redis.h"
#include "py/results.h"
#include "py/lazy.h"
#include "py/state.h"
#include "py/trace.h"
#include "py/worker.h"

/* amqps is amqp with `ssl`. */
static int
add_schemes(PyObject *module)
{
    static const char *const names[] = {"amqp", "amqps", "redis", "sqlite", "memory"};
    PyObject *schemes = PyFrozenSet_New(NULL);
    int rc = schemes == NULL ? -1 : 0;
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof names[0]; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        rc = name == NULL ? -1 : PySet_Add(schemes, name);
        Py_XDECREF(name);
    }
    if (rc == 0) {
        rc = PyModule_AddObjectRef(module, "SCHEMES", schemes);
    }
    Py_XDECREF(schemes);
    return rc;
}

static int (*const setups[])(PyObject *module) = {
    py_state_setup,    py_error_setup,    py_builder_setup, py_json_setup,    py_message_setup,
    py_hub_setup,      py_template_setup, py_producer_setup, py_batch_setup,
    py_results_setup,  py_redis_setup,    py_lazy_setup,    py_trace_setup,    py_job_setup,
    py_feed_setup,     py_line_setup,    py_worker_setup,  add_schemes,
};

/* Another module object would set the same functions again, which changes nothing. */
static void
route_memory(void)
{
    static const pc_mem_funcs funcs = {PyMem_RawMalloc, PyMem_RawRealloc, PyMem_RawFree};
    pc_mem_set(&funcs);
}

static int
exec(PyObject *module)
{
    route_memory();
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        if (setups[i](module) < 0) {
            return -1;
        }
    }
    return 0;
}

static void
free_module(void *module)
{
    py_state_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
    {0, NULL},
};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyceleryc._core",
    .m_doc = "The C core of pyceleryc. Private: see _core.pyi.",
    .m_size = sizeof(py_state),
    .m_slots = slots,
    .m_traverse = py_state_traverse,
    .m_clear = py_state_clear,
    .m_free = free_module,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
