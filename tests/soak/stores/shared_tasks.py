"""Tasks for both implementations; the result store and its settings come from the environment (fleets.py)."""

from __future__ import annotations

import json
import os

import emulated  # noqa: F401  before the store is chosen
from celery import Celery

app = Celery("shared", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], worker_prefetch_multiplier=1, result_expires=600, result_extended=True,
                result_chord_retry_interval=0.3, **json.loads(os.environ["FLEET_SETTINGS"]))


@app.task
def add(x, y):
    return x + y


@app.task
def fail(item):
    raise KeyError(item, 3)


@app.task
def total(numbers):
    return sum(numbers)
