"""Stops a process so that it really does nothing more; for tests and for tasks that tests run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def freeze(pid: int, timeout: float = 30) -> None:
    """SIGSTOP: returns when each thread has stopped, which is not at once on a busy machine."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + timeout
    while not all(is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def is_stopped(thread: Path) -> bool:
    try:
        state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:  # it has ended
        return True
    return state in "TtZX"
