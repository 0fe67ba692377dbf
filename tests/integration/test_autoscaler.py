"""worker_autoscaler: an autoscaler of the project's own, written for Celery, in a worker of either side (FEATURES 2.10)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import wait_until
from fleet import Side, Worker, ours, theirs

NODE = "scaled@here"


@pytest.fixture
def env(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    queue = unique("scale")
    yield ours().env(amqp_url, redis_url, queue, FLEET_APP="autoscale_tasks", AUTOSCALE_KEEPALIVE="1")
    script = "tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0"
    ours().client(script, {**ours().env(amqp_url, redis_url, queue), "FLEET_APP": "fleet_tasks"})


def with_class(env: dict[str, str], name: str) -> dict[str, str]:
    exchange = f"{env['FLEET_QUEUE']}-control"
    return {**env, "FLEET_SETTINGS": json.dumps({"worker_autoscaler": f"autoscale_tasks:{name}", "control_exchange": exchange})}


def scaler(env: dict[str, str]) -> Any:
    stats = f"((tasks.app.control.inspect([{NODE!r}], timeout=10, limit=1).stats() or {{}}).get({NODE!r}) or {{}}).get('autoscaler')"
    return ours().client(f"result = {stats}", {**env, "FLEET_APP": "fleet_tasks"})


@pytest.mark.parametrize("side", [ours, theirs])
def test_a_rule_of_its_own(side: Callable[[], Side], env: dict[str, str], tmp_path: Path) -> None:
    """It is asked for each message, and from time to time; the pool grows and shrinks as it says."""
    env = with_class(env, "Decides")
    with side().worker(env, "--autoscale=4,1", "-n", NODE) as worker:
        worker.wait_for(f"made for 1 to 4, keepalive 1, on {NODE}")
        path = tmp_path / "go"
        script = f"result = [tasks.hold.delay({str(path)!r}).id for _ in range(3)]"
        ours().client(script, {**env, "FLEET_APP": "fleet_tasks"})
        worker.wait_for("looks because of fleet.hold")
        wait_until(lambda: (scaler(env) or {}).get("current") == 3)
        path.touch()
        wait_until(lambda: scaler(env) == {"max": 4, "min": 1, "current": 1, "qty": 0})
        assert "Scaling up " in worker.text() and "Scaling down " in worker.text()
        assert worker.text().count("looks because of") == 3


@pytest.mark.parametrize("side", [ours, theirs])
def test_another_quantity(side: Callable[[], Side], env: dict[str, str]) -> None:
    env = with_class(env, "Counts")
    with side().worker(env, "--autoscale=4,1", "-n", NODE):
        wait_until(lambda: scaler(env) == {"max": 4, "min": 1, "current": 3, "qty": 3})


@pytest.mark.parametrize("side, pool", [(ours, "prefork"), (theirs, "prefork"), (ours, "threads")])
def test_all_of_its_own(side: Callable[[], Side], env: dict[str, str], pool: str) -> None:
    env = with_class(env, "Steps")
    with side().worker(env, "--autoscale=3,1", "-n", NODE, "-P", pool) as worker:
        worker.wait_for("one more: 2")
        worker.wait_for("one more: 3")


def test_pool_that_cannot_grow(env: dict[str, str], tmp_path: Path) -> None:
    env = with_class(env, "Counts")
    with ours().worker(env, "--autoscale=3,1", "-P", "solo", "-n", NODE) as worker:
        worker.wait_for("--autoscale has no effect: this pool always has one process.")
        (tmp_path / "go").touch()
        script = f"result = tasks.hold.delay({str(tmp_path / 'go')!r}).get(timeout=20)"
        assert ours().client(script, {**env, "FLEET_APP": "fleet_tasks"}) == "held"
        assert scaler(env) is None and "ERROR" not in worker.text()


def test_one_that_raises(env: dict[str, str], tmp_path: Path) -> None:
    """It is said, and the tasks run."""
    env = with_class(env, "Fails")
    with ours().worker(env, "--autoscale=3,1", "-n", NODE) as worker:
        (tmp_path / "go").touch()
        script = f"result = tasks.hold.delay({str(tmp_path / 'go')!r}).get(timeout=20)"
        assert ours().client(script, {**env, "FLEET_APP": "fleet_tasks"}) == "held"
        worker.wait_for("Error in timer: RuntimeError('no idea')")


@pytest.mark.parametrize("name, says", [
    ("Nonesuch", "worker_autoscaler: there is no class 'autoscale_tasks:Nonesuch'"),
    ("not_a_class", "worker_autoscaler: 'autoscale_tasks:not_a_class' is not derived from celery.worker.autoscale.Autoscaler"),
])
def test_what_is_no_autoscaler(env: dict[str, str], name: str, says: str) -> None:
    worker = Worker(ours(), with_class(env, name), ("--autoscale=3,1",))
    try:
        assert worker.process.wait(30) == 1
        assert says in worker.text() and "Traceback" not in worker.text()
    finally:
        worker.end()
