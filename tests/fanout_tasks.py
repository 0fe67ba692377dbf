"""Queues of fanout exchanges, for both implementations (see fleet.py)."""

from __future__ import annotations

import json
import os

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

app = Celery("fanout", broker=os.environ["FLEET_BROKER"])
app.conf.update(
    task_queues=[Queue(os.environ["FLEET_QUEUE"]), Broadcast("news"),
                 Queue(f"alerts-{os.environ.get('FLEET_NAME', '')}", Exchange("alerts", "fanout"), routing_key="disk.#", auto_delete=True)],
    task_default_queue=os.environ["FLEET_QUEUE"],
    task_routes={"fanout_tasks.news": {"queue": "news"}},
    task_ignore_result=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("FLEET_OPTIONS", "{}")),
)


@app.task
def news(number):
    with open(os.environ["FLEET_MARKS"], "ab", buffering=0) as file:
        file.write(f"{os.environ['FLEET_NAME']}-{number}\n".encode())
