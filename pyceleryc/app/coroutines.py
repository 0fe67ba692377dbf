"""Bodies of ``async def`` tasks.

Each thread that runs tasks has an event loop of its own, which stays: connections of one task serve the next.
Where one loop runs many tasks at once (pool ``asyncio``) it is `pyceleryc.concurrency.eventloop` that drives them.
"""
from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

from pyceleryc.exceptions import SoftTimeLimitExceeded

__all__ = ('Driven', 'leave', 'own_part', 'run', 'strike')


class _Home(threading.local):
    """The loop of a thread."""

    loop: asyncio.AbstractEventLoop | None = None
    pid = 0

    def get(self) -> asyncio.AbstractEventLoop:
        """A fork shares the loop's descriptors with its parent: it needs another."""
        if self.loop is None or self.loop.is_closed() or self.pid != os.getpid():
            self.loop, self.pid = asyncio.new_event_loop(), os.getpid()
        return self.loop


class Driven:
    """A coroutine on its way through a loop, as a task of it that soft time limits can reach.

    :param awaitable: what an ``async def`` function returned, or another awaitable.
    :param context: what it runs in; a copy of the current context if None.
    :param name: of the loop's task.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, awaitable: Awaitable[Any],
                 context: Context | None = None, name: str | None = None) -> None:
        self.loop = loop
        self.coroutine = awaitable if inspect.iscoroutine(awaitable) else _wait_for(awaitable)
        self._limit: SoftTimeLimitExceeded | None = None
        self.task = loop.create_task(self._main(), context=context, name=name)

    async def _main(self) -> Any:
        return await self._drive(self.coroutine)

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """As ``await coroutine``, but where the limit has cancelled what it waits for it gets the limit's exception."""
        step: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                waits_for = step(value)
            except StopIteration as end:
                return end.value
            except SoftTimeLimitExceeded as exc:
                if not getattr(coroutine, 'cr_suspended', False):
                    raise
                # It was raised in this thread when the coroutine had just begun to wait.
                step, value = coroutine.throw, exc
                continue
            try:
                step, value = coroutine.send, (yield waits_for)
            except BaseException as exc:
                step, value = coroutine.throw, self._translate(exc)

    def _translate(self, exc: BaseException) -> BaseException:
        limit, self._limit = self._limit, None
        if limit is None or not isinstance(exc, asyncio.CancelledError):
            return exc
        self.task.uncancel()
        return limit

    def works(self, ident: int) -> bool:
        """Is the loop's thread, *ident*, in the code of this coroutine just now?  Then an exception raised in that thread reaches it.

        Raised in asyncio's own code it would make the loop forget whom it is to wake.
        """
        if asyncio.current_task(self.loop) is not self.task:
            return False
        frame = sys._current_frames().get(ident)
        while frame is not None and frame.f_code is not Driven._drive.__code__:
            if str(frame.f_globals.get('__name__')).partition('.')[0] == 'asyncio':
                return False
            frame = frame.f_back
        return frame is not None

    def strike(self) -> None:
        """In the loop: the soft limit has come."""
        if not self.task.done():
            self._limit = SoftTimeLimitExceeded()
            self.task.cancel()


class _Run(Driven):
    """One that has the loop for itself."""

    def end(self) -> Any:
        """Turn the loop until the coroutine has ended."""
        while True:
            try:
                return self.loop.run_until_complete(self.task)
            except BaseException as exc:
                if self.task.done() or not isinstance(exc, SoftTimeLimitExceeded):
                    raise own_part(exc)
                # Raised between two steps, in the loop's own code: what stays in the loop would go on with the next task.
                self.strike()


def own_part(exc: BaseException) -> BaseException:
    """Take the frames of the loop off a traceback: who reads it looks for the task's."""
    trace: TracebackType | None = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code is not Driven._drive.__code__:
        trace = trace.tb_next
    return exc if trace is None or trace.tb_next is None else exc.with_traceback(trace.tb_next)


_home = _Home()
_runs: dict[int, _Run] = {}


def run(coroutine: Awaitable[Any]) -> Any:
    """Run what an ``async def`` function returned; return its value."""
    if asyncio._get_running_loop() is not None:
        # An eager call within a coroutine: the loop of this thread is busy.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(copy_context().run, _run_aside, coroutine).result()
    ident = threading.get_ident()
    at = _runs[ident] = _Run(_home.get(), coroutine)
    try:
        return at.end()
    finally:
        del _runs[ident]


def _run_aside(coroutine: Awaitable[Any]) -> Any:
    try:
        return run(coroutine)
    finally:
        leave()


def leave() -> None:
    """The thread ends: its loop is not needed any more."""
    loop, _home.loop = _home.loop, None
    if loop is not None:
        loop.close()


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def strike(ident: int) -> bool:
    """Raise SoftTimeLimitExceeded in the coroutine that the thread *ident* runs.

    False if there is none, or if it does not wait but works: then an exception raised in that thread reaches it.
    """
    at = _runs.get(ident)
    if at is None or at.works(ident):
        return False
    at.loop.call_soon_threadsafe(at.strike)
    return True
