"""Messages and results as pickles: signatures and exceptions of the library cross over, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fleet import Side, ours, theirs

SETTINGS = {"task_serializer": "pickle", "result_serializer": "pickle", "accept_content": ["pickle", "json"]}
SCRIPT = """
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
a, f, s, i = tasks.add, tasks.fail, tasks.total, tasks.same
result = [
    (a.s(1, 1) | a.s(2) | a.s(3)).apply_async(link=i.s(), link_error=i.si(0)).get(timeout=20),
    chord([a.s(n, n) for n in range(4)], s.s() | a.s(1)).delay().get(timeout=20),
    i.delay({"set": {1, 2}}).get(timeout=20) == {"set": {1, 2}},
    chain(f.s('x', 1), a.s(1)).delay().get(timeout=20, propagate=False).args,
    type(a.apply_async((1, 1), expires=-1).get(timeout=20, propagate=False)) is TaskRevokedError,
    type(tasks.app.send_task('no.such.task').get(timeout=20, propagate=False)).__module__,
    i.delay(tasks.app.GroupResult('g', [tasks.app.AsyncResult('m', parent=tasks.app.AsyncResult('p'))])).get(timeout=20).as_tuple(),
    type(chord([f.s('x', 1), a.s(1, 1)], s.s()).delay().get(timeout=20, propagate=False)).__name__,
]
"""


@pytest.mark.parametrize(("worker", "client"), [(ours, theirs), (theirs, ours), (ours, ours)], ids=["our worker", "our client", "ours"])
def test_pickles_cross_over(worker: Callable[[], Side], client: Callable[[], Side], redis_url: str, unique: Callable[[str], str]) -> None:
    sender, runner, queue = client(), worker(), unique("pickle")
    settings = json.dumps(SETTINGS)
    with runner.worker(runner.env(redis_url, redis_url, queue, FLEET_SETTINGS=settings)):
        answer = sender.client(SCRIPT, sender.env(redis_url, redis_url, queue, FLEET_SETTINGS=settings))
    library = "celery.exceptions" if sender.name == "celery" else "pyceleryc.exceptions"
    assert answer == [7, 13, True, ["x", 1], True, library, [["g", None], [[["m", [["p", None], None]], None]]], "ChordError"]
