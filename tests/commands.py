"""Runs `pyceleryc` commands as processes, beside a small project; fixtures for the tests that do."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import forks

READY = "ready."
ROOT = Path(__file__).parents[1]

PROJECT = '''
import os, time
from celery import Celery

app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ.get("BACKEND"))
app.conf.task_default_queue = os.environ.get("QUEUE", "celery")


@app.task
def add(x, y):
    return x + y


@app.task
def slow(seconds):
    print("slow begins")
    time.sleep(seconds)
    return seconds


@app.task
def wrong():
    raise KeyError("b")
'''
DRIVER = "import pyceleryc; pyceleryc.install_as_celery(); import proj; "


class Command:
    """A running `pyceleryc` command; its output is read as it comes."""

    running: ClassVar[list[Command]] = []

    def __init__(self, project: Path, *arguments: str, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pyceleryc", *arguments], cwd=project, env=env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self.running.append(self)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """The first line from now on that contains the text."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{text!r} did not come; the output:\n{''.join(self.seen)}")
            self.seen.append(line)
            if text in line:
                return line

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self, timeout: float = 30) -> int:
        """The exit code; `output` is complete then."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout} s; the output:\n{self.text()}") from None
        while (line := self.lines.get(timeout=30)) is not None:
            self.seen.append(line)
        return code

    def text(self) -> str:
        """All that it has said up to now."""
        while not self.lines.empty():
            if (line := self.lines.get()) is None:
                self.lines.put(None)
                break
            self.seen.append(line)
        return self.output

    @property
    def output(self) -> str:
        return "".join(self.seen)

    def kill(self) -> None:
        if self in self.running:
            self.running.remove(self)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


Start = Callable[..., Command]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    """Starts commands in the project's directory, on an SQLite file unless BROKER says something else."""
    started: list[Command] = []
    database = f"sqlite:///{project}/tasks.db"

    def begin(*arguments: str, **environment: str) -> Command:
        started.append(Command(project, *arguments, **{"BROKER": database, "BACKEND": database, **environment}))
        return started[-1]

    yield begin
    for command in started:
        command.kill()


@pytest.fixture
def worker(start: Start) -> Start:
    def begin(*arguments: str, **environment: str) -> Command:
        return start("-A", "proj", "worker", "-c", "1", "-l", "INFO", *arguments, **environment)

    return begin


@pytest.fixture
def python(project: Path) -> Callable[[str], str]:
    """Runs code beside the project, with `proj` imported; what it prints."""

    def run(code: str) -> str:
        database = f"sqlite:///{project}/tasks.db"
        env = {**os.environ, "BROKER": database, "BACKEND": database, "PYTHONPATH": f"{ROOT}:{project}"}
        done = forks.run(sys.executable, "pyceleryc", ["-c", DRIVER + code], env, cwd=project)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


Python = Callable[[str], str]


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
