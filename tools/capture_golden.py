"""Captures what a running Celery writes, for the golden tests of csrc/wire.

    python tools/capture_golden.py AMQP_URL REDIS_URL [OUTPUT_DIRECTORY]

Run it by hand with a Python that has Celery 5.6.3, PyYAML and msgpack. It writes amqp.json
(messages recorded between Celery and the broker, byte for byte), redis.json (envelopes) and
results.json (result documents). Each is a list of flat objects whose values are all strings,
bytes in base64.

Queues have names of this run only, the Redis database must be empty; both are cleaned up. In
tracebacks, installation paths become "/lib" and the source lines of libraries "...". The host
name is "golden". As root, set C_FORCE_ROOT=1.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

socket.gethostname = lambda: "golden"  # before Celery remembers the real one

import redis  # noqa: E402
from amqp.serialization import loads as amqp_loads  # noqa: E402
from celery import Celery, chain, chord, group  # noqa: E402

QUEUE = os.environ.get("GOLDEN_QUEUE") or f"golden-{os.getpid()}"
OUTBOX = f"{QUEUE}-out"  # nobody consumes this one
RECORD = dict[str, str]

app = Celery(
    "golden",
    broker=os.environ.get("GOLDEN_BROKER"),
    backend=os.environ.get("GOLDEN_BACKEND"),
    task_default_queue=QUEUE,
    result_extended=bool(os.environ.get("GOLDEN_EXTENDED")),
    broker_connection_retry_on_startup=True,
)


@app.task(name="golden.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="golden.echo")
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@app.task(name="golden.fail")
def fail(text: str) -> None:
    raise ValueError(text, 7)


@app.task(name="golden.again", bind=True)
def again(self: Any) -> None:
    try:
        raise KeyError("lost")
    except KeyError as exc:
        raise self.retry(exc=exc, queue=OUTBOX, countdown=30) from exc


@app.task(name="golden.send", bind=True)
def send(self: Any) -> str:
    return add.apply_async((1, 2), queue=OUTBOX).id


@app.task(name="golden.progress", bind=True, ignore_result=True)
def progress(self: Any) -> None:
    self.update_state(state="PROGRESS", meta={"done": 0.5})


WHEN = datetime(2031, 2, 3, 4, 5, 6, 789000, tzinfo=timezone(timedelta(hours=2)))
NESTED = [1, [2, None, {"a": True, "b": []}], "x", -0.5]
NUMBERS = {
    "small": 5, "negative": -5, "max32": 2**31 - 1, "min32": -(2**31), "over32": 2**31,
    "big": 2**53 + 1, "max64": 2**63 - 1, "min64": -(2**63), "half": 0.5, "tiny": 1e-7,
    "huge": 1e22, "third": 1 / 3, "yes": True, "no": False, "none": None, "nested": NESTED,
    "text": "žluť \U0001f600 \x7f \" \\ \n", "empty": "", "map": {}, "list": [],
}  # fmt: skip
EXTRA = {
    "message_id": "m-1", "app_id": "app", "type": "kind", "user_id": "guest",
    "timestamp": 1893456000,
}  # fmt: skip

CASES: dict[str, Callable[[], Any]] = {
    "plain": lambda: add.apply_async((2, 3)),
    "kwargs_unicode": lambda: echo.apply_async((), {"žluť": "\U0001f600 \x7f\x00 \ud7ff"}),
    "repr_escapes": lambda: echo.apply_async(("'quoted' \"twice\" \\ \n",)),
    "eta": lambda: add.apply_async((1, 1), eta=WHEN),
    "countdown": lambda: add.apply_async((1, 1), countdown=100),
    "expires": lambda: add.apply_async((1, 1), expires=60),
    "expires_at": lambda: add.apply_async((1, 1), expires=WHEN),
    "limits": lambda: add.apply_async((1, 1), time_limit=30, soft_time_limit=20),
    "limits_float": lambda: add.apply_async((1, 1), soft_time_limit=2.5),
    "priority": lambda: add.apply_async((1, 1), priority=7),
    "headers": lambda: add.apply_async((1, 1), headers=NUMBERS),
    "extra_properties": lambda: add.apply_async((1, 1), **EXTRA),
    "transient": lambda: add.apply_async((1, 1), delivery_mode=1),
    "shadow": lambda: add.apply_async((1, 1), shadow="other.name"),
    "ignore_result": lambda: add.apply_async((1, 1), ignore_result=True),
    "reprs": lambda: add.apply_async((1, 1), argsrepr="(hidden)", kwargsrepr="{…}"),
    "ids": lambda: add.apply_async((1, 1), task_id="t-1", root_id="r-1", parent_id="p-1"),
    "retries": lambda: add.apply_async((1, 1), retries=3),
    "group": lambda: group(add.s(1, 1), add.s(2, 2)).apply_async(),
    "chain": lambda: chain(add.s(1, 1), add.s(2), add.s(3)).apply_async(),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], echo.s()).apply_async(),
    "link": lambda: add.apply_async((1, 1), link=add.s(16), link_error=echo.si("no")),
    "stamps": lambda: add.apply_async((1, 1), stamped_headers=["who"], who="me"),
    "gzip": lambda: add.apply_async((1, 1), compression="gzip"),
    "bzip2": lambda: add.apply_async((1, 1), compression="bzip2"),
    "pickle": lambda: add.apply_async((1, 1), serializer="pickle"),
    "yaml": lambda: add.apply_async((1, 1), serializer="yaml"),
    "msgpack": lambda: add.apply_async((1, 1), serializer="msgpack"),
    "types": lambda: echo.apply_async((WHEN, Decimal("1.10"), b"\xff\xfe")),
    "body_20k": lambda: echo.apply_async(("x" * 20000,)),
}
AMQP_CASES: dict[str, Callable[[], Any]] = {
    "amqp_types": lambda: add.apply_async(
        (1, 1),
        headers={
            "when": datetime(2031, 2, 3, 4, 5, 6), "exact": Decimal("-1.1"), "bytes": b"ab",
            "small": Decimal("0.007"), "whole": Decimal("12"),
        },
    ),
}  # fmt: skip
WORKER_CASES: dict[str, Callable[[], Any]] = {
    "success": lambda: add.apply_async((2, 3)),
    "unicode": lambda: echo.apply_async(("žluť \U0001f600",), {"k": [1.5, None]}),
    "failure": lambda: fail.apply_async(("böse",)),
    "retry": again.apply_async,
    "revoked": lambda: add.apply_async((1, 1), expires=datetime(2001, 1, 1, tzinfo=timezone.utc)),
    "children": send.apply_async,
    "progress": lambda: progress.apply_async(ignore_result=False),
    "chain": lambda: chain(add.s(1, 1), add.s(2)).apply_async(),
    "group": lambda: group(add.s(1, 1), fail.s("x")).apply_async(),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], echo.s()).apply_async(),
    "stamps": lambda: add.apply_async((1, 1), stamped_headers=["who"], who="me"),
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---- a relay that remembers what went towards the server


class Recorder:
    """Passes TCP connections on to a server and keeps what the clients sent, per connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.server = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self.streams: list[bytearray] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        login = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        self.url = urlunsplit(("amqp", f"{login}@127.0.0.1:{port}", parts.path, "", ""))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            stream = bytearray()
            self.streams.append(stream)
            for source, target, kept in ((client, server, stream), (server, client, None)):
                threading.Thread(target=relay, args=(source, target, kept), daemon=True).start()

    def messages(self) -> list[RECORD]:
        return [message for stream in list(self.streams) for message in published(bytes(stream))]


def relay(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    try:
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def frames(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 8 if stream.startswith(b"AMQP") else 0
    while at + 8 <= len(stream):
        kind, channel, size = struct.unpack_from(">BHI", stream, at)
        if at + 8 + size > len(stream):
            return
        yield kind, channel, stream[at + 7 : at + 7 + size]
        at += 8 + size


PUBLISH = struct.pack(">HH", 60, 40)
METHOD, HEADER, BODY = 1, 2, 3


def published(stream: bytes) -> Iterator[RECORD]:
    """The messages in what a client sent; channels do not interleave within a message here."""
    current: RECORD = {}
    body, size = b"", -1
    for kind, _, payload in frames(stream):
        if kind == METHOD and payload.startswith(PUBLISH):
            exchange, rest = short_text(payload[6:])
            current = {"exchange": exchange, "routing_key": short_text(rest)[0]}
        elif kind == HEADER:
            size, body = struct.unpack_from(">Q", payload, 4)[0], b""
            current |= properties(payload[12:])
        elif kind == BODY:
            body += payload
        if kind in (HEADER, BODY) and len(body) == size:
            yield current | {"body": b64(body)}


def short_text(data: bytes) -> tuple[str, bytes]:
    return data[1 : 1 + data[0]].decode(), data[1 + data[0] :]


PROPERTIES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip


def properties(data: bytes) -> RECORD:
    flags, rest = struct.unpack_from(">H", data)[0], data[2:]
    found: RECORD = {"properties": b64(data)}
    for bit, name in enumerate(PROPERTIES):
        if not flags & 0x8000 >> bit:
            continue
        if name == "headers":
            size = struct.unpack_from(">I", rest)[0]
            found |= table(rest[4 : 4 + size])
            rest = rest[4 + size :]
        elif name in ("delivery_mode", "priority"):
            found[name], rest = str(rest[0]), rest[1:]
        elif name == "timestamp":
            found[name], rest = str(struct.unpack_from(">Q", rest)[0]), rest[8:]
        else:
            found[name], rest = short_text(rest)
    return found


def table(data: bytes) -> RECORD:
    """The bytes, and the values as the amqp package reads them."""
    whole = struct.pack(">I", len(data)) + data
    values = amqp_loads("F", whole, 0)[0][0]
    plain = True

    def typed(value: Any) -> Any:
        nonlocal plain
        plain = False
        if isinstance(value, Decimal):
            return {"__type__": "decimal", "__value__": str(value)}
        return {"__type__": "datetime", "__value__": f"{value.isoformat()}+00:00"}

    text = json.dumps(values, default=typed)
    return {"headers": b64(data), "headers_json": text, "headers_plain": "yes" if plain else "no"}


# ---- the three captures


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


def settled(count: Callable[[], int], pause: float = 0.3) -> bool:
    before = count()
    time.sleep(pause)
    return before > 0 and count() == before


class Worker:
    """A Celery worker on this file's tasks, in a process of its own."""

    def __init__(self, broker: str, backend: str, extended: bool = False) -> None:
        env = os.environ | {
            "GOLDEN_BROKER": broker, "GOLDEN_BACKEND": backend, "GOLDEN_QUEUE": QUEUE,
            "GOLDEN_EXTENDED": "1" if extended else "", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "celery", "-A", "capture_golden", "worker", "-P", "solo",
            "-l", "critical", "--without-gossip", "--without-mingle", "--without-heartbeat",
            "-n", "worker@golden",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, env=env, cwd=Path(__file__).parent)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def capture_amqp(url: str, store: str) -> list[RECORD]:
    client = Recorder(url)
    records: list[RECORD] = []
    app.conf.update(broker_url=client.url, result_backend=store)
    for name, call in (CASES | AMQP_CASES).items():
        seen = len(client.messages())
        call()
        wait_until(lambda: settled(lambda: len(client.messages()) - seen), name)  # noqa: B023
        records += [{"case": name, "from": "client"} | m for m in client.messages()[seen:]]
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)
    relayed = Recorder(url)
    with Worker(relayed.url, store):
        for name in ("retry", "children", "chain", "chord"):
            seen = len(relayed.messages())
            WORKER_CASES[name]()
            wait_until(lambda: settled(lambda: len(relayed.messages()) - seen), name)  # noqa: B023
            records += [{"case": name, "from": "worker"} | m for m in relayed.messages()[seen:]]
    return records


def delete_queues(url: str) -> None:
    app.conf.update(broker_url=url)
    with app.connection_for_write(url) as connection:
        for queue in (QUEUE, OUTBOX):
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)


def envelope(case: str, sender: str, key: bytes, text: str) -> RECORD:
    content = json.loads(text)
    properties_ = content["properties"]
    info = properties_["delivery_info"]
    return {
        "case": case, "from": sender, "key": key.decode("latin-1"), "envelope": text,
        "headers": json.dumps(content["headers"]), "body": content["body"],
        "exchange": info["exchange"], "routing_key": info["routing_key"],
    } | {
        name: str(value)
        for name, value in (properties_ | content).items()
        if isinstance(value, str | int) and name != "body"
    }  # fmt: skip


def take_all(store: redis.Redis, queue: str, case: str, sender: str) -> list[RECORD]:
    found = []
    for key in sorted(store.keys(f"{queue}*")):
        while store.type(key) == b"list":
            found.append(envelope(case, sender, key, store.rpop(key).decode()))
    return found


def clean(store: redis.Redis) -> None:
    for pattern in (f"*{QUEUE}*", "celery-task*-meta-*", "unacked*", "_kombu.*"):
        for key in store.scan_iter(pattern):
            store.delete(key)


def capture_redis(url: str, store: redis.Redis) -> tuple[list[RECORD], list[RECORD]]:
    app.conf.update(broker_url=url, result_backend=url)
    envelopes: list[RECORD] = []
    results: list[RECORD] = []
    for name, call in CASES.items():
        call()
        envelopes += take_all(store, QUEUE, name, "client")
    for extended in (False, True):
        with Worker(url, url, extended):
            for name, call in WORKER_CASES.items():
                before = set(store.keys("celery-task*-meta-*"))
                call()
                fresh = lambda: set(store.keys("celery-task*-meta-*")) - before  # noqa: B023, E731
                wait_until(lambda: settled(lambda: len(fresh())), name)  # noqa: B023
                prefix = "extended_" if extended else ""
                results += [document(prefix + name, store, key) for key in sorted(fresh())]
                envelopes += take_all(store, OUTBOX, name, "worker") if not extended else []
    return envelopes, results


def document(case: str, store: redis.Redis, key: bytes) -> RECORD:
    if store.type(key) != b"string":
        return {"case": case, "key": key.decode()}
    text = scrubbed(store.get(key).decode())
    content = json.loads(text)
    members = {name: json.dumps(value) for name, value in content.items()}
    return {"case": case, "key": key.decode(), "document": text} | members


LIBRARY_LINE = re.compile(r'(File \\"/lib/\w+/[^"]*", line \d+, in [^\\]*\\n    ).*?(\\n)')


def scrubbed(text: str) -> str:
    """JSON text without the paths of this machine and without source of libraries."""
    paths = {path for path in sys.path if path} | {str(Path(__file__).parent)}
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path + "/", "/lib/")
    return LIBRARY_LINE.sub(r"\1...\2", text)


def write(directory: Path, name: str, records: list[RECORD]) -> None:
    text = json.dumps(records, indent=1, sort_keys=False)
    (directory / name).write_text(text + "\n")
    print(f"{name}: {len(records)}")


def write_amqp(out: Path, amqp_url: str, redis_url: str) -> None:
    try:
        write(out, "amqp.json", capture_amqp(amqp_url, redis_url))
    finally:
        clean(redis.Redis.from_url(redis_url))
        delete_queues(amqp_url)


def write_redis(out: Path, redis_url: str) -> None:
    store = redis.Redis.from_url(redis_url)
    try:
        envelopes, results = capture_redis(redis_url, store)
        write(out, "redis.json", envelopes)
        write(out, "results.json", results)
    finally:
        clean(store)


def main(amqp_url: str, redis_url: str, directory: str = "tests/wire/golden") -> None:
    out = Path(directory).absolute()
    out.mkdir(parents=True, exist_ok=True)
    if redis.Redis.from_url(redis_url).dbsize() > 0:
        raise SystemExit("give a Redis URL with an empty database, such as redis://127.0.0.1/9")
    # A process for each: an app keeps its connections, and one broker must not get the other's.
    fork = multiprocessing.get_context("fork")
    for target, args in ((write_amqp, (out, amqp_url, redis_url)), (write_redis, (out, redis_url))):
        process = fork.Process(target=target, args=args)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    # Tasks must have one home: the module that the worker imports, not __main__.
    sys.path.insert(0, str(Path(__file__).parent))
    import capture_golden

    capture_golden.main(*sys.argv[1:])
