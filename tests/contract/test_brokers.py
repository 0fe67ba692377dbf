"""What every broker promises to a worker: one body of tests for the drivers of the core and for kombu's transports."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Exchange, Queue

from embedding import embedded
from pyceleryc import Celery
from pyceleryc.exceptions import NotRegistered, Reject

DRIVERS = ["memory", "sqlite", "redis", "amqp"]
THROUGH_KOMBU = ["filesystem", "sqlalchemy"]
ALL = [*DRIVERS, *THROUGH_KOMBU]


class World:
    """An app with two queues nobody else uses, and a look at the broker that does not go through a worker."""

    def __init__(self, name: str, url: str, options: dict[str, Any], results: str, unique: Callable[[str], str]) -> None:
        self.name = name
        self.names = [unique("contract"), unique("contract")]
        arguments = {"x-max-priority": 10} if name == "amqp" else None
        self.app = Celery("contract", broker=url, backend=results, set_as_current=False)
        self.app.conf.update(
            task_queues=[Queue(each, Exchange(each), each, queue_arguments=arguments) for each in self.names],
            task_default_queue=self.names[0], broker_transport_options=options, worker_prefetch_multiplier=1,
            broker_connection_retry_on_startup=False)
        self.ran: list[Any] = []
        self.gate = threading.Event()
        self.running = threading.Event()
        self._define()

    def _define(self) -> None:
        app, world = self.app, self

        # Not shared: what is shared is kept for apps to come, and with it this world and its connections.
        @app.task(name="contract.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="contract.note", shared=False)
        def note(what: Any) -> Any:
            world.ran.append(what)
            return what

        @app.task(name="contract.wait", shared=False, acks_late=True)
        def wait(what: Any) -> Any:
            world.ran.append(what)
            world.running.set()
            world.gate.wait(30)
            return what

        @app.task(name="contract.refuse", shared=False, acks_late=True, bind=True)
        def refuse(self: Any, requeue: bool) -> Any:
            world.ran.append(self.request.delivery_info["redelivered"])
            if len(world.ran) == 1:
                raise Reject("not now", requeue=requeue)
            return len(world.ran)

        @app.task(name="contract.route", shared=False, bind=True)
        def route(self: Any) -> Any:
            request = self.request
            return [request.delivery_info["routing_key"], request.id, request.correlation_id,
                    request.delivery_info["priority"], request.headers["mine"] if request.headers else None]

    def task(self, name: str) -> Any:
        return self.app.tasks[f"contract.{name}"]

    def publish(self, body: bytes, headers: dict[str, Any], **properties: Any) -> None:
        """A message as a stranger would send it."""
        amqp, queue = self.app.amqp, self.app.amqp.queues[self.names[0]]
        properties = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        if amqp.publisher is not None:
            amqp.publisher.declare(queue)
            amqp.producer.publish("", queue.name, body, headers, properties, False, None, 10.0)
            return
        with self.app.producer_pool.acquire(block=True) as producer:
            producer.publish(body, exchange="", routing_key=queue.name, headers=headers, declare=[queue], **properties)

    def waiting(self, queue: str | None = None) -> int:
        name = queue or self.names[0]
        if self.app.amqp.publisher is not None:
            self.app.amqp.publisher.declare(self.app.amqp.queues[name])
            return int(self.app.amqp.producer.size(name, 10.0)[0])
        with self.app.connection_for_write() as connection:
            return int(self.app.amqp.queues[name](connection.default_channel).queue_declare(passive=True).message_count)

    def eventually(self, check: Callable[[], Any], seconds: float = 20.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := check()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found
        return found

    def close(self) -> None:
        self.gate.set()
        if self.app.amqp.publisher is not None:
            for name in self.names:
                self.app.amqp.producer.remove(name, 10.0)
        self.app.close()


@pytest.fixture(params=ALL)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str, request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str],
          monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    options: dict[str, Any] = {}
    if kind == "sqlalchemy":  # it has no option for that
        monkeypatch.setattr("kombu.transport.sqlalchemy.Transport.polling_interval", 0.05)
    if kind == "filesystem":
        for name in ("q", "control"):
            (tmp_path / name).mkdir()
        options = {"data_folder_in": f"{tmp_path}/q", "data_folder_out": f"{tmp_path}/q",
                   "control_folder": f"{tmp_path}/control", "polling_interval": 0.05}
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/broker.db",
        "redis": lambda: str(request.getfixturevalue("redis_url")),
        "amqp": lambda: str(request.getfixturevalue("amqp_url")),
        "filesystem": lambda: "filesystem://",
        "sqlalchemy": lambda: f"sqla+sqlite:///{tmp_path}/kombu.db",
    }
    made = World(kind, urls[kind](), options, f"sqlite:///{tmp_path}/results.db", unique)
    yield made
    made.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_tasks_run(world: World, pool: str) -> None:
    with embedded(world.app, pool=pool, concurrency=2):
        results = [world.task("add").delay(i, i) for i in range(20)]
        assert [result.get(timeout=20) for result in results] == [2 * i for i in range(20)]
    assert world.waiting() == 0


def test_several_queues(world: World) -> None:
    with embedded(world.app, pool="solo"):
        results = [world.task("route").apply_async(queue=name) for name in world.names for _ in range(2)]
        seen = [result.get(timeout=20)[0] for result in results]
    assert seen == [name for name in world.names for _ in range(2)]


def test_one_of_the_queues(world: World) -> None:
    one, other = world.names
    world.task("note").apply_async(("other",), queue=other)
    with embedded(world.app, pool="solo", queues=[one]):
        assert world.task("note").apply_async(("one",), queue=one).get(timeout=20) == "one"
    assert world.ran == ["one"]
    assert world.waiting(other) == 1


def test_message_arrives_whole(world: World) -> None:
    with embedded(world.app, pool="solo"):
        result = world.task("route").apply_async(headers={"mine": "é"}, priority=3)
        assert result.get(timeout=20) == [world.names[0], result.id, result.id, 3, "é"]


def test_serializers_and_compression(world: World) -> None:
    world.app.conf.accept_content = ["json", "pickle", "yaml"]
    ways: list[dict[str, Any]] = [{"serializer": "pickle"}, {"compression": "zlib"}, {"serializer": "yaml", "compression": "zlib"}]
    with embedded(world.app, pool="solo"):
        assert [world.task("add").apply_async((2, 3), **how).get(timeout=20) for how in ways] == [5, 5, 5]


def test_many_held_tasks_do_not_stop_others(world: World) -> None:
    with embedded(world.app, pool="solo"):
        for _ in range(5):
            world.task("note").apply_async(("too early",), countdown=600)
        begun = time.monotonic()
        later = world.task("note").apply_async(("later",), countdown=0.5)
        assert [world.task("note").delay("now").get(timeout=20) for _ in range(3)] == ["now"] * 3
        assert later.get(timeout=20) == "later"
        assert time.monotonic() - begun >= 0.5
    assert sorted(world.ran) == ["later", "now", "now", "now"]


def test_rejected_and_put_back(world: World) -> None:
    with embedded(world.app, pool="solo"):
        assert world.task("refuse").delay(True).get(timeout=20) == 2
    assert len(world.ran) == 2
    assert world.waiting() == 0


def test_rejected_for_good(world: World) -> None:
    with embedded(world.app, pool="solo"):
        world.task("refuse").delay(False)
        world.eventually(lambda: world.ran)
        assert world.task("add").delay(1, 1).get(timeout=20) == 2
    assert len(world.ran) == 1
    assert world.waiting() == 0


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "amqp"])
def test_priorities(world: World) -> None:
    """Higher first; on Redis, as with Celery, 0 is the first."""
    first, last = (0, 9) if world.name == "redis" else (9, 0)
    for what, priority in [("last", last), ("last", last), ("first", first)]:
        result = world.task("note").apply_async((what,), priority=priority)
    with embedded(world.app, pool="solo"):
        result.get(timeout=20)
        world.eventually(lambda: len(world.ran) == 3)
    assert world.ran == ["first", "last", "last"]


def test_unknown_task(world: World) -> None:
    with embedded(world.app, pool="solo"):
        with pytest.raises(NotRegistered):
            world.app.send_task("contract.nobody_knows").get(timeout=20)
        assert world.task("add").delay(1, 1).get(timeout=20) == 2
    assert world.waiting() == 0


def headers_of(task: str, **more: Any) -> dict[str, Any]:
    return {"task": task, "id": str(uuid.uuid4()), **more}


BAD = {
    "not JSON": (b"{nope", headers_of("contract.note"), {}),
    "another shape": (b'[{"a": 1}]', headers_of("contract.note"), {}),
    "no headers": (b"[[1], {}, {}]", {}, {}),
    "no id": (b"[[1], {}, {}]", {"task": "contract.note"}, {}),
    "wrong header": (b"[[1], {}, {}]", headers_of("contract.note", eta=[1]), {}),
    "not accepted": (b"cos\nsystem\n(S'true'\ntR.", headers_of("contract.note"),
                     {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
    "nothing at all": (b"", {}, {}),
    "old, no id": (b'{"task": "contract.note", "args": [1]}', {}, {}),
    "old, unknown task": (b'{"task": "contract.nobody_knows", "id": "1", "args": [1]}', {}, {}),
    "old, wrong types": (b'{"task": ["contract.note"], "id": {}, "args": 1, "eta": 5, "timelimit": 3}', {}, {}),
}


def test_bad_messages(world: World) -> None:
    """Each is dropped with a word in the log, none of them runs, and the worker goes on."""
    with embedded(world.app, pool="solo"):
        for body, headers, properties in BAD.values():
            world.publish(body, headers, **properties)
        assert world.task("add").delay(1, 1).get(timeout=20) == 2
        world.eventually(lambda: world.waiting() == 0)
    assert world.ran == []
    assert world.waiting() == 0


def test_message_of_a_stranger(world: World) -> None:
    """Only what the protocol asks for."""
    headers = headers_of("contract.note")
    world.publish(json.dumps([["hello"], {}, {}]).encode(), headers, correlation_id=headers["id"], reply_to="")
    with embedded(world.app, pool="solo"):
        assert world.app.AsyncResult(headers["id"]).get(timeout=20) == "hello"


def test_protocol_1(world: World) -> None:
    """What clients of Celery 3 send: everything is in the body (tests/compat has messages of the real Celery)."""
    world.app.conf.task_protocol = 1
    with embedded(world.app, pool="solo"):
        assert world.task("add").delay(1, 2).get(timeout=20) == 3
        begun = time.monotonic()
        assert world.task("note").apply_async(("later",), countdown=0.5).get(timeout=20) == "later"
        assert time.monotonic() - begun >= 0.5
        world.task("add").apply_async((1, 2), link=world.task("note").s())
        world.eventually(lambda: 3 in world.ran)
    assert world.waiting() == 0


def test_between_the_protocols(world: World) -> None:
    """Headers and a body that is a map: the headers are right, and what they lack is in the body."""
    task_id = str(uuid.uuid4())
    body = {"task": "contract.add", "id": "another", "args": ["a"], "kwargs": {}, "mine": 1}
    world.publish(json.dumps(body).encode(), {"task": "contract.note", "id": task_id})
    with embedded(world.app, pool="solo"):
        assert world.app.AsyncResult(task_id).get(timeout=20) == "a"


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_shutdown_gives_back(world: World, pool: str) -> None:
    """What runs is finished and acknowledged, what only was prefetched goes back."""
    world.app.conf.worker_prefetch_multiplier = 4
    with embedded(world.app, pool=pool, concurrency=1) as worker:
        for i in range(2):
            world.task("note").apply_async((f"held {i}",), countdown=20)
        for i in range(4):
            world.task("wait").delay(i)
        assert world.running.wait(20)
        if pool == "threads":  # the loop turns: so it takes what it may
            world.eventually(lambda: worker.stats["received"] >= 4)
        worker.stop()
        world.gate.set()
    assert len(world.ran) == 1
    # a sqlite:// broker keeps those with an ETA to itself, and does not count them
    assert world.eventually(lambda: world.waiting() == (3 if world.name == "sqlite" else 5))


def test_two_workers_share(world: World) -> None:
    with embedded(world.app, pool="solo"), embedded(world.app, pool="solo"):
        results = [world.task("note").delay(i) for i in range(20)]
        assert [result.get(timeout=20) for result in results] == list(range(20))
    assert sorted(world.ran) == list(range(20))
    assert world.waiting() == 0


WITH_FANOUT = [*DRIVERS, "filesystem"]


@pytest.mark.parametrize("kind", WITH_FANOUT)
def test_remote_control(world: World) -> None:
    node = f"w@{world.names[0]}"
    ask = {"destination": [node], "timeout": 5, "limit": 1}
    one, other = world.names
    with embedded(world.app, pool="solo", hostname=node, queues=[one]):
        assert world.eventually(lambda: world.app.control.ping(destination=[node], timeout=1, limit=1)) == [{node: {"ok": "pong"}}]
        assert world.app.control.add_consumer(other, reply=True, **ask)
        assert world.task("note").apply_async(("there",), queue=other).get(timeout=20) == "there"
        assert world.app.control.cancel_consumer(other, reply=True, **ask)
        world.task("note").apply_async(("not any more",), queue=other)
        assert world.task("note").delay("here").get(timeout=20) == "here"
    assert world.ran == ["there", "here"]
    assert world.waiting(other) == 1


def drain(connection: Any) -> None:
    with contextlib.suppress(socket.timeout):
        connection.drain_events(timeout=0.2)


@pytest.mark.parametrize("kind", WITH_FANOUT)
def test_events(world: World) -> None:
    node = f"w@{world.names[0]}"
    seen: list[str] = []

    def note(event: dict[str, Any]) -> None:
        if event["hostname"] == node:  # others may use this broker
            seen.append(event["type"])

    with world.app.connection_for_read() as connection:
        receiver = world.app.events.Receiver(connection, handlers={"*": note})
        with receiver.consumer_context() as (mine, _, _):
            drain(mine)  # with Redis this subscribes
            with embedded(world.app, pool="solo", hostname=node, task_events=True) as worker:
                world.eventually(lambda: worker.machine and worker.machine.link.up)
                world.task("note").delay("x").get(timeout=20)
                world.eventually(lambda: drain(mine) or "task-succeeded" in seen)
    assert [name for name in seen if name.startswith("task-")] == ["task-received", "task-started", "task-succeeded"]


def test_kombu_sees_the_same_queues(world: World) -> None:
    """``app.connection()`` is for whoever wants to talk to the broker without tasks."""
    queue = world.app.amqp.queues[world.names[0]]
    world.task("note").delay("taken")
    with world.app.connection() as connection:
        with connection.SimpleQueue(queue) as simple:
            message = simple.get(timeout=30)
            assert message.payload[0] == ["taken"] and message.headers["task"] == "contract.note"
            message.ack()
        with world.app.amqp.Producer(connection) as producer:
            world.task("note").apply_async(("by a producer",), producer=producer)
    with embedded(world.app, pool="solo"):
        world.eventually(lambda: world.ran)
    assert world.ran == ["by a producer"]
    assert world.app.control.purge() == 0


def test_worker_after_worker(world: World) -> None:
    for i in range(3):
        with embedded(world.app, pool="solo"):
            assert world.task("add").delay(i, i).get(timeout=20) == 2 * i


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis", "filesystem"], indirect=True)
def test_headers_that_only_pythons_json_knows(world: World) -> None:
    """As with Celery; AMQP has no such values."""
    value = [float("inf"), 2**70, "\ud800", [-float("inf"), {"\udc00": 'NaN "Infinity"'}]]
    with embedded(world.app):
        found = world.task("route").apply_async(headers={"mine": value})
        assert found.get(timeout=20)[-1] == value


@pytest.mark.parametrize("kind", ["memory", "redis"], indirect=True)
def test_header_that_is_no_number(world: World) -> None:
    with embedded(world.app):
        assert world.task("route").apply_async(headers={"mine": float("nan")}).get(timeout=20)[-1] != 0
