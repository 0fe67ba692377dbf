"""Several hundred crontabs in five time zones over two years: pyceleryc answers as Celery does.

Where the clocks are changed it does better (docs/DIFFERENCES.md), so answers that touch a change are left to
tests/unit/test_schedules.py, and only those.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

SCRIPT = Path(__file__).with_name("crontab_simulation.py")
START = datetime(2024, 1, 1, tzinfo=timezone.utc)
NEAR = 5 * 3600  # seconds before and after a change of the clocks

Answer = tuple[str, str, int, int, float, bool, float]


def begin(python: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([python, str(SCRIPT), name], stdout=subprocess.PIPE, text=True)


def answers(process: subprocess.Popen[str]) -> list[Answer]:
    output, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    return [tuple(answer) for answer in json.loads(output)]


def near_change(second: float, zone: str) -> bool:
    moment = START + timedelta(seconds=second)
    offsets = {(moment + timedelta(seconds=distance)).astimezone(ZoneInfo(zone)).utcoffset()
               for distance in (-NEAR, 0, NEAR)}
    return len(offsets) > 1


def touches_change(answer: Answer) -> bool:
    """Whether the last run, the moment of asking or one of the runs spoken of is near a change."""
    _, zone, second, delay, remaining, _, pause = answer
    return any(near_change(moment, zone) for moment in
               (second, second + remaining, second + delay, second + delay + pause))


def forgets_a_run(our: Answer, their: Answer) -> bool:
    """Whether Celery says that a run is to come, and when it has come, on another day, that none is due."""
    _, zone, second, delay, remaining, due, _ = their
    days = {(START + timedelta(seconds=moment)).astimezone(ZoneInfo(zone)).date() for moment in (second, second + delay)}
    return our[:5] == their[:5] and remaining <= delay and len(days) == 2 and our[5] and not due


def test_same_answers(peer_python: str) -> None:
    both = begin(sys.executable, "pyceleryc"), begin(peer_python, "celery")
    ours, theirs = map(answers, both)
    assert len(ours) == len(theirs) == 400 * 50
    different = [(our, their) for our, their in zip(ours, theirs, strict=True) if our != their]
    unexplained = [pair for pair in different if not any(map(touches_change, pair)) and not forgets_a_run(*pair)]
    assert unexplained == []
    # They are few, or the rule above would excuse too much.
    assert 0 < len(different) < len(ours) / 50
