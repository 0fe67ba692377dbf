"""contrib.testing and contrib.pytest: what projects use to test their tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyceleryc import Celery, _state, current_app, shared_task
from pyceleryc.contrib.testing import manager, mocks, worker
from pyceleryc.contrib.testing.app import TestApp, Trap, set_trap, setup_default_app
from pyceleryc.worker.worker import WorkController

HEAD = """
import pyceleryc
pyceleryc.install_as_celery()
import celery, pytest, threading
from celery import shared_task, current_app
"""

PROJECT = {
    "conftest.py": HEAD + """
pytest_plugins = ("celery.contrib.pytest",)

class Class(celery.Task):
    name = "cls"
    def run(self): return self.app.main

@pytest.fixture(scope="session")
def celery_config(): return {"result_extended": True}
@pytest.fixture(scope="session")
def celery_parameters(): return {"strict_typing": False}
@pytest.fixture(scope="session")
def celery_includes(): return ["proj_tasks"]
@pytest.fixture(scope="session")
def celery_class_tasks(): return [Class]
""",
    "proj_tasks.py": """
from celery import shared_task
@shared_task
def mul(x, y): return x * y
""",
    "test_it.py": HEAD + """
def test_reload(celery_app, celery_worker):
    @celery_app.task
    def add(x, y): return x + y
    celery_worker.reload()
    assert add.delay(2, 2).get(timeout=10) == 4
    assert celery_app.conf.result_extended and celery_app.conf.broker_url == "memory://"

def test_same_name(celery_app, celery_worker):
    @celery_app.task
    def add(x, y): return x - y
    celery_worker.reload()
    assert add.delay(2, 2).get(timeout=10) == 0

@pytest.mark.parametrize("n", range(2))
def test_includes(celery_app, celery_worker, n):
    from proj_tasks import mul
    assert mul.app is celery_app is current_app._get_current_object()
    assert mul.delay(4, n).get(timeout=10) == 4 * n

@pytest.mark.celery(result_backend="disabled://", task_always_eager=True)
class TestMarked:
    def test_marker(self, celery_app):
        assert celery_app.conf.result_backend == "disabled://" and celery_app.conf.task_always_eager

def test_error(celery_app, celery_worker):
    @celery_app.task
    def boom(): raise KeyError("x")
    celery_worker.reload()
    with pytest.raises(KeyError):
        boom.delay().get(timeout=10)

def test_session(celery_session_app, celery_session_worker):
    assert celery_session_app.tasks["cls"].delay().get(timeout=10) == "celery.tests"

def test_session_again(celery_session_worker):
    assert celery_session_worker.app.tasks["cls"].delay().get(timeout=10) == "celery.tests"

def test_current(depends_on_current_app, celery_app):
    assert current_app.main == celery_app.main
""",
    "trap/test_trap.py": HEAD + """
@pytest.fixture(scope="session")
def use_celery_app_trap(): return True
@pytest.fixture(scope="session")
def celery_config(): return {"task_default_queue": "trap"}  # the worker of the session is still there
@pytest.fixture(scope="session")
def celery_worker_pool(): return "threads"

def test_trap(celery_app):
    with pytest.raises(RuntimeError, match="Test depends on current_app"):
        current_app.conf

def test_waiting_tasks(celery_app, celery_worker):
    @celery_app.task
    def one(): return 1
    @celery_app.task
    def waits(): return one.apply().get() + threading.current_thread().name.count("Pool")
    celery_worker.reload()
    assert waits.delay().get(timeout=10) == 2
""",
}


def test_a_project(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers"], cwd=tmp_path,
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and "11 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def app() -> Iterator[Celery]:
    made = TestApp("mine", config={"task_default_queue": "contrib-testing"})
    with setup_default_app(made):
        yield made


def test_signals_and_name(app: Celery) -> None:
    told: list[str] = []
    for signal in (worker.test_worker_starting, worker.test_worker_started, worker.test_worker_stopped):
        signal.connect(lambda signal, sender, **_: told.append(f"{signal.name} {sender.main}"), weak=False, dispatch_uid="t")
    try:
        with worker.start_worker(app, hostname="unit@here") as running:
            assert running.hostname == "unit@here" and isinstance(running, WorkController)
            assert any(thread.name == "celery test worker" for thread in threading.enumerate())
        assert told == ["test_worker_starting mine", "test_worker_started mine", "test_worker_stopped mine"]
        assert not any(thread.name == "celery test worker" for thread in threading.enumerate())
    finally:
        for signal in (worker.test_worker_starting, worker.test_worker_started, worker.test_worker_stopped):
            signal.disconnect(dispatch_uid="t")


def test_the_ping_is_answered(app: Celery) -> None:
    assert app.tasks["celery.ping"]() == "pong"
    app.conf.result_backend = "disabled://"
    with worker.start_worker(app, perform_ping_check=False) as running:
        assert running.machine is not None
    with pytest.raises(NotImplementedError, match="No result backend"), worker.start_worker(app):
        raise AssertionError("not reached")


def test_a_worker_that_cannot_start(app: Celery) -> None:
    app.conf.update(broker_url="redis://localhost:1", broker_connection_retry=False, broker_connection_retry_on_startup=False)
    with pytest.raises(RuntimeError, match="could not be started"), worker.start_worker(app):
        raise AssertionError("not reached")


def test_a_worker_that_does_not_end(app: Celery) -> None:
    started, go_on = threading.Event(), threading.Event()

    @app.task
    def stuck() -> None:
        started.set()
        go_on.wait(30)

    with pytest.raises(RuntimeError, match="shutdown_timeout"):
        with worker.start_worker(app, shutdown_timeout=0.2):
            stuck.delay()
            assert started.wait(10)
    go_on.set()


def test_reload_says_what_went_wrong(app: Celery) -> None:
    with worker.start_worker(app) as running:
        with pytest.raises(ModuleNotFoundError):
            running.reload(["no_such_module_here"])
        assert app.tasks["celery.ping"].delay().get(timeout=10) == "pong"
    with pytest.raises(RuntimeError, match="does not run"):
        worker.TestWorkController(app).reload()


def test_nothing_is_left_behind() -> None:
    before = _state.default_app, len(_state._on_app_finalizers), set(_state._get_active_apps())
    made = TestApp()
    with setup_default_app(made):
        assert current_app == made

        @shared_task(name="contrib.local")
        def local() -> None:
            raise AssertionError

        other = Celery("other")
        assert local.app is other
    assert before == (_state.default_app, len(_state._on_app_finalizers), set(_state._get_active_apps()) - {made})
    later = Celery("later", set_as_current=False)
    assert "contrib.local" not in later.tasks
    later.close()


def test_trap() -> None:
    made = TestApp()
    with set_trap(made):
        with pytest.raises(RuntimeError, match="Test depends on current_app"):
            current_app.conf  # noqa: B018
        assert isinstance(_state.default_app, Trap)
    assert not isinstance(_state.default_app, Trap)
    made.close()


def test_messages(app: Celery) -> None:
    @app.task(name="contrib.add")
    def add(x: int, y: int) -> int:
        return x + y

    message = mocks.TaskMessage("contrib.add", id="1", args=[1], kwargs={"y": 2}, eta="2030-01-01T00:00:00+00:00")
    assert message.headers["id"] == "1" and message.headers["eta"].startswith("2030")
    assert message.decode()[:2] == ([1], {"y": 2}) and message.content_type == "application/json"
    old = mocks.TaskMessage1("contrib.add", args=[1, 2])
    assert old.headers == {} and old.decode()["args"] == [1, 2]
    sig = add.s(1, 2).set(countdown=10)
    sig.link(add.s(3))
    made = mocks.task_message_from_sig(app, sig)
    assert made.headers["id"] == sig.id and made.headers["eta"] and made.decode()[2]["callbacks"][0]["args"] == (3,)
    with mocks.ContextMock() as mock:
        mock.something()


def test_manager(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    @app.task(name="contrib.one")
    def one() -> int:
        return 1

    with worker.start_worker(app):
        found = manager.Manager(app)
        results = app.ResultSet([one.delay(), one.delay()])
        assert found.join(results) == [1, 1] and found.join(one.delay()) == [1]
        assert found.missing_results([*results, app.AsyncResult("never")]) == ["never"]
        found.assert_result_tasks_in_progress_or_completed(results)
        found.ensure_not_for_a_while(lambda: found.true_or_raise(lambda: False), found.Sentinel, max_retries=2)
        with pytest.raises(AssertionError):
            found.ensure_not_for_a_while(lambda: 1, found.Sentinel)
        with pytest.raises(manager.Sentinel):
            found.assert_task_worker_state(lambda ids, timeout: False, ["x"], max_retries=1, interval_max=0.1)
        with pytest.raises(AssertionError, match="Missing task results"):
            found.join(app.AsyncResult("never"), timeout=0.1, max_retries=1)
        assert "Still waiting for 1/1" in capsys.readouterr().out
