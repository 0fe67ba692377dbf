"""T-225: what is stored, signalled, sent as events and logged when tasks are revoked."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError


class Stand:
    """A worker for revoked_tasks.py, and all that it tells."""

    def __init__(self, tasks: Any, worker: Any, data: Path) -> None:
        self.tasks, self.worker, self.data = tasks, worker, data
        self.control = tasks.app.control
        self.events: list[dict[str, Any]] = []
        self.listens = threading.Event()
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()
        assert self.listens.wait(20)

    def _listen(self) -> None:
        with self.tasks.app.connection() as connection:
            receiver = self.tasks.app.events.Receiver(connection, handlers={"*": self.events.append})
            with receiver.consumer_context() as (own, _, _):
                self.listens.set()
                while not self.ends.is_set():
                    try:
                        own.drain_events(timeout=0.1)
                    except TimeoutError:
                        continue

    def close(self) -> None:
        self.ends.set()
        self.thread.join()

    def until(self, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 20
        while not (what := found()):
            assert time.monotonic() < deadline, self.worker.text()
            time.sleep(0.02)
        return what

    def starts(self, result: Any) -> None:
        self.until(lambda: self.event(result, "task-started"))

    def event(self, result: Any, kind: str) -> dict[str, Any] | None:
        return next((event for event in list(self.events) if event.get("uuid") == result.id and event["type"] == kind), None)

    def told(self, result: Any) -> dict[str, Any]:
        """What the handler of the signal task_revoked got."""

        def find() -> Any:
            lines = [json.loads(line) for line in self.data.read_text().splitlines()]
            return next((line for line in lines if line["id"] == result.id), None)

        return dict(self.until(find))

    def check(self, result: Any, reason: str, number: int | None = None) -> None:
        """All but the log."""
        expected = {"terminated": number is not None, "expired": reason == "expired"}
        assert self.told(result) == {
            "sender": "revoked_tasks.nap", "id": result.id, "task": "revoked_tasks.nap", "more": [], **expected,
            "signum": None if number is None else repr(signal.Signals(number))}
        event = self.until(lambda: self.event(result, "task-revoked"))
        assert {name: event[name] for name in ("terminated", "expired", "signum")} == {**expected, "signum": number}
        # Celery says first "revoked" of what it is about to terminate.
        self.until(lambda: getattr(self.tasks.app.AsyncResult(result.id).result, "args", None) == (reason,))
        with pytest.raises(TaskRevokedError):
            result.get(timeout=20)
        assert (result.state, result.traceback) == ("REVOKED", None)

    def lines(self, result: Any) -> list[str]:
        """Of the log, about the task."""
        return [line.partition("] ")[2].replace(result.id, "ID") for line in self.worker.text().splitlines() if result.id in line]


@pytest.fixture(scope="module")
def stand(side: Any, amqp_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    queue, data = f"revoked-{os.getpid()}-{time.time_ns()}", tmp_path_factory.mktemp("revoked") / "data"
    data.touch()
    env = side.env(amqp_url, redis_url, queue, FLEET_APP="revoked_tasks", ROWS_DATA=str(data), FLEET_LOGLEVEL="INFO")
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], os.path.dirname(__file__)])
    before = dict(os.environ)
    os.environ.update({name: env[name] for name in ("FLEET_BROKER", "FLEET_BACKEND", "FLEET_QUEUE", "ROWS_DATA")})
    try:
        sys.modules.pop("revoked_tasks", None)
        tasks = importlib.import_module("revoked_tasks")
    finally:
        os.environ.clear()
        os.environ.update(before)
    with side.worker(env, "-c", "1", "-n", f"{queue}@here") as worker:
        stand = Stand(tasks, worker, data)
        yield stand
        stand.close()
    with tasks.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_delete(queue)
        for name in (queue, f"{queue}-events", f"{queue}-control.pidbox", f"reply.{queue}-control.pidbox"):
            channel.exchange_delete(name)
    tasks.app.close()


def test_t225_held(stand: Stand, tmp_path: Path) -> None:
    """Stored at once; the rest is told when its turn comes."""
    busy = stand.tasks.hold.delay(str(tmp_path / "goes on"))
    stand.starts(busy)
    result = stand.tasks.nap.delay()
    stand.until(lambda: stand.event(result, "task-received"))
    result.revoke()
    stand.until(lambda: result.state == "REVOKED")
    assert not stand.event(result, "task-revoked")
    (tmp_path / "goes on").touch()
    stand.check(result, "revoked")
    assert busy.get(timeout=20) == "rested"
    assert stand.lines(result) == [
        "Task revoked_tasks.nap[ID] received", "Tasks flagged as revoked: ID", "Discarding revoked task: revoked_tasks.nap[ID]"]


def test_t225_expired_everything(stand: Stand) -> None:
    result = stand.tasks.nap.apply_async(expires=-5, expiration=None)
    stand.check(result, "expired")
    assert stand.lines(result) == ["Task revoked_tasks.nap[ID] received", "Discarding revoked task: revoked_tasks.nap[ID]"]


@pytest.mark.parametrize("name", ["TERM", "SIGKILL"])
def test_t225_terminated(stand: Stand, name: str) -> None:
    result = stand.tasks.nap.delay(30)
    stand.starts(result)
    result.revoke(terminate=True, signal=name)
    number = int(signal.Signals["SIG" + name.removeprefix("SIG")])
    stand.check(result, "terminated", number)
    assert stand.lines(result) == ["Task revoked_tasks.nap[ID] received", f"Terminating ID ({number})"]


def test_t225_running_is_left_alone(stand: Stand, tmp_path: Path) -> None:
    result = stand.tasks.hold.delay(str(tmp_path / "goes on"))
    stand.starts(result)
    assert stand.control.revoke(result.id, reply=True, timeout=10, limit=1)
    (tmp_path / "goes on").touch()
    assert result.get(timeout=20) == "rested"
    assert result.state == "SUCCESS"


def stamped(stand: Stand, seconds: float, stamp: Any, **options: Any) -> Any:
    signature = stand.tasks.nap.s(seconds)
    signature.stamp(customer=stamp)
    return signature.apply_async(**options)


def test_t225_terminated_by_stamp(stand: Stand) -> None:
    result = stamped(stand, 30, "c1")
    stand.starts(result)
    replies = stand.control.revoke_by_stamped_headers({"customer": "c1"}, terminate=True, reply=True, timeout=10, limit=1)
    [answer] = [said["ok"] for reply in replies for said in reply.values()]
    assert answer.startswith("headers ") and "c1" in answer and answer.endswith(" revoked")
    stand.check(result, "terminated", signal.SIGTERM)
    later = stamped(stand, 0, ["c0", "c1"])
    stand.check(later, "revoked")
    assert stand.lines(later) == [
        "Task revoked_tasks.nap[ID] received", "Discarding revoked task: revoked_tasks.nap[ID] (revoked by header: {'customer': 'c1'})"]


def test_t225_waiting_revoked_by_stamp(stand: Stand) -> None:
    result = stamped(stand, 0, ["c2", "c3"], countdown=3)
    stand.until(lambda: stand.event(result, "task-received"))
    assert stand.control.revoke_by_stamped_headers({"customer": ["c3", "c9"]}, reply=True, timeout=10, limit=1)
    stand.check(result, "revoked")
    assert stand.lines(result)[-1] == "Discarding revoked task: revoked_tasks.nap[ID] (revoked by header: {'customer': 'c3'})"
