"""worker_deduplicate_successful_tasks: what has succeeded is not run again when its message comes once more (FEATURES 2.10)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from commands import wait_until
from fleet import Side, ours, theirs
from marks import ran, wait_all
from relay import Relay

ONCE = {"worker_deduplicate_successful_tasks": True}
SKIPPED = "] already completed successfully."
SKIPPED_BY_CELERY = "] Task already completed successfully."
#: Takes messages and gives them back, so that they come as those that came before.
REDELIVER = """
with tasks.app.connection_for_write() as connection:
    queue = tasks.app.amqp.queues[tasks.app.conf.task_default_queue](connection.default_channel)
    taken = []
    while len(taken) < {count}:
        taken += filter(None, [queue.get()])
    for message in taken:
        message.requeue()
"""


@contextmanager
def opened(url: str) -> Iterator[Relay]:
    relay = Relay(url)
    relay.open()
    try:
        yield relay
    finally:
        relay.cut()


def settings(**more: Any) -> str:
    return json.dumps({**ONCE, **more})


def remove(env: dict[str, str]) -> None:
    ours().client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0); result = 0", env)


class Held:
    """A task whose result is stored while its acknowledgement does not reach the broker."""

    def __init__(self, relay: Relay, path: Path, env: dict[str, str]) -> None:
        begun = Path(f"{path}.begun")
        self.again, self.env = begun, {**env, "FLEET_BROKER": relay.direct}
        self.id = ours().client(f"result = tasks.late_hold.delay({str(path)!r}).id", self.env)
        wait_until(begun.exists)
        begun.unlink()
        relay.hold()
        path.touch()
        wait_until(lambda: self.state() == "SUCCESS")

    def state(self) -> str:
        document = Redis.from_url(self.env["FLEET_BACKEND"]).get(f"celery-task-meta-{self.id}")
        return json.loads(document)["status"] if isinstance(document, bytes) else "PENDING"


@pytest.mark.parametrize("broker, first, second", [("amqp", ours, ours), ("amqp", theirs, ours), ("amqp", ours, theirs), ("redis", ours, ours)])
def test_worker_killed_before_the_ack(
    request: pytest.FixtureRequest, redis_url: str, unique: Callable[[str], str], tmp_path: Path,
    broker: str, first: Callable[[], Side], second: Callable[[], Side],
) -> None:
    """Another worker, be it one of Celery's, gets the message."""
    extra = {"FLEET_SETTINGS": settings(), "FLEET_OPTIONS": json.dumps({"visibility_timeout": 2} if broker == "redis" else {})}
    with opened(request.getfixturevalue(f"{broker}_url")) as relay:
        env = first().env(relay.url, redis_url, unique("repeat"), **extra)
        with first().worker(env, "-c", "1") as worker:
            held = Held(relay, tmp_path / "go", env)
            worker.kill_group()
            relay.cut()
    with second().worker(second().env(relay.direct, redis_url, env["FLEET_QUEUE"], **extra), "-c", "1") as worker:
        worker.wait_for(f"[{held.id}{SKIPPED if second is ours else SKIPPED_BY_CELERY}")
        worker.stop()
    assert not held.again.exists()
    if broker == "amqp":
        assert ours().client("result = tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, 5.0)[0]", held.env) == 0
    remove(held.env)


def test_without_the_setting(amqp_url: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A task runs again although its result is there."""
    with opened(amqp_url) as relay:
        env = ours().env(relay.url, redis_url, unique("repeat"))
        with ours().worker(env, "-c", "1") as worker:
            held = Held(relay, tmp_path / "go", env)
            worker.kill_group()
    with ours().worker(held.env, "-c", "1"):
        wait_until(held.again.exists)
    remove(held.env)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
@pytest.mark.parametrize("children", [[], [[["other", None], None]]])
def test_links_that_are_missing(
    amqp_url: str, redis_url: str, unique: Callable[[str], str], pool: str, children: list[Any],
) -> None:
    """They are sent with the stored result, unless that names what its run has sent."""
    module = "asyncio_tasks" if pool == "asyncio" else "fleet_tasks"  # coroutines, or functions
    env = ours().env(amqp_url, redis_url, unique("repeat"), FLEET_SETTINGS=settings(task_acks_late=True), FLEET_APP=module)
    ids = ours().client(f"""
from celery import chain, group
link, chained = tasks.same.s().set(task_id=tasks.app.conf.task_default_queue + "-link"), tasks.add.s(1)
sent = [tasks.add.apply_async((1, 2), link=[link, group(tasks.same.s(), tasks.same.s())]), chain(tasks.add.s(1, 2), chained, tasks.add.s(1))()]
ids = [sent[0].id, sent[1].parent.parent.id]
{REDELIVER.format(count=2)}
document = {{"status": "SUCCESS", "result": 40, "traceback": None, "children": {children!r}}}
for name in ids:
    tasks.app.backend.set(tasks.app.backend.get_key_for_task(name), tasks.app.backend.encode({{**document, "task_id": name}}))
result = [*ids, link.id, sent[1].id]
""", env)
    with ours().worker(env, "-c", "1", "-P", pool) as worker:
        for name in ids[:2]:
            worker.wait_for(f"[{name}{SKIPPED}")
        if not children:
            linked = [f"result = tasks.app.AsyncResult({name!r}).get(timeout=20)" for name in ids[2:]]
            assert [ours().client(script, env) for script in linked] == [40, 42]
            wait_until(lambda: worker.text().count(f"{module}.same[") == 6)  # received and succeeded
        worker.stop()
        if children:
            assert worker.text().count("received") == 2
    remove(env)


def test_only_late_tasks_that_have_succeeded(amqp_url: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Not early ones, not another state, not what the store cannot read, not a message that comes for the first time."""
    marks = tmp_path / "marks"
    marks.touch()
    env = ours().env(amqp_url, redis_url, unique("repeat"), FLEET_SETTINGS=settings(), FLEET_MARKS=str(marks))
    ids = ours().client(f"""
sent = [tasks.early.delay(0), *[tasks.late.delay(number) for number in range(1, 5)]]
{REDELIVER.format(count=5)}
sent.append(tasks.late.delay(5))
states = ["SUCCESS", "SUCCESS", "FAILURE", "STARTED", None, "SUCCESS"]
for one, state in zip(sent, states):
    if state:
        tasks.app.backend.store_result(one.id, ValueError("bad") if state == "FAILURE" else 1, state)
    else:
        tasks.app.backend.set(tasks.app.backend.get_key_for_task(one.id), b"not json")
result = [one.id for one in sent]
""", env)
    with ours().worker(env, "-c", "1") as worker:
        assert set(wait_all(marks, 5, 30)) == {0, 2, 3, 4, 5}
        worker.wait_for(f"[{ids[1]}{SKIPPED}")
        worker.wait_for(f"fleet_tasks.late[{ids[4]}] came again and may run for the second time: whether it has succeeded cannot be read")
        assert worker.text().count(SKIPPED) == worker.text().count("came again") == 1
    assert ran(marks) == dict.fromkeys((0, 2, 3, 4, 5), 1)
    remove(env)


def test_store_that_does_not_answer(amqp_url: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """The task runs, and says so."""
    marks = tmp_path / "marks"
    marks.touch()
    with opened(redis_url) as store:
        env = ours().env(amqp_url, store.url, unique("repeat"), FLEET_SETTINGS=settings(), FLEET_MARKS=str(marks))
        task_id = ours().client(f"one = tasks.late.delay(1)\n{REDELIVER.format(count=1)}\nresult = one.id", env)
        store.cut()
        with ours().worker(env, "-c", "1") as worker:
            worker.wait_for(f"[{task_id}] came again and may run for the second time: whether it has succeeded cannot be read")
            wait_all(marks, 1, 30)
        store.open()
    remove(env)


def test_body_of_a_chord_that_is_missing(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> None:
    """All of its header are counted, but the worker that counted the last was killed before it sent the body."""
    env = ours().env(amqp_url, redis_url, unique("repeat"), FLEET_SETTINGS=settings(task_acks_late=True))
    body = ours().client(f"""
from celery import chord
body = chord([tasks.same.s(1), tasks.same.s(2)])(tasks.total.s())
group, backend = body.parent, tasks.app.backend
{REDELIVER.format(count=2)}
for index, one in enumerate(group.results):
    part = backend.encode([1, one.id, "SUCCESS", index + 1])
    backend._count_part(group.id, index, part)
    backend.store_result(one.id, index + 1, "SUCCESS")
result = body.id
""", env)
    with ours().worker(env, "-c", "1") as worker:
        assert ours().client(f"result = tasks.app.AsyncResult({body!r}).get(timeout=20)", env) == 3
        wait_until(lambda: worker.text().count(SKIPPED) == 2)
        worker.stop()
        assert worker.text().count("fleet_tasks.total[") == 2  # received once, succeeded once
    remove(env)


def test_store_without_states(amqp_url: str, unique: Callable[[str], str]) -> None:
    env = ours().env(amqp_url, "rpc://", unique("repeat"), FLEET_SETTINGS=settings())
    with ours().worker(env, "-c", "1") as worker:
        worker.wait_for("worker_deduplicate_successful_tasks has no effect: the result backend rpc:// does not keep the states of tasks")
    remove(env)
