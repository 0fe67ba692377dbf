/* SPDX-License-Identifier: BSD-3-Clause */
/* /livez, /readyz and /metrics of a worker, from a thread of their own.
 *
 * DESIGN. The thread has its own loop and HTTP server and reads nothing but pc_metrics: no interpreter, no lock of the
 * worker's. It blocks all signals. Started before the pool forks; a child closes the descriptors
 * (pc_probe_abandon) and has no such thread. pc_probe_free ends and joins it. */
#ifndef PC_WORK_PROBE_H
#define PC_WORK_PROBE_H

#include "work/metrics.h"

typedef struct pc_probe pc_probe;

/* `metrics` must outlive the probe. PC_EIO when the address cannot be had. */
pc_probe *pc_probe_new(pc_metrics *metrics, const char *host, int port, pc_err *err);
void pc_probe_free(pc_probe *probe);
int pc_probe_port(const pc_probe *probe);
void pc_probe_abandon(pc_probe *probe);

#endif
