"""Tasks of the acknowledgement matrix: every ending of a task, with every way to acknowledge."""

from __future__ import annotations

import os
import signal
import time

from celery import Celery
from celery.exceptions import Ignore, Reject
from kombu import Exchange, Queue
from redis import Redis

QUEUE = os.environ["FLEET_QUEUE"]
DEAD = f"{QUEUE}-dead"

app = Celery("acks", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, Exchange(""), routing_key=QUEUE,
                       queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD})],
    task_default_exchange="", task_default_routing_key=QUEUE,
    result_expires=600, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=16,
    task_publish_retry=False,
)
redis = Redis.from_url(os.environ["FLEET_BACKEND"])


def begin(task_id):
    """Counts this run of the message; true in the first."""
    count = redis.incr(f"acks-runs-{task_id}")
    redis.expire(f"acks-runs-{task_id}", 600)
    return count == 1


def body(self, case):
    first = begin(self.request.id)
    if not first:
        return "again"
    if case == "failure":
        raise ValueError("bad")
    if case == "ignore":
        raise Ignore
    if case == "reject":
        raise Reject("no", requeue=False)
    if case == "requeue":
        raise Reject("again", requeue=True)
    if case == "retry":
        raise self.retry(exc=ValueError("later"), countdown=0.1)
    if case == "child":
        time.sleep(0.3)  # by then the parent knows that the task runs, and has acknowledged it if that is to be early
        os.kill(os.getpid(), signal.SIGKILL)
    if case in ("hard", "soft", "parent"):
        time.sleep(30)
    return "done"


TASKS = {
    (late, lost): app.task(bind=True, name=f"acks.{'late' if late else 'early'}{'.lost' if lost else ''}", acks_late=late,
                           reject_on_worker_lost=lost)(body)
    for late in (False, True) for lost in (False, True)
}
# The further options, all with late acknowledgement.
TASKS |= {
    "neither": app.task(bind=True, name="acks.neither", acks_late=True, acks_on_failure_or_timeout=False)(body),
    "not failure": app.task(bind=True, name="acks.not_failure", acks_late=True, acks_on_failure=False)(body),
    "not timeout": app.task(bind=True, name="acks.not_timeout", acks_late=True, acks_on_timeout=False)(body),
}
