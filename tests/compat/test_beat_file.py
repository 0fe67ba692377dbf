"""The schedule file of one implementation, read by the other: when a task ran last is kept when projects move, and move back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
name, action = sys.argv[1:]
if name == "pyceleryc":
    import pyceleryc
    pyceleryc.install_as_celery()
from datetime import timedelta
from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab

app = Celery("file", broker="memory://")
app.conf.beat_schedule = {"a": {"task": "t", "schedule": crontab(5, 4), "args": (1,)}, "b": {"task": "t", "schedule": timedelta(hours=2)}}
scheduler = PersistentScheduler(app, schedule_filename="schedule")
if action == "write":
    for entry in list(scheduler.schedule.values()):
        for _ in range(3):
            entry = scheduler.reserve(entry)
print(sorted((entry.name, entry.total_run_count, str(entry.last_run_at), repr(entry.schedule)) for entry in scheduler.schedule.values()
             if entry.name in "ab"))
scheduler.close()
"""


def run(python: str, name: str, action: str, directory: Path) -> str:
    done = subprocess.run([python, "-c", SCRIPT, name, action], cwd=directory, env={**os.environ, "PYTHONWARNINGS": "ignore"},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("ours_first", [True, False])
def test_last_runs_survive_the_move(peer_python: str, tmp_path: Path, ours_first: bool) -> None:
    sides = [(sys.executable, "pyceleryc"), (peer_python, "celery")]
    first, second = sides if ours_first else sides[::-1]
    written = run(*first, "write", tmp_path)
    assert "('a', 3, " in written
    assert run(*second, "read", tmp_path) == written
    assert run(*first, "read", tmp_path) == written
