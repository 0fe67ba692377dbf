"""What becomes of the message and of the result (PROTOCOL §3.2, T-003..T-008, T-178, T-179, T-250..T-254).

Every ending of a task × early or late acknowledgement × reject_on_worker_lost. All messages go to one queue whose dead letters
are kept; when everything has settled the worker is stopped, so that what it had not acknowledged is in the queue again.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from kombu import Connection

CASES = ("success", "failure", "ignore", "reject", "requeue", "retry", "hard", "soft", "child")
WAYS = [(late, lost) for late in (False, True) for lost in (False, True)]
AGAIN_OR_NOT = ("hard", "not timeout")  # put back or not, that depends on Celery's version: not waited for too long there


class Seen(NamedTuple):
    """Where the message is (gone, dead, queue), how often the task ran, the stored state, and the result's text."""

    message: str
    runs: int
    state: str
    result: str


class World:
    def __init__(self, amqp_url: str, redis_url: str, side: Any) -> None:
        self.queue = f"acks-{uuid.uuid4().hex[:10]}"
        here = os.path.dirname(__file__)
        self.env = side.env(amqp_url, redis_url, self.queue, FLEET_APP="acks_tasks", FLEET_LOGLEVEL="INFO",
                            PYTHONPATH=os.pathsep.join([here, os.path.dirname(here)]))
        os.environ.update({name: self.env[name] for name in self.env if name.startswith("FLEET_")})
        sys.path.insert(0, here)
        sys.modules.pop("acks_tasks", None)
        self.tasks: Any = importlib.import_module("acks_tasks")
        self.connection = Connection(amqp_url)
        self.connection.default_channel.queue_declare(self.tasks.DEAD, durable=True, auto_delete=False)
        self.sent: dict[Any, Any] = {}

    def send(self, key: Any, case: str, **options: Any) -> None:
        way = key[1] if isinstance(key[1], str) else key[1:]
        self.sent[key] = self.tasks.TASKS[way].apply_async((case,), **options)

    def runs(self, key: Any) -> int:
        return int(self.tasks.redis.get(f"acks-runs-{self.sent[key].id}") or 0)

    def ids_in(self, name: str) -> list[str]:
        """The tasks whose messages wait there; they stay."""
        found: list[str] = []
        with self.connection.channel() as channel:
            while (message := channel.basic_get(name)) is not None:
                found.append(message.headers["id"])
        return found

    def look(self) -> dict[Any, Seen]:
        """To be called when no worker runs."""
        waiting, dead = self.ids_in(self.queue), self.ids_in(self.tasks.DEAD)
        seen = {}
        for key, result in self.sent.items():
            place = "queue" if result.id in waiting else "dead" if result.id in dead else "gone"
            meta = self.tasks.app.backend.get_task_meta(result.id)
            seen[key] = Seen(place, self.runs(key), meta["status"], repr(meta["result"]))
        return seen

    def close(self) -> None:
        for name in (self.queue, self.tasks.DEAD):
            self.connection.default_channel.queue_delete(name)
        self.connection.release()


def wait(what: Any, text: Any, timeout: float = 25) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, text()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def settled(side: Any, amqp_url: str, redis_url: str) -> Iterator[dict[Any, Seen]]:
    """Every case that one worker outlives."""
    world = World(amqp_url, redis_url, side)
    limits = {"hard": {"time_limit": 0.7}, "soft": {"soft_time_limit": 0.7, "time_limit": 20}}
    expected = 0
    try:
        with side.worker(world.env, "-c", "4") as worker:
            for case in CASES:
                for way in WAYS:
                    world.send((case, *way), case, **limits.get(case, {}))
                    expected += 2 if case == "retry" or (way[0] and (case == "requeue" or (case == "child" and way[1]))) else 1
            for way in ("neither", "not failure", "not timeout"):
                for case in ("failure", "hard"):
                    world.send((case, way), case, **limits.get(case, {}))
                    expected += 2 if (case, way) == ("hard", "neither") else 1
            wait(lambda: sum(min(world.runs(key), 1 if key == AGAIN_OR_NOT else 9) for key in world.sent) >= expected,
                 lambda: f"{ {key: world.runs(key) for key in world.sent} }\n{worker.text()[-3000:]}")
            ends = [result for (case, *_), result in world.sent.items() if case in ("hard", "soft", "child", "failure")]
            for result in ends:
                result.get(timeout=30, propagate=False)
            deadline = time.monotonic() + (25 if side.name == "pyceleryc" else 2)
            while world.runs(AGAIN_OR_NOT) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            worker.stop()
        yield world.look()
    finally:
        world.close()


@pytest.fixture(scope="module")
def crashed(side: Any, amqp_url: str, redis_url: str) -> Iterator[tuple[dict[Any, Seen], dict[Any, Seen]]]:
    """The worker itself is killed, with its children; seen then, and after another worker has run."""
    world = World(amqp_url, redis_url, side)
    try:
        with side.worker(world.env, "-c", "4") as worker:
            for way in WAYS:
                world.send(("parent", *way), "parent")
            wait(lambda: all(world.runs(key) for key in world.sent), worker.text)
            worker.kill_group()
        name = world.queue
        wait(lambda: world.connection.default_channel.queue_declare(name, passive=True).message_count == 2, lambda: "not two")
        then = world.look()
        with side.worker(world.env, "-c", "2") as worker:
            wait(lambda: sum(map(world.runs, world.sent)) == 6, worker.text)
            for key, result in world.sent.items():
                if key[1]:
                    result.get(timeout=30)
            worker.stop()
        yield then, world.look()
    finally:
        world.close()


def check(seen: Seen, message: str, runs: int, state: str, result: str = "") -> None:
    assert seen[:3] == (message, runs, state), seen
    assert result in seen.result, seen


@pytest.mark.parametrize("lost", [False, True], ids=["", "reject_on_worker_lost"])
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
class TestMatrix:
    def test_t005_t006_acks_success(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["success", late, lost], "gone", 1, "SUCCESS", "'done'")

    def test_t006_acks_failure(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["failure", late, lost], "gone", 1, "FAILURE", "ValueError('bad')")

    def test_t250_acks_ignore(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["ignore", late, lost], "gone", 1, "PENDING", "None")

    def test_t252_acks_reject(self, settled: Any, late: bool, lost: bool) -> None:
        """The message; its result is the row below."""
        seen = settled["reject", late, lost]
        assert (seen.message, seen.runs) == ("dead" if late else "gone", 1)

    def test_t253_acks_reject_result(self, settled: Any, late: bool, lost: bool) -> None:
        assert settled["reject", late, lost].state == "FAILURE"

    def test_t254_acks_requeue(self, settled: Any, late: bool, lost: bool) -> None:
        if late:
            check(settled["requeue", late, lost], "gone", 2, "SUCCESS", "'again'")
        else:
            check(settled["requeue", late, lost], "gone", 1, "PENDING", "None")

    def test_t130_acks_retry(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["retry", late, lost], "gone", 2, "SUCCESS", "'again'")

    def test_t178_acks_hard_timeout(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["hard", late, lost], "gone", 1, "FAILURE", "TimeLimitExceeded(0.7)")

    def test_t179_acks_soft_timeout(self, settled: Any, late: bool, lost: bool) -> None:
        check(settled["soft", late, lost], "gone", 1, "FAILURE", "SoftTimeLimitExceeded(")

    def test_t007_t008_acks_child_killed(self, settled: Any, late: bool, lost: bool) -> None:
        if late and lost:
            check(settled["child", late, lost], "gone", 2, "SUCCESS", "'again'")
        else:
            check(settled["child", late, lost], "gone", 1, "FAILURE", "WorkerLostError")

    def test_t003_acks_parent_killed(self, crashed: Any, late: bool, lost: bool) -> None:
        """Whatever reject_on_worker_lost says: nobody is left who could acknowledge."""
        then, afterwards = (seen["parent", late, lost] for seen in crashed)
        if late:
            check(then, "queue", 1, "PENDING", "None")
            check(afterwards, "gone", 2, "SUCCESS", "'again'")
        else:
            assert then == afterwards
            check(then, "gone", 1, "PENDING", "None")


def test_t188_acks_on_failure_or_timeout(settled: Any) -> None:
    """Off: a failed task's message is a dead letter, that of one that took too long is put back."""
    check(settled["failure", "neither"], "dead", 1, "FAILURE", "ValueError('bad')")
    check(settled["hard", "neither"], "gone", 2, "SUCCESS", "'again'")


def test_t188_acks_on_failure(settled: Any) -> None:
    check(settled["failure", "not failure"], "dead", 1, "FAILURE")
    check(settled["hard", "not failure"], "gone", 1, "FAILURE")


def test_t188_acks_on_timeout(settled: Any) -> None:
    check(settled["failure", "not timeout"], "gone", 1, "FAILURE")
    check(settled["hard", "not timeout"], "gone", 2, "SUCCESS")
