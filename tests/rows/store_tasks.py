"""Tasks for tests of result stores (T-206): one worker, many backends."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery

app = Celery("stores", broker=os.environ["FLEET_BROKER"], set_as_current=False)
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], worker_prefetch_multiplier=1)


def app_of(url: str) -> Any:
    made = Celery("stores", broker=os.environ["FLEET_BROKER"], backend=url, set_as_current=False)
    made.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_expires=600, result_extended=True)
    return made


for name, url in json.loads(os.environ["FLEET_STORES"]).items():
    backend = app_of(url).backend

    @app.task(name=f"{name}.add", backend=backend)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name=f"{name}.fail", backend=backend)
    def fail() -> None:
        raise KeyError("lost", 3)

    @app.task(name=f"{name}.track", backend=backend, bind=True)
    def track(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"n": 1})
        return str(self.AsyncResult(self.request.id).state)
