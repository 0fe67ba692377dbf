"""Classes of requests and strategies of user code (Tasks guide, "Custom requests"; FEATURES 2.10)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import wait_until
from embedding import embedded

from pyceleryc import Celery, Task
from pyceleryc.exceptions import Ignore, ImproperlyConfigured, Reject, TimeLimitExceeded, WorkerLostError
from pyceleryc.worker.request import Request
from pyceleryc.worker.strategy import default, hybrid_to_proto2, proto1_to_proto2

SEEN: list[tuple[Any, ...]] = []


class MyRequest(Request):
    """Notes what it is told."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        SEEN.append((self.name, "accepted", pid == os.getpid(), abs(time.time() - time_accepted) < 20, self.worker_pid == pid))

    def on_success(self, failed__retval__runtime: tuple[bool, str, float], **kwargs: Any) -> None:
        failed, retval, runtime = failed__retval__runtime
        SEEN.append((self.name, "success", failed, retval, runtime < 10))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        SEEN.append((self.name, "failure", type(exc_info.exception).__name__, return_ok, "Traceback" in exc_info.traceback))
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_retry(self, exc_info: Any) -> None:
        SEEN.append((self.name, "retry"))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        SEEN.append((self.task.name, "timeout", soft, timeout))


class MyTask(Task):
    """The guide's example."""

    Request = MyRequest


class Unpicklable(Exception):
    """Cannot go to another process as it is."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("two arguments")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    url = f"sqlite:///{tmp_path}/q.db"
    made = Celery("req", broker=url, backend=url, set_as_current=False)
    del SEEN[:]

    @made.task(name="req.ok", base=MyTask)
    def ok(x: int) -> int:
        return x

    @made.task(name="req.bad", Request=f"{__name__}:MyRequest")
    def bad() -> None:
        raise Unpicklable(1, 2)

    @made.task(name="req.again", base=MyTask, bind=True, max_retries=1)
    def again(self: Any) -> int:
        if not self.request.retries:
            raise self.retry(countdown=0)
        return 1

    @made.task(name="req.ignored", base=MyTask, ignore_result=True)
    def ignored() -> None:
        raise Ignore

    @made.task(name="req.plain")
    def plain() -> int:
        return 0

    @made.task(name="req.hard", base=MyTask, time_limit=0.2)
    def hard() -> None:
        time.sleep(20)

    @made.task(name="req.soft", base=MyTask, soft_time_limit=0.2)
    def soft() -> None:
        time.sleep(20)

    @made.task(name="req.die", base=MyTask)
    def die() -> None:
        os._exit(3)

    yield made
    made.close()


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "asyncio"])
def test_what_a_request_is_told(app: Celery, pool: str) -> None:
    here = pool != "prefork"
    with embedded(app, pool=pool, concurrency=1, hostname="w@here") as worker:
        assert app.tasks["req.ok"].delay(3).get(timeout=30) == 3
        with pytest.raises(Exception, match="two arguments"):
            app.tasks["req.bad"].delay().get(timeout=30)
        assert app.tasks["req.again"].delay().get(timeout=30) == 1
        app.tasks["req.ignored"].delay()
        assert app.tasks["req.plain"].delay().get(timeout=30) == 0
        accepted = {name: (name, "accepted", here, True, True) for name in app.tasks}
        expected = [
            accepted["req.ok"], ("req.ok", "success", False, "3", True),
            accepted["req.bad"], ("req.bad", "failure", "UnpickleableExceptionWrapper", True, True),
            accepted["req.again"], ("req.again", "failure", "Retry", True, True), ("req.again", "retry"),
            accepted["req.again"], ("req.again", "success", False, "1", True),
            accepted["req.ignored"], ("req.ignored", "failure", "Ignore", True, True)]
        wait_until(lambda: len(SEEN) >= len(expected))
        assert SEEN == expected
        wait_until(lambda: not worker.machine.hooks.customs.running)  # type: ignore[union-attr]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_what_a_request_is_told_of_a_task_that_had_succeeded(app: Celery, pool: str) -> None:
    """worker_deduplicate_successful_tasks: it is not run, and has succeeded."""
    app.conf.worker_deduplicate_successful_tasks = True

    @app.task(name="req.repeated", base=MyTask, bind=True, acks_late=True)
    def repeated(self: Any) -> None:
        assert not self.request.delivery_info["redelivered"]
        app.backend.store_result(self.request.id, 5, "SUCCESS")
        raise Reject(requeue=True)

    with embedded(app, pool=pool, concurrency=1) as worker:
        assert repeated.delay().get(timeout=20) == 5
        wait_until(lambda: ("req.repeated", "success", False, None, True) in SEEN)
        assert not worker.machine.hooks.customs.running  # type: ignore[union-attr]
    assert [seen[1] for seen in SEEN if seen[0] == "req.repeated"].count("success") == 1


def publish(app: Celery, body: bytes, **headers: Any) -> None:
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            body, routing_key=app.conf.task_default_queue, content_type="application/json", content_encoding="utf-8",
            headers={"lang": "py", "task": "req.ok", "argsrepr": "()", "kwargsrepr": "{}", **headers})


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork"])
def test_messages_and_errors_that_are_unusual(app: Celery, pool: str) -> None:
    """The worker goes on, the request is told how it ended, and nothing is kept of it."""

    @app.task(name="req.huge", base=MyTask)
    def huge() -> None:
        raise ValueError("x" * 1_000_000)

    @app.task(name="req.long", base=MyTask, resultrepr_maxsize=10_000_000)
    def long() -> str:
        return "x" * 1_000_000

    class Early(MyTask):
        def before_start(self, *args: Any) -> None:
            raise KeyError("of ours")

    app.task(name="req.early", base=Early)(lambda: None)
    with embedded(app, pool=pool, concurrency=1) as worker:
        publish(app, b"[[1], {}, {}]", id="before Python's time", eta="0001-01-01T00:00:00+14:00")
        publish(app, b"[[1], {}, {}]", id="after it", expires="9999-12-31T23:59:59-14:00")
        publish(app, b"[[1", id="cut off")
        for name in ("req.huge", "req.long", "req.early"):
            app.tasks[name].delay()
        assert app.tasks["req.ok"].delay(3).get(timeout=30) == 3
        wait_until(lambda: SEEN and SEEN[-1][:4] == ("req.ok", "success", False, "3"))
        wait_until(lambda: not worker.machine.hooks.customs.running)  # type: ignore[union-attr]
    told = [seen[:3] if seen[1] == "failure" else seen[:2] for seen in SEEN if seen[1] != "accepted"]
    assert told == [
        ("req.ok", "success"), ("req.ok", "success"), ("req.ok", "failure", "JSONDecodeError"),
        ("req.huge", "failure", "UnpickleableExceptionWrapper"), ("req.long", "success"), ("req.early", "failure", "KeyError"),
        ("req.ok", "success")]


def test_limits_and_lost_processes(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    with embedded(app, pool="prefork", concurrency=1):
        with pytest.raises(TimeLimitExceeded):
            app.tasks["req.hard"].delay().get(timeout=30)
        with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
            app.tasks["req.soft"].delay().get(timeout=30)
        with pytest.raises(WorkerLostError):
            app.tasks["req.die"].delay().get(timeout=30)
        wait_until(lambda: SEEN[-1][:2] == ("req.die", "failure"))
    told = [entry[:4] for entry in SEEN if entry[1] != "accepted"]
    assert told == [
        ("req.hard", "failure", "TimeLimitExceeded", False), ("req.hard", "timeout", False, 0.2),
        ("req.soft", "timeout", True, 0.2), ("req.soft", "failure", "SoftTimeLimitExceeded", True),
        ("req.die", "failure", "WorkerLostError", False)]
    assert "Hard time limit (0.2s) exceeded for req.hard[" in caplog.text
    assert "Soft time limit (0.2s) exceeded for req.soft[" in caplog.text


def test_strategy_that_chooses(app: Celery) -> None:
    """Some messages are settled by the strategy, others run."""

    def choosy(task: Any, app: Celery, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
        hand_on = default(task, app, consumer, **kwargs)
        SEEN.append(("strategy of", task.name, consumer.hostname))

        def handler(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
            args, _, _ = message.payload
            SEEN.append(("message", message.headers["task"], args, message.content_type))
            if args[0] == 13:
                return ack()
            return hand_on(message, body, ack, reject, [*callbacks, lambda request: SEEN.append(("request", request.name))])

        return handler

    app.tasks["req.ok"].Strategy = choosy
    with embedded(app, pool="solo", hostname="w@here"):
        app.tasks["req.ok"].delay(13)
        assert app.tasks["req.ok"].delay(3).get(timeout=30) == 3
    kind = "application/json"
    assert [entry for entry in SEEN if entry[0] in ("strategy of", "message", "request")] == [
        ("strategy of", "req.ok", "w@here"), ("message", "req.ok", [13], kind), ("message", "req.ok", [3], kind), ("request", "req.ok")]
    assert [entry for entry in SEEN if entry[1] == "success"] == [("req.ok", "success", False, "3", True)]
    assert app.amqp.producer.get(app.conf.task_default_queue, 1.0) is None


@pytest.mark.parametrize("strategy", ["keeps", "raises"])
def test_strategy_that_does_nothing_ends_the_worker(app: Celery, strategy: str) -> None:
    """Rather than losing messages: they are back in their queue."""
    def keeps(task: Any, app: Celery, consumer: Any, **kwargs: Any) -> Callable[..., Any]:
        return (lambda *args, **kwargs: None) if strategy == "keeps" else (lambda *args, **kwargs: 1 / 0)

    app.tasks["req.ok"].Strategy = keeps
    app.tasks["req.ok"].delay(1)
    error, text = (ImproperlyConfigured, "does not keep messages") if strategy == "keeps" else (ZeroDivisionError, "division")
    with pytest.raises(error, match=text):  # type: ignore[arg-type]
        app.WorkController(app, "w@here", pool="solo").start()
    assert app.amqp.producer.get(app.conf.task_default_queue, 1.0) is not None


@pytest.mark.parametrize("request_class", ["no.such:Request", int])
def test_what_is_no_request_class(app: Celery, request_class: Any) -> None:
    app.tasks["req.ok"].Request = request_class
    with pytest.raises(ImproperlyConfigured, match="req.ok"):
        app.WorkController(app, "w@here", pool="solo").start()


def test_protocol_1() -> None:
    body = {"task": "t", "id": "1", "args": [1], "kwargs": {"a": 2}, "retries": 0, "taskset": "g", "chord": None, "utc": True}
    message = type("Message", (), {"headers": {"lang": "py"}})()
    (args, kwargs, embed), headers, decoded, utc = hybrid_to_proto2(message, body)
    assert (args, kwargs, decoded, utc) == ([1], {"a": 2}, True, True) and set(embed) == {"callbacks", "errbacks", "chain", "chord"}
    assert headers["lang"] == "py" and headers["group"] == "g" and headers["argsrepr"] == "[1]"
    with pytest.raises(ValueError, match="protocol 1"):
        proto1_to_proto2(message, {"id": "1"})
