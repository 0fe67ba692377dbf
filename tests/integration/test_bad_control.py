"""Remote control and events that are wrong in every way: a line in the log, and the worker goes on."""

from __future__ import annotations

import io
import json
import pickle
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from embedding import embedded
from kombu import Connection

from pyceleryc import Celery
from pyceleryc.events.dumper import Dumper
from pyceleryc.worker.worker import WorkController

NODE = "victim@here"


@dataclass
class World:
    app: Celery
    connection: Connection
    worker: WorkController

    def publish(self, exchange: str, body: bytes | str, routing_key: str = "", headers: Any = None, **properties: Any) -> None:
        with self.connection.Producer() as producer:
            producer.publish(body, exchange=exchange, routing_key=routing_key, headers=headers or {}, **{
                "content_type": "application/json", "content_encoding": "utf-8", "serializer": None, **properties})

    def order(self, body: Any, **options: Any) -> None:
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        self.publish(f"{self.app.conf.control_exchange}.pidbox", text, **options)

    def tell(self, body: Any, routing_key: str = "worker.heartbeat", **options: Any) -> None:
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        self.publish(self.app.conf.event_exchange, text, routing_key, **options)

    def check_alive(self) -> None:
        assert self.app.control.ping(destination=[NODE], timeout=15) == [{NODE: {"ok": "pong"}}]
        assert self.app.tasks["bad.add"].delay(1, 2).get(timeout=15) == 3


@pytest.fixture(scope="module")
def world(amqp_url: str) -> Iterator[World]:
    name = f"badctl-{uuid.uuid4().hex[:10]}"
    app = Celery(name, broker=amqp_url, backend="rpc://", set_as_current=False)
    app.conf.update(task_default_queue=name, control_exchange=f"{name}-control", event_exchange=f"{name}-events",
                    accept_content=["json"])

    @app.task(name="bad.add")
    def add(x: int, y: int) -> int:
        return x + y

    with Connection(amqp_url) as connection:
        with embedded(app, hostname=NODE, pool="solo", task_events=True, heartbeat_interval=0.5) as worker:
            yield World(app, connection, worker)
        connection.default_channel.queue_delete(name)
        for exchange in (name, f"{name}-events", f"{name}-control.pidbox", f"reply.{name}-control.pidbox"):
            connection.default_channel.exchange_delete(exchange)
    app.close()


REPLY = {"exchange": "nobody", "routing_key": "here"}
ORDERS: dict[str, Any] = {
    "not JSON": "{nonsense", "empty": b"", "a list": [1, 2], "a text": '"ping"', "a number": "7", "null": "null",
    "no method": {"arguments": {}}, "method is null": {"method": None}, "method is a list": {"method": ["ping"], "arguments": {}},
    "method is a number": {"method": 5, "arguments": {}, "destination": None},
    "unknown method": {"method": "nonexist", "arguments": {}, "ticket": "t", "reply_to": REPLY},
    "private method": {"method": "__class__", "arguments": {}, "ticket": "t", "reply_to": REPLY},
    "arguments are a list": {"method": "ping", "arguments": [1]}, "arguments are a text": {"method": "ping", "arguments": "x"},
    "arguments that ping has not": {"method": "ping", "arguments": {"self": 1, "state": 2}},
    "destination is a number": {"method": "ping", "arguments": {}, "destination": 5},
    "destination is a map": {"method": "ping", "arguments": {}, "destination": {"a": 1}},
    "a broken pattern": {"method": "ping", "arguments": {}, "pattern": "(", "matcher": "pcre"},
    "an unknown matcher": {"method": "ping", "arguments": {}, "pattern": "*", "matcher": "no"},
    "reply_to is a text": {"method": "ping", "arguments": {}, "ticket": "t", "reply_to": "me"},
    "reply_to is empty": {"method": "ping", "arguments": {}, "ticket": "t", "reply_to": {}},
    "reply to a number": {"method": "ping", "arguments": {}, "ticket": 3, "reply_to": {"exchange": 1, "routing_key": 2}},
    "deep": '{"method": "ping", "arguments": ' + '{"a": ' * 5000 + "1" + "}" * 5000 + "}",
    "surrogates": '{"method": "\\ud800", "arguments": {}}',
}
#: Commands with arguments of wrong types.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("revoke", {"task_id": {"a": 1}}), ("revoke", {"task_id": 5}), ("revoke", {"task_id": None, "terminate": True, "signal": "NOPE"}),
    ("terminate", {"signal": 1000, "task_id": "x"}), ("revoke_by_stamped_headers", {"headers": "a=b"}),
    ("rate_limit", {"task_name": ["bad.add"], "rate_limit": {}}), ("rate_limit", {"task_name": "bad.add", "rate_limit": "fast"}),
    ("time_limit", {"task_name": "bad.add", "soft": "x", "hard": []}), ("time_limit", {"task_name": {}, "soft": 1}),
    ("pool_grow", {"n": "x"}), ("pool_grow", {"n": 10**9}), ("pool_shrink", {"n": 10**9}), ("autoscale", {"max": "a", "min": {}}),
    ("add_consumer", {"queue": 5}), ("add_consumer", {"queue": ["x"], "exchange_type": "odd"}), ("cancel_consumer", {"queue": None}),
    ("query_task", {"ids": 7}), ("query_task", {"ids": [[]]}), ("registered", {"taskinfoitems": 5}), ("memdump", {"samples": "x"}),
    ("hello", {"from_node": 5, "revoked": [1, 2]}), ("hello", {"from_node": "x@y", "revoked": {"a": "b"}}),
    ("election", {"id": [], "topic": {}, "action": 1}), ("conf", {"with_defaults": []}), ("objgraph", {"num": "x", "type": 5}),
    ("shutdown_please", {}),
]


def test_orders(world: World) -> None:
    for body in ORDERS.values():
        world.order(body)
    world.check_alive()


def test_headers_and_content_of_orders(world: World) -> None:
    ping = {"method": "ping", "arguments": {}, "destination": None}
    for headers in ({"clock": "x"}, {"clock": -5}, {"clock": 2**62}, {"clock": []}, {"expires": "soon"}, {"expires": {}}, {"clock": None}):
        world.order(ping, headers=headers)
    world.order(pickle.dumps(ping), content_type="application/x-python-serialize", content_encoding="binary")
    world.order(b"\xff\xfe", content_encoding="utf-8")
    world.order(ping, content_type="application/x-unknown")
    world.order(json.dumps(ping).encode(), content_encoding="no-such-encoding")
    world.check_alive()


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_arguments(world: World, method: str, arguments: dict[str, Any]) -> None:
    """An error, or an answer; but an answer."""
    replies = world.app.control.broadcast(method, arguments, destination=[NODE], reply=True, timeout=3, limit=1)
    assert replies and list(replies[0]) == [NODE] or method in ("election", "hello")
    assert world.app.control.ping(destination=[NODE], timeout=15)


EVENTS: list[Any] = [
    "{nonsense", b"", [1, "x", None, []], '"text"', "5", "null", {}, {"type": "worker-heartbeat"}, {"type": 5}, {"type": None, "hostname": "x"},
    {"type": "worker-heartbeat", "hostname": 5}, {"type": "worker-online", "hostname": "a@b", "clock": "x", "timestamp": "y", "pid": []},
    {"type": "worker-offline", "hostname": "a@b", "clock": 2**80, "timestamp": 1e308, "freq": "often", "utcoffset": "z"},
    {"type": "worker-elect", "hostname": "a@b", "id": {}, "topic": [], "action": 1, "cver": "x", "clock": 1, "pid": 1},
    {"type": "task-received", "uuid": "odd", "hostname": "x@y", "clock": 1, "timestamp": 1, "event": 5, "worker": 5, "children": 5, "__class__": 5},
    {"type": "task-succeeded", "uuid": "odd", "hostname": "x@y", "clock": 2, "timestamp": 2, "runtime": "long", "name": ["x"], "root_id": {}},
    {"type": "worker-heartbeat", "hostname": "x@y", "clock": 1, "timestamp": 1, "event": 5, "heartbeats": "x", "alive": 1},
    {"type": "worker-elect-ack", "hostname": ["a"], "id": []}, {"type": "worker-odd-name", "hostname": "x@y", "clock": 1, "timestamp": 1},
    {"type": "task-own"}, {"type": "worker-heartbeat", "hostname": "x@y"}, {"type": "own"},
    *({"type": "task-received", "hostname": "x@y", "uuid": "odd", "clock": 3, "timestamp": when, "utcoffset": offset}
      for when, offset in ((1e20, 0), (-1e12, 0), (float("nan"), 0), (float("inf"), 0), (1, 1e300))),
    {"type": "task-succeeded", "uuid": "late", "hostname": "x@y", "clock": 5, "timestamp": 5},
    {"type": "task-started", "uuid": "late", "hostname": "x@y", "clock": 4, "timestamp": 4, "state": []},
    {"type": "task-failed", "uuid": "late", "hostname": "x@y", "clock": 6, "timestamp": 6},
]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_events(world: World) -> None:
    """Workers look at each other's events (gossip)."""
    for body in EVENTS:
        for key in ("worker.heartbeat", "task.multi"):
            world.tell(body, key)
        world.tell(body, headers={"hostname": 5})
    world.tell(pickle.dumps({"type": "worker-online"}), content_type="application/x-python-serialize", content_encoding="binary")
    world.check_alive()
    assert world.app.control.inspect([NODE], timeout=15).clock()[NODE]["clock"] < 2**63


def test_a_receiver_survives_them(world: World) -> None:
    """And what comes after them is seen."""
    state = world.app.events.State()
    seen: list[Any] = []

    dumper = Dumper(io.StringIO())

    def take(event: Any) -> None:
        seen.append(event)
        dumper.on_event(event)
        state.event(event)

    with world.app.connection_for_read() as connection:
        receiver = world.app.events.Receiver(connection, {"*": take})
        loop = receiver.itercapture(limit=None, timeout=5, wakeup=False)
        next(loop)
        for body in EVENTS:
            world.tell(body, "task.multi")
        world.app.tasks["bad.add"].apply_async((1, 2), task_id="after-all")
        deadline = time.monotonic() + 20
        while not any(isinstance(event, dict) and event.get("uuid") == "after-all" and event["type"] == "task-succeeded" for event in seen):
            assert time.monotonic() < deadline
            next(loop)
    assert state.tasks["after-all"].state == "SUCCESS"
