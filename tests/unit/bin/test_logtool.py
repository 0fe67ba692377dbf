"""What logtool reads out of the log files of workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyceleryc.bin.celery import main

LOG = """\
a warning before logging was set up
[2026-01-02 03:04:05,678: INFO/MainProcess] w1@h ready.
[2026-01-02 03:04:05,680: INFO/MainProcess] Task proj.add[id-1] received
[2026-01-02 03:04:05,680: INFO/MainProcess] Task proj.add[id-2] received
[2026-01-02 03:04:05,680: INFO/MainProcess] Task proj.bad[id-3] received
[2026-01-02 03:04:05,690: INFO/MainProcess] Task proj.again[id-4] received
[2026-01-02 03:04:05,690: INFO/ForkPoolWorker-1] Task proj.add[id-1] succeeded in 0.5s: 3
[2026-01-02 03:04:05,690: INFO/ForkPoolWorker-1] Task proj.again[id-4] retry: Retry in 1s: KeyError('x')
Traceback (most recent call last):
  File "a.py", line 1, in again
KeyError: 'x'
[2026-01-02 03:04:06,690: INFO/MainProcess] Task proj.again[id-4] received
[2026-01-02 03:04:06,691: ERROR/ForkPoolWorker-1] Task proj.bad[id-3] raised unexpected: KeyError('b')
Traceback (most recent call last):
  File "a.py", line 2, in bad
KeyError: 'b'
[2026-01-02 03:04:06,692: INFO/ForkPoolWorker-1] Task proj.again[id-4] succeeded in 1.5s: None
[2026-01-02 03:04:06,693: INFO/MainProcess] Task proj.add[id-5] received
[2026-01-02 03:04:06,693: INFO/MainProcess] Discarding revoked task: proj.add[id-5]
[2026-01-02 03:04:06,693: INFO/MainProcess] Task proj.long[id-6] received
[2026-01-02 03:04:06,693: ERROR/MainProcess] Hard time limit (3s) exceeded for proj.long[id-6]
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "w1.log").write_text(LOG)
    return tmp_path / "w1.log"


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["logtool", *map(str, arguments)], input=given)


def test_stats(log: Path) -> None:
    done = run("stats", "--json", str(log))
    assert done.exit_code == 0
    assert json.loads(done.output) == {
        "total": 6, "completed": 5, "success": 2, "errors": 2, "retried": 1, "incomplete": 1,
        "tasks": {"proj.add": {"total": 3, "seconds": 0.5}, "proj.bad": {"total": 1, "seconds": None},
                  "proj.again": {"total": 1, "seconds": 1.5}, "proj.long": {"total": 1, "seconds": None}}}


def test_the_files_of_a_worker_in_any_order(log: Path, tmp_path: Path) -> None:
    lines = LOG.splitlines(keepends=True)
    parts = [tmp_path / name for name in ("w1-1.log", "w1.log")]
    parts[0].write_text("".join(line for line in lines if "ForkPool" in line))
    parts[1].write_text("".join(line for line in lines if "MainProcess" in line))
    text = run("stats", *map(str, parts)).output
    assert "Task total: 6\n" in text and "Task incomplete: 1\n" in text and "      3      0.500000  proj.add" in text


def test_from_a_pipe() -> None:
    assert run("incomplete", given=LOG).output == "Did not complete: id-2\n"


def test_errors_and_traces(log: Path) -> None:
    assert [line.split("] ", 1)[1] for line in run("errors", str(log)).output.splitlines()] == [
        "Task proj.bad[id-3] raised unexpected: KeyError('b')", "Hard time limit (3s) exceeded for proj.long[id-6]"]
    traces = run("traces", str(log)).output
    assert traces.count("Traceback") == 2 and "KeyError: 'b'" in traces and "ready" not in traces


def test_debug_leaves_the_tasks_out(log: Path) -> None:
    assert run("debug", str(log)).output.splitlines() == [
        "a warning before logging was set up", "[2026-01-02 03:04:05,678: INFO/MainProcess] w1@h ready."]


def test_binary_rubbish(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(bytes(range(256)) * 10)
    done = run("stats", str(tmp_path / "x.log"))
    assert done.exit_code == 0 and "Task total: 0" in done.output


def test_missing_file() -> None:
    done = run("stats", "nowhere.log")
    assert done.exit_code == 2 and "nowhere.log" in done.output
