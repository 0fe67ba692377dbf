"""Documents of results: written by one implementation, read by the other (PROTOCOL §3.5)."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyceleryc import states
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.exceptions import TaskRevokedError, TimeLimitExceeded

PRELUDE = """
import json, sys
from celery import Celery, states
from celery.app.task import Context
url, id, serializer, other = sys.argv[1:]
app = Celery("peer", broker="memory://", backend=url, set_as_current=True)
app.conf.update(result_expires=60, result_extended=True, result_serializer=serializer, accept_content=["json", "pickle"],
                timezone="Europe/Vienna")
backend = app.backend
"""


@pytest.fixture
def peer(peer_python: str, redis_url: str, id: str) -> Callable[..., Any]:
    """Runs a script in the real Celery; returns its `answer`."""

    def run(script: str, serializer: str = "json", other: str = "") -> Any:
        code = f"{PRELUDE}\nanswer = None\n{script}\nprint(json.dumps(answer))"
        done = subprocess.run([peer_python, "-c", code, redis_url, id, serializer, other], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(params=["json", "pickle"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_app(redis_url: str) -> Callable[[str], Celery]:
    def make(serializer: str = "json") -> Celery:
        app = Celery("t", broker="memory://", backend=redis_url, set_as_current=False)
        app.conf.update(result_expires=60, result_extended=True, result_serializer=serializer, accept_content=["json", "pickle"],
                        timezone="Europe/Vienna")
        return app

    return make


@pytest.fixture
def id(make_app: Callable[[str], Celery]) -> Iterator[str]:
    made = str(uuid.uuid4())
    yield made
    make_app("json").backend.forget(made)


def request_of(id: str, **fields: Any) -> Context:
    return Context(id=id, task="t.add", args=[1, 2], kwargs={"k": "é"}, hostname="w@h", retries=2, group="g", parent_id="p",
                   delivery_info={"routing_key": "q"}, **fields)


PEER_REQUEST = """
request = Context(id=id, task="t.add", args=[1, 2], kwargs={"k": "é"}, hostname="w@h", retries=2, group="g", parent_id="p",
                  delivery_info={"routing_key": "q"}, called_directly=False)
request.children.append(app.AsyncResult("child", parent=app.AsyncResult("up")))
request.children.append(app.GroupResult("gid", [app.AsyncResult("m")]))
"""


def test_they_read_our_success(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str, serializer: str) -> None:
    app, request = make_app(serializer), request_of(id)
    request.children.append(app.AsyncResult("child", parent=app.AsyncResult("up")))
    app.backend.mark_as_done(id, {"a": [1, "é"]}, request)
    answer = peer("""
r = app.AsyncResult(id)
answer = [r.get(timeout=30), r.state, r.name, r.args, r.kwargs, r.worker, r.retries, r.queue,
          r.children[0].id, r.children[0].parent.id, str(r.date_done.tzinfo is not None), r.backend.get_task_meta(id)["group_id"]]
""", serializer)
    assert answer == [{"a": [1, "é"]}, "SUCCESS", "t.add", [1, 2], {"k": "é"}, "w@h", 2, "q", "child", "up", "True", "g"]


@pytest.mark.parametrize(("exc", "caught"), [
    (KeyError("b", 3), "KeyError"), (TaskRevokedError("expired"), "celery.exceptions.TaskRevokedError"),
    (TimeLimitExceeded(1), "billiard.exceptions.TimeLimitExceeded"), (LookupError(object), "LookupError"),
])
def test_they_read_our_failure(
    make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str, exc: Exception, caught: str, serializer: str,
) -> None:
    make_app(serializer).backend.mark_as_failure(id, exc, "Traceback: text")
    script = f"""
import celery.exceptions, billiard.exceptions
r = app.AsyncResult(id)
try:
    r.get(timeout=30)
except {caught} as exc:
    answer = [repr(exc.args), r.traceback, r.state]
"""
    expected = ("<class 'object'>",) if exc.args == (object,) and serializer == "json" else exc.args
    assert peer(script, serializer) == [repr(expected), "Traceback: text", "FAILURE"]


def test_we_read_their_success(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str, serializer: str) -> None:
    peer(f"{PEER_REQUEST}\nbackend.mark_as_done(id, {{'a': [1, 'é']}}, request)", serializer)
    result = make_app(serializer).AsyncResult(id)
    assert result.get(timeout=30) == {"a": [1, "é"]}
    assert (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue) == ("t.add", [1, 2], {"k": "é"}, "w@h", 2, "q")
    child, group = result.children
    assert (child.id, child.parent.id, group.id, group.results[0].id) == ("child", "up", "gid", "m")
    assert result.date_done.tzinfo is not None


def test_we_read_their_failures(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str, serializer: str) -> None:
    app = make_app(serializer)
    peer("backend.mark_as_revoked(id, 'terminated')", serializer)
    with pytest.raises(TaskRevokedError, match="terminated"):
        app.AsyncResult(id).get(timeout=30)
    peer("from billiard.exceptions import TimeLimitExceeded\nbackend.mark_as_failure(id, TimeLimitExceeded(1))", serializer)
    with pytest.raises(TimeLimitExceeded):
        app.AsyncResult(id).get(timeout=30)
    if serializer == "pickle":  # which names the class, and so wants it here
        return
    peer("""
from celery.backends.base import *
class Strange(Exception):
    pass
backend.mark_as_failure(id, Strange('a', 1), 'tb')
""", serializer)
    failed = app.AsyncResult(id)
    assert (type(failed.result).__name__, failed.result.args, failed.traceback) == ("Strange", ("a", 1), "tb")


def document(app: Celery, id: str) -> dict[str, Any]:
    made = json.loads(app.backend.get(app.backend.get_key_for_task(id)))
    made["date_done"] = made["date_done"] and made["date_done"][26:]
    return made


@pytest.mark.parametrize(("theirs", "ours"), [
    ("mark_as_done(id, 4, request)", lambda b, i, r: b.mark_as_done(i, 4, r)),
    ("mark_as_failure(id, KeyError('b', object), 'tb', request)", lambda b, i, r: b.mark_as_failure(i, KeyError("b", object), "tb", r)),
    ("mark_as_retry(id, ValueError('x'), 'tb', request)", lambda b, i, r: b.mark_as_retry(i, ValueError("x"), "tb", r)),
    ("mark_as_revoked(id, 'expired', request)", lambda b, i, r: b.mark_as_revoked(i, "expired", r)),
    ("mark_as_started(id, pid=1, hostname='h')", lambda b, i, r: b.mark_as_started(i, pid=1, hostname="h")),
    ("store_result(id, {'a': 1}, 'PROGRESS', request=request)", lambda b, i, r: b.store_result(i, {"a": 1}, "PROGRESS", request=r)),
])
def test_same_documents(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str, theirs: str, ours: Any) -> None:
    app = make_app("json")
    peer(f"{PEER_REQUEST}\nbackend.{theirs}")
    wanted = document(app, id)
    app.backend.forget(id)
    request = request_of(id)
    request.children.append(app.AsyncResult("child", parent=app.AsyncResult("up")))
    request.children.append(app.GroupResult("gid", [app.AsyncResult("m")]))
    ours(app.backend, id, request)
    made = document(app, id)
    assert made == wanted
    assert list(made) == list(wanted)
    ttl = app.backend.run(("TTL", app.backend.get_key_for_task(id)))[0]
    assert 50 < ttl <= 60


def test_groups(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str) -> None:
    app = make_app("json")
    group = app.GroupResult(id, [app.AsyncResult("a"), app.AsyncResult("b", parent=app.AsyncResult("c"))])
    group.save()
    assert peer("g = app.GroupResult.restore(id)\nanswer = [g.id, [r.id for r in g], g[1].parent.id]") == [id, ["a", "b"], "c"]
    group.delete()
    peer("app.GroupResult(id, [app.AsyncResult('a'), app.GroupResult('in', [app.AsyncResult('x')])]).save()")
    found = app.GroupResult.restore(id)
    assert (found[0].id, found[1].id, found[1][0].id) == ("a", "in", "x")
    found.delete()
    assert app.GroupResult.restore(id) is None


def test_mixed_chord_counts_the_same_keys(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str) -> None:
    """One header task ends in each implementation; the second one sends the body."""
    app, body_id = make_app("json"), str(uuid.uuid4())
    chord = {"task": "no.such", "args": [], "kwargs": {}, "options": {"task_id": body_id}, "subtask_type": None, "immutable": False}
    app.backend.set_chord_size(id, 2)
    peer(f"""
request = Context(id='one', group=id, group_index=1, chord={chord!r})
backend.on_chord_part_return(request, states.SUCCESS, 'theirs')
""")
    sent: list[Any] = []
    app.backend.finish_chord = lambda body, values: sent.append((body.id, values()))  # type: ignore[method-assign]
    app.backend.on_chord_part_return(Context(id="two", group=id, group_index=0, chord=chord), states.SUCCESS, "ours")
    assert sent == [(body_id, ["ours", "theirs"])]
    assert app.backend.run(("EXISTS", *app.backend._chord_keys(id))) == [0]


def test_they_finish_a_chord_that_we_began(make_app: Callable[[str], Celery], peer: Callable[..., Any], id: str) -> None:
    app, body_id = make_app("json"), str(uuid.uuid4())
    chord = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": body_id}, "subtask_type": None, "immutable": False}
    app.backend.set_chord_size(id, 2)
    app.backend.on_chord_part_return(Context(id="one", group=id, group_index=1, chord=chord), states.FAILURE, KeyError("b"))
    peer(f"""
@app.task(name='body')
def body(values):
    return values
request = Context(id='two', group=id, group_index=0, chord={chord!r})
backend.on_chord_part_return(request, states.SUCCESS, 1)
""")
    result = app.AsyncResult(body_id)
    assert result.state == "FAILURE"
    assert "Dependency one raised KeyError('b')" in str(result.result)
    result.forget()
