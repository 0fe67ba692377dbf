"""Becoming a daemon, and the open files that decides about."""
from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any

from pyceleryc.utils.log import iter_open_logger_fds

__all__ = ('DaemonContext', 'close_open_fds', 'fd_by_path', 'get_fdmax')

DAEMON_WORKDIR = '/'


def get_fdmax(default: Any = None) -> Any:
    """Return the limit on open files, or *default* if there is none."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def _fileno(file: Any) -> int | None:
    if isinstance(file, int):
        return file
    try:
        return int(file.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close all open files but those in *keep* (files or descriptors)."""
    kept = sorted({fd for fd in map(_fileno, keep or ()) if fd is not None})
    low = 0
    for fd in kept:
        os.closerange(low, fd)
        low = fd + 1
    # A huge limit does not mean huge descriptors, and closing them takes its time.
    os.closerange(low, min(get_fdmax(2048), 65536))


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Return the descriptors of this process that are open on any of *paths*."""
    stats = {_identity(path) for path in paths}
    return [fd for fd in range(min(get_fdmax(2048), 65536)) if _fd_identity(fd) in stats]


def _identity(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _fd_identity(fd: int) -> tuple[int, int] | None:
    try:
        info = os.fstat(fd)
    except OSError:
        return None
    return info.st_dev, info.st_ino


class DaemonContext:
    """Turns the process into a daemon; usable in a with statement.

    :param workdir: directory to change to.
    :param umask: number, or text in octal.
    :param fake: do not fork and do not touch the open files.
    :param after_chdir: called in the new directory, while errors can still be seen.
    :param after_forkers: kept for callers; processes that were forked need no call.
    """

    _is_open = False

    def __init__(
        self, pidfile: str | None = None, workdir: str | None = None, umask: Any = None,
        fake: bool = False, after_chdir: Callable[[], Any] | None = None,
        after_forkers: bool = True, **kwargs: Any,
    ) -> None:
        self.pidfile = pidfile
        self.workdir = workdir or DAEMON_WORKDIR
        self.umask = int(umask, 8) if isinstance(umask, str) else umask
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers
        self.stdfds = (sys.stdin, sys.stdout, sys.stderr)

    def redirect_to_null(self, fd: int | None) -> None:
        """Make the descriptor *fd* read and write nothing."""
        if fd is not None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            os.close(null)

    def open(self) -> None:
        """Become a daemon; done once."""
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            self._close_files()
        self._is_open = True

    __enter__ = open

    def _close_files(self) -> None:
        std = [_fileno(file) for file in self.stdfds]
        close_open_fds([*std, *iter_open_logger_fds()])
        for fd in std:
            self.redirect_to_null(fd)

    def close(self, *args: Any) -> None:
        """Mark the end; a daemon stays a daemon."""
        self._is_open = False

    __exit__ = close

    def _detach(self) -> None:
        # Twice, so that the daemon is no session leader and gets no terminal again.
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
