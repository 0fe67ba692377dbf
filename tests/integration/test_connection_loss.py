"""Tasks and the end of the connection that their messages came by; worker_cancel_long_running_tasks_on_connection_loss."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import wait_until
from fleet import Worker, ours
from marks import ran, wait_all
from relay import Relay

REMOVE = "tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0"
CANCEL = {"worker_cancel_long_running_tasks_on_connection_loss": True}


@pytest.fixture
def relay(amqp_url: str) -> Iterator[Relay]:
    made = Relay(amqp_url)
    made.open()
    yield made
    made.cut()


@pytest.mark.limit(60)
def test_long_task_of_the_solo_pool_keeps_the_connection(amqp_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Its loop stands still for more than two heartbeats. The broker would close the connection, and give the task out again."""
    side, marks = ours(), tmp_path / "marks"
    marks.touch()
    env = side.env(amqp_url, None, unique("queue"), FLEET_SETTINGS=json.dumps({"broker_heartbeat": 2}), FLEET_MARKS=str(marks))
    with side.worker(env, "-P", "solo", "--without-mingle", "--without-gossip") as worker:
        side.client("result = tasks.late.delay(1, 9).id and tasks.late.delay(2).id", env)
        wait_all(marks, 2, 30)
        assert "Connection to broker lost" not in worker.text()
    assert ran(marks) == {1: 1, 2: 1}
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0", env)


@pytest.mark.limit(60)
@pytest.mark.parametrize("task", ["early", "late"])
def test_what_was_acknowledged_in_vain_does_not_run_again(
    relay: Relay, unique: Callable[[str], str], tmp_path: Path, task: str,
) -> None:
    """The acknowledgements are swallowed on their way, the broker gives the tasks out again; the worker knows them."""
    side, marks = ours(), tmp_path / "marks"
    marks.touch()
    env = side.env(relay.url, None, unique("queue"), FLEET_MARKS=str(marks))
    past = {**env, "FLEET_BROKER": relay.direct}
    with side.worker(env, "-c", "1", "--without-mingle", "--without-gossip") as worker:
        side.client(f"result = [tasks.{task}.delay(number, 0.4).id for number in range(4)] and 0", past)
        wait_all(marks, 1, 30)
        relay.hold()
        wait_all(marks, 4, 30)
        time.sleep(0.2)  # the last one is acknowledged
        relay.cut()
        worker.wait_for("Connection to broker lost")
        relay.open()
        side.client(f"result = tasks.{task}.delay(9).id and 0", past)
        wait_all(marks, 5, 30)
    assert set(ran(marks).values()) == {1}, ran(marks)
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0", past)


@pytest.mark.parametrize("settings, task, cancelled", [(CANCEL, "late_hold", True), (CANCEL, "hold", False), ({}, "late_hold", False)])
def test_what_runs_when_the_connection_is_lost(
    relay: Relay, redis_url: str, unique: Callable[[str], str], tmp_path: Path, settings: dict[str, bool], task: str, cancelled: bool,
) -> None:
    side, let_go = ours(), tmp_path / "go"
    begun = Path(f"{let_go}.begun")
    env = side.env(relay.url, redis_url, unique("queue"), FLEET_SETTINGS=json.dumps(settings))
    past = {**env, "FLEET_BROKER": relay.direct}
    with side.worker(env, "-c", "1") as worker:
        task_id = side.client(f"result = tasks.{task}.delay({str(let_go)!r}).id", past)
        wait_until(begun.exists)
        begun.unlink()
        relay.cut()
        worker.wait_for("Connection to broker lost")
        if cancelled:
            worker.wait_for(f"[{task_id}] was cancelled, for the connection to the broker is lost")
            assert side.client(f"result = tasks.app.AsyncResult({task_id!r}).state", past) == "RETRY"
            relay.open()
            wait_until(begun.exists)
        let_go.touch()
        assert side.client(f"result = tasks.app.AsyncResult({task_id!r}).get(timeout=20)", past) == "held"
        assert ("was cancelled" in worker.text()) == cancelled
    side.client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0", past)


@pytest.mark.parametrize("settings", [{}, {"broker_channel_error_retry": True}])
def test_queue_that_the_broker_refuses_at_the_start(
    amqp_url: str, redis_url: str, unique: Callable[[str], str], settings: dict[str, bool],
) -> None:
    """It is there with other arguments: the worker ends, as Celery's does, or waits until somebody has removed it."""
    queue = unique("refused")
    env = ours().env(amqp_url, redis_url, queue, FLEET_SETTINGS=json.dumps(settings))
    ours().client(f"tasks.app.amqp.producer.declare({{'name': {queue!r}, 'durable': False}}, 5.0); result = 0", env)
    worker = Worker(ours(), env, ("-c", "1"))
    try:
        if settings:
            worker.wait_for("Trying again")
        else:
            assert worker.process.wait(30) == 1
        assert "406 PRECONDITION_FAILED" in worker.text() and "Traceback" not in worker.text()
        ours().client(REMOVE, env)
        if settings:
            worker.wait_ready()
            assert ours().client("result = tasks.add.delay(1, 2).get(timeout=20)", env) == 3
    finally:
        worker.end()
    ours().client(REMOVE, env)


@pytest.mark.limit(90)
def test_queue_that_is_refused_later_on(relay: Relay, redis_url: str, unique: Callable[[str], str]) -> None:
    """A worker that has worked waits."""
    queue = unique("refused")
    env = ours().env(relay.url, redis_url, queue)
    past = {**env, "FLEET_BROKER": relay.direct}
    with ours().worker(env, "-c", "1") as worker:
        relay.cut()
        worker.wait_for("Connection to broker lost")
        ours().client(f"{REMOVE}; tasks.app.amqp.producer.declare({{'name': {queue!r}, 'durable': False}}, 5.0); result = 0", past)
        relay.open()
        worker.wait_for("406 PRECONDITION_FAILED")
        ours().client(REMOVE, past)
        wait_until(lambda: worker.text().count("Connected to") == 2)
        assert ours().client("result = tasks.add.delay(1, 2).get(timeout=20)", past) == 3
    ours().client(REMOVE, past)
