"""Workers of the pool asyncio that end, in order or not: nothing is lost (DESIGN §4)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import wait_until
from fleet import Side, Worker, ours
from marks import ran, wait_all

TASKS, KILLS, SIZE = 1500, 5, 100
OPTIONS = ("-P", "asyncio", "-c", str(SIZE))


@pytest.fixture
def side() -> Side:
    return ours()


@pytest.fixture(params=["amqp", "redis"])
def env(request: pytest.FixtureRequest, side: Side, marks: Path, redis_url: str, unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    options = '{"visibility_timeout": 2}' if request.param == "redis" else "{}"  # seconds until what a killed worker held is given out again
    made = side.env(request.getfixturevalue(f"{request.param}_url"), redis_url, unique("asyncio-kill"), FLEET_MARKS=str(marks),
                    FLEET_PREFETCH="2", FLEET_APP="asyncio_tasks", FLEET_OPTIONS=options)
    yield made
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", made)


def waiting(side: Side, env: dict[str, str]) -> int:
    return int(side.client("result = tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, 5.0)[0]", env))


@pytest.mark.limit(180)
def test_killed_again_and_again(side: Side, env: dict[str, str], marks: Path) -> None:
    """kill -9 with a hundred coroutines under way: every late-ack task runs; doubles are at most what was in flight."""
    side.client(f"for number in range({TASKS}):\n    tasks.late.delay(number)\ntasks.app.amqp.producer.flush(30.0)\nresult = None", env)
    chance = random.Random(11)
    for _ in range(KILLS):
        worker = Worker(side, env, OPTIONS)
        worker.wait_ready()
        time.sleep(chance.uniform(0.05, 0.25))
        worker.kill_group()
        worker.end()
    assert len(ran(marks)) < TASKS
    with side.worker(env, *OPTIONS):
        seen = wait_all(marks, TASKS, 60)
    assert set(seen) == set(range(TASKS))
    assert sum(seen.values()) - TASKS <= KILLS * SIZE * 2


def test_warm_shutdown(side: Side, env: dict[str, str], marks: Path) -> None:
    """What is under way is finished, stored and acknowledged, the rest is in the queue again at once."""
    with side.worker(env, "-P", "asyncio", "-c", "5") as worker:
        ids = side.client("result = [tasks.nap.delay(n, 2).id for n in range(8)]", env)
        wait_until(lambda: worker.text().count("received") == 8)
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: waiting(side, env) == 3)
        assert worker.process.wait(20) == 0
    states = side.client(f"result = [tasks.app.AsyncResult(id).state for id in {ids!r}]", env)
    assert states.count("SUCCESS") == 5 and states.count("PENDING") == 3


def test_cold_shutdown(side: Side, env: dict[str, str]) -> None:
    """SIGQUIT: what is under way is cancelled, and may clean up; late-ack tasks go back, early-ack ones are marked."""
    with side.worker(env, *OPTIONS) as worker:
        early = side.client("[tasks.long_nap.delay() for _ in range(20)]\nresult = [tasks.nap.delay(n, 60).id for n in range(20)]", env)
        wait_until(lambda: worker.text().count("received") == 40)
        time.sleep(0.3)
        assert worker.stop(signal.SIGQUIT) == 1
        assert worker.text().count("cleaned up") == 20
    assert waiting(side, env) == 20
    assert side.client(f"result = [tasks.app.AsyncResult(id).state for id in {early!r}]", env) == ["RETRY"] * 20


def test_shutdown_while_the_loop_is_blocked(side: Side, env: dict[str, str]) -> None:
    """Warm, it waits for what blocks it; cold, that is interrupted when it comes back from its system call."""
    with side.worker(env, *OPTIONS) as worker:
        result = side.client("result = tasks.block.delay([1.5]).id", env)
        wait_until(lambda: worker.text().count("received") == 1)
        assert worker.stop(signal.SIGTERM) == 0
    assert side.client(f"result = tasks.app.AsyncResult({result!r}).get(timeout=20)", env) == "blocked"
    with side.worker(env, *OPTIONS) as worker:
        result = side.client("tasks.long_nap.delay()\nresult = tasks.block.delay([1.5, 60]).id", env)
        wait_until(lambda: worker.text().count("received") == 2)
        time.sleep(0.3)
        assert worker.stop(signal.SIGQUIT, 20) == 1
    assert waiting(side, env) == 1
    assert side.client(f"result = tasks.app.AsyncResult({result!r}).state", env) == "RETRY"


def test_limits_on_the_command_line(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, *OPTIONS, "--time-limit", "1", "-E") as worker:
        seen = side.client("""
def outcome(r):
    try:
        return [r.get(timeout=20), r.state]
    except Exception as exc:
        return [type(exc).__name__, r.state]
result = [outcome(r) for r in [tasks.nap.delay(1, 0.1), tasks.nap.delay(2, 30), tasks.add.delay(1, 2), tasks.fleet_tasks.add.delay(1, 2)]]
""", env)
        worker.wait_for("Hard time limit (1s) exceeded for asyncio_tasks.nap")
    assert seen == [[1, "SUCCESS"], ["TimeLimitExceeded", "FAILURE"], [3, "SUCCESS"], [3, "SUCCESS"]]
