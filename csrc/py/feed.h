/* SPDX-License-Identifier: BSD-3-Clause */
/* Feed: messages from a broker that only Python can talk to (kombu's transports), as a source of the machine.
 *
 * Python consumes in a thread of its own and says what happened: push(), up(), down(), cancelled(). What the machine
 * wants it says to the feed's target: connect(), add(name), drop(name), prefetch(count), settle([(tag, how)]), pause(),
 * close(seconds). */
#ifndef PC_PY_FEED_H
#define PC_PY_FEED_H

#include "io/broker.h"
#include "py/state.h"

/* Sets `source` and `source_ctx` (lent by the object); -1 with TypeError when it is no Feed. */
int py_feed_fill(py_state *state, PyObject *obj, pc_broker_config *config);

int py_feed_setup(PyObject *module);

#endif
