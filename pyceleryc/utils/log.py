"""Loggers and their parts (T-092..T-095)."""
from __future__ import annotations

import logging
import multiprocessing.util
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kombu.log import LOG_LEVELS
from kombu.log import get_logger as _get_logger

from pyceleryc.utils.processes import current_process, process_index
from pyceleryc.utils.term import colored

__all__ = (
    'ColorFormatter', 'LoggingProxy', 'base_logger', 'task_logger', 'worker_logger',
    'set_in_sighandler', 'in_sighandler', 'get_logger', 'get_task_logger', 'mlevel',
    'get_multiprocessing_logger', 'reset_multiprocessing_logger', 'LOG_LEVELS',
    'current_process', 'current_process_index', 'iter_open_logger_fds', 'logger_isa',
)

RESERVED_LOGGER_NAMES = frozenset({'celery', 'celery.task'})

# With a handler that does nothing: a program that has not set up logging gets no tracebacks of eager tasks on stderr.
base_logger: logging.Logger = _get_logger('celery')
worker_logger = logging.getLogger('celery.worker')
task_logger = logging.getLogger('celery.task')

#: True while a signal handler runs: then nothing may wait for the lock of a handler.
_in_sighandler: ContextVar[bool] = ContextVar('in_sighandler', default=False)


def set_in_sighandler(value: bool) -> None:
    """Say whether a signal handler is running."""
    _in_sighandler.set(value)


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Mark the block as being a signal handler; writes to stdout are dropped meanwhile."""
    token = _in_sighandler.set(True)
    try:
        yield
    finally:
        _in_sighandler.reset(token)


def mlevel(level: Any) -> Any:
    """Return the number of a log level given by name (any case) or number."""
    return LOG_LEVELS[level.upper()] if level and not isinstance(level, int) else level


def logger_isa(l: Any, p: logging.Logger, max: int = 1000) -> bool:
    """Tell whether *l* is *p* or below it.

    :raises RuntimeError: more than *max* parents, so there must be a loop.
    """
    this = l
    for _ in range(max):
        if this is p or not this:
            return this is p
        this = this.parent
    raise RuntimeError(f'Logger hierarchy exceeds {max}: is there a loop?')


def _with_parent(parent: logging.Logger, logger: logging.Logger) -> logging.Logger:
    if logger is not parent and not logger_isa(logger, parent):
        logger.parent = parent
    return logger


def get_logger(name: Any) -> logging.Logger:
    """Return the logger called *name*; under ``celery``, if not right below the root (T-094)."""
    logger: logging.Logger = _get_logger(name)
    if logging.root in (logger, logger.parent):
        return logger
    return _with_parent(base_logger, logger)


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for tasks: its lines name the task that runs (T-093).

    :raises RuntimeError: *name* is that of a logger of the library.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f'Logger name {name!r} is reserved! Use __name__ instead.')
    return _with_parent(task_logger, get_logger(name))


def current_process_index(base: int = 1) -> int | None:
    """Return the number of this pool process, counted from *base*; None outside a pool."""
    index = process_index()
    return index - 1 + base if index else None


def iter_open_logger_fds() -> Iterator[Any]:
    """Yield the files that log handlers write to, so that daemons keep them open."""
    seen: set[int] = set()
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, 'handlers', ()):
            stream = getattr(handler, 'stream', None)
            if stream is not None and id(stream) not in seen:
                seen.add(id(stream))
                yield stream


def get_multiprocessing_logger() -> logging.Logger:
    """Return the logger of :mod:`multiprocessing`."""
    return multiprocessing.util.get_logger()


def reset_multiprocessing_logger() -> None:
    """Remove the handlers of that logger."""
    get_multiprocessing_logger().handlers.clear()


class ColorFormatter(logging.Formatter):
    """A formatter with colours by level.

    :param fmt: format of the lines.
    :param use_color: False leaves colours out.
    """

    COLORS: dict[str, Callable[..., colored]] = {
        name: getattr(colored(), name)
        for name in ('black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white')
    }
    colors: dict[str, Callable[..., colored]] = {
        'DEBUG': COLORS['blue'], 'WARNING': COLORS['yellow'], 'ERROR': COLORS['red'],
        'CRITICAL': COLORS['magenta'],
    }

    def __init__(self, fmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt)
        self.use_color = use_color

    def formatException(self, ei: Any) -> str:  # the method of the base class
        if ei and not isinstance(ei, tuple):
            ei = sys.exc_info()
        return super().formatException(ei)

    def format(self, record: logging.LogRecord) -> str:
        paint = self.colors.get(record.levelname) if self.use_color else None
        if paint is None:
            return super().format(record)
        message, args = record.msg, record.args
        try:
            return str(paint(super().format(record)))
        except Exception as exc:
            record.msg = f'<Unrepresentable {type(message)!r}: {exc!r}>'
            record.args = None
            return super().format(record)
        finally:
            record.msg, record.args = message, args


class LoggingProxy:
    """A file that writes to a logger; stands in for stdout and stderr (T-095).

    :param loglevel: level of the lines, that of the logger by default.
    """

    mode = 'w'
    name: str | None = None
    closed = False
    encoding = 'utf-8'
    errors = 'replace'
    loglevel: int = logging.ERROR

    #: Set while this thread is in write(): a handler that prints must not come back.
    _thread = threading.local()

    def __init__(self, logger: logging.Logger, loglevel: Any = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or self.logger.level or self.loglevel)
        for handler in self.logger.handlers:
            self._protect(handler)

    def _protect(self, handler: logging.Handler) -> None:
        # The usual handleError prints to sys.stderr, which may be this object.
        def handle_error(record: logging.LogRecord) -> None:
            try:
                traceback.print_exc(None, sys.__stderr__)
            except OSError:
                # The terminal is gone; there is nobody to tell.
                return

        handler.handleError = handle_error  # type: ignore[method-assign]

    def write(self, data: str | bytes) -> int:
        """Log *data*, if there is more to it than ends of lines; return its length."""
        if _in_sighandler.get():
            # The handler may have interrupted a thread that holds the log's lock.
            print(data, file=sys.__stderr__)
            return len(data)
        if getattr(self._thread, 'recurse', False) or self.closed:
            return 0
        text = data.decode(errors='replace') if isinstance(data, bytes) else data
        self._thread.recurse = True
        try:
            # One record for what was written at once, as it was written.
            if line := text.rstrip('\r\n'):
                self.logger.log(self.loglevel, line)
        finally:
            self._thread.recurse = False
        return len(data)

    def writelines(self, sequence: Iterable[str]) -> None:
        """Log each string."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """There is no buffer: files must have this method."""
        return None

    def close(self) -> None:
        """Ignore what is written from now on."""
        self.closed = True

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def readable(self) -> bool:
        """It cannot be read."""
        return False
