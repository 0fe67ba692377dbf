"""The client of remote control, and what a worker does with commands; over kombu's in-memory transport."""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from pyceleryc import Celery
from pyceleryc.app.control import Control, Inspect, flatten_reply
from pyceleryc.exceptions import DuplicateNodenameWarning, ImproperlyConfigured, WorkerShutdown, WorkerTerminate
from pyceleryc.utils.collections import LimitedSet
from pyceleryc.worker import state as worker_state
from pyceleryc.worker.autoscale import Autoscaler, autoscale_bounds
from pyceleryc.worker.control import Panel, control_command, inspect_command


class Recording(Control):
    """Notes what would be broadcast."""

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        self.sent: list[Any] = []
        self.replies: Any = None

    def broadcast(self, command: str, *args: Any, **kwargs: Any) -> Any:
        self.sent.append((command, kwargs.get("arguments"), kwargs.get("destination")))
        return self.replies


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("control", broker="amqp://", control=Recording, set_as_current=False)
    yield made
    made.close()


@pytest.mark.parametrize(("method", "args", "command", "arguments"), [
    ("revoke", ("a",), "revoke", {"task_id": "a", "terminate": False, "signal": "SIGTERM"}),
    ("terminate", (["a", "b"],), "revoke", {"task_id": ["a", "b"], "terminate": True, "signal": "SIGTERM"}),
    ("revoke_by_stamped_headers", ({"h": "v"},), "revoke_by_stamped_headers",
     {"headers": {"h": "v"}, "terminate": False, "signal": "SIGTERM"}),
    ("rate_limit", ("add", "10/m"), "rate_limit", {"task_name": "add", "rate_limit": "10/m"}),
    ("time_limit", ("add", 1, 2), "time_limit", {"task_name": "add", "soft": 1, "hard": 2}),
    ("add_consumer", ("q", "e", "topic", "k", {"auto_delete": True}), "add_consumer",
     {"queue": "q", "exchange": "e", "exchange_type": "topic", "routing_key": "k", "auto_delete": True}),
    ("cancel_consumer", ("q",), "cancel_consumer", {"queue": "q"}),
    ("enable_events", (), "enable_events", {}),
    ("disable_events", (), "disable_events", {}),
    ("pool_grow", (2,), "pool_grow", {"n": 2}),
    ("pool_shrink", (), "pool_shrink", {"n": 1}),
    ("autoscale", (10, 3), "autoscale", {"max": 10, "min": 3}),
    ("pool_restart", (), "pool_restart", {"modules": None, "reload": False, "reloader": None}),
    ("heartbeat", (), "heartbeat", {}),
    ("shutdown", (), "shutdown", {}),
    ("ping", (), "ping", {}),
    ("election", ("1", "topic"), "election", {"id": "1", "topic": "topic", "action": None}),
])
def test_commands(app: Celery, method: str, args: Any, command: str, arguments: Any) -> None:
    getattr(app.control, method)(*args)
    assert app.control.sent == [(command, arguments, None)]
    if method != "election":
        getattr(app.control, method)(*args, destination=["w@h"])
        assert app.control.sent[1][2] == ["w@h"]


@pytest.mark.parametrize(("method", "args", "command", "arguments"), [
    ("report", (), "report", {}), ("clock", (), "clock", {}), ("active", (), "active", {"safe": None}),
    ("active", (True,), "active", {"safe": True}), ("scheduled", (), "scheduled", {}), ("reserved", (), "reserved", {}),
    ("stats", (), "stats", {}), ("revoked", (), "revoked", {}),
    ("registered", ("rate_limit",), "registered", {"taskinfoitems": ("rate_limit",)}),
    ("registered_tasks", (), "registered", {"taskinfoitems": ()}), ("active_queues", (), "active_queues", {}),
    ("query_task", ("a", "b"), "query_task", {"ids": ("a", "b")}), ("query_task", (["a"],), "query_task", {"ids": ("a",)}),
    ("conf", (True,), "conf", {"with_defaults": True}),
    ("hello", ("w@h", {}), "hello", {"from_node": "w@h", "revoked": {}}),
    ("memsample", (), "memsample", {}), ("memdump", (), "memdump", {"samples": 10}),
    ("objgraph", (), "objgraph", {"num": 200, "max_depth": 10, "type": "Request"}),
])
def test_inspection(app: Celery, method: str, args: Any, command: str, arguments: Any) -> None:
    assert getattr(app.control.inspect(), method)(*args) is None
    assert app.control.sent == [(command, arguments, None)]


def test_replies(app: Celery) -> None:
    app.control.replies = [{"a@h": 1}, {"b@h": 2}]
    assert issubclass(app.control.inspect, Inspect)
    assert app.control.inspect().ping() == {"a@h": 1, "b@h": 2}
    assert app.control.inspect("b@h").ping() == 2
    assert app.control.inspect(["b@h"]).ping() == {"a@h": 1, "b@h": 2}
    assert app.control.inspect(pattern="a*", matcher="glob").ping() == {"a@h": 1}
    with pytest.warns(DuplicateNodenameWarning, match="node name a@h"):
        flatten_reply([{"a@h": 1}, {"a@h": 1}])


def test_a_broker_that_cannot() -> None:
    app = Celery("control", broker="sqla+sqlite:///q.db", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="Use RabbitMQ or Redis"):
        app.control.revoke("a")
    app.close()


def test_on_the_wire() -> None:
    """PROTOCOL 3.8, with a connection given."""
    app = Celery("control", broker="amqp://", set_as_current=False)
    app.conf.control_exchange = "wired"
    with Connection("memory://") as connection:
        channel = connection.default_channel
        seen: list[Any] = []
        queue = app.control.mailbox.get_queue("w@h")(channel)
        assert queue.name == "w@h.wired.pidbox" and queue.exclusive and queue.auto_delete
        assert (queue.expires, queue.message_ttl) == (10.0, 300.0)
        consumer = channel.Consumer(queue, callbacks=[lambda body, message: seen.append((body, message.headers))],
                                    no_ack=True)
        consumer.consume()
        app.control.rate_limit("add", "1/s", destination="w@h", connection=connection)
        connection.drain_events(timeout=2)
        body, headers = seen[0]
        assert body == {"method": "rate_limit", "arguments": {"task_name": "add", "rate_limit": "1/s"},
                        "destination": ["w@h"], "pattern": None, "matcher": None}
        assert headers["clock"] > 0 and headers["expires"] > time.time() - 10
    app.close()


def test_own_commands() -> None:
    @control_command(name="unit_level", args=[("n", int)], signature="[N=1]")
    def set_level(state: Any, n: int = 1) -> Any:
        """Set it."""
        return n

    @inspect_command(alias="unit_dump")
    def unit_show(state: Any) -> Any:
        return state

    info = Panel.meta["unit_level"]
    assert (info.type, info.args, info.signature, info.help) == ("control", [("n", int)], "[N=1]", "Set it.")
    assert Panel.data["unit_level"] is set_level and set_level(None, 3) == 3
    assert Panel.data["unit_dump"] is Panel.data["unit_show"] is unit_show
    assert Panel.meta["unit_show"].type == "inspect"
    for name in ("unit_level", "unit_show", "unit_dump"):
        Panel.data.pop(name), Panel.meta.pop(name, None)


class Pool:
    """A pool, and its machine, as the autoscaler sees them; the time is what the test says."""

    def __init__(self) -> None:
        self.machine = self
        self.num_processes = 1
        self.work = 0
        self.time = 0.0

    def grow(self, n: int) -> None:
        self.num_processes += n

    def shrink(self, n: int) -> None:
        self.num_processes -= n

    def maintain_pool(self) -> None:
        self.maintained = True

    def update_prefetch(self) -> None:
        self.updated = True


def test_autoscaler() -> None:
    pool = Pool()

    class Timed(Autoscaler):
        clock = staticmethod(lambda: pool.time)

    scaler = Timed(pool, 5, 2, worker=pool, keepalive=30)
    pool.work = 9
    scaler.maybe_scale()
    assert pool.num_processes == 5
    pool.work, pool.time = 1, 29
    scaler.maybe_scale()
    assert pool.num_processes == 5
    pool.time = 31
    scaler.maybe_scale()
    assert pool.num_processes == 2
    assert scaler.update(1) == (1, 1) and pool.num_processes == 1
    assert scaler.update(4, 3) == (4, 3) and pool.num_processes == 3
    with pytest.raises(ValueError, match="no pool of 7 to 3"):
        scaler.update(3, 7)


@pytest.mark.parametrize(("value", "bounds"), [("10,3", (10, 3)), ("10", (10, 0)), (4, (4, 0)), ((4, 2), (4, 2)), (None, None)])
def test_autoscale_bounds(value: Any, bounds: Any) -> None:
    assert autoscale_bounds(value) == bounds


@pytest.mark.parametrize("value", ["x", "3,10", "0", "", "-1"])
def test_wrong_autoscale_bounds(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="autoscale"):
        autoscale_bounds(value)


class Revoked:
    """State of a worker of its own."""

    def __init__(self) -> None:
        self.revoked = LimitedSet(maxlen=50000, expires=10800)


def test_state_file(tmp_path: Path, app: Celery) -> None:
    path, state = str(tmp_path / "state"), Revoked()
    kept = worker_state.Persistent(state, path, app.clock)
    state.revoked.update(["a", "b"])
    kept.sync()
    clock = app.clock.value
    assert kept.db["__proto__"] == 3
    stored = zlib.decompress(kept.db["zrevoked"])
    assert b"ccelery.utils.collections\nLimitedSet\n" in stored, "Celery's own name, so that Celery can read it"
    kept.close()
    again, other = Revoked(), Celery("other", set_as_current=False)
    worker_state.Persistent(again, path, other.clock).close()
    assert set(again.revoked) == {"a", "b"} and other.clock.value > clock
    times = again.revoked.as_dict()
    assert all(abs(inserted - time.time()) < 60 for inserted in times.values())


def test_state_file_with_something_else(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    kept = worker_state.Persistent(Revoked(), path)
    kept.file.write({"zrevoked": pickle.dumps(zlib.compress(pickle.dumps(Path("x"), protocol=2)), protocol=2)})
    with pytest.raises(OSError, match="has no business in a state file"):
        worker_state.Persistent(Revoked(), path)


def test_stopping_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    worker_state.maybe_shutdown()
    monkeypatch.setattr(worker_state, "should_stop", 3)
    with pytest.raises(WorkerShutdown) as stop:
        worker_state.maybe_shutdown()
    assert stop.value.code == 3
    monkeypatch.setattr(worker_state, "should_terminate", True)
    with pytest.raises(WorkerTerminate):
        worker_state.maybe_shutdown()
