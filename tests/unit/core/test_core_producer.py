"""Producer and TaskTemplate: what a sent message looks like, and the operations on queues."""

from __future__ import annotations

import datetime as dt
import contextlib
import gc
import json
import os
import random
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from pyceleryc import _core
from pyceleryc.utils.saferepr import saferepr

ID = "11111111-2222-4333-8444-555555555555"
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
HEADERS = {
    "lang": "py", "task": "tasks.gold", "id": ID, "shadow": None, "eta": None, "expires": None, "group": None,
    "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": ID, "parent_id": None, "argsrepr": "(2, 2)",
    "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False, "replaced_task_nesting": 0,
    "stamped_headers": None, "stamps": {},
}
# (args, kwargs, argsrepr, kwargsrepr): the headers that Celery 5.6.3 sent for these arguments
CELERY_REPRS: list[tuple[Any, Any, str, str]] = [
    ((2, 2), {}, "(2, 2)", "{}"),
    ((), {}, "()", "{}"),
    (("a", "it's", "back\\slash", 'quote"'), {"k": "v"}, "('a', 'it\\'s', 'back\\slash', 'quote\"')", "{'k': 'v'}"),
    ((1.5, -0.0, 1e16, 1e-05, 0.1), {"x": None, "y": True}, "(1.5, -0.0, 1e+16, 1e-05, 0.1)", "{'x': None, 'y': True}"),
    ((-1, 0, 2**63 - 1, 2**63, -2**63, 10**30), {},
     "(-1, 0, 9223372036854775807, 9223372036854775808, -9223372036854775808, 1000000000000000000000000000000)", "{}"),
    (([1, [2, [3, [4]]]],), {"d": {"e": {"f": {"g": 1}}}}, "([1, [2, [...]]],)", "{'d': {'e': {'f': {...}}}}"),
    (({}, [], (), {"a": ()}), {"n": [[]]}, "({}, [], (), {'a': ()})", "{'n': [[]]}"),
    (("é", "日本", "😀", "\u200b", "\x85"), {"ü": "ß"}, "('é', '日本', '😀', '\u200b', '\x85')", "{'ü': 'ß'}"),
    (("x" * 1019,), {}, "('" + "x" * 1019 + "',)", "{}"),
    (("x" * 1020,), {}, "('" + "x" * 1020 + "',)", "{}"),
    (("é" * 900,), {}, "('" + "é" * 900 + "',)", "{}"),
    (("a" * 506, "b" * 506), {}, "('" + "a" * 506 + "', '" + "b" * 506 + "')", "{}"),
    (([[1, 2], [3, (4, 5)]], (6,)), {"k": ((1,), [2])}, "([[1, 2], [3, (...)]], (6,))", "{'k': ((1,), [2])}"),
    ((float("inf"), float("nan")), {}, "(inf, nan)", "{}"),
    ((True, False, None), {"a": 1, "b": [1.0, 2], "c": {"d": "e"}}, "(True, False, None)", "{'a': 1, 'b': [1.0, 2], 'c': {'d': 'e'}}"),
    (("%s", "{}", "\\n"), {}, "('%s', '{}', '\\n')", "{}"),
]

Send = Callable[..., str]


def amqp_config(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"scheme": "amqp", "host": parts.hostname, "port": parts.port or 5672, "user": parts.username or "guest",
            "password": parts.password or "guest", "vhost": parts.path.strip("/") or "/", "heartbeat": 0, "confirm": 1,
            "connect_timeout": 10.0, "publish_timeout": 10.0, "client_name": "test"}


@pytest.fixture(params=["memory", "sqlite", "amqp"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "amqp":
        return amqp_config(request.getfixturevalue("amqp_url"))
    return {"scheme": request.param, "hub": _core.Hub(), "vhost": str(tmp_path / "broker.db"), "publish_timeout": 5.0}


@pytest.fixture
def producer(config: dict[str, Any]) -> Iterator[_core.Producer]:
    made = _core.Producer(config)
    yield made
    made.close(5.0)


@pytest.fixture
def queue(producer: _core.Producer, unique: Callable[[str], str]) -> Iterator[str]:
    name = unique("core")
    producer.declare({"name": name, "exchange": "", "routing_key": name, "durable": True}, None)
    yield name
    producer.remove(name, None)


def template(queue: str, **changes: Any) -> _core.TaskTemplate:
    fields = {"task": "tasks.gold", "exchange": "", "routing_key": queue, "origin": "gen1@host", "delivery_mode": 2, "priority": 0,
              "time_limit": None, "soft_time_limit": None, "ignore_result": False} | changes
    return _core.TaskTemplate(*fields.values())


def send(producer: _core.Producer, made: _core.TaskTemplate, args: Any = (2, 2), kwargs: Any = None, **changes: Any) -> str:
    fields = {"task_id": ID, "args": args, "kwargs": {} if kwargs is None else kwargs, "reply_to": "oid", "root_id": None, "parent_id": None,
              "retries": 0, "eta": None, "expires": None, "expiration": None, "argsrepr": None, "kwargsrepr": None, "embed": None,
              "timeout": None} | changes
    return producer.send(made, *fields.values())


def take(producer: _core.Producer, queue: str) -> Any:
    producer.flush(5.0)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if (got := producer.get(queue, None)) is not None:
            return got
    raise AssertionError("the message did not arrive")


def test_a_task_message(producer: _core.Producer, queue: str) -> None:
    assert send(producer, template(queue)) == ID
    body, headers, properties, info = take(producer, queue)
    assert body == json.dumps([[2, 2], {}, EMBED]).encode()
    assert headers == HEADERS
    assert list(headers) == list(HEADERS)
    assert properties == {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": ID,
                          "reply_to": "oid", "delivery_mode": 2, "priority": 0}
    assert info == {"exchange": "", "routing_key": queue, "priority": 0, "redelivered": False}


def test_all_options(producer: _core.Producer, queue: str) -> None:
    made = template(queue, delivery_mode=1, priority=5, time_limit=60.0, soft_time_limit=2.5, ignore_result=True)
    past = "2020-01-01T00:00:00+00:00"
    send(producer, made, ["a"], {"k": None}, root_id="root", parent_id="parent", retries=3, eta=past, expires="2099-01-01T00:00:00",
         expiration="600000", argsrepr="<args>", kwargsrepr="<kwargs>", embed=EMBED | {"chain": [{"task": "t"}]}, reply_to="")
    body, headers, properties, _ = take(producer, queue)
    assert json.loads(body) == [["a"], {"k": None}, EMBED | {"chain": [{"task": "t"}]}]
    assert headers == HEADERS | {"timelimit": [60, 2.5], "ignore_result": True, "root_id": "root", "parent_id": "parent", "retries": 3,
                                 "eta": past, "expires": "2099-01-01T00:00:00", "argsrepr": "<args>", "kwargsrepr": "<kwargs>"}
    assert properties["expiration"] == "600000"
    assert (properties["delivery_mode"], properties["priority"], properties.get("reply_to", "")) == (1, 5, "")


def test_new_ids(producer: _core.Producer, queue: str) -> None:
    ids = [send(producer, template(queue), task_id=None) for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(str(uuid.UUID(i)) == i and uuid.UUID(i).version == 4 for i in ids)
    _, headers, properties, _ = take(producer, queue)
    assert headers["id"] == headers["root_id"] == properties["correlation_id"] == ids[0]


@pytest.mark.parametrize("args, kwargs, argsrepr, kwargsrepr", CELERY_REPRS, ids=range(len(CELERY_REPRS)))
def test_reprs_are_celerys(args: Any, kwargs: Any, argsrepr: str, kwargsrepr: str, memory: tuple[_core.Producer, str]) -> None:
    send(memory[0], template(memory[1]), args, kwargs)
    _, headers, _, _ = take(*memory)
    assert (headers["argsrepr"], headers["kwargsrepr"]) == (argsrepr, kwargsrepr)


@pytest.fixture
def memory() -> tuple[_core.Producer, str]:
    producer = _core.Producer({"scheme": "memory", "hub": _core.Hub()})
    producer.declare({"name": "q"}, None)
    return producer, "q"


def test_reprs_are_those_of_saferepr(memory: tuple[_core.Producer, str]) -> None:
    rng = random.Random(7)
    leaves = [0, -5, 2**70, 1.5, -0.0, 1e300, None, True, "", "abc", "it's", "b\\s", "é\u200b", "\t", "x" * 300, "é" * 500, "\ud800"]

    def make(depth: int) -> Any:
        dice = rng.random()
        if depth == 0 or dice < 0.4:
            return rng.choice(leaves)
        items = [make(depth - 1) for _ in range(rng.randrange(5))]
        if dice < 0.6:
            return items
        return tuple(items) if dice < 0.8 else {f"k{i}": item for i, item in enumerate(items)}

    made = template("q")
    for _ in range(1500):
        args = [make(5) for _ in range(rng.randrange(4))]
        args = tuple(args) if rng.random() < 0.5 else args
        kwargs = {"k": make(3), "l": make(2)}
        send(memory[0], made, args, kwargs)
        headers = memory[0].get("q", None)[1]
        assert headers["argsrepr"] == saferepr(args, 1024)
        assert headers["kwargsrepr"] == saferepr(kwargs, 1024)


def test_arguments_of_kombus_types(producer: _core.Producer, queue: str) -> None:
    when = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
    args = (when, b"\xff", uuid.UUID(ID))
    send(producer, template(queue), args, {"when": when})
    body, headers, _, _ = take(producer, queue)
    assert _core.json_loads(body) == [list(args), {"when": when}, EMBED]
    assert headers["argsrepr"] == saferepr(args, 1024)


@pytest.mark.parametrize("changes, error", [
    ({"args": (object(),)}, TypeError), ({"kwargs": {"k": {1, 2}}}, TypeError), ({"task_id": 5}, TypeError), ({"eta": "soon"}, _core.BadData),
    ({"retries": None}, TypeError), ({"reply_to": None}, TypeError), ({"expiration": 5}, TypeError), ({"timeout": "1"}, TypeError),
])
def test_what_cannot_be_sent(memory: tuple[_core.Producer, str], changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        send(memory[0], template("q"), **changes)
    assert memory[0].size("q", None) == (0, 0)


def test_endless_arguments(memory: tuple[_core.Producer, str]) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="Circular"):
        send(memory[0], template("q"), endless)


def test_wrong_calls(memory: tuple[_core.Producer, str]) -> None:
    with pytest.raises(TypeError, match="15 positional"):
        memory[0].send()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="TaskTemplate"):
        send(memory[0], "no template")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="9 positional"):
        _core.TaskTemplate("t")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="task must be a str"):
        template("q", task=None)
    with pytest.raises(TypeError, match="hub must be a Hub"):
        _core.Producer({"scheme": "memory", "hub": 1})
    with pytest.raises(TypeError, match="mapping"):
        _core.Producer(None)  # type: ignore[arg-type]
    with pytest.raises(_core.Unsupported, match="carrier-pigeon"):
        _core.Producer({"scheme": "carrier-pigeon"})
    with pytest.raises(TypeError, match="host must be a str"):
        _core.Producer({"scheme": "memory", "host": 5})
    with pytest.raises(ValueError, match="NUL"):
        memory[0].size("a\0b", None)
    with pytest.raises(ValueError, match="needs a name"):
        memory[0].declare({}, None)
    for cls in (_core.Producer, _core.TaskTemplate, _core.Hub):
        with pytest.raises(TypeError):
            cls.extra = 1
        with pytest.raises(TypeError):
            type("Sub", (cls,), {})


def test_queue_operations(producer: _core.Producer, queue: str) -> None:
    assert producer.get(queue, None) is None
    for _ in range(3):
        send(producer, template(queue))
    producer.flush(5.0)
    assert producer.unconfirmed() == 0
    assert producer.size(queue, None)[0] == 3
    assert producer.purge(queue, None) == 3
    assert producer.size(queue, None)[0] == 0


def test_unknown_queue(producer: _core.Producer, unique: Callable[[str], str]) -> None:
    with pytest.raises(_core.NotFound) as caught:
        producer.size(unique("nowhere"), None)
    assert caught.value.code == _core.NotFound.code


def test_closed(config: dict[str, Any]) -> None:
    producer = _core.Producer(config)
    producer.connect(None)
    producer.close(5.0)
    producer.close(5.0)
    assert producer.unconfirmed() == 0
    for call in (lambda: producer.connect(None), lambda: producer.size("q", None), lambda: send(producer, template("q"))):
        with pytest.raises(_core.Unsupported, match="closed"):
            call()


def test_abandoned_in_a_child(producer: _core.Producer, queue: str) -> None:
    send(producer, template(queue))
    producer.flush(5.0)
    if (pid := os.fork()) == 0:
        status = 1
        try:
            producer.abandon()
            try:
                producer.size(queue, None)
            except _core.Unsupported:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    send(producer, template(queue))
    producer.flush(5.0)
    assert producer.size(queue, None)[0] == 2


@pytest.mark.parametrize("traced", [False, True], ids=["", "tracemalloc"])
def test_many_threads(producer: _core.Producer, queue: str, traced: bool) -> None:
    """Traced, because the core's allocations then ask for the GIL, also under the drivers' locks."""
    if traced:
        tracemalloc.start()
    failures: list[BaseException] = []
    ids: list[str] = []

    def work(number: int) -> None:
        try:
            for i in range(100):
                ids.append(send(producer, template(queue), (number, i), {"text": "x" * i}, task_id=None))
                producer.unconfirmed()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracemalloc.stop()
    assert not failures
    seen = {}
    for _ in range(800):
        body, headers, _, _ = take(producer, queue)
        args, kwargs, _ = json.loads(body)
        assert headers["argsrepr"] == f"({args[0]}, {args[1]})"
        assert kwargs == {"text": "x" * args[1]}
        seen[headers["id"]] = args
    assert seen.keys() == set(ids)


def test_kombu_reads_what_we_send(amqp_url: str, unique: Callable[[str], str]) -> None:
    producer, name = _core.Producer(amqp_config(amqp_url)), unique("core")
    producer.declare({"name": name, "exchange": name, "exchange_type": "direct", "routing_key": "key"}, None)
    send(producer, template("key", exchange=name))
    producer.flush(5.0)
    with Connection(amqp_url) as connection:
        message = connection.default_channel.basic_get(name, no_ack=True)
        connection.default_channel.exchange_delete(name)
    assert message.headers == HEADERS
    assert message.body in (json.dumps([[2, 2], {}, EMBED]), json.dumps([[2, 2], {}, EMBED]).encode())
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.properties["priority"] == 0 and message.properties["delivery_mode"] == 2
    producer.remove(name, None)
    producer.close(5.0)


def test_nothing_listens(unique: Callable[[str], str]) -> None:
    producer = _core.Producer({"scheme": "amqp", "host": "127.0.0.1", "port": 1, "user": "guest", "password": "guest", "vhost": "/"})
    with pytest.raises(_core.ConnectionLost) as caught:
        producer.connect(1.0)
    assert isinstance(caught.value, ConnectionError) and caught.value.code == _core.ConnectionLost.code


def growth(work: Callable[[int], None]) -> int:
    """Bytes that 300 runs leave behind; the core's memory is traced too."""
    tracemalloc.start()
    try:
        work(100)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work(300)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_nothing_is_kept(memory: tuple[_core.Producer, str]) -> None:
    producer, made = memory[0], template("q")

    def work(count: int) -> None:
        for _ in range(count):
            send(producer, made, (1, "two", [3.0]), {"four": None}, task_id=None)
            producer.publish("", "q", b"x", {"a": [b"raw"]}, {"content_type": "t"}, False, None, None)
            producer.get("q", None)
            producer.get("q", None)
            _core.json_loads(_core.json_dumps({"a": [1, 2.5, "x", dt.date(2026, 1, 1)]}))
            for bad in ({"args": (object(),)}, {"eta": "x"}, {"task_id": 1}):
                with contextlib.suppress(TypeError, ValueError):
                    send(producer, made, **bad)

    assert growth(work) < 5_000


def test_objects_die() -> None:
    def work(count: int) -> None:
        for _ in range(count):
            producer = _core.Producer({"scheme": "memory", "hub": _core.Hub(), "host": "h" * 1000})
            producer.declare({"name": "q", "queue_arguments": {"x-max-priority": 5}}, None)
            send(producer, template("q"))

    assert growth(work) < 5_000
