"""What is left of the tasks of a worker that is killed (with Redis: tests/integration/test_redis_broker.py)."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from embedding import embedded
from fleet import ours
from marks import ran, wait_all
from pyceleryc import Celery

pytestmark = pytest.mark.long

TASKS = 40


def test_folder_that_is_away(tmp_path: Path, unique: Callable[[str], str]) -> None:
    """filesystem:// on a disk that is not there for a moment: nothing is lost."""
    folder, away, ran = tmp_path / "q", tmp_path / "away", Counter[int]()
    folder.mkdir()
    app = Celery("away", broker="filesystem://", set_as_current=False)
    app.conf.update(task_default_queue=unique("away"), broker_transport_options={
        "data_folder_in": str(folder), "data_folder_out": str(folder), "control_folder": f"{tmp_path}/control", "polling_interval": 0.02})
    begun = threading.Event()

    @app.task(acks_late=True, ignore_result=True)
    def slow(number: int) -> None:
        begun.set()
        time.sleep(0.2)
        ran[number] += 1

    with embedded(app, pool="threads", concurrency=1) as worker:
        for number in range(6):
            slow.delay(number)
        assert begun.wait(20)
        folder.rename(away)
        deadline = time.monotonic() + 40
        while worker.machine.connected and time.monotonic() < deadline:  # type: ignore[union-attr]
            time.sleep(0.01)
        away.rename(folder)
        while len(ran) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert sorted(ran) == list(range(6))
    app.close()


@pytest.mark.parametrize("kind", ["amqp", "sqlite", "filesystem"])
def test_killed_worker(kind: str, request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> None:
    """Late acks: every task runs, and only those in flight twice. Early ones in the same worker: none runs twice."""
    side, marks, extra = ours(), tmp_path / "marks", {}
    marks.touch()
    if kind == "filesystem":
        extra["FLEET_OPTIONS"] = json.dumps({
            "data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path / "control"),
            "polling_interval": 0.05})
    broker = {"amqp": lambda: str(request.getfixturevalue("amqp_url")), "sqlite": lambda: f"sqlite:///{tmp_path}/queue.db",
              "filesystem": lambda: "filesystem://"}[kind]()
    env = side.env(broker, None, unique("killed"), FLEET_MARKS=str(marks), FLEET_PREFETCH="4", **extra)

    script = f"""
for number in range({TASKS}):
    (tasks.late if number % 2 else tasks.early).delay(number, 0.05)
result = None
"""
    try:
        side.client(script, env)
        with side.worker(env, "-c", "2") as worker:
            wait_all(marks, 8, 40)
            worker.kill_group()
        early = {number for number in range(0, TASKS, 2)}
        with side.worker(env, "-c", "2"):
            # an early one may have been acknowledged when it was killed: it is not to come back
            wait_all(marks, TASKS - 2, 40)
            deadline = time.monotonic() + 20
            while not set(range(1, TASKS, 2)) <= set(ran(marks)) and time.monotonic() < deadline:
                time.sleep(0.02)
    finally:
        if kind != "filesystem":
            side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)
    seen = ran(marks)
    assert set(range(1, TASKS, 2)) <= set(seen), "late acks: nothing is lost"
    assert sum(count - 1 for count in seen.values()) <= 2 * 5, "only those in flight run twice"
    assert len(early - set(seen)) <= 2, "early acks: only what ran is lost"
