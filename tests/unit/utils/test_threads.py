from __future__ import annotations

import contextvars
import socket
import threading
from typing import Any

import pytest

from pyceleryc.utils.threads import (
    Local,
    LocalManager,
    LocalStack,
    _LocalStack,
    bgThread,
    default_socket_timeout,
)


def test_stack() -> None:
    stack = LocalStack()
    assert stack.top is None and stack.pop() is None and len(stack) == 0
    stack.push(1)
    stack.push(2)
    assert (stack.top, stack.stack, len(stack), stack()) == (2, [1, 2], 2, 2)
    assert (stack.pop(), stack.pop(), stack.pop()) == (2, 1, None)
    with pytest.raises(RuntimeError):
        stack()
    assert _LocalStack is LocalStack


def test_stack_of_another_thread_is_another() -> None:
    stack = LocalStack()
    stack.push('ours')
    seen: list[Any] = []

    def other() -> None:
        seen.append(stack.top)
        stack.push('theirs')
        seen.append(stack.stack)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [None, ['theirs']] and stack.stack == ['ours']


def test_empty_stack_leaves_nothing_in_the_context() -> None:
    before = len(contextvars.copy_context())
    stack = LocalStack()
    for _ in range(3):
        stack.push(1)
        stack.push(2)
        stack.pop()
        stack.pop()
    assert len(contextvars.copy_context()) == before


def test_pop_in_a_copied_context() -> None:
    stack = LocalStack()
    stack.push('a')
    assert contextvars.copy_context().run(stack.pop) == 'a'
    assert stack.pop() == 'a'


def test_local_manager() -> None:
    local, stack = Local(), LocalStack()
    local.value = 1
    stack.push(1)
    LocalManager([local, stack]).cleanup()
    assert not hasattr(local, 'value') and stack.top is None
    assert LocalManager().get_ident() == threading.get_ident()


def test_background_thread_runs_until_stopped() -> None:
    rounds = threading.Semaphore(0)

    class Worker(bgThread):
        def body(self) -> None:
            rounds.release()

    worker = Worker()
    assert worker.daemon and worker.name == 'Worker'
    worker.start()
    assert rounds.acquire(timeout=10)
    worker.stop()
    assert not worker.is_alive()


def test_socket_timeout() -> None:
    before = socket.getdefaulttimeout()
    with default_socket_timeout(7):
        assert socket.getdefaulttimeout() == 7
    assert socket.getdefaulttimeout() == before
