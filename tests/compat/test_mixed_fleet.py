"""Clients and workers of Celery and of pyceleryc on the same queue and result store, both ways (PROTOCOL §3.1, §3.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from fleet import Side, ours, theirs

PAIRS = {"celery client, our worker": (theirs, ours), "our client, celery worker": (ours, theirs)}


@pytest.fixture(scope="module", params=["redis", "rpc"])
def backend(request: pytest.FixtureRequest, redis_url: str) -> str:
    return redis_url if request.param == "redis" else "rpc://"


@pytest.fixture(scope="module", params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> tuple[Side, Side]:
    client, worker = PAIRS[request.param]
    return client(), worker()


@pytest.fixture(scope="module")
def send(pair: tuple[Side, Side], backend: str, amqp_url: str) -> Iterator[Callable[[str], object]]:
    import uuid

    client, worker = pair
    queue = f"mixed-{uuid.uuid4().hex[:10]}"
    env = client.env(amqp_url, backend, queue, FLEET_EXTENDED="1")
    with worker.worker(env):
        yield lambda script: client.client(script, env)
    ours().client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)


def test_success(send: Callable[[str], object]) -> None:
    assert send("result = [tasks.add.delay(i, i).get(timeout=20) for i in range(20)]") == [2 * i for i in range(20)]


def test_failure_with_own_exception(send: Callable[[str], object]) -> None:
    script = """
r = tasks.fail.delay('apple', 3)
try:
    r.get(timeout=20)
    result = 'no error'
except tasks.OutOfStock as exc:
    result = [list(exc.args), r.state, 'OutOfStock' in r.traceback]
"""
    assert send(script) == [["apple", 3], "FAILURE", True]


def test_retry(send: Callable[[str], object]) -> None:
    assert send("result = tasks.flaky.delay(2).get(timeout=20)") == 2


def test_countdown(send: Callable[[str], object]) -> None:
    before = time.time()
    ran = send("result = tasks.now.apply_async(countdown=1.5).get(timeout=20)")
    assert isinstance(ran, float)
    assert ran - before >= 1.5


def test_eta_in_another_timezone(send: Callable[[str], object]) -> None:
    before = time.time()
    script = """
from datetime import datetime, timedelta, timezone
eta = datetime.now(timezone(timedelta(hours=5, minutes=30))) + timedelta(seconds=1)
result = tasks.now.apply_async(eta=eta).get(timeout=20)
"""
    ran = send(script)
    assert isinstance(ran, float)
    assert ran - before >= 1.0


def test_expired_is_revoked(send: Callable[[str], object]) -> None:
    """The expiry passes while the worker holds the task for its ETA, so that the broker can't drop it first."""
    script = """
from celery.exceptions import TaskRevokedError
r = tasks.add.apply_async((1, 1), countdown=1, expires=0.6)
try:
    r.get(timeout=20)
    result = 'ran'
except TaskRevokedError as exc:
    result = [r.state, str(exc)]
"""
    assert send(script) == ["REVOKED", "expired"]


def test_ignored_result(send: Callable[[str], object]) -> None:
    assert send("r = tasks.forgetful.delay()\nresult = [r.get(timeout=30), r.ignored]") == [None, True]


def test_request_attributes(send: Callable[[str], object]) -> None:
    seen = send("r = tasks.about_me.apply_async(time_limit=30, soft_time_limit=20)\nresult = [r.id, r.get(timeout=20)]")
    assert isinstance(seen, list)
    task_id, request = seen
    assert request["id"] == request["root_id"] == request["correlation_id"] == task_id
    assert request["parent_id"] is None
    assert request["retries"] == 0
    assert request["args"] == []
    assert request["timelimit"] == [30, 20]
    assert set(request["delivery_info"]) >= {"exchange", "routing_key", "priority", "redelivered"}


def test_progress_messages(send: Callable[[str], object]) -> None:
    script = """
states = []
r = tasks.progress.delay()
value = r.get(timeout=20, on_message=lambda meta: states.append(meta['status']))
result = [value, states]
"""
    value, states = send(script)  # type: ignore[misc]
    assert value == "done"
    assert states == ["PROGRESS", "SUCCESS"]


def test_extended_result(send: Callable[[str], object], backend: str, pair: tuple[Side, Side]) -> None:
    """Celery's worker leaves the extended fields out of results over rpc; ours never does."""
    script = """
r = tasks.add.delay(4, 5)
r.get(timeout=20)
result = [r.name, r.args, r.kwargs, r.retries, r.queue == tasks.app.conf.task_default_queue]
"""
    expected: list[object] = ["fleet_tasks.add", [4, 5], {}, 0, True]
    if backend == "rpc://" and pair[1].name == "celery":
        expected = [None, None, None, None, False]
    assert send(script) == expected


def test_ignore_leaves_nothing(send: Callable[[str], object]) -> None:
    script = """
from celery.exceptions import TimeoutError
r = tasks.ignore.delay()
try:
    result = r.get(timeout=1)
except TimeoutError:
    result = 'nothing'
"""
    assert send(script) == "nothing"


def test_other_serializers_are_refused_where_not_accepted(send: Callable[[str], object]) -> None:
    script = """
from celery.exceptions import TimeoutError
r = tasks.add.apply_async((1, 2), serializer='pickle')
try:
    result = r.get(timeout=1)
except TimeoutError:
    result = 'refused'
assert tasks.add.delay(1, 2).get(timeout=20) == 3
"""
    assert send(script) == "refused"
