"""Events as they are sent and received, over kombu's in-memory transport."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection

from pyceleryc import Celery
from pyceleryc.events import Event, EventDispatcher, EventReceiver, get_exchange, group_from
from pyceleryc.events.dumper import Dumper
from pyceleryc.events.snapshot import Polaroid


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("events", broker="amqp://", set_as_current=False)
    yield made
    made.close()


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection("memory://") as made:
        yield made


class Watch:
    """What a receiver has got."""

    def __init__(self, app: Celery, connection: Connection, routing_key: str = "#") -> None:
        self.events: list[Any] = []
        self.receiver = app.events.Receiver(connection, {"*": self.events.append}, routing_key)
        for consumer in self.receiver.get_consumers(self.receiver.channel.Consumer, None):
            self.consumer = consumer
            consumer.consume()

    def get(self, count: int) -> list[Any]:
        connection = self.receiver.connection
        while len(self.events) < count:
            connection.drain_events(timeout=2)
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.01)
        return self.events


def test_an_event() -> None:
    event = Event("task-sent", uuid="1")
    assert event["type"] == "task-sent" and event["uuid"] == "1" and event["timestamp"] > 1e9
    assert Event("task-sent", {"a": 1}, timestamp=2)["timestamp"] == 2
    assert group_from("task-sent") == "task"


def test_exchange(connection: Connection) -> None:
    assert get_exchange(connection).type == "topic"
    assert get_exchange(connection, "other").name == "other"


def test_classes_know_the_app(app: Celery) -> None:
    assert issubclass(app.events.Receiver, EventReceiver) and app.events.Receiver.app is app
    assert issubclass(app.events.Dispatcher, EventDispatcher)
    assert app.events.State().event_count == 0


def test_send_and_receive(app: Celery, connection: Connection) -> None:
    watch = Watch(app, connection)
    with app.events.Dispatcher(connection, hostname="me@here") as dispatcher:
        dispatcher.send("worker-online", freq=2)
        dispatcher.send("task-custom", uuid="1")
    first, second = watch.get(2)
    assert (first["type"], first["hostname"], first["freq"], first["utcoffset"]) == ("worker-online", "me@here", 2, 0)
    assert first["pid"] > 0 and first["local_received"] >= first["timestamp"] > 1e9
    assert second["clock"] > first["clock"] and second["uuid"] == "1"


def test_batches(app: Celery, connection: Connection) -> None:
    watch = Watch(app, connection, "task.multi")
    asked: list[int] = []
    dispatcher = app.events.Dispatcher(connection, buffer_group=["task"], buffer_limit=3,
                                       on_send_buffered=lambda: asked.append(1))
    for n in range(4):
        dispatcher.send("task-received", uuid=str(n))
    assert [event["uuid"] for event in watch.get(3)] == ["0", "1", "2"] and len(asked) == 3
    dispatcher.flush()
    assert [event["uuid"] for event in watch.get(4)] == ["0", "1", "2", "3"]


def test_groups(app: Celery, connection: Connection) -> None:
    watch = Watch(app, connection)
    dispatcher = app.events.Dispatcher(connection, groups=["worker"])
    dispatcher.send("task-received", uuid="1")
    dispatcher.send("worker-online")
    assert [event["type"] for event in watch.get(1)] == ["worker-online"]


def test_on_and_off(app: Celery, connection: Connection) -> None:
    watch, seen = Watch(app, connection), []
    dispatcher = app.events.Dispatcher(connection, enabled=False)
    dispatcher.on_enabled.add(lambda: seen.append("on"))
    dispatcher.on_disabled.add(lambda: seen.append("off"))
    dispatcher.send("worker-online")
    dispatcher.enable()
    dispatcher.send("worker-heartbeat")
    dispatcher.disable()
    assert seen == ["on", "off"] and [event["type"] for event in watch.get(1)] == ["worker-heartbeat"]


class Broken:
    """A producer whose connection is gone."""

    def publish(self, *args: Any, **kwargs: Any) -> None:
        raise OSError("gone")


def test_what_cannot_be_sent_is_kept(app: Celery, connection: Connection) -> None:
    watch = Watch(app, connection)
    dispatcher = app.events.Dispatcher(connection)
    good, dispatcher.producer = dispatcher.producer, Broken()
    dispatcher.send("worker-online")
    other = app.events.Dispatcher(connection)
    other.extend_buffer(dispatcher)
    dispatcher.producer = good
    dispatcher.flush()
    other.flush()
    assert [event["type"] for event in watch.get(2)] == ["worker-online"] * 2
    strict = app.events.Dispatcher(connection, buffer_while_offline=False)
    strict.producer = Broken()
    with pytest.raises(OSError, match="gone"):
        strict.send("worker-online")


def test_clock_and_time(app: Celery, connection: Connection) -> None:
    receiver = app.events.Receiver(connection)
    receiver.event_from_message({"type": "task-received", "clock": 100, "timestamp": 5.0, "utcoffset": 0})
    assert app.clock.value == 101
    _, event = receiver.event_from_message({"type": "task-sent", "clock": 900, "timestamp": 5.0, "utcoffset": -2})
    assert event["clock"] == 100 and app.clock.value < 110, "clients do not hear of others: their clock says nothing"
    assert event["timestamp"] == 5.0 + 2 * 3600
    _, event = receiver.event_from_message({"type": "worker-online"})
    assert event["clock"] > 0


def test_queue(app: Celery, connection: Connection) -> None:
    receiver = app.events.Receiver(connection, node_id="mine")
    queue = receiver.queue
    assert (queue.name, queue.exclusive, queue.auto_delete, queue.durable) == ("celeryev.mine", True, True, False)
    assert (queue.message_ttl, queue.expires, queue.routing_key) == (5.0, 60.0, "#")
    assert receiver.accept == {"json"}


def test_brokers_without_events() -> None:
    app = Celery("events", broker="sqla+sqlite:///q.db", set_as_current=False)
    with app.events.default_dispatcher() as dispatcher:
        dispatcher.send("task-custom")
        assert not dispatcher.enabled
    app.close()


def test_dumper() -> None:
    out = io.StringIO()
    dumper = Dumper(out)
    common = {"hostname": "w@h", "timestamp": 0.5}
    dumper.on_event({"type": "worker-online", "freq": 2, **common})
    dumper.on_event({"type": "task-received", "uuid": "1", "name": "add", "args": "()", "kwargs": "{}", **common})
    dumper.on_event({"type": "task-succeeded", "uuid": "1", "result": "2", **common})
    assert out.getvalue().splitlines() == [
        "w@h [1970-01-01 00:00:00.500000] started: freq=2",
        "w@h [1970-01-01 00:00:00.500000] task received: add(1) args=() kwargs={}",
        "w@h [1970-01-01 00:00:00.500000] task succeeded: add(1) args=() kwargs={} result=2"]


def test_camera(app: Celery) -> None:
    class Camera(Polaroid):
        clear_after = True
        pictures: list[int] = []

        def on_shutter(self, state: Any) -> None:
            self.pictures.append(state.event_count)

    state = app.events.State()
    state.event({"type": "task-received", "uuid": "1", "hostname": "w@h", "clock": 1, "timestamp": 1.0})
    camera = Camera(state, app=app, maxrate="1/h")
    camera.capture()
    camera.capture()
    assert camera.pictures == [1] and state.event_count == 0


def test_sending_tasks_with_events_where_there_are_none(tmp_path: Any) -> None:
    app = Celery("events", broker=f"sqla+sqlite:///{tmp_path}/q.db", set_as_current=False)
    app.conf.task_send_sent_event = True
    app.task(lambda: None, name="events.nothing").delay()
    assert app.control.purge() == 1
    app.close()
