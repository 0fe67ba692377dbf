"""Fanout exchanges on Redis, with Celery at the other end (PROTOCOL 3.6.2)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brokers import PrivateRedis, private_redis
from fleet import ours, theirs
from resp import Redis



@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with private_redis() as made:
        yield made


@pytest.fixture
def env(server: PrivateRedis, tmp_path: Path, unique: Callable[[str], str]) -> dict[str, str]:
    marks = tmp_path / "marks"
    marks.touch()
    return ours().env(server.url, None, unique("fanout"), FLEET_APP="fanout_tasks", FLEET_MARKS=str(marks))


def lines(env: dict[str, str], count: int, timeout: float = 30) -> list[str]:
    path = Path(env["FLEET_MARKS"])
    deadline = time.monotonic() + timeout
    while len(seen := path.read_text().split()) < count:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    return sorted(seen)


def wait_for_listeners(probe: Redis) -> None:
    """Until one worker has subscribed to both exchanges, and those of tests before are gone."""
    deadline = time.monotonic() + 30
    while probe("PUBSUB", "NUMPAT") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.limit(120)
def test_everybody_gets_a_copy(env: dict[str, str], server: PrivateRedis) -> None:
    """Workers of both kinds and clients of both kinds; no keys of temporary queues are left."""
    env = {**env, "FLEET_OPTIONS": json.dumps({"fanout_prefix": False, "fanout_patterns": False, "global_keyprefix": "x:"})}
    alert = "tasks.news.apply_async(({0},), queue='alerts-')\n"
    with ExitStack() as stack:
        workers = [stack.enter_context(side.worker({**env, "FLEET_NAME": name}, "-P", "solo"))
                   for side, name in ((ours(), "a"), (ours(), "b"), (theirs(), "c"))]
        ours().client("tasks.news.delay(1)\n" + alert.format(2) + "result = None", env)
        theirs().client(alert.format(3) + "result = None", env)
        seen = lines(env, 9)
        for worker in workers[:2]:
            assert worker.stop() == 0
    assert seen == [f"{name}-{number}" for name in "abc" for number in (1, 2, 3)]
    probe = Redis(server.url, 0)
    left = probe("KEYS", "*")
    probe.close()
    assert not [key for key in left if "bcast" in key or "unacked" in key]


@pytest.mark.limit(60)
def test_broadcast_of_a_client_that_does_not_know_the_exchange(env: dict[str, str]) -> None:
    """Celery's client pushes it to the lists of the bound queues, where its own workers never look."""
    with ExitStack() as stack:
        for name in "ab":
            stack.enter_context(ours().worker({**env, "FLEET_NAME": name}, "-P", "solo"))
        theirs().client("tasks.news.delay(1)\ntasks.news.apply_async((2,), queue='alerts-')\nresult = None", env)
        assert lines(env, 4) == ["a-1", "a-2", "b-1", "b-2"]


@pytest.mark.limit(60)
def test_listens_again_after_the_connection_was_cut(env: dict[str, str], server: PrivateRedis) -> None:
    with ours().worker({**env, "FLEET_NAME": "a"}, "-P", "solo") as worker:
        probe = Redis(server.url, 0)
        wait_for_listeners(probe)
        probe("CLIENT", "KILL", "TYPE", "pubsub")
        worker.wait_for("not listening to fanout exchanges")
        wait_for_listeners(probe)
        probe.close()
        ours().client("tasks.news.delay(1)\nresult = None", env)
        assert lines(env, 1) == ["a-1"]
        assert "Trying again" not in worker.text()


@pytest.mark.limit(60)
def test_survives_a_restart_of_the_server(env: dict[str, str]) -> None:
    with private_redis() as own, ours().worker({**env, "FLEET_BROKER": own.url, "FLEET_NAME": "a"}, "-P", "solo") as worker:
        own.kill()
        worker.wait_for("Trying again", 30)
        own.start()
        deadline = time.monotonic() + 30
        while worker.text().count("Connected to") < 2:
            assert time.monotonic() < deadline, worker.text()
            time.sleep(0.02)
        ours().client("tasks.news.delay(1)\nresult = None", {**env, "FLEET_BROKER": own.url})
        assert lines(env, 1) == ["a-1"]
