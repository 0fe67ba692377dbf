"""Tasks guide, custom task classes and handlers (T-300..T-319)."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest
from celery import Celery, Task


class AppWide(Task):
    def shout(self) -> str:
        return f"{self.name}!"


class Sum(Task):
    name = "sum.task"

    def run(self, x: int, y: int) -> int:
        return x + y


@pytest.fixture
def app() -> Celery:
    return Celery("classes", broker="memory://", backend="cache+memory://", set_as_current=False)


def test_t300_all_tasks_inherit_the_apps_task(app: Celery) -> None:
    @app.task(shared=False)
    def plain() -> None:
        """Nothing."""

    assert isinstance(plain, app.Task)
    assert isinstance(plain, Task)
    assert issubclass(app.Task, Task)
    assert app.Task.app is app


def test_t300_run_is_needed(app: Celery) -> None:
    class NoBody(app.Task):  # type: ignore[name-defined,misc]
        name = "no.body"

    with pytest.raises(NotImplementedError):
        app.register_task(NoBody())()


def test_t301_class_based_task(app: Celery) -> None:
    task = app.register_task(Sum())
    assert isinstance(task, Sum)
    assert task(2, 3) == 5
    assert task.apply((2, 3)).get() == 5


def test_t301_through_a_worker(running: Any) -> None:
    assert running.tasks.authenticate.delay("george", "password").get(timeout=20)[0] is True
    assert running.tasks.authenticate.delay("nobody", "password").get(timeout=20)[0] is False


def test_t302_registry_has_the_instance(app: Celery) -> None:
    task = app.register_task(Sum())
    assert app.tasks["sum.task"] is task
    assert app.tasks[Sum.name] is task


def test_t303_one_instance_for_each_process(running: Any) -> None:
    """The instance counts its calls: within a process they go up by one."""
    calls: dict[int, list[int]] = {}
    for result in [running.tasks.authenticate.delay("george", "no") for _ in range(12)]:
        known, count, pid = result.get(timeout=20)
        assert known is False
        calls.setdefault(pid, []).append(count)
    for counts in calls.values():
        ordered = sorted(counts)
        assert ordered == list(range(ordered[0], ordered[0] + len(ordered)))


def test_t304_t305_cached_resource(running: Any) -> None:
    """db is a property of the base class; the function has no bind, and asks the task by its name."""
    seen = {tuple(result.get(timeout=20)) for result in [running.tasks.process_rows.delay() for _ in range(12)]}
    assert len(seen) == len({pid for pid, _ in seen})
    assert all(db.startswith(f"{pid}-") for pid, db in seen)


@pytest.mark.parametrize("given", ["class", "name"])
def test_t306_base_of_all_tasks(given: str, monkeypatch: Any) -> None:
    import sys
    import types

    module = types.ModuleType("rows_app_wide")
    module.AppWide = AppWide  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rows_app_wide", module)
    app = Celery("wide", task_cls=AppWide if given == "class" else "rows_app_wide:AppWide", set_as_current=False)

    @app.task(shared=False, name="wide.one")
    def one() -> None:
        """Nothing."""

    assert isinstance(one, AppWide)
    assert issubclass(app.Task, AppWide)
    assert one.shout() == "wide.one!"


def test_t307_call_is_used_by_the_worker(running: Any) -> None:
    result = running.tasks.counted.delay(5)
    value, task_id, direct = result.get(timeout=20)
    assert (value, task_id, direct) == (5, result.id, False)
    assert running.tasks.noted(result.id) == [["call", result.id, False]]


def test_t307_called_directly(running: Any) -> None:
    """Then the request is a new one."""
    class Twice(Task):
        name = "rows.twice"
        seen: list[Any] = []  # noqa: RUF012  filled below

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(args)
            return super().__call__(*args, **kwargs)

        def run(self, x: int) -> Any:
            return [x, self.request.called_directly, self.request.args]

    task = running.tasks.app.register_task(Twice())
    assert task(5) == [5, True, (5,)]
    assert task.seen == [(5,)]
    assert task.apply((6,)).get()[:2] == [6, False]


def names(notes: list[Any]) -> list[str]:
    return [name for name, *_ in notes]


def handlers(running: Any, what: str, count: int, **kwargs: Any) -> tuple[Any, list[Any]]:
    """The result, and what was noted besides the body, once there are `count` notes."""
    result = running.tasks.handled.delay(what, **kwargs)
    result.get(timeout=20, propagate=False)
    return result, running.tasks.noted(result.id, count)


def test_t310_t313_t314_t318_success(running: Any) -> None:
    """Order, and the arguments: those of the message, as they were received (a list)."""
    result, notes = handlers(running, "fine", 4, extra=1)
    assert names(notes) == ["before_start", "body", "on_success", "after_return"]
    before, _, success, after = notes
    assert before[1] == [result.id, ["fine"], {"extra": 1}]
    assert before[3] == "list"
    assert success[1] == ["fine", result.id, ["fine"], {"extra": 1}]
    assert success[3] is True, "the result is stored before"
    assert after[1] == ["SUCCESS", "'fine'", result.id, ["fine"], {"extra": 1}]


def test_t311_failure(running: Any) -> None:
    result, notes = handlers(running, "fail", 4)
    assert names(notes) == ["before_start", "body", "on_failure", "after_return"]
    failure = notes[2]
    assert failure[1] == ["ValueError('bad')", result.id, ["fail"], {}]
    assert failure[3] is True, "the failure is stored before"
    assert failure[4] == {"exception": "ValueError('bad')", "type": "ValueError", "traceback": True, "same": True}
    assert notes[3][1] == ["FAILURE", "ValueError('bad')", result.id, ["fail"], {}]


def test_t312_retry(running: Any) -> None:
    """on_retry gets the reason; after_return runs for the last run only (T-310)."""
    result, notes = handlers(running, "retry", 7)
    assert sorted(names(notes)) == sorted(
        ["before_start", "body", "on_retry", "before_start", "body", "on_success", "after_return"])
    retry = next(note for note in notes if note[0] == "on_retry")
    assert retry[1] == ["KeyError('again')", result.id, ["retry"], {}]
    assert retry[4]["type"] == "Retry"
    assert retry[4]["same"] is True


def test_t310_not_after_ignore(running: Any) -> None:
    result = running.tasks.handled.delay("ignore")
    running.worker.wait_for(f"handled[{result.id}] ignored")
    running.tasks.add.delay(1, 1).get(timeout=20)
    assert names(running.tasks.noted(result.id, 2)) == ["before_start", "body"]


def test_t315_on_replace(running: Any) -> None:
    result, notes = handlers(running, "replace", 3)
    assert result.get(timeout=20) == 22
    assert names(notes) == ["before_start", "body", "on_replace"]
    assert notes[2][1] == "rows_tasks.add"


def test_t316_return_values_are_ignored(running: Any) -> None:
    """Each handler of that class returns "ignored"."""
    result, _ = handlers(running, "fine", 4)
    assert (result.state, result.get(timeout=20)) == ("SUCCESS", "fine")
    failed, _ = handlers(running, "fail", 4)
    assert (failed.state, repr(failed.result)) == ("FAILURE", "ValueError('bad')")


@pytest.mark.parametrize("what", ["fine", "fail"])
def test_t317_handlers_run_in_the_process_of_the_task(running: Any, what: str) -> None:
    _, notes = handlers(running, what, 4)
    pids = {note[2] for note in notes}
    assert len(pids) == 1
    assert pids.isdisjoint({os.getpid(), running.worker.process.pid})


def test_t317_hard_timeout_is_told_by_the_parent(running: Any) -> None:
    result = running.tasks.handled.apply_async(("hang",), time_limit=1)
    assert "TimeLimitExceeded" in repr(result.get(timeout=20, propagate=False))
    notes = running.tasks.noted(result.id, 3)
    assert names(notes) == ["before_start", "body", "on_failure"]
    failure = notes[2]
    assert failure[1] == ["TimeLimitExceeded(1)", result.id, ["hang"], {}]
    assert failure[2] == running.worker.process.pid


def test_t319_einfo() -> None:
    import importlib

    billiard = importlib.import_module("billiard.einfo")
    try:
        raise ValueError("bad")
    except ValueError:
        einfo = billiard.ExceptionInfo()
    assert str(einfo) == einfo.traceback
    assert "ValueError: bad" in einfo.traceback
    assert einfo.type is ValueError
    copy = pickle.loads(pickle.dumps(einfo))
    assert str(copy) == str(einfo)
    assert repr(copy.exception).count("bad") == 1
    assert copy.type is ValueError
