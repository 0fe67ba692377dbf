"""Chords, chains and groups on Redis results, with clients and workers of both implementations (PROTOCOL §3.5.2)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fleet import Side, ours, theirs

FLEETS = {
    "our client, our worker": (ours, [ours]),
    "our client, celery worker": (ours, [theirs]),
    "celery client, our worker": (theirs, [ours]),
    "our client, both workers": (ours, [ours, theirs]),
    "celery client, both workers": (theirs, [ours, theirs]),
}
PRELUDE = """
from celery import chain, chord, group
add, fail, listed = tasks.add, tasks.fail, tasks.app.tasks['celery.accumulate'].s(index=0)
"""


@pytest.fixture(scope="module", params=list(FLEETS))
def fleet(request: pytest.FixtureRequest) -> tuple[Side, list[Side]]:
    client, workers = FLEETS[request.param]
    return client(), [worker() for worker in workers]


@pytest.fixture(scope="module")
def send(fleet: tuple[Side, list[Side]], amqp_url: str, redis_url: str) -> Iterator[Callable[[str], object]]:
    client, workers = fleet
    env = client.env(amqp_url, redis_url, f"chords-{uuid.uuid4().hex[:10]}", FLEET_PREFETCH="1")
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.worker(env))
        yield lambda script: client.client(PRELUDE + script, env)
    ours().client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)


def test_chord(send: Callable[[str], object]) -> None:
    script = "result = chord([add.s(i, i) for i in range(30)])(listed).get(timeout=30)"
    assert send(script) == [2 * i for i in range(30)]


def test_chord_inside_a_chain(send: Callable[[str], object]) -> None:
    script = "result = (add.s(1, 1) | group(add.s(10), add.s(20)) | listed).apply_async().get(timeout=30)"
    assert send(script) == [12, 22]


def test_chain_in_the_header(send: Callable[[str], object]) -> None:
    script = "result = chord([add.s(1, 1) | add.s(2), add.s(3, 3)])(listed).get(timeout=30)"
    assert send(script) == [4, 6]


def test_failed_chord(send: Callable[[str], object]) -> None:
    """C-030, C-031"""
    assert send("""
r = chord([add.s(1, 1), fail.s('apple', 3)])(listed)
result = []
for follow in (False, True):
    try:
        r.get(timeout=30, follow_parents=follow)
    except Exception as exc:
        result.append([type(exc).__name__, 'Dependency' in str(exc), "OutOfStock('apple', 3)" in repr(exc)])
result.append(r.state)
""") == [["ChordError", True, True], ["OutOfStock", False, True], "FAILURE"]


def test_chain_that_fails_in_the_middle(send: Callable[[str], object]) -> None:
    assert send("""
r = (add.s(1, 1) | fail.si('apple', 3) | add.s(1) | add.s(2))()
try:
    r.get(timeout=30)
except tasks.OutOfStock as exc:
    r.parent.get(timeout=30, propagate=False)
    result = [list(exc.args), r.get(timeout=30, propagate=False) and r.state, r.parent.state, r.parent.parent.state, r.parent.parent.parent.get()]
""") == [["apple", 3], "FAILURE", "FAILURE", "FAILURE", 2]


def test_group(send: Callable[[str], object]) -> None:
    assert send("""
r = group(add.s(i, 1) for i in range(20))()
r.save()
result = [r.get(timeout=30), tasks.app.GroupResult.restore(r.id).get(timeout=30), r.completed_count()]
r.delete()
""") == [list(range(1, 21)), list(range(1, 21)), 20]
