"""A debugger for tasks, spoken to by telnet: where a task runs there is no terminal (FEATURES 2.13).

::

    from celery.contrib import rdb

    @app.task
    def add(x, y):
        result = x + y
        rdb.set_trace()
        return result

The log says where to connect.  ``CELERY_RDB_HOST`` (default 127.0.0.1: whoever can connect can do anything) and
``CELERY_RDB_PORT`` (6899, or the next one that is free) in the environment say where to listen.  With ``CELERY_RDBSIG``
set, ``kill -USR2`` does the same to the worker's main process.
"""
from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pdb import Pdb
from types import FrameType
from typing import Any

from pyceleryc.utils.log import get_logger
from pyceleryc.utils.processes import current_process

__all__ = ('Rdb', 'debugger', 'set_trace')

logger = get_logger(__name__)

HOST, PORT = '127.0.0.1', 6899
#: So many ports are tried.
RANGE = 100
#: Seconds to wait for somebody; the task would hang for ever otherwise.
WAIT = 3600.0


class Rdb(Pdb):
    """Waits for a connection, and is a Pdb on it.

    :param host, port: where to listen, default: what the environment says.
    :param wait: seconds to wait for somebody.
    :raises OSError: no port is free.
    :raises TimeoutError: nobody came.
    """

    def __init__(self, host: str | None = None, port: int | None = None, wait: float = WAIT) -> None:
        with _listen(host or os.environ.get('CELERY_RDB_HOST') or HOST,
                     port or int(os.environ.get('CELERY_RDB_PORT') or PORT)) as listener:
            self.address: tuple[str, int] = listener.getsockname()[:2]
            listener.settimeout(wait)
            name = current_process().name
            logger.warning('Debugger of %s (pid %d) is waiting: telnet %s %d', name, os.getpid(), *self.address)
            self._client, peer = listener.accept()
        self._client.settimeout(None)
        logger.warning('Debugger of %s is used from %s', name, peer[0])
        # Two files: a text file that is written to forgets what it has read ahead.
        self._files = self._client.makefile('r', newline=None), self._client.makefile('w', newline='\n')
        super().__init__(stdin=self._files[0], stdout=self._files[1], nosigint=True)
        self.prompt = f'({name}) '

    def close(self) -> None:
        """Hang up; the task goes on."""
        for file in self._files:
            with suppress(OSError):
                file.close()
        self._client.close()

    def set_continue(self) -> None:
        """Go on; without breakpoints nobody needs the line any more."""
        super().set_continue()
        if not self.breaks:
            self.close()

    def set_quit(self) -> None:
        """``quit``, or the line is dead: go on without a debugger, a task is nobody's to end."""
        self.clear_all_breaks()
        super().set_continue()
        self.close()


def _listen(host: str, port: int) -> socket.socket:
    for number in range(port, port + RANGE):
        listener = socket.socket()
        try:
            listener.bind((host, number))
            listener.listen(1)
        except OSError as exc:
            listener.close()
            reason = exc
        else:
            return listener
    raise OSError(f'the debugger finds no free port at {host} from {port} to {number}, set CELERY_RDB_PORT: {reason}')


def debugger() -> Rdb:
    """Return a new debugger, once somebody has connected."""
    return Rdb()


def set_trace(frame: FrameType | None = None) -> Any:
    """Wait for somebody to connect, and stop there.

    :param frame: where; default: the caller's.
    """
    return debugger().set_trace(frame or sys._getframe(1))
