"""Workflows on one queue with a worker of Celery and one of pyceleryc at the same time, from clients of both kinds: every
workflow is repeated until both workers have had a part in it (PROTOCOL §3.1, §3.5.2)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fleet import Side, ours, theirs

ROUNDS = 40  # at most, before both must have taken part

# name: (the workflow; a(x, y) is add, s is the sum of a list, i gives back its argument, f fails; what comes out)
WORKFLOWS = {
    "chain": ("a.s(1, 1) | a.s(2) | a.s(3) | a.s(4)", 11),
    "group": ("group(a.s(n, n) for n in range(6))", [0, 2, 4, 6, 8, 10]),
    "chord": ("chord([a.s(n, n) for n in range(6)], s.s())", 30),
    "chain, group, chain": ("a.s(1, 1) | group(a.s(1), a.s(2), a.s(3)) | s.s() | a.s(100)", 112),
    "chord, group": ("chord([a.s(1, 1), a.s(2, 2)], s.s()) | group(a.s(1), a.s(2))", [7, 8]),
    "two chords": ("group(a.s(1, 1), a.s(2, 2)) | s.s() | group(a.s(1), a.s(2)) | s.s() | a.s(1)", 16),
    "chains in a header": ("chord([a.s(1, 1) | a.s(2), a.s(3, 3) | a.s(4) | a.s(5)], i.s())", [4, 15]),
    "chord in a header": ("chord([chord([a.s(1, 1), a.s(2, 2)], s.s()), a.s(3, 3)], i.s())", [6, 6]),
    "chord in a header in a header": ("chord([chord([chord([a.s(1, 1), a.s(2, 2)], s.s()), a.s(1, 1)], s.s()), a.s(3, 3)], i.s())", [8, 6]),
    "chain with a chord in a header": ("chord([a.s(1, 1) | group(a.s(1), a.s(2)) | s.s(), a.s(3, 3)], i.s())", [7, 6]),
    "chord as body": ("chord([a.s(1, 1), a.s(2, 2)], chord([s.s(), s.s()], i.s()))", [6, 6]),
    "chain as body": ("chord([a.s(1, 1), a.s(2, 2)], s.s() | a.s(1) | a.s(2))", 9),
    "chunks": ("a.chunks([(n, n) for n in range(5)], 2).group() | i.s()", [[0, 2], [4, 6], [8]]),
}
FAILING = {
    "chain": "a.s(1, 1) | f.si('x', 1) | a.s(1) | a.s(1)",
    "chord": "chord([a.s(1, 1), f.s('x', 1), a.s(2, 2)], s.s())",
    "chain in a header": "chord([a.s(1, 1) | f.si('x', 1) | a.s(1), a.s(2, 2)], s.s())",
    "body": "chord([a.s(1, 1), a.s(2, 2)], f.si('x', 1))",
    "chord in a chain": "a.s(1, 1) | group(a.s(1), f.si('x', 1)) | s.s() | a.s(1)",
}
# Celery's worker stores nothing for what follows the chord; get() finds the error at the parent.
WITHOUT_END = {"chord in a chain"}
PRELUDE = """
from celery import chain, chord, group
a, f, s, i = tasks.add, tasks.fail, tasks.total, tasks.same
"""


class Fleet:
    def __init__(self, client: Side, env: dict[str, str], logs: list[Callable[[], str]]) -> None:
        self.client = client
        self.env = env
        self.logs = logs

    def send(self, script: str) -> object:
        return self.client.client(PRELUDE + script, self.env, timeout=100)


@pytest.fixture(scope="module", params=["our client", "celery client"])
def fleet(request: pytest.FixtureRequest, amqp_url: str, redis_url: str) -> Iterator[Fleet]:
    client = ours() if request.param == "our client" else theirs()
    name = uuid.uuid4().hex[:10]
    env = client.env(amqp_url, redis_url, f"canvas-{name}", FLEET_PREFETCH="1")
    with ExitStack() as stack:
        workers = [stack.enter_context(side.worker(env, "-c", "1", "-n", f"{side.name}-{name}@%h")) for side in (ours(), theirs())]
        yield Fleet(client, env, [worker.text for worker in workers])
    ours().client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)


def succeeded(text: str) -> int:
    return text.count(" succeeded in ") + text.count(" raised ")


def repeat(fleet: Fleet, script: str) -> list[object]:
    """Runs the script, which sends a workflow a few times, until both workers have had tasks; returns all results."""
    before = [succeeded(log()) for log in fleet.logs]
    results: list[object] = []
    while len(results) < ROUNDS:
        part = fleet.send(script)
        assert isinstance(part, list)
        results += part
        if all(succeeded(log()) > count for log, count in zip(fleet.logs, before, strict=True)):
            return results
    pytest.fail(f"one of the workers had no task in {len(results)} rounds")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow(fleet: Fleet, name: str) -> None:
    workflow, expected = WORKFLOWS[name]
    results = repeat(fleet, f"result = [({workflow}).apply_async().get(timeout=20) for n in range(4)]")
    assert results == [expected] * len(results)


@pytest.mark.parametrize("name", FAILING)
def test_failing_workflow(fleet: Fleet, name: str) -> None:
    results = repeat(fleet, f"""
result = []
for n in range(4):
    r = ({FAILING[name]}).apply_async()
    try:
        r.get(timeout=20)
    except Exception as exc:
        if {name not in WITHOUT_END}:
            r.get(timeout=20, propagate=False)
        result.append([type(exc).__name__, r.state])
""")
    assert len(results) >= 4
    for kind, state in results:  # type: ignore[misc]
        assert kind in ("OutOfStock", "ChordError")
        assert state == "FAILURE" or name in WITHOUT_END


def test_many_at_once(fleet: Fleet) -> None:
    assert repeat(fleet, """
all = [chord([a.s(n, 1) | a.s(1), a.s(n, 2)], s.s() | a.s(n)).apply_async() for n in range(30)]
result = [r.get(timeout=40) for r in all]
""")[:30] == [3 * n + 4 for n in range(30)]
