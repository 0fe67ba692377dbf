"""pyceleryc and Celery side by side: the same tasks, the same brokers, one run.

    python benchmarks/vs_celery.py [--tasks 20000] [--only noop,results,roundtrip,hold] [--json FILE]

Celery comes from PyPI into its own environment (tools/peer.sh). The worker is prefork with two processes on both sides.
CPU is that of the worker's processes, or of the publishing program, per task; the broker's is not in it. A row whose
tasks were lost or doubled is void. Both sides run one after the other: on a noisy machine look at the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from procs import cpu_seconds, rss_mib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
AMQP = os.environ.get("PYCELERYC_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("PYCELERYC_TEST_REDIS", "redis://127.0.0.1:6379/0")
WARM_UP = 500


@dataclass
class Side:
    """One implementation: how to run its worker and its client."""

    name: str
    python: str
    module: str
    figures: dict[str, float] = field(default_factory=dict)

    def worker(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [self.python, "-m", self.module, "-A", "tasks_app", "worker", "-c", "2", "-P", "prefork", "-l", "ERROR",
                   "--without-gossip", "--without-mingle", "--without-heartbeat"]
        return subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.DEVNULL)

    def client(self, what: str, count: int, env: dict[str, str]) -> dict[str, float]:
        done = subprocess.run([self.python, "client.py", self.name, what, str(count)], cwd=HERE, env=env,
                              stdout=subprocess.PIPE, check=True)
        return dict(json.loads(done.stdout))


class Marks:
    """How often each task ran."""

    def __init__(self, directory: str, count: int) -> None:
        self.path = os.path.join(directory, uuid.uuid4().hex)
        self.count = count
        Path(self.path).write_bytes(bytes(count))

    def done(self) -> int:
        return self.count - Path(self.path).read_bytes().count(0)

    def wait(self, wanted: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.done() < wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {self.done()} of {wanted} tasks ran within {timeout} s")
            time.sleep(0.01)

    def check(self) -> None:
        data = Path(self.path).read_bytes()
        lost, doubled = data.count(0), sum(n > 1 for n in data)
        if lost or doubled:
            raise SystemExit(f"row void: {lost} tasks lost, {doubled} doubled")


def environment(directory: str, backend: str, marks: Marks, broker: str = AMQP) -> dict[str, str]:
    # no PYTHONPATH games: each side's own environment, plus the folder of the tasks
    return {**os.environ, "BENCH_BROKER": broker, "BENCH_BACKEND": backend, "BENCH_QUEUE": f"bench-{uuid.uuid4().hex[:8]}",
            "BENCH_MARKS": marks.path, "PYTHONPATH": str(HERE), "C_FORCE_ROOT": "1"}


@contextmanager
def running(side: Side, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = side.worker(env)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure_noop(side: Side, directory: str, count: int) -> None:
    marks = Marks(directory, count)
    env = environment(directory, "", marks)
    published = side.client("publish", count, env)
    side.figures["delay() CPU, µs"] = published["cpu_us"]
    started = time.perf_counter()
    with running(side, env) as worker:
        marks.wait(1, 60)
        side.figures["start to first task, s"] = time.perf_counter() - started
        marks.wait(min(WARM_UP, count // 2), 60)
        before, cpu, wall = marks.done(), cpu_seconds(worker.pid), time.perf_counter()
        marks.wait(count, 300)
        tasks, seconds = count - before, time.perf_counter() - wall
        time.sleep(0.3)  # acks and bookkeeping
        side.figures["no-op CPU per task, µs"] = (cpu_seconds(worker.pid) - cpu) / tasks * 1e6
        side.figures["no-op tasks/s"] = tasks / seconds
        side.figures["worker parent RSS, MiB"] = rss_mib(worker.pid)
    marks.check()


def measure_results(side: Side, directory: str, count: int) -> None:
    marks = Marks(directory, count)
    env = environment(directory, REDIS, marks)
    with running(side, env) as worker:
        side.client("roundtrip", 10, env)
        cpu = cpu_seconds(worker.pid)
        published = side.client("publish_add", count, env)
        marks.wait(count, 300)
        time.sleep(0.3)
        side.figures["add() + Redis result CPU per task, µs"] = (cpu_seconds(worker.pid) - cpu) / count * 1e6
        side.figures["delay() with Redis results CPU, µs"] = published["cpu_us"]
    marks.check()


def measure_roundtrip(side: Side, directory: str, count: int) -> None:
    for name, backend in (("Redis", REDIS), ("rpc", "rpc://")):
        env = environment(directory, backend, Marks(directory, 1))
        with running(side, env):
            times = side.client("roundtrip", max(200, count // 40), env)
        side.figures[f"round trip {name} p50, ms"] = times["p50_ms"]
        side.figures[f"round trip {name} p99, ms"] = times["p99_ms"]


def measure_hold(side: Side, directory: str, count: int) -> None:
    marks = Marks(directory, count)
    env = {**environment(directory, "", marks), "BENCH_PREFETCH": "0"}
    with running(side, env) as worker:
        warm = environment(directory, "", Marks(directory, WARM_UP)) | {"BENCH_QUEUE": env["BENCH_QUEUE"]}
        side.client("publish", 2, {**warm, "BENCH_MARKS": marks.path})
        marks.wait(2, 60)
        before = rss_mib(worker.pid)
        cpu = cpu_seconds(worker.pid)
        side.client("hold", count, env)
        time.sleep(3 + count / 4000)
        side.figures["held ETA task, bytes"] = (rss_mib(worker.pid) - before) * 2**20 / count
        side.figures["taking in an ETA task CPU, µs"] = (cpu_seconds(worker.pid) - cpu) / count * 1e6


MEASURES = {"noop": measure_noop, "results": measure_results, "roundtrip": measure_roundtrip, "hold": measure_hold}


def table(sides: list[Side]) -> str:
    ours, theirs = sides
    lines = [f"{'':44}{'pyceleryc':>12}{'Celery':>12}{'times':>9}"]
    for name, value in ours.figures.items():
        other = theirs.figures[name]
        better = value / other if name.endswith("tasks/s") else other / value
        lines.append(f"{name:44}{value:12.2f}{other:12.2f}{better:9.1f}")
    return "\n".join(lines)


def peer_python() -> str:
    done = subprocess.run([str(ROOT / "tools" / "peer.sh")], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--only", default=",".join(MEASURES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sides = [Side("pyceleryc", sys.executable, "pyceleryc"), Side("celery", peer_python(), "celery")]
    with tempfile.TemporaryDirectory() as directory:
        for name in options.only.split(","):
            for side in sides:
                print(f"measuring {name} on {side.name} …", file=sys.stderr)
                MEASURES[name](side, directory, options.tasks)
    print(table(sides))
    if options.json:
        options.json.write_text(json.dumps({side.name: side.figures for side in sides}, indent=1))


if __name__ == "__main__":
    main()
