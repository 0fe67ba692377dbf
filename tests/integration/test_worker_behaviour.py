"""What a running worker does with limits, ETAs, shutdown and its pool (FEATURES §2.10), on RabbitMQ with Redis results."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import wait_until
from fleet import Side, ours


@pytest.fixture
def side() -> Side:
    return ours()


@pytest.fixture
def env(side: Side, amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    made = side.env(amqp_url, redis_url, unique("behaviour"))
    yield made
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", made)


SIZE = "tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, 5.0)[0]"


def waiting(side: Side, env: dict[str, str]) -> int:
    return int(side.client(f"result = {SIZE}", env))


OUTCOME = """
def outcome(r):
    try:
        return [r.get(timeout=20), r.state]
    except Exception as exc:
        return [type(exc).__name__, r.state, str(exc)]
"""


def test_hard_time_limit(side: Side, env: dict[str, str]) -> None:
    """T-178: the child is killed and replaced, the state is FAILURE TimeLimitExceeded."""
    with side.worker(env, "-c", "1") as worker:
        seen = side.client(OUTCOME + "result = [outcome(tasks.too_long.delay()), outcome(tasks.add.delay(1, 2))]", env)
        worker.wait_for("Hard time limit (1s) exceeded for fleet_tasks.too_long")
    assert seen[0][:2] == ["TimeLimitExceeded", "FAILURE"]
    assert seen[1] == [3, "SUCCESS"]


def test_soft_time_limit(side: Side, env: dict[str, str]) -> None:
    """T-179: raised in the body, may be caught; the child lives on."""
    with side.worker(env, "-c", "1") as worker:
        script = OUTCOME + """
first = tasks.pid.delay().get(timeout=20)
result = [outcome(tasks.interrupted.delay(True)), outcome(tasks.interrupted.delay(False)),
          first == tasks.pid.delay().get(timeout=20)]
"""
        caught, raised, same = side.client(script, env)
        worker.wait_for("Soft time limit (0.5s) exceeded")
    assert caught == ["cleaned up", "SUCCESS"]
    assert raised[:2] == ["SoftTimeLimitExceeded", "FAILURE"]
    assert same


def test_limits_of_the_call_win(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, "-c", "1"):
        started = time.monotonic()
        seen = side.client(OUTCOME + "result = outcome(tasks.sleep.apply_async((20,), time_limit=1))", env)
    assert seen[:2] == ["TimeLimitExceeded", "FAILURE"]
    assert time.monotonic() - started < 20


def test_limits_of_the_command_line(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, "-c", "1", "--time-limit", "1"):
        seen = side.client(OUTCOME + "result = outcome(tasks.sleep.delay(20))", env)
    assert seen[:2] == ["TimeLimitExceeded", "FAILURE"]


def test_started_is_tracked(side: Side, env: dict[str, str]) -> None:
    """T-187"""
    with side.worker(env, "-c", "1"):
        script = """
import time
r = tasks.tracked.delay(1.5)
deadline = time.time() + 10
while r.state == 'PENDING' and time.time() < deadline:
    time.sleep(0.05)
state, info = r.state, r.info
result = [state, info['pid'], r.get(timeout=20), info['hostname']]
"""
        state, pid, ran_in, hostname = side.client(script, env)
    assert state == "STARTED"
    assert pid == ran_in
    assert hostname.startswith(f"{side.name}-")  # the node, see fleet.py


def test_children_are_replaced_after_so_many_tasks(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, "-c", "1", "--max-tasks-per-child", "3"):
        pids = side.client("result = [tasks.pid.delay().get(timeout=20) for _ in range(9)]", env)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_children_are_replaced_when_too_large(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, "-c", "1", "--max-memory-per-child", "100000"):
        pids = side.client("result = [tasks.grow.delay(1).get(timeout=20), tasks.grow.delay(120).get(timeout=20), "
                           "tasks.grow.delay(1).get(timeout=20)]", env)
    assert pids[0] == pids[1] != pids[2]


def test_rate_limit(side: Side, env: dict[str, str]) -> None:
    """T-175: evenly spaced."""
    with side.worker(env, "-c", "2"):
        times = side.client("result = [r.get(timeout=20) for r in [tasks.limited.delay() for _ in range(6)]]", env)
    assert max(times) - min(times) >= 0.95


def test_more_held_tasks_than_prefetch(side: Side, env: dict[str, str]) -> None:
    """C-053: held tasks do not use up the prefetch; the others run meanwhile."""
    with side.worker(env, "-c", "1"):
        script = """
import time
started = time.time()
held = [tasks.now.apply_async(countdown=3) for _ in range(50)]
quick = tasks.now.delay().get(timeout=20)
first = min(r.get(timeout=20) for r in held)
result = [first - quick, first - started]
"""
        lead, first = side.client(script, env)
    assert lead > 0
    assert first >= 3


def test_warm_shutdown_gives_back_at_once(side: Side, env: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM: what runs is finished and stored, held and prefetched messages are in the queue again, exit code 0."""
    with side.worker(env, "-c", "1") as worker:
        side.client(f"tasks.hold.apply_async(({str(tmp_path / 'end')!r},), task_id='runs-' + tasks.app.conf.task_default_queue)\n"
                    "[tasks.now.apply_async(countdown=600) for _ in range(10)]\n"
                    "[tasks.add.delay(n, n) for n in range(3)]\nresult = None", env)
        wait_until((tmp_path / "end.begun").exists)
        wait_until(lambda: worker.text().count("received") == 14)
        assert waiting(side, env) == 0
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: waiting(side, env) == 13)
        assert worker.process.poll() is None, "given back while the other task runs on"
        (tmp_path / "end").touch()
        assert worker.process.wait(20) == 0
    state = side.client("r = tasks.app.AsyncResult('runs-' + tasks.app.conf.task_default_queue)\nresult = r.get(timeout=30)", env)
    assert state == "held"
    assert waiting(side, env) == 13


def test_cold_shutdown(side: Side, env: dict[str, str], tmp_path: Path) -> None:
    """SIGQUIT: what runs is cancelled; a late-ack task goes back, an early-ack one is marked."""
    with side.worker(env, "-c", "2") as worker:
        early, late = tmp_path / "early", tmp_path / "late"
        side.client(f"tasks.hold.apply_async(({str(early)!r},), task_id='cold-' + tasks.app.conf.task_default_queue)\n"
                    f"tasks.late_hold.delay({str(late)!r})\nresult = None", env)
        for path in (early, late):
            wait_until(path.with_suffix(".begun").exists)
        assert worker.stop(signal.SIGQUIT) == 1
    assert waiting(side, env) == 1
    assert side.client("result = tasks.app.AsyncResult('cold-' + tasks.app.conf.task_default_queue).state", env) == "RETRY"


def test_queue_deleted_under_the_worker(side: Side, env: dict[str, str]) -> None:
    with side.worker(env, "-c", "1") as worker:
        assert side.client("result = tasks.add.delay(1, 1).get(timeout=20)", env) == 2
        side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)
        worker.wait_for("cancelled")
        assert side.client("result = tasks.add.delay(1, 2).get(timeout=20)", env) == 3


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_other_pools(side: Side, env: dict[str, str], pool: str) -> None:
    with side.worker(env, "-c", "2", "-P", pool):
        seen: Any = side.client(OUTCOME + "result = [outcome(tasks.add.delay(2, 3)), outcome(tasks.fail.delay('x', 1)), "
                                          "outcome(tasks.flaky.delay(1)), outcome(tasks.leave.delay(1)), outcome(tasks.add.delay(1, 1))]", env)
    assert seen[0] == [5, "SUCCESS"]
    assert seen[1][:2] == ["OutOfStock", "FAILURE"]
    assert seen[2] == [1, "SUCCESS"]
    assert seen[3][:2] == ["WorkerLostError", "FAILURE"]
    assert seen[4] == [2, "SUCCESS"]


def test_soft_limit_in_the_threads_pool(side: Side, env: dict[str, str]) -> None:
    """Raised when the sleep ends: a thread cannot be interrupted inside a system call."""
    with side.worker(env, "-c", "2", "-P", "threads"):
        seen = side.client(OUTCOME + "result = outcome(tasks.naps.delay(40, 0.05))", env)
    assert seen[:2] == ["SoftTimeLimitExceeded", "FAILURE"]
