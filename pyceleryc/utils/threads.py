"""Threads and what belongs to one thread, greenlet or asyncio task."""
from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from threading import TIMEOUT_MAX as THREAD_TIMEOUT_MAX
from typing import Any

__all__ = (
    'bgThread', 'Local', 'LocalStack', 'LocalManager', 'get_ident', 'default_socket_timeout',
    'THREAD_TIMEOUT_MAX',
)

get_ident = threading.get_ident


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Use *timeout* (seconds) for sockets that are made inside the block."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


class bgThread(threading.Thread):  # the public name
    """A daemon thread that calls :meth:`body` until :meth:`stop`."""

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True, **kwargs)
        self.__shutdown = threading.Event()
        self.__stopped = threading.Event()

    def body(self) -> None:
        """Do one round of work.  To be defined by the subclass."""
        raise NotImplementedError(f'{type(self).__name__} must define body()')

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Report an exception that left :meth:`body`; the process exits afterwards."""
        print(msg.format(*fmt), file=sys.stderr)
        traceback.print_exc(None, sys.stderr)

    def run(self) -> None:
        try:
            while not self.__shutdown.is_set():
                self._round()
        finally:
            self.__stopped.set()

    def _round(self) -> None:
        try:
            self.body()
        except Exception as exc:
            try:
                self.on_crash('{0!r} crashed: {1!r}', self.name, exc)
            finally:
                sys.stderr.flush()
                # A worker without one of its threads would hang, so it ends instead.
                os._exit(1)

    def stop(self) -> None:
        """Ask the thread to end and wait for it."""
        self.__shutdown.set()
        self.__stopped.wait()
        if self.is_alive() and self is not threading.current_thread():
            self.join(THREAD_TIMEOUT_MAX)


class LocalStack:
    """A stack of which every thread, greenlet and asyncio task sees its own.

    It is kept in a context variable as an immutable tuple, so that coroutines
    that run interleaved in one thread do not see each other's entries.
    """

    __slots__ = ('_var',)

    def __init__(self) -> None:
        self._var: ContextVar[tuple[tuple[Any, Token[Any] | None], ...]] = ContextVar('stack')

    def push(self, obj: Any) -> None:
        """Put *obj* on top."""
        entries = self._var.get(())
        token = self._var.set((*entries, (obj, None)))
        if not entries:
            # The first entry keeps the token that empties the context again.
            self._var.set(((obj, token),))

    def pop(self) -> Any:
        """Take the top entry off and return it; None if there is none."""
        entries = self._var.get(())
        if not entries:
            return None
        obj, token = entries[-1]
        if token is None:
            self._var.set(entries[:-1])
        else:
            self._forget(token)
        return obj

    def _forget(self, token: Token[Any]) -> None:
        try:
            # reset() instead of set(()) lets the context drop its reference to us.
            self._var.reset(token)
        except (ValueError, RuntimeError):
            # Popped in another context than it was pushed in (a coroutine).
            self._var.set(())

    @property
    def top(self) -> Any:
        """The newest entry, or None."""
        entries = self._var.get(())
        return entries[-1][0] if entries else None

    @property
    def stack(self) -> list[Any]:
        """A copy of the entries, oldest first."""
        return [obj for obj, _ in self._var.get(())]

    def __len__(self) -> int:
        return len(self._var.get(()))

    def __bool__(self) -> bool:
        return True

    def __call__(self) -> Any:
        """Return the top entry; RuntimeError if there is none."""
        if not len(self):
            raise RuntimeError('object unbound: the stack is empty')
        return self.top

    def __release_local__(self) -> None:
        while len(self):
            self.pop()


_LocalStack = _FastLocalStack = LocalStack


class Local(threading.local):
    """Attributes of which every thread (and greenlet) has its own."""

    def __release_local__(self) -> None:
        self.__dict__.clear()


def release_local(local: Any) -> None:
    """Forget what *local* holds for this thread."""
    local.__release_local__()


class LocalManager:
    """Cleans several locals at once.

    :param locals: the locals; more may be appended to :attr:`locals`.
    """

    def __init__(
        self, locals: Any = None,  # the public name
        ident_func: Callable[[], int] | None = None,
    ) -> None:
        if locals is None:
            self.locals = []
        else:
            self.locals = list(locals) if isinstance(locals, (list, tuple)) else [locals]
        self.ident_func = ident_func or get_ident

    def get_ident(self) -> int:
        """Return the identity of this thread."""
        return self.ident_func()

    def cleanup(self) -> None:
        """Release every local for this thread."""
        for local in self.locals:
            release_local(local)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} storages: {len(self.locals)}>'
