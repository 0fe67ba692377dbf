"""Files with a line for each run of a task; tests/fleet_tasks.py writes them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path


def ran(marks: Path) -> Counter[int]:
    """How often each number has run."""
    return Counter(int(line) for line in marks.read_text().split())


def wait_all(marks: Path, count: int, timeout: float) -> Counter[int]:
    """As ran(), when `count` different numbers have run."""
    deadline = time.monotonic() + timeout
    while len(seen := ran(marks)) < count:
        assert time.monotonic() < deadline, f"only {len(seen)} of {count} tasks ran"
        time.sleep(0.05)
    return seen
