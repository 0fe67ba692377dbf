"""Functions that instrumentation replaces are called, as in Celery (D18)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedding import embedded

from pyceleryc import Celery, Task, signals
from pyceleryc.app import trace


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("inst", broker="memory://", backend="cache+memory://", set_as_current=False)

    @made.task(name="inst.add")
    def add(x: int, y: int) -> int:
        return x + y

    @made.task(name="inst.fail")
    def fail() -> None:
        raise KeyError("x")

    yield made
    made.close()


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_replaced_build_tracer(app: Celery, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    """What it returns is called around everything; bodies that it replaces are called, too."""
    seen: list[Any] = []
    original = trace.build_tracer

    def build_tracer(name: str, task: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        body = task.run

        def run(*args: Any, **kwargs: Any) -> Any:
            seen.append(("body", name, args))
            return body(*args, **kwargs)

        task.run = run
        inner = original(name, task, *args, **kwargs)

        def traced(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
            seen.append(("begin", name, request["id"] == uuid, request["correlation_id"] == uuid))
            result = inner(uuid, args, kwargs, request)
            seen.append(("end", name, repr(result.retval), result.info is not None))
            return result

        return traced

    def prerun(task: Any, **kwargs: Any) -> None:
        seen.append(("prerun", task.name))

    monkeypatch.setattr(trace, "build_tracer", build_tracer)
    signals.task_prerun.connect(prerun)
    try:
        with embedded(app, pool=pool, concurrency=1):
            assert app.tasks["inst.add"].delay(1, 2).get(timeout=30) == 3
            with pytest.raises(KeyError):
                app.tasks["inst.fail"].delay().get(timeout=30)
    finally:
        signals.task_prerun.disconnect(prerun)
    assert seen == [
        ("begin", "inst.add", True, True), ("prerun", "inst.add"), ("body", "inst.add", (1, 2)), ("end", "inst.add", "3", False),
        ("begin", "inst.fail", True, True), ("prerun", "inst.fail"), ("body", "inst.fail", ()),
        ("end", "inst.fail", "KeyError('x')", True)]


def test_a_tracer_that_runs_nothing_is_an_error(app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(trace, "build_tracer", lambda name, task, *args, **kwargs: lambda *args: None)
    with embedded(app, pool="solo"), pytest.raises(RuntimeError, match="did not run the task inst.add"):
        app.tasks["inst.add"].delay(1, 2).get(timeout=30)
    assert "INTERNAL ERROR" in caplog.text


@pytest.mark.parametrize(("name", "kind"), [("__call__", "call"), ("on_success", "success"), ("apply_async", "send")])
def test_replaced_methods_of_task(app: Celery, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    seen: list[str] = []
    original = getattr(Task, name)

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(f"{kind} {self.name}")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Task, name, replaced)
    with embedded(app, pool="solo"):
        assert app.tasks["inst.add"].delay(1, 2).get(timeout=30) == 3
    assert seen == [f"{kind} inst.add"]


def test_build_tracer_alone(app: Celery) -> None:
    """As tests of projects call it."""
    add, fail = app.tasks["inst.add"], app.tasks["inst.fail"]
    result = trace.build_tracer(add.name, add, app=app, eager=True)("id1", (2, 3), {})
    assert (result.retval, result.info, result.retstr) == (5, None, "5") and result.runtime >= 0
    failed = trace.build_tracer(fail.name, fail, app=app, eager=True)("id2", (), {}, {"retries": 1})
    assert "KeyError: 'x'" in failed.info.traceback
    with pytest.raises(KeyError):
        trace.build_tracer(fail.name, fail, app=app, eager=True, propagate=True)("id3", (), {})


PROCESS = """
import pyceleryc; pyceleryc.install_as_celery()
import sys, threading
from celery import Celery, registry
from billiard import VERSION
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.pool import Worker
import celery.app.trace

before = Worker.workloop

def workloop(*args, **kwargs):  # as sentry-sdk does, to flush
    try:
        return before(*args, **kwargs)
    finally:
        print("flushed", flush=True)

Worker.workloop = workloop
inner_build = celery.app.trace.build_tracer

def build_tracer(name, task, *args, **kwargs):
    inner = inner_build(name, task, *args, **kwargs)

    def traced(*args, **kwargs):
        print("traced", name, flush=True)
        return inner(*args, **kwargs)

    return traced

celery.app.trace.build_tracer = build_tracer
app = Celery("p", broker="memory://", backend="cache+memory://")

@app.task(name="p.add")
def add(x, y):
    return x + y

assert registry.tasks["p.add"] is app.tasks["p.add"] and VERSION > (4,)
worker = app.WorkController(app, "w@here", pool="prefork", concurrency=1)
thread = threading.Thread(target=worker.start)
thread.start()
print(add.delay(1, 2).get(timeout=30), flush=True)
worker.stop()
thread.join()
"""


def test_processes_of_the_pool(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, env=dict(os.environ))
    assert done.stdout.split("\n") == ["traced p.add", "3", "flushed", ""], done.stderr
