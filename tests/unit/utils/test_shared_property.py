"""Attributes that are made at the first use, by whichever thread comes first."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pyceleryc import Celery
from pyceleryc.utils.locks import shared_property


class Slow:
    made = 0

    @shared_property
    def thing(self) -> object:
        """What takes its time."""
        self.made += 1
        time.sleep(0.05)
        return object()


def test_threads_that_come_together_get_one() -> None:
    slow, found, start = Slow(), [], threading.Barrier(4)

    def look() -> None:
        start.wait(10)
        found.append(slow.thing)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert slow.made == 1 and len(found) == 4 and len(set(map(id, found))) == 1
    assert isinstance(Slow.thing, shared_property) and Slow.thing.__doc__ == "What takes its time."
    slow.thing = None  # type: ignore[assignment]
    assert slow.thing is None
    del slow.thing
    assert slow.thing is not None and slow.made == 2


def test_an_error_is_not_kept() -> None:
    class Failing:
        tries = 0

        @shared_property
        def thing(self) -> int:
            self.tries += 1
            return 1 // (self.tries - 1)

    failing = Failing()
    with pytest.raises(ZeroDivisionError):
        failing.thing  # noqa: B018
    assert failing.thing == 1


def test_a_child_that_was_forked_meanwhile() -> None:
    """The thread that was about to make the app's parts is not in the child, and will never be ready there."""
    inside, go_on = threading.Event(), threading.Event()

    class Parts(Celery):
        def create_task_cls(self) -> object:
            inside.set()
            go_on.wait(20)
            return super().create_task_cls()

    app = Parts("forked", broker="memory://", set_as_current=False)
    thread = threading.Thread(target=lambda: app.Task)
    thread.start()
    assert inside.wait(10)
    pid = os.fork()
    if pid == 0:
        threading.Timer(5, os._exit, (3,)).start()
        go_on.set()
        os._exit(0 if app.Task.__name__ == "Task" and app.amqp.queues else 4)
    _, status = os.waitpid(pid, 0)
    go_on.set()
    thread.join(10)
    assert os.waitstatus_to_exitcode(status) == 0
    app.close()
