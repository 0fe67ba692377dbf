"""Links of a chain that run without the broker: what a user sees is the same, and nothing is lost or doubled for it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brokers import PrivateServer, private_redis
from commands import wait_until
from fleet import Worker, ours
from marks import ran, wait_all
from relay import Relay

Unique = Callable[[str], str]
REMOVE = "tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = None"
CHAIN = "from celery import chain\n"
#: A chain of early tasks whose numbers begin with `first`.
MARKS = CHAIN + "chain(*(tasks.early.si(n, {nap}) for n in range({first}, {first} + {links}))).apply_async(); result = None"


@pytest.fixture(scope="module")
def breakable_redis() -> Iterator[PrivateServer]:
    with private_redis() as server:
        yield server


@pytest.fixture(params=["rabbitmq", "redis"])
def broker(request: pytest.FixtureRequest) -> PrivateServer:
    server: PrivateServer = request.getfixturevalue(f"breakable_{request.param}")
    return server


@pytest.fixture
def env(amqp_url: str, redis_url: str, unique: Unique, marks: Path) -> Iterator[dict[str, str]]:
    made = ours().env(amqp_url, redis_url, unique("links"), FLEET_MARKS=str(marks))
    yield made
    ours().client(REMOVE, made)


@contextmanager
def paused(server: PrivateServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


FROZEN = """
import os
from celery import chain
chain(tasks.add.si(1, 1), tasks.add.s(1)).apply_async().get(timeout=20)  # its process has declared the queue
result = chain(tasks.hold.si(path), tasks.add.si(1, 1), *(tasks.add.s(1) for _ in range(20))).apply_async()
while not os.path.exists(path + ".begun"): pass
result = result.id
"""
LATER = "result = tasks.app.AsyncResult({0!r}).get(timeout={1})"


@pytest.mark.limit(120)
@pytest.mark.parametrize(("shortcut", "pool"), [(True, "prefork"), (True, "threads"), (True, "solo"), (False, "prefork"), (False, "solo")])
def test_the_broker_is_not_asked(
    broker: PrivateServer, redis_url: str, unique: Unique, tmp_path: Path, shortcut: bool, pool: str,
) -> None:
    """While it stands still the chain goes on; without the shortcut, when it goes on."""
    side, go = ours(), tmp_path / "go"
    settings = {"worker_chain_shortcut": shortcut}
    env = side.env(broker.url, redis_url, unique("links"), FLEET_SETTINGS=json.dumps(settings))
    with side.worker(env, "-c", "1", "-P", pool) as worker:
        last = side.client(f"path = {str(go)!r}\n{FROZEN}", env)
        with paused(broker):
            go.touch()
            state = f"import time; time.sleep(2); result = tasks.app.AsyncResult({last!r}).state"
            assert side.client(state, env) == ("SUCCESS" if shortcut else "PENDING")
        assert side.client(LATER.format(last, 20), env) == 22
        text = worker.text()
        assert text.count(" received") == 24 and text.count(" succeeded in ") == 24
    side.client(REMOVE, env)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_tasks_and_callers_see(env: dict[str, str], pool: str) -> None:
    side = ours()
    script = CHAIN + """
result = chain(tasks.add.s(1, 1), tasks.add.s(2), tasks.about_me.si()).apply_async()
me, second = result.get(timeout=20), result.parent
plain = tasks.about_me.delay().get(timeout=20)
states = [r.state for r in (second.parent, second, result)]
result = {"me": me, "plain": plain, "ids": [result.id, second.id, second.parent.id], "value": second.get(), "states": states,
          "children": [[c.id for c in r.children or ()] for r in (second.parent, second, result)]}
"""
    with side.worker(env, "-c", "1", "-P", pool):
        seen = side.client(script, env)
    me, (third, second, first) = seen["me"], seen["ids"]
    assert me["id"] == me["correlation_id"] == third and me["root_id"] == first and me["parent_id"] == second
    assert seen["value"] == 4 and seen["states"] == ["SUCCESS"] * 3
    assert seen["children"] == [[second], [third], []]
    own = {"id", "correlation_id", "root_id", "parent_id"}
    assert {k: v for k, v in me.items() if k not in own} == {k: v for k, v in seen["plain"].items() if k not in own}


def test_late_links_are_the_brokers(env: dict[str, str], marks: Path) -> None:
    """They run again when their worker is killed."""
    side = ours()
    with side.worker(env) as worker:
        side.client(CHAIN + "chain(tasks.early.si(1), tasks.late.si(2, 1.5), tasks.early.si(3)).apply_async(); result = None", env)
        wait_all(marks, 1, 20)
        time.sleep(0.3)
        worker.kill_group()
    with side.worker(env):
        assert wait_all(marks, 3, 20) == {1: 1, 2: 1, 3: 1}


@pytest.mark.limit(120)
def test_killed_again_and_again(env: dict[str, str], marks: Path) -> None:
    """Of the chains only those that run are lost, as early tasks that run are; none doubles. A message that waits is not lost."""
    side, kills, links = ours(), 5, 400
    for kill in range(kills):
        for one in range(2):
            side.client(MARKS.format(first=10000 * (2 * kill + one), links=links, nap=0.002), env)
        worker = Worker(side, env, ("-c", "2"))
        begun = len(ran(marks))
        wait_until(lambda begun=begun: len(ran(marks)) > begun + 100)
        worker.kill_group()
        worker.end()
    side.client("result = tasks.late.delay(9999).id", env)
    with side.worker(env):
        wait_until(lambda: 9999 in ran(marks))
        time.sleep(1)
    seen = ran(marks)
    assert max(seen.values()) == 1
    for number in range(2 * kills):
        run = [n for n in seen if n // 10000 == number and n != 9999]
        assert sorted(run) == list(range(10000 * number, 10000 * number + len(run)))  # its beginning, without a gap
    assert len(seen) > 100 * kills


@pytest.mark.limit(90)
def test_warm_shutdown_leaves_the_rest_to_others(env: dict[str, str], marks: Path) -> None:
    side = ours()
    for first in range(0, 4000, 1000):
        with side.worker(env) as worker:
            side.client(MARKS.format(first=first, links=300, nap=0.002), env)
            wait_until(lambda first=first: first + 50 in ran(marks))
            assert worker.stop() == 0
            assert first + 299 not in ran(marks)
    with side.worker(env):
        assert set(wait_all(marks, 4 * 300, 40).values()) == {1}


@pytest.mark.limit(90)
def test_connection_lost_on_the_way(amqp_url: str, redis_url: str, unique: Unique, marks: Path) -> None:
    side, relay = ours(), Relay(amqp_url)
    relay.open()
    env = side.env(relay.url, redis_url, unique("links"), FLEET_MARKS=str(marks))
    past = {**env, "FLEET_BROKER": relay.direct}
    with side.worker(env) as worker:
        side.client(MARKS.format(first=0, links=400, nap=0.002), past)
        for goal in (50, 150, 250):
            wait_until(lambda goal=goal: goal in ran(marks))
            relay.cut()
            time.sleep(0.3)
            relay.open()
        assert wait_all(marks, 400, 40) == dict.fromkeys(range(400), 1)
        worker.stop()
    relay.cut()
    side.client(REMOVE, past)


def test_who_waits_has_a_turn(env: dict[str, str]) -> None:
    """With one process: a task that is sent while a long chain runs does not wait for its end."""
    script = CHAIN + """
chained = chain(tasks.sleep.si(0.2), *(tasks.sleep.si(0.2) for _ in range(15))).apply_async()
first = chained
while first.parent: first = first.parent
first.get(timeout=20)
value = tasks.same.delay("mine").get(timeout=20)
result = [value, chained.ready()]
"""
    with ours().worker(env, "-c", "1"):
        assert ours().client(script, env) == ["mine", False]


def test_later_link_is_revoked(env: dict[str, str]) -> None:
    script = CHAIN + """
from celery.exceptions import TaskRevokedError
last = chain(tasks.sleep.si(1), tasks.sleep.si(0), tasks.sleep.si(0)).apply_async()
tasks.app.control.revoke(last.id, reply=True)
try: last.get(timeout=20)
except TaskRevokedError: result = last.parent.get(timeout=20)
"""
    with ours().worker(env):
        assert ours().client(script, env) == "slept"


def test_queue_is_no_longer_consumed(env: dict[str, str], marks: Path, unique: Unique) -> None:
    """The next link waits in the queue until somebody consumes it."""
    name = f"{unique('links')}@here"  # other tests have workers, too
    script = MARKS.format(first=0, links=60, nap=0.02) + f"""
import time
time.sleep(0.3)
queue = tasks.app.conf.task_default_queue
tasks.app.control.cancel_consumer(queue, reply=True, destination=["{name}"])
time.sleep(0.3)
sizes = [tasks.app.amqp.producer.size(queue, 5.0)[0]]
time.sleep(0.3)
sizes.append(tasks.app.amqp.producer.size(queue, 5.0)[0])
tasks.app.control.add_consumer(queue, reply=True, destination=["{name}"])
result = sizes
"""
    with ours().worker(env, "-c", "2", "-n", name):
        assert ours().client(script, env) == [1, 1]
        assert wait_all(marks, 60, 20) == dict.fromkeys(range(60), 1)


def test_process_for_each_task(env: dict[str, str]) -> None:
    script = CHAIN + """
last = chain(*(tasks.pid.si() for _ in range(4))).apply_async()
last.get(timeout=30)
result = []
while last:
    result.append(last.get())
    last = last.parent
"""
    with ours().worker(env, "-c", "1", "--max-tasks-per-child", "1"):
        assert len(set(ours().client(script, env))) == 4


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_process_dies(env: dict[str, str], marks: Path, signum: int) -> None:
    """The chain ends with its link's failure, and the worker goes on."""
    script = CHAIN + f"""
last = chain(tasks.early.si(1), tasks.add.si(1, 1), tasks.early_die.si({int(signum)}), tasks.early.si(2)).apply_async()
try: last.parent.get(timeout=20)
except Exception as exc: kind = type(exc).__name__
last.get(timeout=20, propagate=False)
result = [kind, last.state, tasks.same.delay(3).get(timeout=20)]
"""
    with ours().worker(env):
        assert ours().client(script, env) == ["WorkerLostError", "FAILURE", 3]
    assert ran(marks) == {1: 1}


def test_events_of_each_link(env: dict[str, str]) -> None:
    script = CHAIN + """
import threading
seen, connected = [], threading.Event()
with tasks.app.connection_for_read() as connection:
    receiver = tasks.app.events.Receiver(connection, handlers={"*": seen.append})
    def send():
        global chained
        chained = chain(tasks.add.si(1, 1), tasks.add.s(1), tasks.add.s(1)).apply_async()
    thread = threading.Timer(0.5, send)
    thread.start()
    try: receiver.capture(limit=None, timeout=3, wakeup=False)
    except Exception as exc: assert "timed out" in str(exc), exc
names = []
while chained:
    names.append([e["type"] for e in seen if e.get("uuid") == chained.id])
    chained = chained.parent
result = names
"""
    with ours().worker(env, "-c", "2", "-E"):
        assert ours().client(script, env) == [["task-received", "task-started", "task-succeeded"]] * 3
