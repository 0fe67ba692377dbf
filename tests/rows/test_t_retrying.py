"""Tasks guide, retrying (T-130..T-143). What retry() sends is looked at in a queue that nobody reads."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import MaxRetriesExceededError, Reject, Retry


@pytest.fixture
def task(outbox: Any) -> Any:
    """A task whose messages nobody reads; `start()` makes it believe that it runs."""
    app = outbox.app()

    @app.task(bind=True, name="retrying.task")
    def sample(self: Any, *args: Any, **kwargs: Any) -> None:
        """A body."""

    yield app.tasks[sample.name]
    app.close()


def start(task: Any, outbox: Any, **fields: Any) -> None:
    info = {"exchange": "", "routing_key": outbox.queue, "priority": 0, "redelivered": False}
    task.push_request(**{"id": "some-id", "root_id": "some-root", "args": [1, 2], "kwargs": {"z": 3}, "called_directly": False,
                         "delivery_info": info, "correlation_id": "some-id", **fields})


def wait_for_state(result: Any, state: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while result.state != state:
        assert time.monotonic() < deadline, result.state
        time.sleep(0.02)


def runs(path: Path) -> int:
    return len(path.read_text().split())


def test_t130_same_id_one_retry_more(running: Any) -> None:
    result = running.tasks.request_again.delay()
    shown = result.get(timeout=20)
    assert (shown["id"], shown["retries"], shown["args"], shown["kwargs"]) == (result.id, 1, [], {})


def test_t130_message(task: Any, outbox: Any) -> None:
    start(task, outbox, retries=2)
    task.max_retries = 5
    with pytest.raises(Retry):
        task.retry(countdown=0)
    message = outbox.take()
    assert message.payload[:2] == [[1, 2], {"z": 3}]
    assert (message.headers["id"], message.headers["retries"], message.headers["task"]) == ("some-id", 3, "retrying.task")
    assert message.properties["correlation_id"] == "some-id"


def test_t130_other_arguments(running: Any, task: Any, outbox: Any) -> None:
    result = running.tasks.retrying_with_others.delay(1)
    assert result.get(timeout=20) == [10, 1, result.id]
    start(task, outbox)
    task.retry(args=(9,), kwargs={"w": 1}, countdown=0, throw=False)
    assert outbox.take().payload[:2] == [[9], {"w": 1}]


def test_t130_extra_options_are_those_of_apply_async(task: Any, outbox: Any) -> None:
    start(task, outbox)
    task.retry(countdown=0, throw=False, headers={"x-own": "1"}, priority=4, expires=60)
    message = outbox.take()
    assert message.headers["x-own"] == "1" and message.properties["priority"] == 4
    left = datetime.fromisoformat(message.headers["expires"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)


def test_t130_other_queue(task: Any, outbox: Any) -> None:
    other = f"{outbox.queue}-other"
    outbox.more.append(other)
    start(task, outbox)
    task.retry(countdown=0, throw=False, queue=other)
    assert outbox.take(other).headers["id"] == "some-id"


def test_t131_same_queue_of_the_default_exchange(task: Any, outbox: Any) -> None:
    second = f"{outbox.queue}-q2"
    outbox.more.append(second)
    start(task, outbox, delivery_info={"exchange": "", "routing_key": second, "priority": 3, "redelivered": False})
    task.retry(countdown=0, throw=False)
    message = outbox.take(second)
    assert message.delivery_info["routing_key"] == second and message.properties["priority"] == 3


def test_t131_same_exchange_and_key(task: Any, outbox: Any) -> None:
    from kombu import Connection, Exchange, Queue

    queue = Queue(f"{outbox.queue}-bound", Exchange(f"{outbox.queue}-x", type="direct"), routing_key="some.key")
    with Connection(outbox.url) as connection, connection.channel() as channel:
        bound = queue(channel)
        bound.declare()
        try:
            start(task, outbox, delivery_info={"exchange": queue.exchange.name, "routing_key": "some.key", "priority": None})
            task.retry(countdown=0, throw=False)
            info = outbox.take(queue.name).delivery_info
            assert (info["exchange"], info["routing_key"]) == (queue.exchange.name, "some.key")
        finally:
            bound.delete()
            bound.exchange.delete()


def test_t131_what_is_kept(task: Any, outbox: Any) -> None:
    callback, errback = task.si("callback"), task.si("errback")
    later, body = task.si("later"), task.si("body")
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    start(task, outbox, callbacks=[dict(callback)], errbacks=[dict(errback)], chain=[dict(later)], chord=dict(body), group="some-group",
          group_index=4, expires=expires, timelimit=[30, 20], reply_to="somebody", shadow="another name", stamps={"color": "red"},
          stamped_headers=["color"], replaced_task_nesting=2,
          headers={"x-own": "1", "x-death": [{}], "x-first-death-queue": "q"})
    task.retry(countdown=0, throw=False)
    message = outbox.take()
    headers, embed = message.headers, message.payload[2]
    assert [one["args"] for name in ("callbacks", "errbacks", "chain") for one in embed[name]] == [["callback"], ["errback"], ["later"]]
    assert embed["chord"]["args"] == ["body"]
    kept = {"group": "some-group", "group_index": 4, "timelimit": [30, 20], "root_id": "some-root", "shadow": "another name",
            "stamps": {"color": "red"}, "stamped_headers": ["color"], "replaced_task_nesting": 2, "x-own": "1"}
    assert {name: headers.get(name) for name in kept} == kept
    assert datetime.fromisoformat(headers["expires"]) == datetime.fromisoformat(expires)
    assert message.properties["reply_to"] == "somebody" and not [name for name in headers if name.startswith(("x-death", "x-first"))]


def test_t131_kept_in_the_worker(running: Any) -> None:
    result = running.tasks.retrying_same_queue.apply_async(
        headers={"x-own": "1"}, shadow="shown", time_limit=50, soft_time_limit=40, priority=2, link=running.tasks.add.si(1, 1))
    shown = result.get(timeout=20)
    assert (shown["retries"], shown["headers"], shown["shadow"], shown["timelimit"]) == (1, {"x-own": "1"}, "shown", [50, 40])
    assert shown["delivery_info"]["routing_key"] == running.queue and shown["delivery_info"]["priority"] == 2
    assert shown["callbacks"][0]["args"] == [1, 1] and shown["id"] == result.id == shown["root_id"]


def test_t132_t133_state_retry(running: Any) -> None:
    result = running.tasks.retrying_in_a_while.delay()
    wait_for_state(result, "RETRY")
    assert isinstance(result.result, ValueError) and result.result.args == ("not now",)
    assert "Traceback" in result.traceback and "not now" in result.traceback
    assert not result.ready() and not result.failed()
    running.tasks.app.backend.forget(result.id)


def test_t132_not_stored_for_ignored_results(running: Any) -> None:
    result = running.tasks.retrying_in_a_while.apply_async(ignore_result=True)
    running.worker.wait_for(f"rows_tasks.retrying_in_a_while[{result.id}] retry: Retry in 30s: ValueError('not now')")
    assert running.tasks.app.AsyncResult(result.id).state == "PENDING"


def test_t133_code_after_it_is_not_reached(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "reached"
    assert running.tasks.retrying_code_after.delay(str(path)).get(timeout=20) == 1
    assert not path.exists()


def test_t133_t134_the_exception(task: Any, outbox: Any) -> None:
    start(task, outbox)
    error = ValueError("a")
    with pytest.raises(Retry) as info:
        task.retry(exc=error, countdown=3)
    assert info.value.exc is error and info.value.when == 3 and info.value.is_eager is False
    assert str(info.value) == "Retry in 3s: ValueError('a')" and info.value.humanize() == "in 3s"
    returned = task.retry(exc=error, countdown=3, throw=False)
    assert isinstance(returned, Retry) and returned.sig.args == (1, 2) and returned.sig.options["retries"] == 1


def test_t134_without_throw_the_run_goes_on(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.retrying_without_throw.delay(str(path))
    assert result.get(timeout=20) == "Retry" and result.state == "SUCCESS" and runs(path) == 1
    deadline = time.monotonic() + 30
    while runs(path) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_t135_t138_given_error_when_used_up(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.retrying_always.delay(str(path))
    with pytest.raises(OSError, match="still closed"):
        result.get(timeout=20)
    assert runs(path) == 3 and result.state == "FAILURE"
    running.worker.wait_for(f"rows_tasks.retrying_always[{result.id}] retry: Retry in 0s: OSError('still closed')")


def test_t136_exceeded_without_an_error(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    result = running.tasks.retrying_until_exceeded.delay(str(path), key=1)
    with pytest.raises(MaxRetriesExceededError) as info:
        result.get(timeout=20)
    assert str(info.value).startswith(f"Can't retry rows_tasks.retrying_until_exceeded[{result.id}] args:")
    assert "kwargs:{'key': 1}" in str(info.value) and runs(path) == 2


def test_t136_its_attributes(task: Any, outbox: Any) -> None:
    start(task, outbox, retries=3)
    with pytest.raises(task.MaxRetriesExceededError) as info:
        task.retry()
    assert str(info.value) == "Can't retry retrying.task[some-id] args:(1, 2) kwargs:{'z': 3}"
    assert (info.value.task_args, info.value.task_kwargs) == ((1, 2), {"z": 3})


def test_t136_even_if_another_error_is_active(task: Any, outbox: Any) -> None:
    """X7: without exc= the error at hand is not raised again."""
    start(task, outbox)
    try:
        raise KeyError("active")
    except KeyError:
        with pytest.raises(MaxRetriesExceededError):
            task.retry(max_retries=0)


def test_t137_given_error_is_chained(task: Any, outbox: Any, running: Any) -> None:
    start(task, outbox)
    active, given = KeyError("active"), ValueError("given")
    try:
        raise active
    except KeyError:
        with pytest.raises(ValueError, match="given") as info:
            task.retry(exc=given, max_retries=0)
    assert info.value is given and given.__cause__ is active
    with pytest.raises(ValueError, match="given"):
        running.tasks.retrying_given_chained.delay().get(timeout=20)


def test_t137_same_error_is_raised_as_it_is(task: Any, outbox: Any) -> None:
    start(task, outbox)
    error = KeyError("active")
    try:
        raise error
    except KeyError:
        with pytest.raises(KeyError) as info:
            task.retry(exc=error, max_retries=0)
    assert info.value is error and error.__cause__ is None


@pytest.mark.parametrize(("own", "of_call", "retries", "exceeded"), [
    (3, None, 2, False), (3, None, 3, True), (0, None, 0, True), (None, None, 1000, False), (3, 5, 4, False), (3, 5, 5, True),
    (3, 0, 0, True), (None, 1, 1, True),
])
def test_t138_limit(task: Any, outbox: Any, own: int | None, of_call: int | None, retries: int, exceeded: bool) -> None:
    start(task, outbox, retries=retries)
    task.max_retries = own
    if exceeded:
        with pytest.raises(MaxRetriesExceededError):
            task.retry(max_retries=of_call, countdown=0)
    else:
        task.retry(max_retries=of_call, countdown=0, throw=False)
        assert outbox.take().headers["retries"] == retries + 1


def test_t138_limit_of_the_call(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with pytest.raises(OSError, match="no"):
        running.tasks.retrying_limit_of_the_call.delay(str(path)).get(timeout=20)
    assert runs(path) == 5


def test_t138_no_limit(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    assert running.tasks.retrying_for_ever.delay(str(path)).get(timeout=20) == 6
    assert runs(path) == 7


def eta_of(outbox: Any) -> float:
    """Seconds from now."""
    return (datetime.fromisoformat(outbox.take().headers["eta"]) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(("delay", "options", "seconds"), [
    (None, {}, 180), (30, {}, 30), (0.5, {}, 0.5), (None, {"countdown": 7}, 7), (30, {"countdown": 1.5}, 1.5),
])
def test_t139_t140_delay(task: Any, outbox: Any, delay: float | None, options: dict[str, Any], seconds: float) -> None:
    start(task, outbox)
    if delay is not None:
        task.default_retry_delay = delay
    task.retry(throw=False, **options)
    assert abs(eta_of(outbox) - seconds) < 3


def test_t140_no_delay_and_eta(task: Any, outbox: Any) -> None:
    start(task, outbox)
    assert (task.max_retries, task.default_retry_delay) == (3, 180)
    task.retry(throw=False, countdown=0)
    assert outbox.take().headers["eta"] is None
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = task.retry(throw=False, eta=when)
    assert datetime.fromisoformat(outbox.take().headers["eta"]) == when and found.when == when


def test_t141_called_as_a_function() -> None:
    app = Celery("t141", broker="memory://", set_as_current=False)

    @app.task(bind=True)
    def er(self: Any, active: bool, given: Exception | None) -> None:
        try:
            if active:
                raise ValueError("active")
        except ValueError as exc:
            self.retry(exc=given or exc)
        self.retry(exc=given)

    with pytest.raises(ValueError, match="active"):
        er(True, None)
    with pytest.raises(KeyError) as info:
        er(True, KeyError("given"))
    assert isinstance(info.value.__cause__, ValueError)
    with pytest.raises(KeyError):
        er(False, KeyError("given"))
    with pytest.raises(Retry, match="Task can be retried"):
        er(False, None)


def test_t141_called_as_a_function_without_an_error_given() -> None:
    app = Celery("t141", broker="memory://", set_as_current=False)

    @app.task(bind=True)
    def er_without(self: Any) -> None:
        try:
            raise ValueError("active")
        except ValueError:
            self.retry()

    with pytest.raises(Retry, match="Task can be retried") as info:
        er_without()
    assert isinstance(info.value.__cause__, ValueError)


def test_t142_eager() -> None:
    app = Celery("t142", broker="memory://", set_as_current=False)
    seen: list[int] = []

    @app.task(bind=True)
    def flaky(self: Any, times: int) -> str:
        seen.append(self.request.retries)
        if self.request.retries < times:
            raise self.retry(exc=OSError("no"), countdown=60)
        return f"after {times}"

    begin = time.monotonic()
    result = flaky.apply((2,))
    assert (result.get(), result.state, seen) == ("after 2", "SUCCESS", [0, 1, 2])
    seen.clear()
    failed = flaky.apply((9,))
    assert failed.state == "FAILURE" and isinstance(failed.result, OSError) and seen == [0, 1, 2, 3]
    seen.clear()
    app.conf.task_always_eager = True
    assert flaky.delay(1).get() == "after 1" and seen == [0, 1]
    assert time.monotonic() - begin < 50


def test_t143_message_cannot_be_sent(outbox: Any) -> None:
    app = Celery("t143", broker="amqp://guest:guest@127.0.0.1:1//", set_as_current=False)
    app.conf.task_publish_retry_policy = {"max_retries": 0}

    @app.task(bind=True)
    def sample(self: Any) -> None:
        """A body."""

    start(app.tasks[sample.name], outbox)
    with pytest.raises(Reject) as info:
        app.tasks[sample.name].retry(countdown=0, retry=False)
    assert info.value.requeue is False and isinstance(info.value.reason, Exception)


def test_t143_arguments_cannot_be_encoded(task: Any, outbox: Any) -> None:
    start(task, outbox)
    with pytest.raises(Reject) as info:
        task.retry(args=(object(),), countdown=0)
    assert info.value.requeue is False
    task.retry(countdown=0, throw=False)
    assert outbox.take().payload[0] == [1, 2] and outbox.empty()  # nothing was sent before
