"""Callbacks on the worker's loop."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from pyceleryc import Celery, _core
from pyceleryc.worker.machine import Machine
from pyceleryc.worker.worker import WorkController


@pytest.fixture
def machine() -> Machine:
    app = Celery("attached", broker="memory://", backend="cache+memory://", set_as_current=False)
    worker = WorkController(app, "attached@here", pool="solo")
    worker.machine = worker.make_machine()
    return worker.machine


def test_readers_and_timers(machine: Machine) -> None:
    seen: list[str] = []
    read, write = os.pipe()
    core = machine.core

    def on_readable() -> None:
        seen.append(os.read(read, 10).decode())
        core.remove_reader(read)
        core.call_later(0.01, lambda: (seen.append("later"), machine.stop()))

    core.add_reader(read, on_readable)
    threading.Timer(0.05, os.write, (write, b"hello")).start()
    machine.run()
    machine.close()
    os.close(read)
    os.close(write)
    assert seen == ["hello", "later"]


def test_an_exception_in_a_callback_does_not_end_the_loop(machine: Machine) -> None:
    reported: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda info: reported.append(repr(info.exc_value))
    try:
        machine.core.call_later(0.0, lambda: 1 / 0)
        machine.core.call_later(0.02, machine.stop)
        machine.run()
    finally:
        sys.unraisablehook = before
        machine.close()
    assert reported == ["ZeroDivisionError('division by zero')"]


def test_one_that_ends_the_program_does(machine: Machine) -> None:
    def leave() -> None:
        raise SystemExit(3)

    machine.core.call_later(0.0, leave)
    with pytest.raises(SystemExit):
        machine.run()
    machine.close()


def test_pending_callbacks_end_with_the_worker(machine: Machine) -> None:
    kept = object()
    machine.core.call_later(3600.0, lambda: kept)
    started = time.monotonic()
    machine.core.call_later(0.0, machine.stop)
    machine.run()
    machine.close()
    assert time.monotonic() - started < 50


def test_revoking_several_of_which_one_cannot_be_ended() -> None:
    """The pool of threads says that it cannot; the others are revoked all the same."""
    app = Celery("several", broker="memory://", backend="cache+memory://", set_as_current=False)
    started, end = threading.Event(), threading.Event()
    ran: list[str] = []
    errors: list[str] = []

    @app.task
    def first() -> None:
        started.set()
        end.wait(20)

    @app.task
    def second() -> None:
        ran.append("second")

    @app.task
    def last() -> None:
        ran.append("last")
        machine.stop()

    worker = WorkController(app, "several@here", pool="threads", concurrency=1)
    machine = worker.machine = worker.make_machine()
    first.apply_async(task_id="a")
    second.apply_async(task_id="b")
    last.apply_async(task_id="c")

    def revoke() -> None:
        if not started.is_set():
            machine.core.call_later(0.01, revoke)
            return
        try:
            machine.core.revoke(["a", "b"], True, 15)
        except _core.Unsupported as exc:
            errors.append(str(exc))
        end.set()

    machine.core.call_later(0.0, revoke)
    machine.run()
    machine.close()
    assert errors == ["the threads pool cannot end a running task by force"]
    assert ran == ["last"]


@pytest.mark.parametrize("never", [float("inf"), 1e10, 1e300])
def test_what_is_due_never(machine: Machine, never: float) -> None:
    called: list[float] = []
    machine.core.call_later(never, lambda: called.append(never))
    machine.core.call_later(-5.0, lambda: called.append(-5.0))
    machine.core.call_later(0.05, machine.stop)
    machine.run()
    machine.close()
    assert called == [-5.0]


def test_what_is_no_time(machine: Machine) -> None:
    with pytest.raises(ValueError, match="not a number"):
        machine.core.call_later(float("nan"), machine.stop)
    with pytest.raises(TypeError):
        machine.core.call_later(None, machine.stop)  # type: ignore[arg-type]
    machine.close()


def test_a_descriptor_is_watched_once(machine: Machine) -> None:
    """The later callback takes the place of the earlier one."""
    seen: list[str] = []
    read, write = os.pipe()
    core = machine.core
    core.add_reader(read, lambda: seen.append("first"))
    core.add_reader(read, lambda: (seen.append("second"), os.read(read, 10), machine.stop()))
    os.write(write, b"hello")
    machine.run()
    assert core.remove_reader(read)
    assert not core.remove_reader(read)
    machine.close()
    os.close(read)
    os.close(write)
    assert seen == ["second"]
