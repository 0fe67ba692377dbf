"""The pool asyncio: many coroutines under way at once on one event loop (DESIGN D15), on RabbitMQ with Redis results."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import wait_until
from embedding import embedded, remove_names, take_names
from relay import Relay

from pyceleryc import Celery, Task, chord, current_task, signals
from pyceleryc.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


@pytest.fixture
def app(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> Iterator[Celery]:
    made = Celery("asyncio", broker=amqp_url, backend=redis_url, set_as_current=False)
    take_names(made, unique("asyncio"))
    yield made
    remove_names(amqp_url, made.conf.task_default_queue)
    made.close()


def pool(app: Celery, size: int = 50, **options: Any) -> Any:
    return embedded(app, pool="asyncio", concurrency=size, **QUIET, **options)


def test_a_thousand_at_once(app: Celery) -> None:
    @app.task
    async def nap(number: int) -> int:
        await asyncio.sleep(1)
        return number

    with pool(app, 1000, prefetch_multiplier=1):
        nap.delay(0).get(timeout=30)
        began = time.monotonic()
        results = [nap.delay(number) for number in range(1000)]
        assert [result.get(timeout=30) for result in results] == list(range(1000))
        assert time.monotonic() - began < 10


def test_no_more_than_asked_for(app: Celery) -> None:
    now, most = 0, 0

    @app.task
    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(now, most)
        await asyncio.sleep(0.05)
        now -= 1

    with pool(app, 3) as worker:
        for result in [count.delay() for _ in range(12)]:
            result.get(timeout=30)
        assert most == 3
        worker.pool.grow(4)
        for result in [count.delay() for _ in range(40)]:
            result.get(timeout=30)
        assert most == 7


def test_each_sees_its_own_request(app: Celery) -> None:
    own: contextvars.ContextVar[int] = contextvars.ContextVar("own")

    @app.task(bind=True)
    async def look(self: Task, number: int) -> list[Any]:
        own.set(number)
        seen = []
        for _ in range(5):
            await asyncio.sleep(0.002)
            child = await asyncio.create_task(inner())
            seen.append([self.request.id, self.request.args, current_task.request.id, own.get(), child])
        return seen

    async def inner() -> list[Any]:
        await asyncio.sleep(0)
        return [current_task.request.id, own.get()]

    with pool(app):
        results = [look.delay(number) for number in range(40)]
        for number, result in enumerate(results):
            expected = [result.id, [number], result.id, number, [result.id, number]]
            assert result.get(timeout=30) == [expected] * 5


def test_signals_and_handlers_share_the_context(app: Celery) -> None:
    """They run beside the loop, which goes on, and see and set what the coroutine does: so instrumentation works."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")
    told: list[Any] = []
    loops: set[Any] = set()

    class Told(Task):
        abstract = True

        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            time.sleep(0.1)
            loops.add(asyncio._get_running_loop())

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            told.append(["success", retval, span.get(), self.request.id == task_id])

        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(["failure", str(exc), span.get(), self.request.id == task_id])

    tokens: dict[str, Any] = {}

    def prerun(task_id: str, **kwargs: Any) -> None:
        tokens[task_id] = span.set(f"span of {task_id}")

    def postrun(task_id: str, **kwargs: Any) -> None:
        span.reset(tokens[task_id])
        told.append(["reset", task_id])

    @app.task(base=Told)
    async def traced(fails: bool) -> str:
        assert asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        if fails:
            raise ValueError(span.get())
        return span.get()

    signals.task_prerun.connect(prerun)
    signals.task_postrun.connect(postrun)
    try:
        with pool(app):
            good, bad = traced.delay(False), traced.delay(True)
            assert good.get(timeout=30) == f"span of {good.id}"
            with pytest.raises(ValueError, match=f"span of {bad.id}"):
                bad.get(timeout=30)
            wait_until(lambda: ["reset", good.id] in told and ["reset", bad.id] in told)
    finally:
        signals.task_prerun.disconnect(prerun)
        signals.task_postrun.disconnect(postrun)
    assert ["success", f"span of {good.id}", f"span of {good.id}", True] in told
    assert ["failure", f"span of {bad.id}", f"span of {bad.id}", True] in told
    assert loops == {None}


class Base(BaseException):
    """No Exception."""


def test_outcomes(app: Celery) -> None:
    @app.task(bind=True, max_retries=3)
    async def flaky(self: Task) -> int:
        await asyncio.sleep(0.001)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.retries

    @app.task(autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=0)
    async def auto() -> int:
        await asyncio.sleep(0.001)
        if auto.request.retries < 1:
            raise KeyError("again")
        return int(auto.request.retries)

    @app.task
    async def raises(kind: str) -> None:
        await asyncio.sleep(0.001)
        raise {"base": Base("x"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "cancelled": asyncio.CancelledError(),
               "ignore": Ignore(), "reject": Reject("no"), "value": ValueError("x")}[kind]

    @app.task
    async def leaves(kind: str) -> int:
        asyncio.get_running_loop().create_task(others(kind))
        await asyncio.sleep(0.05)
        return 1

    async def others(kind: str) -> None:
        raise SystemExit if kind == "exit" else ValueError("of nobody")

    @app.task
    async def cancels_itself(waits: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(0)
        return "not waited"

    @app.task(ignore_result=True)
    async def ignored() -> int:
        return 3

    @app.task
    async def unstorable() -> object:
        return object()

    with pool(app):
        assert flaky.delay().get(timeout=30) == 2
        assert auto.delay().get(timeout=30) == 1
        for kind in ("base", "exit", "interrupt"):
            with pytest.raises(WorkerLostError):
                raises.delay(kind).get(timeout=30)
        with pytest.raises(ValueError):
            raises.delay("value").get(timeout=30)
        with pytest.raises(asyncio.CancelledError):
            raises.delay("cancelled").get(timeout=30)
        results = raises.delay("ignore"), raises.delay("reject"), ignored.delay()
        assert leaves.delay("exit").get(timeout=30) == leaves.delay("other").get(timeout=30) == 1
        assert cancels_itself.delay(False).get(timeout=30) == "not waited"
        with pytest.raises(asyncio.CancelledError):
            cancels_itself.delay(True).get(timeout=30)
        with pytest.raises(Exception, match="serializable|encode"):
            unstorable.delay().get(timeout=30)
        assert [result.state for result in results] == ["PENDING", "FAILURE", "PENDING"]


def test_canvas(app: Celery) -> None:
    @app.task
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0.001)
        return x + y

    @app.task
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(acks_late=True)
    async def sends() -> str:
        return str(add.delay(5, 5).id)

    with pool(app):
        chain = add.s(1, 1) | add.s(2) | add.s(3) | add.s(4)
        assert chain.delay().get(timeout=30) == 11
        assert chord([add.s(n, n) for n in range(20)], total.s()).delay().get(timeout=30) == 380
        ids = [result.get(timeout=30) for result in [sends.delay() for _ in range(100)]]
        assert [app.AsyncResult(id).get(timeout=30) for id in ids] == [10] * 100


def test_outcome_waits_for_the_confirm_of_what_was_published(app: Celery, amqp_url: str) -> None:
    """And nothing else does."""
    relay = Relay(amqp_url)
    relay.open()
    sink = f"{app.conf.task_default_queue}-sink"
    app.conf.update(broker_read_url=relay.direct, broker_write_url=relay.url, worker_enable_remote_control=False)

    @app.task(acks_late=True)
    async def sends() -> None:
        other.apply_async(queue=sink)

    @app.task
    async def other() -> int:
        await asyncio.sleep(0.01)
        return 1

    try:
        direct = Celery("direct", broker=relay.direct, backend=app.conf.result_backend, set_as_current=False)
        direct.conf.task_default_queue = app.conf.task_default_queue
        with pool(app):
            sends.delay().get(timeout=30)  # it is connected now
            relay.silence()
            results = [direct.send_task(sends.name) for _ in range(3)]
            wait_until(lambda: app.amqp.producer.unconfirmed() == 3)
            assert direct.send_task(other.name).get(timeout=30) == 1
            assert {result.state for result in results} == {"PENDING"}
            relay.speak()
            for result in results:
                result.get(timeout=30)
            assert app.amqp.producer.size(sink, 10.0)[0] == 4
        direct.close()
        app.amqp.producer.remove(sink, 5.0)
    finally:
        relay.speak()
        relay.cut()


def test_waiting_for_a_result_is_refused(app: Celery) -> None:
    @app.task
    async def inner() -> int:
        return 1

    @app.task
    async def outer() -> int:
        return int(inner.delay().get(timeout=30))

    with pool(app):
        with pytest.raises(RuntimeError, match="within a task"):
            outer.delay().get(timeout=30)


def test_plain_functions_run_in_threads(app: Celery) -> None:
    meet = threading.Barrier(3)

    @app.task
    def plain() -> str:
        meet.wait(20)
        return threading.current_thread().name

    @app.task(soft_time_limit=0.2)
    def limited() -> str:
        try:
            for _ in range(500):
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            return "limited"
        return "went on"

    @app.task
    async def nap() -> int:
        await asyncio.sleep(0.01)
        return 1

    with pool(app, 3):
        names = {result.get(timeout=30) for result in [plain.delay() for _ in range(3)]}
        assert len(names) == 3
        assert limited.delay().get(timeout=30) == "limited"
        assert nap.delay().get(timeout=30) == 1


def test_time_limits(app: Celery) -> None:
    cleaned: list[str] = []

    @app.task(soft_time_limit=0.2)
    async def soft(caught: bool) -> str:
        try:
            await asyncio.sleep(20)
        except SoftTimeLimitExceeded:
            if not caught:
                raise
        await asyncio.sleep(0.3)  # it is not raised a second time
        return "caught"

    @app.task(time_limit=0.2)
    async def hard(way: str) -> str:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            if way == "swallows":
                return "no result of this"
            if way == "deaf":
                await asyncio.sleep(20)
            raise
        finally:
            cleaned.append(way)
        return "went on"

    @app.task(time_limit=0.2)
    async def blocks() -> None:
        while True:
            time.sleep(0.005)

    with pool(app):
        others = [soft.delay(True) for _ in range(5)]
        with pytest.raises(SoftTimeLimitExceeded):
            soft.delay(False).get(timeout=30)
        assert [result.get(timeout=30) for result in others] == ["caught"] * 5
        for way in ("waits", "swallows", "deaf"):
            with pytest.raises(TimeLimitExceeded):
                hard.delay(way).get(timeout=30)
        with pytest.raises(TimeLimitExceeded):
            blocks.delay().get(timeout=30)
        assert soft.delay(True).get(timeout=30) == "caught"  # the loop is none the worse
    assert cleaned == ["waits", "swallows", "deaf"]


def test_active_and_terminated(app: Celery) -> None:
    ended = threading.Event()

    @app.task
    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pool(app, hostname="w@here"):
        results = [long.delay() for _ in range(5)]
        inspect = app.control.inspect(["w@here"], timeout=2)
        wait_until(lambda: len((inspect.active() or {}).get("w@here", [])) == 5)
        assert not ended.is_set()
        results[0].revoke(terminate=True)
        with pytest.raises(TaskRevokedError, match="terminated"):
            results[0].get(timeout=30)
        assert ended.wait(10)
        wait_until(lambda: {one["id"] for one in inspect.active()["w@here"]} == {result.id for result in results[1:]})
        app.control.revoke([result.id for result in results], terminate=True)
        for result in results[1:]:
            with pytest.raises(TaskRevokedError):
                result.get(timeout=30)


def test_result_is_there_before_the_ack(app: Celery) -> None:
    """And an early ack is sent before the coroutine has ended."""
    goes_on = threading.Event()

    @app.task
    async def early() -> None:
        while not goes_on.is_set():
            await asyncio.sleep(0.01)

    @app.task(acks_late=True)
    async def late() -> None:
        while not goes_on.is_set():
            await asyncio.sleep(0.01)

    with pool(app) as worker:
        results = early.delay(), late.delay()
        wait_until(lambda: len(worker.machine.core.jobs("active")) == 2)
        wait_until(lambda: sorted(job.acknowledged for job in worker.machine.core.jobs("active")) == [False, True])
        goes_on.set()
        for result in results:
            result.get(timeout=30)


def test_machine_goes_on_while_the_loop_is_blocked(app: Celery) -> None:
    """Acks, remote control and plain functions do not wait for it."""
    goes_on = threading.Event()

    @app.task
    async def blocks() -> None:
        goes_on.wait(30)

    @app.task
    def plain() -> int:
        return 1

    with pool(app, hostname="w@here") as worker:
        running = plain.delay()
        assert running.get(timeout=30) == 1
        result = blocks.delay()
        wait_until(lambda: [job.acknowledged for job in worker.machine.core.jobs("active")] == [True])
        assert app.control.ping(["w@here"], timeout=5) == [{"w@here": {"ok": "pong"}}]
        goes_on.set()
        result.get(timeout=30)


def test_body_that_cannot_be_read(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    @app.task
    async def one(x: int) -> int:
        return x

    with caplog.at_level(logging.CRITICAL), pool(app):
        with app.connection_for_write() as connection, connection.Producer() as producer:
            producer.publish(b"{", routing_key=app.conf.task_default_queue, content_type="application/json", content_encoding="utf-8",
                             headers={"task": one.name, "id": "bad", "lang": "py"})
        with pytest.raises(TypeError):
            one.delay().get(timeout=30)
        assert one.delay(1).get(timeout=30) == 1
    assert "Can't decode message body" in caplog.text
