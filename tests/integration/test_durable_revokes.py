"""Revokes that no running worker hears, and those of workers that are gone (setting `worker_durable_revokes`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fleet
import pytest
from brokers import private_redis
from commands import wait_until
from embedding import embedded

from pyceleryc import Celery
from pyceleryc.app.control import Control
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.worker import state as worker_state

pytestmark = pytest.mark.long

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
ON = {"worker_durable_revokes": True}


@pytest.fixture
def env(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """RabbitMQ with Redis as result store, unless the test wants files."""
    marks = tmp_path / "marks"
    marks.touch()
    settings, prefix = json.dumps(ON), unique("durable")
    if getattr(request, "param", None) == "sqlite":
        yield fleet.ours().env(f"sqlite:///{tmp_path}/broker.db", f"sqlite:///{tmp_path}/results.db", prefix,
                               FLEET_MARKS=str(marks), FLEET_SETTINGS=settings)
        return
    amqp_url, redis_url = request.getfixturevalue("amqp_url"), request.getfixturevalue("redis_url")
    yield fleet.ours().env(amqp_url, redis_url, prefix, FLEET_MARKS=str(marks), FLEET_SETTINGS=settings,
                           FLEET_STORE_OPTIONS=json.dumps({"global_keyprefix": prefix}))
    with Celery("clean", broker=redis_url, set_as_current=False).connection() as connection:
        client = connection.default_channel.client
        for key in client.scan_iter(f"{prefix}*", count=5000):
            client.delete(key)


def marks(env: dict[str, str]) -> list[int]:
    return sorted(map(int, Path(env["FLEET_MARKS"]).read_text().split()))


@pytest.mark.parametrize("env", ["amqp", "sqlite"], indirect=True)
def test_revoked_while_no_worker_runs(env: dict[str, str]) -> None:
    """Tasks that wait in the queue, one of them with an ETA."""
    ours = fleet.ours()
    ids = ours.client("""
revoked = [tasks.early.delay(1), tasks.early.apply_async((2,), countdown=1), tasks.same.delay(3)]
tasks.app.control.revoke([revoked[0].id, revoked[1].id])
revoked[2].revoke()
tasks.early.delay(4)
result = [one.id for one in revoked]""", env)
    with ours.worker(env, "-c", "1") as worker:
        for name, task_id in zip(("early", "early", "same"), ids, strict=True):
            worker.wait_for(f"Discarding revoked task: fleet_tasks.{name}[{task_id}]")
        wait_until(lambda: marks(env))
        state = ours.client(f"result = tasks.app.AsyncResult({ids[2]!r}).state", env)
    assert marks(env) == [4]
    assert state == "REVOKED"


def test_revoked_by_celery_survives_all_workers(env: dict[str, str]) -> None:
    """A client of Celery's does not know the setting: the worker that hears it stores it, and is killed."""
    ours = fleet.ours()
    with ours.worker(env, "-c", "1") as worker:
        task_id = fleet.theirs().client("""
one = tasks.early.apply_async((1,), countdown=4)
one.revoke()
result = one.id""", {**env, "FLEET_SETTINGS": "{}"})
        worker.wait_for(f"Tasks flagged as revoked: {task_id}")
        worker.kill_group()
    with ours.worker(env, "-c", "1") as worker:
        worker.wait_for(f"Discarding revoked task: fleet_tasks.early[{task_id}]")
    assert marks(env) == []


def test_celery_worker_beside_ours(env: dict[str, str]) -> None:
    """A worker of Celery's takes the command of a client that stores."""
    with fleet.theirs().worker({**env, "FLEET_SETTINGS": "{}"}, "-c", "1") as worker:
        task_id = fleet.ours().client("""
one = tasks.early.apply_async((1,), countdown=2)
result = one.id
import time; time.sleep(0.5)
assert tasks.app.control.revoke(one.id, reply=True, timeout=10, limit=1)""", env)
        worker.wait_for(f"Discarding revoked task: fleet_tasks.early[{task_id}]")
    assert marks(env) == []


def make_app(broker: str, backend: str, **settings: Any) -> tuple[Celery, list[int]]:
    app = Celery("durable", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(ON, broker_connection_retry_on_startup=True, **settings)
    ran: list[int] = []

    @app.task(name="durable.run", ignore_result=True)
    def run(number: int) -> None:
        ran.append(number)

    return app, ran


def test_what_was_missed_is_read_at_reconnect(tmp_path: Path) -> None:
    with private_redis() as server:
        app, ran = make_app(server.url, f"sqlite:///{tmp_path}/results.db")
        with embedded(app, pool="threads", concurrency=1, **QUIET):
            app.tasks["durable.run"].delay(1)
            wait_until(lambda: ran)
            server.kill()
            app.control.durable_revokes.add(["missed"], 60.0)  # as a client that another network path leads to
            server.start()
            sender, _ = make_app(server.url, f"sqlite:///{tmp_path}/sender.db")
            sender.send_task("durable.run", (2,), task_id="missed")
            sender.send_task("durable.run", (3,))
            wait_until(lambda: 3 in ran)
        assert ran == [1, 3]
        app.close()
        sender.close()


def test_store_that_is_away_at_the_start(tmp_path: Path, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    with private_redis() as server:
        app, ran = make_app(f"sqlite:///{tmp_path}/broker.db", server.url)
        early, late = unique("early"), unique("late")
        app.control.durable_revokes.add([early], 60.0)
        server.stop()
        with embedded(app, pool="threads", concurrency=1, **QUIET) as worker:
            wait_until(lambda: "Tasks that were revoked may run: which they are cannot be read now" in caplog.text)
            assert worker.machine is not None
            worker.machine.core.call_later(0, lambda: worker.machine.revoke([late]))  # type: ignore[union-attr]
            wait_until(lambda: late in worker_state.revoked)
            assert early not in worker_state.revoked
            server.start()
            wait_until(lambda: early in worker_state.revoked)
            wait_until(lambda: late in app.control.durable_revokes.load())
        app.close()


class Recorded(Control):
    def broadcast(self, command: str, arguments: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return arguments


def test_messages_are_as_ever_when_it_is_off() -> None:
    app = Celery("durable", broker="amqp://", control=Recorded, set_as_current=False)
    assert app.control.revoke("a") == {"task_id": "a", "terminate": False, "signal": "SIGTERM"}


def test_nowhere_to_keep_them(amqp_url: str) -> None:
    app = Celery("durable", broker=amqp_url, backend="rpc://", set_as_current=False)
    app.conf.update(ON)
    with pytest.raises(ImproperlyConfigured, match="can keep revoked ids"):
        app.control.revoke("a")
    with pytest.raises(ImproperlyConfigured, match="can keep revoked ids"):
        app.WorkController(app, "w@here", pool="solo", **QUIET).start()
