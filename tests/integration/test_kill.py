"""Processes killed at the worst moments: nothing that was accepted is lost (DESIGN §4, T-003..T-008)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers import PrivateRabbitMQ
from fleet import Side, Worker, ours
from marks import ran, wait_all

TASKS = int(os.environ.get("KILL_TASKS", "2500"))
KILLS = int(os.environ.get("KILL_TIMES", "6"))  # more: tests/soak/soak_kills.py


@pytest.fixture
def side() -> Side:
    return ours()


@pytest.fixture(params=["rabbitmq", "sqlite"])
def env(request: pytest.FixtureRequest, side: Side, marks: Path, tmp_path: Path,
        unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    broker = request.getfixturevalue("amqp_url") if request.param == "rabbitmq" else f"sqlite:///{tmp_path}/queue.db"
    made = side.env(broker, None, unique("kill"), FLEET_MARKS=str(marks), FLEET_PREFETCH="32")
    yield made
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", made)


def publish(side: Side, env: dict[str, str], task: str, count: int) -> None:
    script = f"""
for number in range({count}):
    tasks.{task}.delay(number)
tasks.app.amqp.producer.flush(30.0)
result = None
"""
    side.client(script, env)


@pytest.mark.limit(240)
def test_worker_killed_again_and_again(side: Side, env: dict[str, str], marks: Path) -> None:
    """kill -9 of the whole worker under load: every late-ack task runs; doubles are at most what was in flight."""
    publish(side, env, "late", TASKS)
    chance = random.Random(7)
    in_flight = 2 * 32
    for _ in range(KILLS):
        worker = Worker(side, env)
        worker.wait_ready()
        time.sleep(chance.uniform(0.0, 0.15))
        worker.kill_group()
        worker.end()
        if len(ran(marks)) == TASKS:
            break
    with side.worker(env):
        seen = wait_all(marks, TASKS, 60)
    assert set(seen) == set(range(TASKS))
    assert sum(seen.values()) - TASKS <= KILLS * in_flight


@pytest.mark.limit(120)
def test_child_killed_in_mid_task(side: Side, env: dict[str, str], marks: Path) -> None:
    """With reject_on_worker_lost the killed task runs again, and the others are not touched."""
    with side.worker(env) as worker:
        side.client("for n in range(40):\n    tasks.late_requeued.delay(n, 0.1)\nresult = None", env)
        deadline = time.monotonic() + 20
        killed = 0
        while killed < 5 and time.monotonic() < deadline:
            time.sleep(0.15)
            children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
            if children:
                try:
                    os.kill(int(random.choice(children)), signal.SIGKILL)
                except ProcessLookupError:  # it was just replaced
                    continue
                killed += 1
        seen = wait_all(marks, 40, 30)
    assert set(seen) == set(range(40))
    assert sum(seen.values()) <= 40 + killed


@pytest.mark.limit(120)
def test_early_ack_never_runs_twice(side: Side, env: dict[str, str], marks: Path) -> None:
    """A child killed in mid-task: an early-ack task is gone, and nothing runs twice."""
    with side.worker(env) as worker:
        side.client("for n in range(20):\n    tasks.early.delay(n, 0.1)\nresult = None", env)
        wait_all(marks, 2, 30)
        children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        seen = wait_all(marks, 19, 30)
        time.sleep(0.5)
        seen = ran(marks)
    assert max(seen.values()) == 1
    assert len(seen) in (19, 20)


@pytest.mark.limit(240)
def test_broker_restarted_under_load(
    side: Side, marks: Path, unique: Callable[[str], str], breakable_rabbitmq: PrivateRabbitMQ,
) -> None:
    """RabbitMQ is killed while tasks run and are published: none lost, consuming again soon."""
    server = breakable_rabbitmq
    env = side.env(server.url, None, unique("restart"), FLEET_MARKS=str(marks))
    with side.worker(env) as worker:
        publish(side, env, "late", 3000)
        time.sleep(0.2)
        server.kill()
        worker.wait_for("Trying again", 30)
        server.start()
        up = time.monotonic()
        while worker.text().count("Connected to") < 2:
            assert time.monotonic() - up < 30, worker.text()[-3000:]
            time.sleep(0.02)
        assert time.monotonic() - up <= 15  # five, if the machine is idle
        publish(side, env, "late", 3000)
        seen = wait_all(marks, 3000, 60)
    assert set(seen) == set(range(3000))


@pytest.mark.limit(60)
def test_killed_child_is_a_worker_lost_error(side: Side, redis_url: str, amqp_url: str, unique: Callable[[str], str]) -> None:
    """T-007: acknowledged, FAILURE WorkerLostError; so is a task that leaves its process."""
    env = side.env(amqp_url, redis_url, unique("lost"))
    script = """
from celery.exceptions import WorkerLostError
def outcome(r):
    try:
        return r.get(timeout=20)
    except WorkerLostError as exc:
        return [r.state, str(exc)]
result = [outcome(tasks.die.delay(9)), outcome(tasks.leave.delay(3)), tasks.add.delay(1, 1).get(timeout=20),
          tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, 5.0)[0]]
"""
    with side.worker(env):
        killed, left, alive, waiting = side.client(script, env)
    assert killed[0] == left[0] == "FAILURE"
    assert "signal 9" in killed[1]
    assert "exitcode 3" in left[1]
    assert alive == 2
    assert waiting == 0
