"""A small project, and a demonstration: `python examples/demo.py` runs a worker for it and gives it work.

The first half is what any Celery project looks like; it says `celery` and runs with pyceleryc unchanged. By hand:

    pyceleryc -A examples.demo worker -l INFO      # in one terminal, at the root of the repository
    pyceleryc -A examples.demo shell           # in another: add.delay(2, 3).get()

Broker and results are one SQLite file, so nothing needs to be installed or started. DEMO_DB says where (default: ./demo.db).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the pyceleryc command does this for the worker
    from pyceleryc import install_as_celery

    install_as_celery()
    SCRATCH = tempfile.TemporaryDirectory(prefix="pyceleryc-demo-")  # goes away with this process
    os.environ.setdefault("DEMO_DB", os.path.join(SCRATCH.name, "demo.db"))

from celery import Celery

DATABASE = f"sqlite:///{Path(os.environ.get('DEMO_DB', 'demo.db')).absolute()}"
app = Celery("examples.demo", broker=DATABASE, backend=DATABASE)


@app.task
def add(x: int, y: int) -> int:
    """The plainest of tasks."""
    return x + y


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_kwargs={"max_retries": 3, "countdown": 0.2})
def flaky(self: Any, failures: int) -> str:
    """Fails a few times, as the network does; retried each time."""
    if self.request.retries < failures:
        raise ConnectionError("nobody answers")
    return f"after {self.request.retries} retries"


@app.task
def later(sent: float) -> float:
    """Called with a countdown: how many seconds after it was sent did it run?"""
    return time.time() - sent


@app.task(throws=(ValueError,))
def fails(text: str) -> None:
    """Its exception arrives at whoever asks for the result; it is expected, so the log has no traceback."""
    raise ValueError(text)


@app.task(bind=True)
def upload(self: Any, parts: int) -> int:
    """Tells how far it is."""
    for part in range(parts):
        self.update_state(state="PROGRESS", meta={"done": part, "of": parts})
        time.sleep(0.05)
    return parts


# ---- the demonstration ----------------------------------------------------------------------------------------------

ADDS, FLAKY, LATER, FAILS, PARTS = 3000, 40, 20, 10, 30
COUNTDOWN = 1.0
DEADLINE = 25.0  # seconds for everything
START = [sys.executable, "-m", "pyceleryc", "-A", "examples.demo", "worker", "-l", "WARNING", "-c", "2"]


def bar(name: str, done: int, total: int, width: int = 24) -> str:
    filled = width * done // total
    return f"{name} [{'#' * filled}{'.' * (width - filled)}] {done}/{total}"


def show(uploaded: int, done: int, total: int) -> None:
    """Both bars in one line, drawn over the one before; only where somebody watches."""
    if sys.stdout.isatty():
        print(f"\r{bar('upload', uploaded, PARTS)}   {bar('all', done, total)}", end="", flush=True)


def send() -> dict[str, list[Any]]:
    """Sends everything; the lists of results, by kind."""
    return {
        "upload": [upload.delay(PARTS)],
        "add": [add.delay(number, number) for number in range(ADDS)],
        "flaky": [flaky.delay(number % 3) for number in range(FLAKY)],
        "later": [later.apply_async((time.time(),), countdown=COUNTDOWN) for _ in range(LATER)],
        "fails": [fails.delay(f"as told {number}") for number in range(FAILS)],
    }


def wait(results: dict[str, list[Any]], worker: subprocess.Popen[bytes]) -> None:
    """Waits until all are ready, and shows how far it is."""
    everything = [result for kind in results.values() for result in kind]
    pending, deadline = deque(everything), time.monotonic() + DEADLINE
    uploading = results["upload"][0]
    while pending:
        while pending and pending[0].ready():
            pending.popleft()
        pending.rotate(-1)  # one that takes long must not hide the others
        if worker.poll() is not None:
            sys.exit(f"the worker ended by itself, exit code {worker.returncode}")
        if time.monotonic() > deadline:
            sys.exit(f"{len(pending)} of {len(everything)} results have not come in {DEADLINE:.0f} s")
        if not pending or pending[0] is uploading or not pending[0].ready():
            info = uploading.info
            show(info["done"] if isinstance(info, dict) else PARTS if uploading.ready() else 0,
                 len(everything) - len(pending), len(everything))
            time.sleep(0.02)
    print()


def check(results: dict[str, list[Any]]) -> list[str]:
    """What is wrong with the results."""
    expected = {
        "add": [2 * number for number in range(ADDS)],
        "flaky": [f"after {number % 3} retries" for number in range(FLAKY)],
        "upload": [PARTS],
    }
    wrong = [f"{kind}({number}): {result.result!r} instead of {value!r}" for kind, values in expected.items()
             for number, (result, value) in enumerate(zip(results[kind], values, strict=True)) if result.result != value]
    wrong += [f"later: ran after {result.result!r} s" for result in results["later"]
              if not isinstance(result.result, float) or result.result < COUNTDOWN]
    wrong += [f"fails({number}): {result.result!r}, {result.state}" for number, result in enumerate(results["fails"])
              if repr(result.result) != f"ValueError('as told {number}')" or result.state != "FAILURE"]
    return wrong


def report(results: dict[str, list[Any]], seconds: float) -> None:
    total = sum(map(len, results.values()))
    print(f"add         {results['add'][-1].result} is {ADDS - 1} + {ADDS - 1}, and {ADDS - 1} more")
    print(f"flaky       {results['flaky'][2].result}")
    print(f"later       asked for {COUNTDOWN} s, ran after {results['later'][0].result:.3f} s")
    print(f"fails       {results['fails'][0].result!r}")
    print(f"upload      {results['upload'][0].result} parts")
    print(f"{total} tasks sent, run and read in {seconds:.1f} s: {total / seconds:.0f} tasks/s")


def stop(worker: subprocess.Popen[bytes]) -> list[str]:
    """Ends the worker as a service manager does; what is wrong with how it ended."""
    worker.send_signal(signal.SIGTERM)
    try:
        code = worker.wait(10)
    except subprocess.TimeoutExpired:
        worker.kill()
        return ["the worker did not end within 10 s after SIGTERM"]
    return [] if code == 0 else [f"the worker's exit code is {code}, not 0"]


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    worker = subprocess.Popen(START, cwd=root, stdout=subprocess.DEVNULL)  # where DEMO_DB is it knows from the environment
    try:
        started = time.monotonic()
        results = send()
        wait(results, worker)
        seconds = time.monotonic() - started
        wrong = check(results)
        if not wrong:
            report(results, seconds)
        wrong += stop(worker)
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    for line in wrong[:10]:
        print("wrong:", line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
