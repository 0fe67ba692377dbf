"""AsyncResult, EagerResult, ResultSet, GroupResult without servers."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyceleryc import _state, states
from pyceleryc.app.base import Celery
from pyceleryc.exceptions import ChordError, Ignore, IncompleteStream, TimeoutError
from pyceleryc.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
)


@pytest.fixture
def app() -> Celery:
    return Celery("t", broker="memory://", backend="cache+memory://", set_as_current=False)


@pytest.fixture
def done(app: Celery, unique: Callable[[str], str]) -> Callable[..., AsyncResult]:
    def make(value: Any, state: str = states.SUCCESS, children: Any = (), parent: Any = None) -> AsyncResult:
        from pyceleryc.app.context import Context

        id, request = unique("id"), Context()
        request.children.extend(children)
        app.backend.store_result(id, value, state, request=request)
        return app.AsyncResult(id, parent=parent)

    return make


def test_identity(app: Celery) -> None:
    result = app.AsyncResult("a")
    assert result == "a" and result == app.AsyncResult("a") and result != "b" and result != 5
    assert hash(result) == hash("a") and str(result) == "a" and repr(result) == "<AsyncResult: a>"
    assert result.task_id == "a" and result.app is app and result.backend is app.backend
    with pytest.raises(ValueError, match="not None"):
        app.AsyncResult(None)


def test_without_app(app: Celery) -> None:
    assert AsyncResult("a", backend=app.backend).app is app
    assert AsyncResult("a", app=app).backend is app.backend


def test_copies(app: Celery) -> None:
    result = app.AsyncResult("a", parent=app.AsyncResult("p"))
    for other in (copy.copy(result), copy.deepcopy(result)):
        assert other == result and other.parent == "p" and other.backend is app.backend


def test_pickle(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state._tls, "current_app", app)  # what has no app of its own is read as that of the current one
    result = AsyncResult("a", app=app, task_name="n", parent=AsyncResult("p", app=app))
    other = pickle.loads(pickle.dumps(result))
    assert (other.id, other.parent.id, other.task_name) == ("a", "p", "n")
    for many in (app.GroupResult("g", [result], parent=app.AsyncResult("p")), app.ResultSet([result]), GroupResult("g", [result], app=app)):
        found = pickle.loads(pickle.dumps(many))
        assert found == many and isinstance(found, type(many)) and found.parent == many.parent
        # No second app, and no second connection to the store.
        assert found.backend is app.backend
    eager = pickle.loads(pickle.dumps(EagerResult("e", 5, states.SUCCESS)))
    assert (eager.id, eager.get()) == ("e", 5)


def test_tuples(app: Celery) -> None:
    parent = app.AsyncResult("p")
    result = app.AsyncResult("a", parent=parent)
    assert result.as_tuple() == (("a", (("p", None), None)), None)
    assert result.as_list() == ["a", "p"]
    group = app.GroupResult("g", [result, app.AsyncResult("b")], parent=parent)
    back = result_from_tuple(group.as_tuple(), app)
    assert back == group and back.parent == "p" and back[0].parent == "p"
    assert result_from_tuple(result, app) is result
    assert result_from_tuple(["x", None], app).id == "x"


def test_ignored(app: Celery) -> None:
    result = app.AsyncResult("nobody")
    result.ignored = True
    assert result.get() is None and result.state == states.PENDING


def test_no_waiting_in_tasks(app: Celery, done: Callable[..., AsyncResult]) -> None:
    """T-341, T-342"""
    result = done(1)
    with denied_join_result():
        for wait in (result.get, app.GroupResult("g", [result]).get, EagerResult("e", 1, states.SUCCESS).get, assert_will_not_block):
            with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task!"):
                wait()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1
        with pytest.raises(RuntimeError):
            result.get()
    assert result.get() == 1


def test_denied_in_one_thread_only(app: Celery, done: Callable[..., AsyncResult]) -> None:
    """An eager task in one thread of a web server does not concern requests in others, whoever ends first."""
    result, entered, leave = done(1), threading.Event(), threading.Event()

    def eager() -> None:
        with denied_join_result():
            entered.set()
            assert leave.wait(10)

    thread = threading.Thread(target=eager)
    thread.start()
    assert entered.wait(10)
    assert result.get() == 1
    with denied_join_result():
        leave.set()
        thread.join(10)
    assert result.get() == 1


def test_names_that_stores_of_others_use(app: Celery, done: Callable[..., AsyncResult]) -> None:
    """django-celery-results says with them which member of a chord has failed."""
    good, bad, revoked = done(1), done(ValueError("x"), states.FAILURE), done(ValueError("r"), states.REVOKED)
    group = app.GroupResult("g", [good, bad, revoked])
    with pytest.raises(ValueError, match="x"):
        group.join()
    assert list(group._failed_join_report()) == [bad, revoked]
    caching = Celery("caching", backend="cache+memory://", set_as_current=False, result_cache_max=10)
    assert not app.backend.is_cached(good.id) and not caching.backend.is_cached(good.id)
    assert caching.AsyncResult(good.id).get(timeout=5) == 1 and caching.backend.is_cached(good.id)


@pytest.mark.parametrize("state", [states.IGNORED, states.REJECTED])
def test_eager_task_without_a_result(state: str) -> None:
    """Nothing comes after it, so who waits for it gets None at once."""
    result = EagerResult("e", Ignore("why"), state)
    assert result.ready() and result.get() is None and result.get(propagate=False) is None
    assert (result.state, result.successful(), result.failed(), repr(result.result)) == (state, False, False, "Ignore('why')")


def test_the_cache_is_for_ready_results(app: Celery, unique: Callable[[str], str]) -> None:
    """T-204"""
    result = app.AsyncResult(unique("id"))
    app.backend.store_result(result.id, 1, "PROGRESS")
    assert result.state == "PROGRESS"
    app.backend.store_result(result.id, 2, states.SUCCESS)
    assert result.result == 2
    app.backend.forget(result.id)
    assert result.result == 2


def test_then(done: Callable[..., AsyncResult]) -> None:
    called: list[Any] = []
    good, bad = done(1), done(KeyError("b"), states.FAILURE)
    good.then(called.append)
    bad.then(called.append, on_error=lambda exc: called.append(repr(exc)))
    assert called == []
    good.get()
    bad.get(propagate=False)
    good.then(called.append)
    assert called == [good, "KeyError('b')", good]


def test_then_of_a_set(app: Celery, done: Callable[..., AsyncResult]) -> None:
    called: list[Any] = []
    results = app.ResultSet([done(1), done(2)])
    results.then(called.append)
    results[0].get()
    assert called == []
    results[1].get()
    assert called == [results]


def test_raised_twice(done: Callable[..., AsyncResult]) -> None:
    result = done(KeyError("b"), states.FAILURE)
    depths = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            result.get()
        depths.append(len(caught.traceback))
    assert len(set(depths[1:])) == 1


def test_the_first_error_is_raised(app: Celery, done: Callable[..., AsyncResult]) -> None:
    """C-031"""
    header = app.GroupResult("g", [done(1), done(KeyError("b"), states.FAILURE)])
    body = done(ChordError("Dependency"), states.FAILURE, parent=header)
    for _ in range(2):
        with pytest.raises(KeyError):
            body.get()
        with pytest.raises(ChordError):
            body.get(follow_parents=False)
    assert isinstance(body.get(propagate=False), ChordError)


def test_family(app: Celery, done: Callable[..., AsyncResult]) -> None:
    leaf, other = done("leaf"), done("other")
    group = app.GroupResult("g", [other, leaf])
    child = done("child", children=[group])
    top = done("top", children=[child])
    assert [node.id for _, node in top.iterdeps()] == [top.id, child.id, "g", other.id, leaf.id]
    assert [value for _, value in top.collect()] == ["top", "child", ["other", "leaf"], "other", "leaf"]
    assert top.get_leaf() == "leaf"
    assert set(top.graph) >= {top, child}
    waiting = done("top", children=[app.AsyncResult("never")])
    with pytest.raises(IncompleteStream):
        list(waiting.iterdeps())
    assert len(list(waiting.iterdeps(intermediate=True))) == 2


def test_forget_follows_parents(app: Celery, done: Callable[..., AsyncResult]) -> None:
    parent = done(1)
    child = done(2, parent=parent)
    assert child.get() == 2
    child.forget()
    assert child.state == parent.state == states.PENDING


class Control:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))

    revoke_by_stamped_headers = revoke


def test_revoke(app: Celery) -> None:
    app.control = control = Control()
    app.AsyncResult("a").revoke(terminate=True, signal="KILL", wait=True, timeout=1)
    app.ResultSet([app.AsyncResult("a"), app.AsyncResult("b")]).revoke()
    app.AsyncResult("a").revoke_by_stamped_headers({"s": 1})
    options = {"connection": None, "terminate": False, "signal": None, "reply": False, "timeout": None}
    assert control.calls == [
        (("a",), {"connection": None, "terminate": True, "signal": "KILL", "reply": True, "timeout": 1}),
        ((["a", "b"],), options), (({"s": 1},), options)]


def test_eager() -> None:
    good = EagerResult("a", 5, states.SUCCESS, name="n")
    assert (good.get(), good.state, good.ready(), good.successful(), good.name) == (5, states.SUCCESS, True, True, "n")
    assert good.children is None and good == EagerResult("a", 6, states.SUCCESS) and repr(good) == "<EagerResult: a>"
    bad = EagerResult("b", KeyError("x"), states.FAILURE, "tb")
    with pytest.raises(KeyError):
        bad.get()
    assert isinstance(bad.get(propagate=False), KeyError) and bad.traceback == "tb" and bad.failed()
    again = EagerResult("c", KeyError("x"), states.RETRY)
    assert again.get() is None and again.result.args == again.maybe_throw().args == ("x",)
    assert GroupResult("g", [good, EagerResult("d", 6, states.SUCCESS)]).get() == [5, 6]
    good.revoke()
    assert good.state == states.REVOKED


def test_set(app: Celery) -> None:
    a, b, c = (app.AsyncResult(id) for id in "abc")
    results = app.ResultSet([a])
    results.add(a)
    results.update([a, b, c])
    assert list(results) == [a, b, c] and len(results) == 3 and results[1] is b
    results.remove("b")
    results.discard("b")
    with pytest.raises(KeyError):
        results.remove("b")
    assert results == ResultSet([a, c]) and results != ResultSet([])
    results.clear()
    assert not len(results) and results.get() == []


def test_join(app: Celery, done: Callable[..., AsyncResult]) -> None:
    results = app.ResultSet([done(2), done(1), done(2)])
    assert results.get() == results.join() == results.join_native() == [2, 1, 2]
    twice = app.ResultSet([results[0], results[0]])
    assert twice.get() == [2, 2]
    got: list[Any] = []
    assert results.get(callback=lambda id, value: got.append(value)) in ([], None)
    assert sorted(got) == [1, 2, 2]
    assert results.successful() and results.ready() and not results.failed() and not results.waiting()
    results.add(app.AsyncResult("never"))
    assert results.waiting() and results.completed_count() == 3
    for wait in (results.join, results.join_native):
        with pytest.raises(TimeoutError):
            wait(timeout=0.05)


def test_nested_groups(app: Celery, done: Callable[..., AsyncResult]) -> None:
    group = app.GroupResult("g", [done(1), app.GroupResult("in", [done(2), done(3)])])
    assert not group.supports_native_join
    assert group.get(timeout=5) == [1, [2, 3]]


def test_group(app: Celery) -> None:
    group = app.GroupResult("g", [app.AsyncResult("a")])
    assert bool(group) and group == "g" and group.children == group.results and str(group) == "g"
    assert repr(group) == "<GroupResult: g [a]>" and hash(group) == hash("g")
    assert group == app.GroupResult("g", [app.AsyncResult("a")]) and group != app.GroupResult("g", [])
    assert group.as_list() == ["g"]
