"""A worker whose result store is away when a task ends: the result is there when the store is back (soak_stores.sh)."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

import brokers
import stores
from fleet import ours
from pyceleryc.app.base import Celery

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("kind", "options"), [(stores.PrivateMongoDB, "?serverSelectionTimeoutMS=300"), (stores.PrivateCouchDB, "")])
def test_the_worker_keeps_a_result_until_the_store_is_back(kind: Any, options: str) -> None:
    queue = f"outage-{uuid.uuid4().hex[:8]}"
    with brokers.amqp_server() as broker, stores.private(kind) as server:
        url = server.url + options
        env = ours().env(broker, url, queue, FLEET_APP="shared_tasks", FLEET_SETTINGS=json.dumps({"task_acks_late": True}),
                         PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parents[1])]))
        app = Celery("t", broker=broker, backend=url, set_as_current=False, task_default_queue=queue)
        with ours().worker(env, "-c", "1") as worker:
            assert app.send_task("shared_tasks.add", (1, 1), ignore_result=False).get(timeout=30) == 2
            server.kill()
            sent = app.send_task("shared_tasks.add", (2, 3), ignore_result=False)
            worker.wait_for("Trying again in 1 s")
            server.start()
            assert sent.get(timeout=30) == 5
            assert worker.text().count(f"{sent.id}] received") == 1
        app.amqp.producer.remove(queue, 5.0)
