"""Tasks guide, argument checking (T-110..T-115) and hiding of sensitive information (T-120..T-125)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task
from kombu import Connection, Exchange, Queue


@pytest.fixture
def sender(outbox: Any) -> Any:
    """An app with tasks whose messages nobody reads."""
    app = outbox.app()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(bind=True)
    def bound(self: Any, x: int, y: int = 2, *args: int, key: int = 0, **kwargs: Any) -> None:
        """A body."""

    app.add, app.bound = add, bound
    yield app
    app.close()


def test_t110_checked_before_sending(sender: Any, outbox: Any) -> None:
    with pytest.raises(TypeError, match=r"add\(\) missing 1 required positional argument: 'y'"):
        sender.add.delay(8)
    with pytest.raises(TypeError):
        sender.add.apply_async((1, 2, 3))
    marker = sender.add.delay(1, 2)
    assert outbox.take().headers["id"] == marker.id
    assert outbox.empty()


def test_t110_bound_task_gets_its_self(sender: Any, outbox: Any) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        sender.bound.delay()
    sender.bound.delay(1)
    assert outbox.take().payload[0] == [1]


@pytest.mark.parametrize(("task", "args", "kwargs", "fits"), [
    ("add", (1,), {"z": 1}, False),
    ("add", (1,), {"y": 1}, True),
    ("add", (1, 2), {"y": 1}, False),
    ("add", (), {"x": 1, "y": 2}, True),
    ("add", None, None, False),
    ("bound", (1, 2, 3, 4), {}, True),
    ("bound", (1,), {"key": 1}, True),
    ("bound", (1,), {"other": 1, "another": 2}, True),
    ("bound", (), {"y": 1}, False),
    ("bound", (1,), {"x": 1}, False),
])
def test_t111_all_kinds_of_parameters(sender: Any, outbox: Any, task: str, args: Any, kwargs: Any, fits: bool) -> None:
    if not fits:
        with pytest.raises(TypeError):
            getattr(sender, task).apply_async(args, kwargs)
        return
    getattr(sender, task).apply_async(args, kwargs)
    assert outbox.take().payload[:2] == [list(args), kwargs]


def test_t111_keyword_only(sender: Any) -> None:
    @sender.task
    def strict(x: int, *, key: int) -> None:
        """A body."""

    with pytest.raises(TypeError):
        strict.delay(1, 2)
    with pytest.raises(TypeError):
        strict.delay(1)
    assert strict.delay(1, key=2).id


def test_t112_unchecked_fails_in_the_worker(running: Any) -> None:
    result = running.tasks.arguments_unchecked.delay(1)
    with pytest.raises(TypeError, match=r"arguments_unchecked\(\) missing 1 required positional argument: 'y'"):
        result.get(timeout=20)
    assert result.state == "FAILURE"


def test_t113_off_for_a_whole_app(outbox: Any) -> None:
    app = outbox.app(strict_typing=False)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(typing=True)
    def checked(x: int) -> int:
        return x

    assert add.typing is False and checked.typing is True
    add.delay(1)
    assert outbox.take().payload[0] == [1]
    with pytest.raises(TypeError):
        checked.delay()
    assert Celery("t113", broker="memory://", set_as_current=False).strict_typing is True
    assert Task.typing is None
    app.close()


def test_t113_attribute_of_an_app_class(outbox: Any) -> None:
    class Loose(Celery):
        strict_typing = False

    app = Loose("loose", broker=outbox.url, set_as_current=False)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    assert app.strict_typing is True and add.typing is True  # the argument of Celery() decides
    app.close()


def test_t114_classes_with_run_are_not_checked(sender: Any, outbox: Any) -> None:
    class Adds(Task):
        name = "t114.adds"

        def run(self, x: int, y: int) -> int:
            return x + y

    task = sender.register_task(Adds())
    assert getattr(task, "__header__", None) is None
    task.delay(1)
    assert outbox.take().payload[0] == [1]


@pytest.mark.parametrize("options", [{"args": "ab"}, {"args": 5}, {"kwargs": [1]}, {"args": {"a": 1}}])
def test_t115_shape(sender: Any, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        sender.send_task("x", **options)


# --- hiding -----------------------------------------------------------------------------------------------------------

def test_t120_t121_representations_in_the_header(sender: Any, outbox: Any) -> None:
    sender.add.apply_async(("secret", 1), argsrepr="(<secret>, 1)", kwargsrepr="{'k': '***'}")
    message = outbox.take()
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("(<secret>, 1)", "{'k': '***'}")
    assert message.payload[0] == ["secret", 1]


@pytest.fixture
def hiding(running: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a worker for rows_logging.py, with a queue of its own and a file for the data of log records."""
    queue = f"{running.queue}-hiding"
    yield {**running.env, "FLEET_APP": "rows_logging", "FLEET_QUEUE": queue, "FLEET_LOGLEVEL": "DEBUG",
           "ROWS_DATA": str(tmp_path / "data")}
    with Connection(running.env["FLEET_BROKER"]) as connection:
        connection.default_channel.queue_delete(queue)


HIDE = ("r = tasks.charge.apply_async(('acc', '4111111111'), {'amount': 7}, argsrepr=\"('acc', '<card>')\", "
        "kwargsrepr=\"{'amount': '<hidden>'}\")\nresult = [r.id, r.get(timeout=20)]")


def until(found: Callable[[], Any]) -> Any:
    """Asks until the answer is true, at most ten seconds."""
    deadline = time.monotonic() + 30
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def test_t120_t121_hidden_in_the_log(side: Any, hiding: dict[str, str]) -> None:
    with side.worker(hiding, "-c", "1", "-n", f"{hiding['FLEET_QUEUE']}@here") as worker:
        task_id, result = side.client(HIDE, hiding)
        assert result == 10  # the body has the real arguments
        until(lambda: f"{task_id}] succeeded" in worker.text())
        lines = [json.loads(line) for line in Path(hiding["ROWS_DATA"]).read_text().splitlines()]
        shown = [(line["data"]["args"], line["data"]["kwargs"]) for line in lines if line["data"].get("id") == task_id]
        assert shown == [("('acc', '<card>')", "{'amount': '<hidden>'}")] * 2  # received, succeeded


def test_t120_t121_hidden_in_events(side: Any, hiding: dict[str, str]) -> None:
    events = Queue(f"{hiding['FLEET_QUEUE']}-events", Exchange("celeryev", type="topic"), routing_key="#", auto_delete=True,
                   durable=False)
    with Connection(hiding["FLEET_BROKER"]) as connection, connection.channel() as channel:
        events(channel).declare()
        with side.worker(hiding, "-c", "1", "-E", "-n", f"{hiding['FLEET_QUEUE']}@here"):
            task_id, _ = side.client(HIDE, {**hiding, "ROWS_EVENTS": "1"})
            found: dict[str, Any] = {}
            until(lambda: _collect(events(channel), task_id, found) >= {"task-sent", "task-received"})
        events(channel).delete()
    for kind in ("task-sent", "task-received"):
        assert (found[kind]["args"], found[kind]["kwargs"]) == ("('acc', '<card>')", "{'amount': '<hidden>'}")


def _collect(events: Any, task_id: str, found: dict[str, Any]) -> set[str]:
    """Adds the events about a run that are in the queue; returns the kinds found so far."""
    while (message := events.get(no_ack=True)) is not None:
        several = message.payload if isinstance(message.payload, list) else [message.payload]
        found.update((one["type"], one) for one in several if one.get("uuid") == task_id)
    return set(found)


def test_t122_option_of_a_signature(sender: Any, outbox: Any) -> None:
    signature = sender.add.s("secret", y=1).set(kwargsrepr=repr({"y": "***"}), argsrepr="(...)")
    assert signature.options["kwargsrepr"] == "{'y': '***'}"
    signature.delay()
    headers = outbox.take().headers
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("(...)", "{'y': '***'}")


@pytest.mark.parametrize(("args", "kwargs", "shown"), [
    ((2, 2), {}, ("(2, 2)", "{}")),
    (("it", 'a "b"'), {"k": "v"}, ("('it', 'a \"b\"')", "{'k': 'v'}")),
    ((1,), {"x": None}, ("(1,)", "{'x': None}")),
    ([1.5, True], {"a": [1, 2]}, ("[1.5, True]", "{'a': [1, 2]}")),
    ((), {}, ("()", "{}")),
])
def test_t123_default_representation(sender: Any, outbox: Any, args: Any, kwargs: Any, shown: tuple[str, str]) -> None:
    sender.send_task("t123", args, kwargs)
    headers = outbox.take().headers
    assert (headers["argsrepr"], headers["kwargsrepr"]) == shown


def test_t123_limits_of_the_representation(sender: Any, outbox: Any) -> None:
    sender.send_task("t123", ("x" * 5000,), {"deep": [[[[[["bottom"]]]]]]})
    headers = outbox.take().headers
    assert len(headers["argsrepr"]) < 1040 and "..." in headers["argsrepr"]
    assert headers["argsrepr"].startswith("('xxxx")
    assert "bottom" not in headers["kwargsrepr"] and headers["kwargsrepr"].startswith("{'deep': [[")


def test_t124_protocol_1_has_no_representations(outbox: Any) -> None:
    app = outbox.app()
    app.conf.task_protocol = 1

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.apply_async((1, 2), argsrepr="hidden", kwargsrepr="hidden")
    message = outbox.take()
    assert "argsrepr" not in message.headers and "argsrepr" not in message.payload
    assert message.payload["args"] == [1, 2]
    app.close()


def test_t125_body_is_readable(sender: Any, outbox: Any) -> None:
    sender.add.apply_async(("4111111111", 1), argsrepr="(hidden)")
    message = outbox.take()
    assert b"4111111111" in (message.body if isinstance(message.body, bytes) else message.body.encode())
