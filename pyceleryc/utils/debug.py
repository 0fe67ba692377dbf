"""Looking into a running process: stacks and memory."""
from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

__all__ = ('blockdetection', 'hfloat', 'humanbytes', 'mem_rss', 'cry')

UNITS = ((2 ** 40, 'TB'), (2 ** 30, 'GB'), (2 ** 20, 'MB'), (2 ** 10, 'KB'), (0, 'b'))


@contextmanager
def blockdetection(timeout: int | None) -> Iterator[None]:
    """Raise RuntimeError in the main thread when the block takes *timeout* seconds."""
    if not timeout:
        yield
        return

    def on_alarm(signum: int, frame: Any) -> None:
        raise RuntimeError(f'blocking detection: still busy after {timeout}s')

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(timeout)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def hfloat(f: float, p: int = 5) -> str:
    """Format a number with *p* significant digits."""
    return f'{f:.{p}g}'


def humanbytes(s: float) -> str:
    """Format a number of bytes: ``1.5MB``."""
    size, unit = next((size, unit) for size, unit in UNITS if s >= size)
    return f'{hfloat(s / size if size else s)}{unit}'


def mem_rss() -> str | None:
    """Return the memory that this process has in RAM, for people; None if unknown."""
    try:
        with open('/proc/self/statm') as statm:
            pages = int(statm.read().split()[1])
    except OSError:
        return None
    return humanbytes(pages * os.sysconf('SC_PAGE_SIZE'))


def cry(out: Any = None, sepchr: str = '=', seplen: int = 49) -> str | None:
    """Write the stacks of all threads to *out*, or return them."""
    sink = StringIO() if out is None else out
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        print(names.get(ident, ident), file=sink)
        print(sepchr * seplen, file=sink)
        traceback.print_stack(frame, file=sink)
        print(sepchr * seplen + '\n', file=sink)
    return sink.getvalue() if out is None else None
