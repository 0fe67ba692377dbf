/* SPDX-License-Identifier: BSD-3-Clause */
/* What becomes of a message once its task came to an end: the ack rules, here and nowhere else (PROTOCOL §3.2). */
#ifndef PC_WORK_FLIGHT_H
#define PC_WORK_FLIGHT_H

#include "io/broker.h"
#include "work/pool.h"

/* After a run that came to an outcome. */
pc_settle pc_flight_after_outcome(const pc_spec *spec, const pc_outcome *outcome);
/* After a run whose process is gone. */
pc_settle pc_flight_after_loss(const pc_spec *spec, const pc_job *job, pc_lost why);

#endif
