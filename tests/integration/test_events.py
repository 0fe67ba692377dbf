"""Events through RabbitMQ: ours seen by the real Celery, and theirs by us (FEATURES 2.12, PROTOCOL 3.7)."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fleet
import pytest
from embedding import embedded, remove_names, take_names

from pyceleryc import Celery

SIDES = {"ours": fleet.ours, "theirs": fleet.theirs}
FIRST, LAST = ["hostname", "utcoffset", "pid", "clock"], ["timestamp", "type", "local_received"]
#: In the order in which Celery writes them.
FIELDS = {
    "task-sent": ["uuid", "root_id", "parent_id", "name", "args", "kwargs", "retries", "eta", "expires", "queue",
                  "exchange", "routing_key"],
    "task-received": ["uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires"],
    "task-started": ["uuid"],
    "task-succeeded": ["uuid", "result", "runtime"],
    "task-failed": ["uuid", "exception", "traceback"],
    "task-retried": ["uuid", "exception", "traceback"],
    "task-revoked": ["uuid", "terminated", "signum", "expired"],
    "worker-heartbeat": ["freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys"],
}
WATCH = """
import json, socket, sys
import control_tasks
seen = []
with control_tasks.app.connection_for_read() as connection:
    receiver = control_tasks.app.events.Receiver(connection, handlers={"*": seen.append})
    print("watching", flush=True)
    try:
        for _ in receiver.itercapture(limit=None, timeout=50, wakeup=True):
            for event in seen: print(json.dumps(event), flush=True)
            del seen[:]
    except (socket.timeout, TimeoutError): pass
"""


class Watcher:
    """A receiver of one side in a process of its own."""

    def __init__(self, side: fleet.Side, env: dict[str, str]) -> None:
        install = "import pyceleryc; pyceleryc.install_as_celery()\n" if side.name == "pyceleryc" else ""
        self.process = subprocess.Popen([side.python, "-c", install + WATCH], env=env, stdout=subprocess.PIPE, text=True)
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def wait_for(self, type_: str, uuid: str | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for event in list(self.events):
                if event["type"] == type_ and uuid in (None, event.get("uuid")):
                    return event
            time.sleep(0.05)
        raise AssertionError(f"no {type_} of {uuid} among {[(e['type'], e.get('uuid')) for e in self.events]}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def make_env(amqp_url: str, queue: str) -> dict[str, str]:
    return SIDES["ours"]().env(amqp_url, "rpc://", queue, FLEET_APP="control_tasks", FLEET_SENT="1")


@pytest.mark.parametrize(("worker", "watcher"), [("ours", "ours"), ("ours", "theirs"), ("theirs", "ours")])
def test_all_events(amqp_url: str, unique: Callable[[str], str], worker: str, watcher: str) -> None:
    queue = unique("ev")
    env = make_env(amqp_url, queue)
    node = f"{worker.rstrip('s')}-{queue}@here"
    side = SIDES[worker]()
    with side.worker(env, "-c", "1", "-n", node, "-E"):
        watch = Watcher(SIDES[watcher](), env)
        try:
            watch.wait_for("worker-heartbeat")
            script = ("add = tasks.add.apply_async([1, 2], task_id='e-add'); tasks.fail.apply_async(['x'], task_id='e-fail')\n"
                      "tasks.again.apply_async(task_id='e-again'); tasks.tell.apply_async(task_id='e-tell')\n"
                      "tasks.quiet.apply_async(task_id='e-quiet')\n"
                      "tasks.add.apply_async([1, 2], task_id='e-old', countdown=1.5, expires=1, expiration=None)\n"
                      "tasks.nap.apply_async([50], task_id='e-nap')\n"
                      "result = add.get(timeout=30)")
            assert side.client(script, env) == 3
            watch.wait_for("task-started", "e-nap")
            side.client(f"result = tasks.app.control.terminate('e-nap', destination=[{node!r}], reply=True, timeout=15)", env)
            watch.wait_for("task-revoked", "e-nap")
            events = watch.events
            check(watch, node)
            assert [event["type"] for event in events if event.get("uuid") == "e-add" and event["hostname"] == node] == [
                "task-received", "task-started", "task-succeeded"]
            clocks = [event["clock"] for event in events if event.get("uuid") == "e-add" and event["hostname"] == node]
            assert clocks == sorted(clocks)
        finally:
            watch.end()
    remove_names(amqp_url, queue)


def check(watch: Watcher, node: str) -> None:
    """The fields of PROTOCOL 3.7, in order, with their types."""
    for type_, wanted in FIELDS.items():
        event = watch.wait_for(type_)
        if node.startswith("their") and type_ == "worker-heartbeat":
            wanted = [name for name in wanted if name not in ("active", "processed", "loadavg")]  # not when it was asked for
        assert list(event) == FIRST + wanted + LAST, type_
        if type_ != "task-sent":
            assert event["hostname"] == node
    done = watch.wait_for("task-succeeded", "e-add")
    assert done["result"] == "3" and 0 <= done["runtime"] < 5
    failed = watch.wait_for("task-failed", "e-fail")
    assert failed["exception"] == "KeyError('x')" and failed["traceback"].rstrip().endswith("KeyError: 'x'")
    assert watch.wait_for("task-retried", "e-again")["exception"] == "None"
    received = watch.wait_for("task-received", "e-add")
    assert (received["name"], received["retries"], received["root_id"]) == ("ctl.add", 0, "e-add")
    revoked = watch.wait_for("task-revoked", "e-nap")
    assert (revoked["terminated"], str(revoked["signum"]), revoked["expired"]) == (True, "15", False)
    old = watch.wait_for("task-revoked", "e-old")
    assert (old["terminated"], old["expired"]) == (False, True)
    assert watch.wait_for("task-progress", "e-tell")["done"] == 3
    assert not [e for e in watch.events if e.get("uuid") == "e-quiet" and e["type"] != "task-sent"]
    beat = watch.wait_for("worker-heartbeat")
    assert beat["sw_ident"] == "py-celery" and len(beat.get("loadavg", "123")) == 3


# --- embedded workers -------------------------------------------------------------------------------------------------

@pytest.fixture
def app(amqp_url: str, unique: Callable[[str], str]) -> Iterator[Celery]:
    queue = unique("ev")
    made = Celery("ev", broker=amqp_url, backend="rpc://", set_as_current=False)
    take_names(made, queue)

    @made.task(name="ev.add")
    def add(x: int, y: int) -> int:
        return x + y

    yield made
    made.close()
    remove_names(amqp_url, queue)


class Seen:
    """Events of an app, received in a thread."""

    def __init__(self, app: Celery) -> None:
        self.state = app.events.State()
        self.types: list[str] = []
        self._app, self._over = app, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()

    def _run(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, {"*": self._take})
            # One consumer all the time: its queue goes with it, and with the queue what comes before there is a new one.
            with receiver.consumer_context() as (own, _, _):
                self._ready.set()
                while not self._over.is_set():
                    try:
                        own.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    def _take(self, event: Any) -> None:
        self.state.event(event)
        self.types.append(event["type"])

    def __enter__(self) -> Seen:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.types
            time.sleep(0.05)


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "asyncio"])
def test_switched_on_and_off(app: Celery, pool: str) -> None:
    """At run time, in processes that are there already, too."""
    add = app.tasks["ev.add"]
    with Seen(app) as seen, embedded(app, pool=pool, concurrency=2, hostname="w@here", without_heartbeat=True):
        add.delay(1, 1).get(timeout=30)
        time.sleep(0.5)
        assert seen.types == [], "silent"
        assert app.control.enable_events(reply=True, limit=1, timeout=30)
        results = [add.delay(n, 1) for n in range(60)]
        for result in results:
            result.get(timeout=30)
        last = add.delay(5, 5)
        last.get(timeout=30)
        seen.wait(lambda: last.id in seen.state.tasks and seen.state.tasks[last.id].state == "SUCCESS")
        assert all(seen.state.tasks[result.id].received for result in results)
        seen.wait(lambda: all(seen.state.tasks[result.id].state == "SUCCESS" for result in results))
        assert seen.types[0] == "worker-online" and seen.state.workers["w@here"].alive
        assert app.control.disable_events(reply=True, limit=1, timeout=30)
        seen.wait(lambda: "worker-offline" in seen.types)
        count = len(seen.types)
        for n in range(5):
            add.delay(n, 1).get(timeout=30)
        time.sleep(0.5)
        assert len(seen.types) == count


def test_heartbeats(app: Celery) -> None:
    with Seen(app) as seen:
        with embedded(app, pool="solo", hostname="w@here", task_events=True, heartbeat_interval=0.2):
            seen.wait(lambda: seen.types.count("worker-heartbeat") >= 3)
        seen.wait(lambda: "worker-offline" in seen.types)
        assert "w@here" not in seen.state.workers
        del seen.types[:]
        with embedded(app, pool="solo", hostname="w@here", task_events=True, without_heartbeat=True):
            time.sleep(2.5)
        seen.wait(lambda: "worker-offline" in seen.types)
        assert seen.types == ["worker-online", "worker-offline"]


@pytest.mark.parametrize("by", ["ours", "theirs"])
def test_the_command_line(amqp_url: str, unique: Callable[[str], str], by: str) -> None:
    queue = unique("ev")
    env = make_env(amqp_url, queue)
    with fleet.ours().worker(env, "-c", "1", "-n", f"{queue}@here", "-E"):
        command = [SIDES[by]().python, "-u", "-m", SIDES[by]().name, "-A", "control_tasks", "events", "--dump"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as dump:
            assert dump.stdout is not None
            assert dump.stdout.readline() == "-> evdump: starting capture...\n"
            assert "heartbeat: active=0" in dump.stdout.readline()
            fleet.ours().client("tasks.add.delay(1, 2)\nresult = None", env)
            lines = []
            while not any("task succeeded" in line for line in lines):
                lines.append(dump.stdout.readline())
            dump.kill()
        assert any("task received: ctl.add(" in line and "args=" in line for line in lines)
    remove_names(amqp_url, queue)
