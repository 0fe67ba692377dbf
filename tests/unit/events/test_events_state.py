"""The cluster as its events tell it."""

from __future__ import annotations

import pickle
import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from pyceleryc.events.state import State, Task, Worker, heartbeat_expires


class Stream:
    """Feeds a state with events, clocks and times going up."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.clock = 0

    def __call__(self, type_: str, hostname: str = "w1@h", **fields: Any) -> Any:
        self.clock += 1
        return self.state.event({"type": type_, "hostname": hostname, "pid": 1, "clock": self.clock, "utcoffset": 0,
                                 "timestamp": 1e9 + self.clock, "local_received": time.time(), **fields})


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def send(state: State) -> Stream:
    return Stream(state)


def test_a_task_from_beginning_to_end(state: State, send: Stream) -> None:
    send("task-sent", "gen1@h", uuid="1", name="add", args="(1,)", kwargs="{}", retries=0, queue="q", routing_key="q")
    task = state.tasks["1"]
    assert (task.state, task.client, task.origin, task.worker) == ("PENDING", "gen1@h", "gen1@h", None)
    send("task-received", uuid="1", name="add", args="(1,)", kwargs="{}", retries=0)
    assert (task.state, task.worker.hostname, task.origin) == ("RECEIVED", "w1@h", "w1@h.None")
    send("task-started", uuid="1")
    (same, is_new), subject = send("task-succeeded", uuid="1", result="2", runtime=0.1)
    assert (same, is_new, subject) == (task, False, "succeeded")
    assert (task.state, task.ready, task.result, task.runtime) == ("SUCCESS", True, "2", 0.1)
    assert (task.sent, task.received, task.started, task.succeeded) == (1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4)
    assert task.timestamp == 1e9 + 4 and task.clock == 4
    assert task.info() == {"args": "(1,)", "kwargs": "{}", "retries": 0, "result": "2", "runtime": 0.1,
                           "routing_key": "q"}
    assert (state.event_count, state.task_count) == (4, 1)


def test_events_that_come_late_change_no_state(state: State, send: Stream) -> None:
    send("task-succeeded", uuid="1", result="2", runtime=0.1)
    send("task-received", uuid="1", name="add", args="(1,)", hidden="x")
    task = state.tasks["1"]
    assert (task.state, task.name, task.args) == ("SUCCESS", "add", "(1,)")
    assert not hasattr(task, "hidden")


def test_a_retry_begins_anew(state: State, send: Stream) -> None:
    for type_ in ("task-received", "task-started", "task-retried", "task-received"):
        send(type_, uuid="1", name="add")
    assert state.tasks["1"].state == "RECEIVED"


@pytest.mark.parametrize(("type_", "wanted"), [
    ("task-failed", "FAILURE"), ("task-revoked", "REVOKED"), ("task-rejected", "REJECTED"), ("task-progress", "PROGRESS"),
])
def test_states(state: State, send: Stream, type_: str, wanted: str) -> None:
    send(type_, uuid="1")
    assert state.tasks["1"].state == wanted


def test_workers(state: State, send: Stream) -> None:
    (worker, is_new), subject = send("worker-online", freq=2, active=1, sw_ident="py-celery")
    assert is_new and subject == "online" and worker.alive and worker.status_string == "ONLINE"
    assert (worker.freq, worker.active, worker.sw_ident, worker.id) == (2, 1, "py-celery", "w1@h.1")
    send("worker-heartbeat", processed=7)
    assert state.workers["w1@h"].processed == 7
    assert [found.hostname for found in state.alive_workers()] == ["w1@h"]
    send("worker-offline")
    assert "w1@h" not in state.workers and not worker.alive


def test_a_worker_that_is_silent_is_dead() -> None:
    worker = Worker("w1@h", freq=2)
    worker.event("heartbeat", time.time() - 10, time.time() - 10, {})
    assert not worker.alive and worker.heartbeat_expires == heartbeat_expires(worker.heartbeats[-1], 2)
    for n in range(10):
        worker.event("heartbeat", time.time(), time.time() - 10 + n, {})
    assert len(worker.heartbeats) == worker.heartbeat_max and worker.heartbeats == sorted(worker.heartbeats)
    assert heartbeat_expires(100, 2, 200) == 104


def test_joining_and_leaving() -> None:
    seen: list[Any] = []
    state = State(on_node_join=lambda w: seen.append(("join", w.hostname)),
                  on_node_leave=lambda w: seen.append(("leave", w.hostname)))
    send = Stream(state)
    send("worker-online")
    send("worker-offline")
    assert seen == [("join", "w1@h"), ("leave", "w1@h")]


def test_lists(state: State, send: Stream) -> None:
    send("task-received", "w1@h", uuid="1", name="add")
    send("task-received", "w2@h", uuid="2", name="mul")
    send("task-received", "w1@h", uuid="3", name="add")
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["3", "2", "1"]
    assert [uuid for uuid, _ in state.tasks_by_timestamp(limit=1, reverse=False)] == ["1"]
    assert [uuid for uuid, _ in state.tasks_by_type("add")] == ["3", "1"]
    assert {task.uuid for task in state.tasks_by_type["add"]} == {"1", "3"}
    assert [uuid for uuid, _ in state.tasks_by_worker("w2@h")] == ["2"]
    assert state.task_types() == ["add", "mul"]
    assert len(list(state.itertasks(limit=2))) == 2


def test_order_is_that_of_the_clock(state: State) -> None:
    for clock in (3, 1, 2):
        state.event({"type": "task-received", "uuid": str(clock), "hostname": "w@h", "clock": clock, "timestamp": 1.0})
    assert [uuid for uuid, _ in state.tasks_by_time(reverse=False)] == ["1", "2", "3"]
    state.rebuild_taskheap()
    assert [uuid for uuid, _ in state.tasks_by_time(reverse=False)] == ["1", "2", "3"]


def test_family(state: State, send: Stream) -> None:
    send("task-received", uuid="child", parent_id="mother", root_id="mother")
    send("task-received", uuid="mother", root_id="mother")
    child, mother = state.tasks["child"], state.tasks["mother"]
    assert child.parent is mother and child.root is mother and set(mother.children) == {child}


def test_limits() -> None:
    state = State(max_tasks_in_memory=10)
    send = Stream(state)
    for n in range(100):
        send("task-received", uuid=str(n), name="add")
    assert len(state.tasks) == 10 and state.tasks.limit == 10 and len(state._taskheap) <= 40
    assert [uuid for uuid, _ in state.tasks_by_time(limit=2)] == ["99", "98"]


def test_clearing(state: State, send: Stream) -> None:
    send("task-succeeded", uuid="1")
    send("task-received", uuid="2")
    send("worker-online")
    state.clear_tasks()
    assert list(state.tasks) == ["2"] and [uuid for uuid, _ in state.tasks_by_time()] == ["2"]
    state.clear(ready=False)
    assert not state.tasks and not state.workers and state.event_count == 0
    assert state.freeze_while(lambda: 5, clear_after=True) == 5


class FlowersState(State):
    """As Flower has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counter: Any = defaultdict(Counter)

    def event(self, event: Any) -> Any:
        found = super().event(event)
        self.counter[event["hostname"]][event["type"]] += 1
        return found


def test_subclass_and_pickle() -> None:
    state = FlowersState(max_tasks_in_memory=50)
    send = Stream(state)
    send("worker-online", freq=2)
    send("task-received", uuid="1", name="add", root_id="1")
    send("task-received", uuid="2", name="add", parent_id="1", root_id="1")
    send("task-succeeded", uuid="2", result="3")
    copy = pickle.loads(pickle.dumps(state))
    assert type(copy) is FlowersState and copy.tasks.limit == 50
    assert [uuid for uuid, _ in copy.tasks_by_time()] == ["2", "1"]
    task = copy.tasks["2"]
    assert (task.state, task.result, task.name, task.worker.hostname) == ("SUCCESS", "3", "add", "w1@h")
    assert task.worker.alive
    assert {found.uuid for found in copy.tasks_by_type["add"]} == {"1", "2"}
    assert copy.workers["w1@h"].freq == 2 and task.parent.uuid == "1"
    assert state.counter["w1@h"]["task-received"] == 2


def test_who_works_is_alive(state: State, send: Stream) -> None:
    """Heartbeats may be off, or have come before we listened."""
    send("task-started", uuid="1", name="add")
    assert state.workers["w1@h"].alive and [worker.hostname for worker in state.alive_workers()] == ["w1@h"]


def test_a_task_as_dict(state: State, send: Stream) -> None:
    send("task-received", uuid="1", name="add")
    fields = state.tasks["1"].as_dict()
    assert set(fields) == set(Task._fields) and fields["worker"] is state.workers["w1@h"] and fields["children"] == []


def test_callback_and_handlers() -> None:
    seen: list[str] = []
    state = State(callback=lambda state, event: seen.append(event["type"]))
    send = Stream(state)
    state.handlers["disk"] = lambda subject, event: seen.append(subject)
    send("disk-full")
    send("disk")
    send("task-received")  # without an id
    assert seen == ["disk-full", "full", "disk", "", "task-received"]
