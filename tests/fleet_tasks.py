"""Tasks that both implementations run unchanged (see fleet.py)."""

from __future__ import annotations

import json
import os
import time

from celery import Celery
from celery.exceptions import Ignore, Reject

from freeze import freeze

app = Celery("fleet", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"] or None)
app.conf.update(
    task_default_queue=os.environ["FLEET_QUEUE"],
    broker_connection_retry_on_startup=True,
    result_expires=600,
    result_extended=os.environ.get("FLEET_EXTENDED") == "1",
    worker_prefetch_multiplier=int(os.environ.get("FLEET_PREFETCH", "4")),
    broker_transport_options=json.loads(os.environ.get("FLEET_OPTIONS", "{}")),
    result_backend_transport_options=json.loads(os.environ.get("FLEET_STORE_OPTIONS", "{}")),
    **json.loads(os.environ.get("FLEET_SETTINGS", "{}")),
)


class OutOfStock(Exception):
    """An exception of the project's own."""


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def same(value):
    return value


@app.task
def fail(item, count):
    raise OutOfStock(item, count)


@app.task(bind=True, default_retry_delay=0)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(exc=ValueError("not yet"), countdown=0.1, max_retries=times)
    return self.request.retries


@app.task(bind=True)
def about_me(self):
    request = self.request
    return {"id": request.id, "args": list(request.args), "retries": request.retries, "root_id": request.root_id,
            "parent_id": request.parent_id, "hostname": request.hostname, "correlation_id": request.correlation_id,
            "delivery_info": request.delivery_info, "timelimit": request.timelimit}


@app.task
def now():
    return time.time()


@app.task(ignore_result=True)
def forgetful():
    return "nobody sees this"


@app.task(bind=True)
def progress(self):
    time.sleep(0.5)  # so that the client waits by then, and sees every message (C-044)
    self.update_state(state="PROGRESS", meta={"percent": 50})
    time.sleep(0.2)
    return "done"


@app.task
def ignore():
    raise Ignore


@app.task(acks_late=True)
def reject():
    raise Reject("no", requeue=False)


def _mark(number):
    """One byte per task in a shared file, appended to by all processes: how often it ran."""
    with open(os.environ["FLEET_MARKS"], "ab", buffering=0) as file:
        file.write(f"{number}\n".encode())


@app.task(acks_late=True, ignore_result=True)
def late(number, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    _mark(number)


@app.task(acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def late_requeued(number, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    _mark(number)


@app.task(ignore_result=True)
def early(number, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    _mark(number)


@app.task(ignore_result=True)
def noop(number):
    return None


@app.task
def sleep(seconds):
    time.sleep(seconds)
    return "slept"


def _hold(path):
    """Tells in the file `path`.begun that it runs, until there is a file `path`."""
    with open(f"{path}.begun", "w"):
        while not os.path.exists(path):
            time.sleep(0.02)
    return "held"


hold = app.task(_hold, name="fleet.hold")
late_hold = app.task(_hold, name="fleet.late_hold", acks_late=True)


@app.task(acks_late=True)
def die(signum):
    os.kill(os.getpid(), signum)
    time.sleep(10)


@app.task
def early_die(signum):
    die.run(signum)


@app.task
def leave(code):
    raise SystemExit(code)


@app.task(time_limit=1)
def too_long():
    time.sleep(30)


@app.task(soft_time_limit=0.5)
def interrupted(catch):
    from celery.exceptions import SoftTimeLimitExceeded

    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        if not catch:
            raise
    return "cleaned up"


@app.task(track_started=True)
def tracked(seconds):
    time.sleep(seconds)
    return os.getpid()


@app.task
def pid():
    return os.getpid()


@app.task
def grow(mib):
    kept.append(bytearray(mib * 2**20))
    return os.getpid()


kept = []


@app.task(rate_limit="5/s")
def limited():
    return time.time()


@app.task(soft_time_limit=0.5)
def naps(count, seconds):
    for _ in range(count):
        time.sleep(seconds)


def _sends_while_stopped(pid, number):
    """Publishes while the broker, process `pid`, does not confirm."""
    late.delay(0)  # connects
    app.amqp.producer.flush(None)
    freeze(pid)
    late.delay(number)
    return "sent"


early_sender = app.task(_sends_while_stopped, name="fleet.early_sender")
late_sender = app.task(_sends_while_stopped, name="fleet.late_sender", acks_late=True)
