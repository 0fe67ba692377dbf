"""Far ETAs wait in RabbitMQ, not in the worker (DESIGN D10): nothing of that is lost when worker or broker die."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brokers import PrivateRabbitMQ
from fleet import Worker, ours
from marks import wait_all

TASKS = 300
PARKED = """
import time
due = time.time() + 4
for number in range(300):
    tasks.late.apply_async((number,), countdown=4)
tasks.app.amqp.producer.flush(30.0)
result = due
"""


@pytest.mark.limit(120)
def test_worker_and_broker_killed_while_tasks_are_parked(
    tmp_path: Path, unique: Callable[[str], str], breakable_rabbitmq: PrivateRabbitMQ,
) -> None:
    side, marks = ours(), tmp_path / "marks"
    marks.touch()
    server = breakable_rabbitmq
    env = side.env(server.url, None, unique("park"), FLEET_MARKS=str(marks),
                   FLEET_SETTINGS=json.dumps({"worker_park_eta_after": 0.5}))
    first = Worker(side, env)
    first.wait_ready()
    due = side.client(PARKED, env)
    first.kill_group()  # whatever it is doing: taking in, parking, settling
    first.end()
    with side.worker(env) as worker:
        server.kill()
        server.start()
        seen = wait_all(marks, TASKS, 40)
        assert time.time() >= due
        log = worker.text()
    # more than once only what was between copy and ack when one of them died
    assert sum(seen.values()) <= 2 * TASKS
    assert "held here" not in log
