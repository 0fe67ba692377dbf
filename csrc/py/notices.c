/* SPDX-License-Identifier: BSD-3-Clause */
#include "py/notices.h"

#define KEPT_MAX ((size_t)64 * 1024)

typedef struct entry {
    int level;
    size_t len;
} entry;

static int
keep(py_notices *n, const entry *what, const char *text)
{
    pc_buf *kept = &n->kept;
    if (pc_buf_len(kept) + what->len > KEPT_MAX
        || pc_buf_reserve(kept, sizeof *what + what->len, NULL) == NULL) {
        return -1;
    }
    return pc_buf_put(kept, what, sizeof *what, NULL) < 0
                   || pc_buf_put(kept, text, what->len, NULL) < 0
               ? -1
               : 0;
}

static void
write_notice(void *ctx, pc_level level, const char *text, size_t len)
{
    py_notices *n = ctx;
    entry what = {(int)level, len};
    pthread_mutex_lock(&n->lock);
    n->lost += keep(n, &what, text) < 0;
    pthread_mutex_unlock(&n->lock);
    atomic_store_explicit(&n->any, true, memory_order_relaxed);
}

int
py_notices_init(py_notices *notices, PyObject *take)
{
    *notices = (py_notices){0};
    pc_buf_init(&notices->kept);
    if (take == NULL || take == Py_None) {
        return 0;
    }
    if (pthread_mutex_init(&notices->lock, NULL) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    notices->log = (pc_log){PC_WARNING, write_notice, notices};
    notices->take = Py_NewRef(take);
    return 0;
}

void
py_notices_fini(py_notices *notices)
{
    if (notices->take != NULL) {
        pthread_mutex_destroy(&notices->lock);
        Py_CLEAR(notices->take);
    }
    pc_buf_fini(&notices->kept);
}

const pc_log *
py_notices_log(const py_notices *notices)
{
    return notices->take == NULL ? NULL : &notices->log;
}

static void
call(py_notices *n, PyObject *args)
{
    PyObject *done = args == NULL ? NULL : PyObject_CallObject(n->take, args);
    if (done == NULL) {
        PyErr_WriteUnraisable(n->take);
    }
    Py_XDECREF(done);
    Py_XDECREF(args);
}

void
py_notices_hand_out(py_notices *n)
{
    pc_buf taken;
    PyObject *type, *value, *traceback;
    entry what;
    atomic_store_explicit(&n->any, false, memory_order_relaxed);
    PyErr_Fetch(&type, &value, &traceback);
    // Held for moments only, and by nobody who waits for the GIL.
    pthread_mutex_lock(&n->lock);
    taken = n->kept;
    unsigned long lost = n->lost;
    pc_buf_init(&n->kept);
    n->lost = 0;
    pthread_mutex_unlock(&n->lock);
    while (pc_buf_len(&taken) > 0) {
        memcpy(&what, pc_buf_ptr(&taken), sizeof what);
        pc_buf_consume(&taken, sizeof what);
        PyObject *text = PyUnicode_DecodeUTF8(pc_buf_ptr(&taken), (Py_ssize_t)what.len, "replace");
        pc_buf_consume(&taken, what.len);
        call(n, text == NULL ? NULL : Py_BuildValue("iN", what.level, text));
    }
    if (lost > 0) {
        call(n, Py_BuildValue("iN", PC_ERROR, PyUnicode_FromFormat("%lu more notices like these were dropped", lost)));
    }
    pc_buf_fini(&taken);
    PyErr_Restore(type, value, traceback);
}
