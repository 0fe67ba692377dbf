"""Which tasks the core asks about when their messages are redelivered: nothing is paid for the others."""

from __future__ import annotations

import pytest

from pyceleryc import Celery, _core
from pyceleryc.app import trace


@pytest.mark.parametrize("once, late, backend, asked", [
    (True, True, "redis://", True),
    (False, True, "redis://", False),
    (True, False, "redis://", False),
    (True, True, "rpc://", False),
    (True, True, None, False),
])
def test_flag(once: bool, late: bool, backend: str | None, asked: bool) -> None:
    app = Celery("repeats", broker="memory://", backend=backend, set_as_current=False)
    app.conf.update(worker_deduplicate_successful_tasks=once, result_persistent=True)
    task = app.task(acks_late=late, shared=False)(lambda: None)
    assert bool(trace.task_flags(app, task) & _core.TASK_ONCE) == asked


def test_with_a_tracer_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("repeats", broker="memory://", backend="redis://", set_as_current=False)
    app.conf.update(worker_deduplicate_successful_tasks=True, task_acks_late=True)
    task = app.task(name="one", shared=False)(lambda: None)
    seen: dict[str, int] = {}

    class Tracer:
        def register(self, name: str, task: object, run: object, stack: object, flags: int) -> None:
            seen[name] = flags

    build = trace.build_tracer
    monkeypatch.setattr(trace, "build_tracer", lambda *args, **kwargs: build(*args, **kwargs))
    trace.register_all(app, Tracer(), trace.Hooks(app, "here"))  # type: ignore[arg-type]
    assert seen[task.name] == _core.TASK_AROUND | _core.TASK_ONCE
