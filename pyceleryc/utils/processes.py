"""Which process of a pool this is."""
from __future__ import annotations

from multiprocessing import current_process
from typing import Any

__all__ = ('current_process', 'process_index', 'set_process_index')


def process_index() -> int:
    """Return the number of this pool process, counted from 1; 0 in any other process."""
    index: Any = getattr(current_process(), 'index', None)
    return 0 if index is None else int(index) + 1


def set_process_index(index: int) -> None:
    """Make this process the pool's process *index*, counted from 0 (``%i``, ``%I``)."""
    current_process().index = index  # type: ignore[attr-defined]
