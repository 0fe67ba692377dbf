"""Messages that are wrong in every way: one clear line, settled as FEATURES §2.10 says, and the worker goes on."""

from __future__ import annotations

import json
import pickle
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from kombu import Connection

from fleet import Side, Worker, ours

BODY = json.dumps([[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])


@dataclass
class World:
    """A worker on a queue of RabbitMQ, and a client that sends raw messages to it."""

    side: Side
    worker: Worker
    env: dict[str, str]
    connection: Connection
    queue: str

    def publish(self, body: bytes | str, headers: dict[str, Any] | None, **properties: Any) -> None:
        with self.connection.Producer() as producer:
            producer.publish(body, routing_key=self.queue, headers=headers or {}, **{
                "content_type": "application/json", "content_encoding": "utf-8", "serializer": None, **properties})

    def send(self, task: str = "fleet_tasks.add", body: bytes | str = BODY, headers: dict[str, Any] | None = None,
             **properties: Any) -> str:
        task_id = str(uuid.uuid4())
        self.publish(body, {"lang": "py", "task": task, "id": task_id, **(headers or {})}, **properties)
        return task_id

    def check_alive(self) -> None:
        assert self.side.client("result = tasks.add.delay(1, 1).get(timeout=20)", self.env) == 2
        assert self.worker.process.poll() is None

    def waiting(self) -> int:
        return int(self.connection.default_channel.queue_declare(self.queue, passive=True).message_count)

    def state(self, task_id: str) -> list[Any]:
        script = f"r = tasks.app.AsyncResult({task_id!r})\nresult = [r.state, type(r.result).__name__, repr(r.result)]"
        return list(self.side.client(script, self.env))

    def wait_state(self, task_id: str, timeout: float = 20) -> list[Any]:
        deadline = time.monotonic() + timeout
        while (seen := self.state(task_id))[0] in ("PENDING", "RETRY"):
            assert time.monotonic() < deadline, f"still {seen}:\n{self.worker.text()[-3000:]}"
        return seen


@pytest.fixture(scope="module")
def world(amqp_url: str, redis_url: str) -> Iterator[World]:
    side = ours()
    queue = f"bad-{uuid.uuid4().hex[:10]}"
    env = side.env(amqp_url, redis_url, queue)
    with side.worker(env) as worker, Connection(amqp_url) as connection:
        yield World(side, worker, env, connection, queue)
        connection.default_channel.queue_delete(queue)


def test_body_that_is_not_json(world: World) -> None:
    world.send(body="{nonsense")
    world.worker.wait_for("Can't decode message body")
    world.check_alive()
    assert "nonsense" not in world.worker.text(), "bodies must not be logged"


def test_body_of_another_shape(world: World) -> None:
    task_id = world.send(body='{"args": []}')
    world.worker.wait_for(task_id)
    world.check_alive()


@pytest.mark.parametrize(("content_type", "body"), [
    ("application/x-python-serialize", pickle.dumps(((), {}, {}))),
    ("application/x-unheard-of", b"\x00\x01"),
])
def test_content_that_is_not_accepted(world: World, content_type: str, body: bytes) -> None:
    world.send(body=body, content_type=content_type, content_encoding="binary")
    world.worker.wait_for(content_type)
    assert "Refusing to deserialize untrusted content" in world.worker.text()
    world.check_alive()


def test_unknown_task(world: World) -> None:
    task_id = world.send("no.such.task")
    world.worker.wait_for("Received unregistered task of type 'no.such.task'")
    assert world.wait_state(task_id)[:2] == ["FAILURE", "NotRegistered"]
    world.check_alive()


def test_no_headers_at_all(world: World) -> None:
    world.publish(BODY, None)
    world.worker.wait_for("Received and deleted unknown message")
    world.check_alive()


@pytest.mark.parametrize("headers", [
    {"eta": "the day after tomorrow"},
    {"expires": 17},
    {"timelimit": "soon"},
    {"retries": "many"},
])
def test_header_of_the_wrong_kind(world: World, headers: dict[str, Any]) -> None:
    before = world.worker.text().count("Received invalid task message")
    world.send(headers=headers)
    deadline = time.monotonic() + 20
    while world.worker.text().count("Received invalid task message") == before:
        assert time.monotonic() < deadline, world.worker.text()[-2000:]
        time.sleep(0.05)
    world.check_alive()


def test_task_id_missing(world: World) -> None:
    world.publish(BODY, {"task": "fleet_tasks.add"})
    world.worker.wait_for("Received invalid task message")
    world.check_alive()


def test_every_amqp_type_in_the_headers(world: World) -> None:
    task_id = world.send("fleet_tasks.about_me", body='[[], {}, null]', headers={
        "text": "é", "int": 1, "negative": -5, "long": 2**40, "float": 1.5, "yes": True, "none": None,
        "when": datetime(2026, 1, 2, tzinfo=timezone.utc), "decimal": Decimal("1.10"), "list": [1, [2, None]],
        "table": {"a": {"b": 1}}, "bytes": b"\xff\xfe"})
    assert world.wait_state(task_id)[0] == "SUCCESS"


@pytest.mark.parametrize("depth", [90, 1000, 15000])
def test_deeply_nested_headers(world: World, depth: int) -> None:
    """py-amqp would recurse while writing, so the table is made by hand and sent through a bare socket."""
    _publish_raw(world, _nested_table(depth))
    world.check_alive()


def _nested_table(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = b"\x01kF" + struct.pack(">I", len(inner)) + inner
    fields = b"\x04task" + _longstr("fleet_tasks.add") + b"\x02id" + _longstr(str(uuid.uuid4()))
    return fields + b"\x04deepF" + struct.pack(">I", len(inner)) + inner


def _longstr(text: str) -> bytes:
    data = text.encode()
    return b"S" + struct.pack(">I", len(data)) + data


def _publish_raw(world: World, table: bytes) -> None:
    """basic.publish with the given header table, on the AMQP connection's own socket."""
    connection = world.connection.clone()
    channel = connection.channel()
    sock: socket.socket = connection.transport_socket() if hasattr(connection, "transport_socket") else connection.connection.sock
    body = BODY.encode()
    queue = world.queue.encode()
    method = struct.pack(">HHH", 60, 40, 0) + b"\x00" + bytes([len(queue)]) + queue + b"\x00"
    content_type = b"application/json"
    header = (struct.pack(">HHQ", 60, 0, len(body)) + struct.pack(">H", 0x8000 | 0x2000)
              + bytes([len(content_type)]) + content_type + struct.pack(">I", len(table)) + table)
    frames = b"".join(struct.pack(">BHI", kind, channel.channel_id, len(payload)) + payload + b"\xce"
                      for kind, payload in ((1, method), (2, header), (3, body)))
    sock.sendall(frames)
    channel.queue_declare(world.queue, passive=True)  # the broker has read what came before
    connection.release()


@pytest.mark.limit(120)
def test_hundred_megabytes(world: World) -> None:
    text = "x" * (100 * 2**20)
    task_id = world.send(body=json.dumps([[text, "y"], {}, None]))
    deadline = time.monotonic() + 90
    while f"{task_id}] succeeded" not in world.worker.text():
        assert time.monotonic() < deadline, world.worker.text()[-2000:]
        time.sleep(0.2)
    world.check_alive()


@pytest.mark.parametrize(("argument", "shown"), [
    ("NaN", "nan"), ("123456789012345678901234567890", "123456789012345678901234567890"), ('"\\ud800"', "'\\ud800'"),
    ("-Infinity", "-inf"), ("1e999", "inf"),
])
def test_unusual_json(world: World, argument: str, shown: str) -> None:
    zero = '""' if argument.startswith('"') else "0"
    task_id = world.send(body=f"[[{argument}, {zero}], {{}}, null]")
    assert world.wait_state(task_id)[::2] == ["SUCCESS", shown]


@pytest.mark.parametrize("body", ["[[1], {}, null]", "[[1, 2, 3], {}, null]", '[[1], {"nope": 2}, null]'])
def test_wrong_arguments(world: World, body: str) -> None:
    assert world.wait_state(world.send(body=body))[:2] == ["FAILURE", "TypeError"]


def test_nothing_is_left_in_the_queue(world: World) -> None:
    world.check_alive()
    assert world.waiting() == 0


