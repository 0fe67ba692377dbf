"""What the examples need to demonstrate themselves: a place for their data, and a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_directory() -> Path:
    """EXAMPLES_DATA, or the current directory."""
    return Path(os.environ.get("EXAMPLES_DATA", ".")).absolute()


def queue_url() -> str:
    """Broker and results of the examples: one SQLite file."""
    return f"sqlite:///{data_directory()}/examples.db"


@contextmanager
def demonstration(module: str) -> Iterator[None]:
    """Within it a worker runs the example `module`."""
    command = [sys.executable, "-m", "pyceleryc", "-A", module, "worker", "-l", "WARNING", "-c", "2"]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        stop(worker)


def stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        code = worker.wait(10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        sys.exit("the worker did not end within 10 s after SIGTERM")
    if code != 0:
        sys.exit(f"the worker's exit code is {code}")


def prepare() -> tempfile.TemporaryDirectory[str]:
    """Before `celery` is imported by an example that is run as a program: lets that be pyceleryc, and makes a directory for
    the data, which goes away with the object that is returned."""
    from pyceleryc import install_as_celery  # programs that only import an example have their own celery

    install_as_celery()
    scratch = tempfile.TemporaryDirectory(prefix="pyceleryc-example-")
    os.environ["EXAMPLES_DATA"] = scratch.name
    sys.path.insert(0, str(ROOT))
    return scratch
