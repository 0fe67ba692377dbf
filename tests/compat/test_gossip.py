"""Mingle, gossip and elections in a fleet of both implementations (PROTOCOL 3.7, 3.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fleet
import pytest
from commands import wait_until
from embedding import remove_names, take_names

from pyceleryc import Celery

pytestmark = pytest.mark.long

SIDES = {"ours": fleet.ours, "theirs": fleet.theirs}


@pytest.fixture(params=["amqp_url", "redis_url"])
def fleet_of_both(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    """A worker of theirs that knows of a revoked task, then two of ours."""
    url, queue = request.getfixturevalue(request.param), unique("gossip")
    backend = request.getfixturevalue("redis_url")
    env = SIDES["ours"]().env(url, backend, queue, FLEET_APP="control_tasks", FLEET_CHATTY="1", FLEET_LOGLEVEL="DEBUG")
    app = Celery(broker=url, backend=backend, set_as_current=False)
    take_names(app, queue)
    with ExitStack() as stack:
        nodes = {name: f"{name}-{queue}@here" for name in ("theirs", "ours1", "ours2")}
        workers = {}
        for name, node in nodes.items():
            side = SIDES["theirs" if name == "theirs" else "ours"]()
            workers[name] = stack.enter_context(side.worker(env, "-P", "solo", "-n", node))
            if name == "theirs":
                assert app.control.revoke("known-before", reply=True, timeout=10, limit=1)
        yield {"app": app, "nodes": nodes, "workers": workers}
    remove_names(url, queue)
    app.close()


def test_they_know_each_other(fleet_of_both: dict[str, Any]) -> None:
    app, nodes, workers = (fleet_of_both[key] for key in ("app", "nodes", "workers"))
    for name in ("ours1", "ours2"):
        workers[name].wait_for(f"mingle: sync with {1 if name == 'ours1' else 2} nodes")
        assert app.control.inspect([nodes[name]], timeout=10).revoked() == {nodes[name]: ["known-before"]}
    for name, worker in workers.items():  # each hears of the two others
        for other in set(workers) - {name}:
            worker.wait_for(f"{nodes[other]} joined the party")
    clocks = app.control.inspect(list(nodes.values()), timeout=10).clock()
    assert set(clocks) == set(nodes.values())
    elect(app, workers)
    for name in ("ours2", "theirs"):
        workers[name].end()
        for other in set(workers) - {name, "ours2"}:
            workers[other].wait_for(f"{nodes[name]} left")


def elect(app: Celery, workers: dict[str, fleet.Worker]) -> None:
    """One worker wins, all agree on it, and the task is sent once."""
    action = app.signature("ctl.add", (20, 22), task_id="elected-task")
    for number in range(4):
        app.control.election(f"e{number}", "task", {**action, "options": {"task_id": f"elected-{number}"}})
        for worker in workers.values():
            wait_until(lambda: f"election 'e{number}'" in worker.text() or f"elected for 'e{number}'" in worker.text())  # noqa: B023
        winners = [name for name, worker in workers.items() if f"I won the election 'e{number}'" in worker.text()]
        assert len(winners) == 1, [worker.text()[-1500:] for worker in workers.values()]
        assert app.AsyncResult(f"elected-{number}").get(timeout=30) == 42
