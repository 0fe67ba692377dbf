"""Signals of the process, while the machine waits in C."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Any

__all__ = ("Wakeup",)


class Wakeup:
    """Lets signals end the machine's wait; only the main thread may set that up, others don't get signals."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.ends: tuple[socket.socket, socket.socket] | None = None
        self.before = -1

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.ends = socket.socketpair()
        for end in self.ends:
            end.setblocking(False)
        self.before = signal.set_wakeup_fd(self.ends[1].fileno(), warn_on_full_buffer=False)
        self.core.wakeup_fd(self.ends[0].fileno())

    def __exit__(self, *exc: object) -> None:
        if self.ends is None:
            return
        signal.set_wakeup_fd(self.before)
        for end in self.ends:
            end.close()
