"""Workers and clients of both implementations as processes, for tests of mixed fleets and of faults.

The tasks are in tests/fleet_tasks.py, written for Celery; each side runs that module unchanged.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import forks

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
READY = " ready."  # what Celery prints, too
START_TIMEOUT = 30.0
LOG_SHOWN = 6000  # characters of a worker's log, when a test fails


@functools.cache
def peer_python() -> str:
    """The interpreter of an environment with the real Celery, made at first use."""
    done = subprocess.run([str(ROOT / "tools" / "peer.sh")], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip().splitlines()[-1]


@dataclass
class Side:
    """One implementation: pyceleryc or celery."""

    name: str
    python: str

    def env(self, broker: str, backend: str | None, queue: str, **extra: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}  # of another worker
        return {**inherited, "PYTHONPATH": str(HERE), "FLEET_BROKER": broker, "FLEET_BACKEND": backend or "",
                "FLEET_QUEUE": queue, "C_FORCE_ROOT": "1", **extra}

    def client(self, script: str, env: dict[str, str], timeout: float = 60) -> Any:
        """Runs `script` (its last statement sets `result`) with `tasks` imported; returns the result from JSON."""
        prelude = "import json\n"
        if self.name == "pyceleryc":
            prelude += "import pyceleryc; pyceleryc.install_as_celery()\n"
        code = f"{prelude}import {env.get('FLEET_APP', 'fleet_tasks')} as tasks\n{script}\nprint(json.dumps(result))"
        done = forks.run(self.python, self.name, ["-c", code], env, timeout)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    @contextmanager
    def worker(self, env: dict[str, str], *options: str) -> Iterator[Worker]:
        worker = Worker(self, env, options)
        try:
            if env.get("FLEET_LOGLEVEL", "INFO") in ("INFO", "DEBUG"):  # otherwise it does not say so
                worker.wait_ready()
            yield worker
        except BaseException:
            print(f"--- log of a worker of {self.name} ---\n{worker.text()[-LOG_SHOWN:]}")
            raise
        finally:
            worker.end()


class Worker:
    """A running worker process with its own process group and log."""

    running: ClassVar[list[Worker]] = []

    def __init__(self, side: Side, env: dict[str, str], options: tuple[str, ...] = ()) -> None:
        out, path = tempfile.mkstemp(prefix=f"{side.name}-worker-", suffix=".log")
        self.log = Path(path)
        quiet = [] if "FLEET_CHATTY" in env else ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        base = [*quiet, "-l", env.get("FLEET_LOGLEVEL", "INFO")]
        if "-n" not in options:  # two nodes of one name disturb each other
            base += ["-n", f"{side.name}-{self.log.stem[-8:]}@%h"]
        command = [side.python, "-m", side.name, "-A", env.get("FLEET_APP", "fleet_tasks"), "worker", *base, *(options or ("-c", "2"))]
        try:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        finally:
            os.close(out)
        self.running.append(self)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = START_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.text():
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s:\n{self.text()[-4000:]}"
            time.sleep(0.02)

    def wait_ready(self) -> None:
        self.wait_for(READY)

    def kill_group(self) -> None:
        """As a power cut for this worker: parent and children at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 30) -> int:
        self.process.send_signal(signum)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end within {timeout} s:\n{self.text()[-4000:]}") from None

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill_group()
        self.log.unlink(missing_ok=True)
        if self in self.running:
            self.running.remove(self)


def ours() -> Side:
    return Side("pyceleryc", sys.executable)


def theirs() -> Side:
    return Side("celery", peer_python())
