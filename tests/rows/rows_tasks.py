"""Tasks of the rows that need a running worker; one section for each chapter of the guides."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("rows", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_expires=600, broker_connection_retry_on_startup=True)


@app.task
def add(x, y):
    return x + y
