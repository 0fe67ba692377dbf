"""Tasks that are revoked, and what the worker tells about it: for test_t_revoked.py, on both implementations."""
import json
import os
import time

from celery import Celery, signals

queue = os.environ["FLEET_QUEUE"]
app = Celery("revoked", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=queue, control_exchange=f"{queue}-control", event_exchange=f"{queue}-events",
                worker_send_task_events=True, broker_connection_retry_on_startup=True)


@app.task(bind=True)
def nap(self, seconds=0.0):
    time.sleep(seconds)
    return "rested"


@app.task(bind=True)
def hold(self, path):
    """Runs until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.02)
    return "rested"


@signals.task_revoked.connect
def note(sender=None, request=None, terminated=None, signum=None, expired=None, **kwargs):
    """A line in the file ROWS_DATA for each signal."""
    line = {"sender": sender.name, "id": request.id, "terminated": terminated, "signum": None if signum is None else repr(signum),
            "expired": expired, "more": sorted(set(kwargs) - {"signal"}), "task": getattr(request, "task", None) and str(request.task)}
    with open(os.environ["ROWS_DATA"], "a") as file:
        file.write(json.dumps(line) + "\n")
