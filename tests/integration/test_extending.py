"""Bootsteps in a worker: user code that extends it (Extensions guide)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from commands import wait_until
from embedding import embedded, remove_names, take_names
from kombu import Consumer, Exchange, Queue

from pyceleryc import Celery, bootsteps
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.worker.control import Panel, control_command

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


def make_app(broker: str, queue: str) -> Celery:
    app = Celery("ext", broker=broker, backend="cache+memory://", set_as_current=False)
    take_names(app, queue)

    @app.task(name="ext.add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture(params=["amqp_url", "redis_url"])
def app(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> Iterator[Celery]:
    queue = unique("ext")
    url = request.getfixturevalue(request.param)
    made = make_app(url, queue)
    yield made
    remove_names(url, queue)
    made.close()


@pytest.fixture
def local() -> Iterator[Celery]:
    made = make_app("memory://", "ext")
    yield made
    made.close()


def noted(seen: list[str], word: str, **attributes: Any) -> type[bootsteps.StartStopStep]:
    """A step that notes what is called."""

    def note(method: str) -> Callable[[Any, Any], None]:
        return lambda self, parent: seen.append(f"{method} {word} {parent!r}")

    methods = {method: note(method) for method in ("create", "start", "stop", "terminate", "shutdown")}
    return type(word, (bootsteps.StartStopStep,), {**methods, "__module__": __name__, "__qualname__": word, **attributes})


def test_the_order_of_celery(local: Celery) -> None:
    seen: list[str] = []
    local.steps["worker"].add(noted(seen, "w", requires=("celery.worker.components:Pool",)))
    local.steps["consumer"].add(noted(seen, "c", requires=("celery.worker.consumer:Tasks",)))
    with embedded(local, pool="solo", hostname="w@here"):
        assert local.tasks["ext.add"].delay(1, 2).get(timeout=30) == 3
    assert seen == [
        "create w <Worker: w@here (initializing)>", "create c <Consumer: w@here (initializing)>",
        "start w <Worker: w@here (running)>", "start c <Consumer: w@here (running)>",
        "stop c <Consumer: w@here (closing)>", "stop w <Worker: w@here (closing)>",
        "shutdown c <Consumer: w@here (terminating)>"]


def test_cold_shutdown_terminates(local: Celery) -> None:
    seen: list[str] = []
    local.steps["worker"].add(noted(seen, "w"))
    with embedded(local, pool="solo", hostname="w@here") as worker:
        worker.terminate()
    assert seen[-1] == "terminate w <Worker: w@here (closing)>" or seen[-1] == "terminate w <Worker: w@here (terminating)>"


@pytest.mark.parametrize(("kind", "method"), [("worker", "create"), ("worker", "start"), ("consumer", "start")])
def test_a_step_that_fails_ends_the_worker(local: Celery, kind: str, method: str) -> None:
    def fail(self: Any, parent: Any) -> None:
        raise ValueError("no liveness for you")

    local.steps[kind].add(noted([], "bad", **{method: fail}))
    with pytest.raises(ValueError, match="no liveness"):
        local.WorkController(local, "w@here", pool="solo").start()


def test_consumer_step_without_kombu(tmp_path: Path) -> None:
    """Of kombu's transports the worker has a connection for steps only where remote control is possible."""
    app = make_app(f"sqla+sqlite:///{tmp_path}/queue.db", "ext")

    class Mine(bootsteps.ConsumerStep):
        def get_consumers(self, channel: Any) -> list[Consumer]:
            return []

    app.steps["consumer"].add(Mine)
    with pytest.raises(ImproperlyConfigured, match=r"Mine consumes messages with kombu: this needs an amqp:// or redis://"):
        app.WorkController(app, "w@here", pool="solo").start()
    app.close()


# --- beside the tasks -------------------------------------------------------------------------------------------------

def test_custom_message_consumer(app: Celery) -> None:
    """The guide's example: messages of a queue of its own, beside the tasks; also after the connection was lost."""
    name = f"{app.conf.task_default_queue}-own"
    queue = Queue(name, Exchange(name), routing_key=name, auto_delete=True)
    seen: list[Any] = []

    class MyConsumerStep(bootsteps.ConsumerStep):
        def get_consumers(self, channel: Any) -> list[Consumer]:
            return [Consumer(channel, queues=[queue], callbacks=[self.handle_message], accept=["json"])]

        def handle_message(self, body: Any, message: Any) -> None:
            seen.append(body)
            message.ack()

    def send(body: Any) -> None:
        with app.connection_for_write() as connection:
            connection.Producer().publish({"hello": body}, exchange=queue.exchange, routing_key=name, declare=[queue], retry=True)

    app.steps["consumer"].add(MyConsumerStep)
    with embedded(app, pool="threads", concurrency=1, **QUIET) as worker:
        link = worker.machine.link  # type: ignore[union-attr]
        wait_until(lambda: link.up)
        send("world")
        assert app.tasks["ext.add"].delay(1, 2).get(timeout=30) == 3
        wait_until(lambda: seen == [{"hello": "world"}])
        time.sleep(1.2)  # with Redis the question for messages is asked anew each second
        send("again")
        wait_until(lambda: len(seen) == 2)
        sock = link.connection.connection.transport.sock if link.connection.transport.driver_type == "amqp" else None
        if sock is not None:
            sock.shutdown(2)
            wait_until(lambda: not link.up)
            wait_until(lambda: link.up)
            send("third")
            wait_until(lambda: len(seen) == 3)


# --- what steps use ---------------------------------------------------------------------------------------------------

def test_timer_hub_and_active_requests(local: Celery) -> None:
    """As the guide's detection of deadlocks uses them."""
    read, write = os.pipe()
    seen: dict[str, Any] = {"ticks": 0}
    started = threading.Event()

    @local.task(name="ext.wait")
    def wait() -> None:
        started.wait(10)

    class Detect(bootsteps.StartStopStep):
        requires = {"celery.worker.components:Timer"}

        def __init__(self, worker: Any, deadlock_timeout: float = 3600) -> None:
            self.timeout = deadlock_timeout

        def create(self, worker: Any) -> None:
            self.tref = worker.timer.call_repeatedly(0.02, self.detect, (worker,), priority=10)

        def start(self, worker: Any) -> None:
            worker.hub.add_reader(read, lambda word: seen.setdefault("read", (word, os.read(read, 10))), "word")
            worker.hub.call_soon(seen.setdefault, "soon", True)
            worker.timer.call_at(time.time() + 0.01, lambda: 1 / 0)  # is logged
            worker.timer.call_after(0.01, seen.setdefault, ("cancelled", True)).cancel()
            seen["pool"] = (worker.pool.limit, worker.pool.num_processes)

        def detect(self, worker: Any) -> None:
            seen["ticks"] += 1
            for request in worker.active_requests:
                seen["active"] = request.name
                self.tref.cancel()
                started.set()

    local.steps["worker"].add(Detect)
    with embedded(local, pool="threads", concurrency=2):
        result = wait.delay()
        os.write(write, b"x")
        result.get(timeout=30)
        ticks = seen["ticks"]
        wait_until(lambda: "read" in seen)
    os.close(read), os.close(write)
    assert seen["active"] == "ext.wait" and seen["soon"] and seen["pool"] == (2, 2)
    assert seen["read"] == ("word", b"x") and "cancelled" not in seen and seen["ticks"] <= ticks + 1


def test_prefetch_by_command(app: Celery) -> None:
    """The guide's examples of commands."""

    @control_command(args=[("n", int)], signature="[N=1]")
    def increase_prefetch_count(state: Any, n: int = 1) -> Any:
        state.consumer.qos.increment_eventually(n)
        return {"ok": f"prefetch count is {state.consumer.qos.value}"}

    try:
        with embedded(app, pool="solo", hostname="w@here", **QUIET) as worker:
            wait_until(lambda: worker.machine.link.up)  # type: ignore[union-attr]
            reply = app.control.broadcast("increase_prefetch_count", {"n": 3}, reply=True, limit=1, timeout=30)
            assert reply == [{"w@here": {"ok": "prefetch count is 7"}}]
            assert worker.stats["prefetch"] == 7
    finally:
        Panel.data.pop("increase_prefetch_count"), Panel.meta.pop("increase_prefetch_count")


def test_a_timer_may_end_the_worker(local: Celery) -> None:
    class Ends(bootsteps.StartStopStep):
        def start(self, worker: Any) -> None:
            worker.timer.call_after(0.01, sys.exit, (7,))

    local.steps["worker"].add(Ends)
    with pytest.raises(SystemExit, match="7"):
        local.WorkController(local, "w@here", pool="solo").start()


def test_tasks_come_to_their_end_before_that(local: Celery) -> None:
    """The guide's example: a step that watches the tasks raises SystemExit."""

    @local.task
    def slow() -> str:
        time.sleep(0.5)
        return "ended"

    class Watches(bootsteps.StartStopStep):
        def start(self, worker: Any) -> None:
            worker.timer.call_repeatedly(0.01, self.look, (worker,))

        def look(self, worker: Any) -> None:
            if worker.active_requests:
                raise SystemExit(7)

    local.steps["worker"].add(Watches)
    result = slow.delay()
    with pytest.raises(SystemExit, match="7"):
        local.WorkController(local, "w@here", pool="threads", concurrency=1).start()
    assert result.get(timeout=1) == "ended"


# --- the command line -------------------------------------------------------------------------------------------------

SCRIPT = """
import sys

from celery import Celery, bootsteps
from click import Option

app = Celery("cli", broker="memory://", set_as_current=False)
app.user_options["worker"].add(Option(("--enable-my-option",), is_flag=True, default=False, help="Enable custom option."))
app.user_options["preload"].add(Option(("-Z", "--template"), default="default", help="Configuration template to use."))


class MyBootstep(bootsteps.Step):
    def __init__(self, parent, enable_my_option=False, **options):
        super().__init__(parent, **options)
        print("my option is", enable_my_option, file=sys.__stdout__, flush=True)


class Ends(bootsteps.StartStopStep):
    def start(self, worker):
        worker.timer.call_after(0.01, worker.stop)


app.steps["worker"].update({MyBootstep, Ends})
"""


def test_options_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "extended.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "pyceleryc", "-A", "extended", "worker", "-P", "solo", "--enable-my-option", "-Z", "a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, env={**os.environ, "C_FORCE_ROOT": "1"})
    assert (done.returncode, "my option is True" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(("pool", "text"), [
    ("gevent", "use threads (-P threads -c 100)"), ("eventlet", "async def"), ("custom", "CELERY_CUSTOM_WORKER_POOL cannot replace it")])
def test_pools_that_are_none(local: Celery, pool: str, text: str) -> None:
    from pyceleryc.bin.worker import worker as command

    local.conf.worker_pool = pool
    with pytest.raises(ImproperlyConfigured, match=re.escape(text)):
        local.WorkController(local, "w@here").start()
    with pytest.raises(click.BadParameter, match=re.escape(text)) as refused:
        command.make_context("worker", ["-P", pool])
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_pool_restart(app: Celery, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes, with new code of reloaded modules; what runs comes to its end."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from pyceleryc.worker import state

    module = tmp_path / f"code_{app.conf.task_default_queue.replace('-', '_')}.py"
    module.write_text("ANSWER = 'old'\n")
    name = module.stem
    __import__(name)
    app.conf.worker_pool_restarts = True

    @app.task(name="ext.answer")
    def answer(seconds: float) -> tuple[str, int]:
        time.sleep(seconds)
        return sys.modules[name].ANSWER, os.getpid()

    app.backend = Celery(backend=f"sqlite:///{tmp_path}/r.db", set_as_current=False).backend
    with embedded(app, pool=pool, concurrency=1, hostname="w@here", **QUIET):
        assert answer.delay(0).get(timeout=30)[0] == "old"
        running = answer.delay(1)
        wait_until(lambda: any(request.id == running.id for request in state.active_requests))
        module.write_text("ANSWER = 'brand new'\n")
        reply = app.control.pool_restart([name], reload=True, reply=True, limit=1, timeout=30)
        assert reply == [{"w@here": {"ok": "reload started"}}]
        before, after = running.get(timeout=30), answer.delay(0).get(timeout=30)
        assert after[0] == "brand new"
        if pool == "prefork":
            assert before[0] == "old" and before[1] != after[1]
