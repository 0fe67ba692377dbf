"""Callbacks on the worker's loop."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from pyceleryc import Celery
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
