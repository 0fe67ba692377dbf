"""Redis found through Sentinel: the master dies, or changes in order, under load (DESIGN 4, PEERS 3.2)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from brokers import PrivateRedis, PrivateSentinel, free_port, private_redis, private_sentinel
from fleet import ours
from resp import Redis

pytestmark = pytest.mark.long

CLIENT = """
import sys, pyceleryc
pyceleryc.install_as_celery()
import fleet_tasks as tasks
for line in sys.stdin:
    first, count, wanted = map(int, line.split())
    sent = [tasks.late.delay(number) for number in range(first, first + count)]
    tasks.app.amqp.publisher.flush(20)
    print([tasks.add.delay(number, 1).get(timeout=30) for number in range(wanted)], flush=True)
"""


@dataclass
class Group:
    """Two servers and a Sentinel."""

    servers: tuple[PrivateRedis, PrivateRedis]
    sentinel: PrivateSentinel

    def master(self) -> PrivateRedis:
        probe = Redis(self.sentinel.url, 0, select=False)
        port = int(probe("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "themaster")[1])
        probe.close()
        return next(server for server in self.servers if server.port == port)

    def wait_synced(self) -> None:
        """Until a replica has all that the master has."""
        probe = Redis(self.master().url, 0)
        deadline = time.monotonic() + 20
        while probe("WAIT", "1", "1000") < 1:
            assert time.monotonic() < deadline
        probe.close()

    def wait_for_another(self, than: PrivateRedis) -> None:
        deadline = time.monotonic() + 20
        while self.master() is than:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with ExitStack() as stack:
        first = stack.enter_context(private_redis())
        second = stack.enter_context(private_redis({"replicaof": f"127.0.0.1 {first.port}"}))
        made = Group((first, second), stack.enter_context(private_sentinel(first)))
        made.wait_synced()
        probe, deadline = Redis(made.sentinel.url, 0, select=False), time.monotonic() + 20
        while not probe("SENTINEL", "REPLICAS", "themaster"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        probe.close()
        yield made


@pytest.mark.limit(120)
def test_another_master(group: Group, tmp_path: Path, unique: Callable[[str], str]) -> None:
    """First the master is killed, then the roles are changed back in order: no task and no result is lost."""
    marks = tmp_path / "marks"
    marks.touch()
    url = f"sentinel://127.0.0.1:{free_port()}/1;sentinel://127.0.0.1:{group.sentinel.port}/1"  # the first is down
    options = json.dumps({"master_name": "themaster"})
    env = ours().env(url, url, unique("sentinel"), FLEET_MARKS=str(marks), FLEET_OPTIONS=options, FLEET_STORE_OPTIONS=options)
    client = subprocess.Popen([sys.executable, "-c", CLIENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None and client.stdout is not None

    def send(first: int) -> None:
        assert client.stdin is not None
        client.stdin.write(f"{first} 300 3\n")
        client.stdin.flush()

    with ours().worker(env), client:
        send(0)
        assert json.loads(client.stdout.readline()) == [1, 2, 3]
        group.wait_synced()
        before = group.master()
        before.kill()
        send(300)  # nobody is there to take them yet
        assert json.loads(client.stdout.readline()) == [1, 2, 3]
        assert group.master() is not before
        before.options["replicaof"] = f"127.0.0.1 {group.master().port}"  # a Sentinel takes its time to say so
        before.start()
        group.wait_synced()
        send(600)
        probe, now = Redis(group.sentinel.url, 0, select=False), group.master()
        assert probe("SENTINEL", "FAILOVER", "themaster") == "OK"
        probe.close()
        assert json.loads(client.stdout.readline()) == [1, 2, 3]
        group.wait_for_another(now)
        send(900)
        assert json.loads(client.stdout.readline()) == [1, 2, 3]
        deadline = time.monotonic() + 20
        while len(seen := set(map(int, marks.read_text().split()))) < 1200:
            assert time.monotonic() < deadline, sorted(set(range(1200)) - seen)[:10]
            time.sleep(0.05)


@pytest.mark.limit(30)
def test_what_is_missing_is_said(group: Group, unique: Callable[[str], str]) -> None:
    script = ("try:\n    tasks.add.apply_async((1, 2), retry=False)\nexcept Exception as exc:\n    result = repr(exc)")
    url = f"sentinel://127.0.0.1:{group.sentinel.port}"
    assert "master_name" in ours().client(script, ours().env(url, None, unique("sentinel")))
    env = ours().env(url, None, unique("sentinel"), FLEET_OPTIONS=json.dumps({"master_name": "nobody", "publish_timeout": 1}))
    assert "knows no master of this name" in ours().client(script, env)
