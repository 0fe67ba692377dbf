"""Tasks for tests of remote control and events, for both implementations; its names in the broker are its own."""

from __future__ import annotations

import os
import time

from celery import Celery
from celery.worker.control import control_command, inspect_command

name = os.environ["FLEET_QUEUE"]
app = Celery("ctl", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"] or None)
app.conf.update(
    task_default_queue=name,
    control_exchange=f"{name}-control",
    event_exchange=f"{name}-events",
    broker_connection_retry_on_startup=True,
    task_send_sent_event=os.environ.get("FLEET_SENT") == "1",
)


@app.task(name="ctl.add")
def add(x, y):
    return x + y


@app.task(name="ctl.nap")
def nap(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="ctl.fail")
def fail(text):
    raise KeyError(text)


@app.task(name="ctl.again", bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="ctl.tell", bind=True)
def tell(self):
    self.send_event("task-progress", done=3)


@app.task(name="ctl.quiet", send_events=False)
def quiet():
    return None


@control_command(args=[("n", int)], signature="[N=1]")
def set_level(state, n=1):
    """Set a level."""
    return {"ok": f"{state.hostname} {n + 1}"}


@inspect_command()
def greet(state):
    """Say hello."""
    return f"hello from {state.app.main}"
