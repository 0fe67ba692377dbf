"""A full disk under every file that workers, beat and the tools write: a message, an exit code, no crash, nothing lost.

Needs root: it mounts a tmpfs of 64 KiB.  `.venv/bin/python tests/soak/soak_full_disk.py`
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = '''
from celery import Celery
app = Celery("full", broker="sqlite:///{0}/queue.db", backend="sqlite:///{0}/queue.db")
app.conf.beat_schedule = {{"often": {{"task": "full.add", "schedule": 0.5, "args": (1, 1)}}}}
@app.task
def add(x, y): return x + y
'''


class Disk:
    """A directory that can be filled to the last byte."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with open(self.path / "ballast", "wb", buffering=0) as file:
            for size in (4096, 512, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "ballast").unlink()


@contextmanager
def small_disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"needs root and the right to mount: {done.stderr.strip()}")
        try:
            yield Disk(Path(directory))
        finally:
            subprocess.run(["umount", directory], check=True)


class Run:
    """A command of pyceleryc; its output goes to a file."""

    def __init__(self, home: Path, *arguments: object) -> None:
        self.output = home / "output"
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "pyceleryc", "-A", "full", *map(str, arguments)], cwd=home, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, what: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + 20
        while not what():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"{name} did not happen:\n{self.text}")
            time.sleep(0.05)

    def says(self, text: str) -> None:
        self.wait_for(lambda: text in self.text, text)

    def end(self, expected: int, *says: str, signum: int | None = None) -> None:
        if signum is not None:
            self.process.send_signal(signum)
        code = self.process.wait(20)
        assert code == expected, f"exit code {code} instead of {expected}:\n{self.text}"
        for text in says:
            assert text in self.text, f"{text!r} is missing:\n{self.text}"
        assert "Traceback" not in self.text, self.text


def pidfiles(home: Path, disk: Disk) -> None:
    disk.fill()
    for command in (["worker"], ["worker", "-D"], ["beat"], ["beat", "--detach"]):
        Run(home, *command, "--pidfile", disk.path / "x.pid").end(1, "cannot write pidfile", "No space left")
    Run(home, "multi", "start", "w1", f"--pidfile={disk.path}/%n.pid", f"--logfile={home}/%n.log").end(1, "FAILED (exit code 1)")
    assert [path.name for path in disk.path.iterdir()] == ["ballast"]


def log(home: Path, disk: Disk) -> None:
    """Tasks run while nothing can be logged, and logging goes on when there is room."""
    disk.fill()
    run = Run(home, "worker", "-c", "1", "-l", "INFO", "-f", disk.path / "w.log")
    assert call(home, wait=True) == "2"
    disk.free()
    assert call(home, wait=True) == "2"
    run.wait_for(lambda: "succeeded" in (disk.path / "w.log").read_text(), "a line in the log")
    run.end(0, signum=signal.SIGTERM)


def state(home: Path, disk: Disk) -> None:
    """What was stored before stays."""
    run = Run(home, "worker", "-c", "1", "-l", "INFO", "-S", disk.path / "w.state")
    run.says("ready.")
    run.end(0, signum=signal.SIGTERM)
    before = stored(disk)
    run = Run(home, "worker", "-c", "1", "-l", "INFO", "-S", disk.path / "w.state")
    run.says("ready.")
    disk.fill()
    run.end(0, "Cannot store the ids of revoked tasks", "No space left", signum=signal.SIGTERM)
    assert stored(disk) == before


def stored(disk: Disk) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in disk.path.iterdir() if path.name != "ballast"}


def schedule(home: Path, disk: Disk) -> None:
    disk.fill()
    run = Run(home, "beat", "-s", disk.path / "schedule", "-l", "INFO")
    run.says("Cannot store the schedule")
    run.says("Sending due task often")
    run.end(0, signum=signal.SIGTERM)


def queue(home: Path, disk: Disk) -> None:
    """The broker's own file: tried again until there is room."""
    disk.fill()
    url = f"sqlite:///{disk.path}/queue.db"
    run = Run(home, "-b", url, "worker", "-c", "1", "-l", "INFO")
    run.says("Cannot connect to")
    run.end(0, signum=signal.SIGTERM)
    sent = Run(home, "-b", url, "call", "full.add", "-a", "[1, 1]")
    sent.end(1, "cannot send full.add")


def settings(home: Path, disk: Disk) -> None:
    source = "BROKER_URL = 'x'\n"
    (disk.path / "settings.py").write_text(source)
    disk.fill()
    Run(home, "upgrade", "settings", disk.path / "settings.py").end(1, "cannot upgrade")
    assert (disk.path / "settings.py").read_text() == source


def call(home: Path, wait: bool = False) -> str:
    code = "import pyceleryc; pyceleryc.install_as_celery(); import full; print(full.add.delay(1, 1).get(timeout=20))"
    done = subprocess.run([sys.executable, "-c", code], cwd=home, text=True, capture_output=True, check=True,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{home}"})
    return done.stdout.strip()


def main() -> None:
    for case in (pidfiles, log, state, schedule, queue, settings):
        with tempfile.TemporaryDirectory() as directory, small_disk() as disk:
            home = Path(directory)
            (home / "full.py").write_text(PROJECT.format(directory))
            case(home, disk)
        print(f"{case.__name__}: well", flush=True)


if __name__ == "__main__":
    main()
