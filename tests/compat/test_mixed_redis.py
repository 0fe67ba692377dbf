"""One Redis as broker and result store for clients and workers of Celery and of pyceleryc (PROTOCOL §3.6)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers import PrivateRedis, private_redis
from fleet import Side, Worker, ours, theirs
from resp import Redis

pytestmark = pytest.mark.long

BOTH = pytest.mark.parametrize("client", [ours, theirs], ids=["our client", "celery client"])
QUEUE = "mixed"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with private_redis() as made:
        yield made


@pytest.fixture(scope="module")
def env(server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    marks = tmp_path_factory.mktemp("mixed") / "marks"
    marks.touch()
    return ours().env(server.url, server.url, QUEUE, FLEET_MARKS=str(marks), FLEET_PREFETCH="1")


@pytest.fixture(scope="module")
def fleet(env: dict[str, str], server: PrivateRedis) -> Iterator[list[Worker]]:
    """A worker of each kind on the same queue. When both have gone, the server has only what Celery leaves behind, too:
    bindings and results."""
    with theirs().worker(env, "-c", "2", "-n", "theirs@here") as first, ours().worker(env, "-c", "2", "-n", "ours@here") as second:
        yield [first, second]
    redis = Redis(server.url, 0)
    left = [key for key in redis("KEYS", "*") if not key.startswith("_kombu.binding")]
    assert [key for key in left if not key.startswith("celery-task-meta-") or int(redis("TTL", key)) <= 0] == []
    redis.close()


@BOTH
def test_results(client: Callable[[], Side], env: dict[str, str], fleet: list[Worker]) -> None:
    script = """
sent = [tasks.add.delay(i, i) for i in range(40)]
failed = tasks.fail.delay('apple', 3)
retried = tasks.flaky.delay(2)
total = tasks.add.s(1, 1) | tasks.add.s(10)
result = [[r.get(timeout=20) for r in sent], list(failed.get(timeout=20, propagate=False).args), retried.get(timeout=20),
          total.delay().get(timeout=20)]
"""
    assert client().client(script, env) == [[2 * i for i in range(40)], ["apple", 3], 2, 12]


@BOTH
def test_remote_control(client: Callable[[], Side], env: dict[str, str], fleet: list[Worker]) -> None:
    """Four late-ack tasks fill both workers, whoever sent them; both kinds answer, and both revoke."""
    script = """
import time
from celery.exceptions import TaskRevokedError
inspect = tasks.app.control.inspect(timeout=5, limit=2)
long = [tasks.late_requeued.delay(number, 60) for number in range(4)]
held = tasks.add.apply_async((1, 1), countdown=2)
deadline = time.monotonic() + 20
while True:
    active = inspect.active()
    if sorted(len(found) for found in active.values()) == [2, 2] or time.monotonic() > deadline:
        break
pong = tasks.app.control.ping(timeout=5, limit=2)
for each in long:
    tasks.app.control.revoke(each.id, terminate=True)
held.revoke()
try:
    end = held.get(timeout=20)
except TaskRevokedError as exc:
    end = str(exc)
while any(inspect.active().values()) and time.monotonic() < deadline:
    pass
result = [{node: len(found) for node, found in active.items()}, sorted(node for reply in pong for node in reply), end,
          {node: held.id in found for node, found in inspect.revoked().items()}, [each.state for each in long]]
"""
    active, pong, end, revoked, states = client().client(script, env)
    assert active == {"ours@here": 2, "theirs@here": 2}
    assert pong == ["ours@here", "theirs@here"]
    assert end == "revoked"
    assert revoked == {"ours@here": True, "theirs@here": True}
    assert states == ["REVOKED"] * 4


def test_warm_shutdown_gives_back(server: PrivateRedis, tmp_path: Path) -> None:
    """What was prefetched and has not started returns to the front of the list, in order and marked; nothing stays booked. A
    Celery worker goes on with it."""
    marks = tmp_path / "marks"
    marks.touch()
    redis = Redis(server.url, 1)
    env = ours().env(redis.url, None, "leaving", FLEET_MARKS=str(marks), FLEET_PREFETCH="8")
    with ours().worker(env, "-c", "1") as worker:
        ours().client("for n in range(20):\n    tasks.late.delay(n, 0.2)\nresult = None", env)
        deadline = time.monotonic() + 40
        while len(marks.read_text().split()) < 2:
            assert time.monotonic() < deadline, worker.text()[-3000:]
            time.sleep(0.02)
        assert worker.stop() == 0
    assert [key for key in redis("KEYS", "*") if not key.startswith("_kombu.binding")] == ["leaving"]
    done = len(marks.read_text().split())
    assert redis("LLEN", "leaving") == 20 - done
    first = json.loads(redis("LINDEX", "leaving", "-1"))
    assert first["headers"]["argsrepr"] == f"({done}, 0.2)"
    assert first["properties"]["delivery_info"] == {"exchange": "", "routing_key": "leaving", "redelivered": True}
    assert first["headers"]["redelivered"] is True
    with theirs().worker(env, "-c", "4") as worker:
        while len(marks.read_text().split()) < 20:
            assert time.monotonic() < deadline, worker.text()[-3000:]
            time.sleep(0.05)
    assert sorted(map(int, marks.read_text().split())) == list(range(20))
    assert [key for key in redis("KEYS", "*") if not key.startswith("_kombu.binding")] == []
    redis.close()
