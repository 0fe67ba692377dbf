/* SPDX-License-Identifier: BSD-3-Clause */
#include "work/flight.h"

pc_settle
pc_flight_after_outcome(const pc_spec *spec, const pc_outcome *outcome)
{
    if (outcome->flags & PC_OUT_REQUEUE) {
        return PC_REQUEUE;
    }
    if (outcome->flags & PC_OUT_REFUSED) {
        return PC_REJECT;
    }
    if (outcome->flags & PC_OUT_UNDECODABLE) {
        return PC_ACK;
    }
    if (outcome->state == PC_REJECTED) {
        return PC_REJECT;
    }
    if (outcome->state == PC_FAILURE && !spec->acks_on_failure) {
        return PC_REJECT;
    }
    return PC_ACK;
}

pc_settle
pc_flight_after_loss(const pc_spec *spec, const pc_job *job, pc_lost why)
{
    if (job->cancelled) {
        return PC_REQUEUE;
    }
    switch (why) {
    case PC_LOST_HARD:
        return spec->acks_on_timeout ? PC_ACK : PC_REQUEUE;
    case PC_LOST_DIED:
        return spec->reject_on_worker_lost ? PC_REQUEUE : PC_ACK;
    case PC_LOST_TERMINATED:
        break;
    }
    return PC_ACK;
}
