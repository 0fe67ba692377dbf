"""What an async def task costs in the pools asyncio, threads and prefork.

    python benchmarks/async_pools.py [--only asyncio]

The same messages for each: the queue is full when the worker starts. CPU is that of the worker's processes per task, from the first
task that has run to the last; the start of threads and processes is not in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from procs import cpu_seconds, rss_mib
from vs_celery import AMQP, HERE, Marks, Side, environment, running

#: Seconds that each task sleeps, how many tasks.
LOADS = [(0.0, 20000), (0.01, 20000), (1.0, 1000)]
POOLS = [("asyncio", 1000), ("asyncio", 100), ("threads", 1000), ("threads", 100), ("prefork", 2)]

PUBLISH = """
import sys, pyceleryc
pyceleryc.install_as_celery()
import tasks_app
seconds, count = float(sys.argv[1]), int(sys.argv[2])
with tasks_app.app.amqp.batch():
    for number in range(count):
        tasks_app.nap.delay(number, seconds)
tasks_app.app.amqp.producer.flush(60.0)
"""


class Pool(Side):
    """Our worker with one of its pools."""

    def __init__(self, pool: str, size: int) -> None:
        super().__init__(f"{pool} -c {size}", sys.executable, "pyceleryc")
        self.options = ["-P", pool, "-c", str(size)]

    def worker(self, env: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [self.python, "-m", self.module, "-A", "tasks_app", "worker", *self.options, "-l", "ERROR", "--prefetch-multiplier", "2",
                   "--without-gossip", "--without-mingle", "--without-heartbeat"]
        return subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure(side: Pool, directory: str, seconds: float, count: int) -> str:
    marks = Marks(directory, count)
    env = environment(directory, "", marks, AMQP)
    subprocess.run([sys.executable, "-c", PUBLISH, str(seconds), str(count)], cwd=HERE, env=env, check=True)
    with running(side, env) as worker:
        marks.wait(1, 60)
        before, cpu, wall = marks.done(), cpu_seconds(worker.pid), time.perf_counter()
        marks.wait(count, 300)
        took = time.perf_counter() - wall
        time.sleep(0.3)  # acks and bookkeeping
        each = (cpu_seconds(worker.pid) - cpu) / max(1, count - before) * 1e6
        memory = rss_mib(worker.pid)
    marks.check()
    return f"{side.name:16} sleep({seconds:<4g}) x {count:<6} {each:8.1f} µs/task {took:8.2f} s {memory:7.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as directory:
        for seconds, count in LOADS:
            for pool, size in POOLS:
                if only in pool and seconds * count / size < 60:
                    print(measure(Pool(pool, size), directory, seconds, count), flush=True)


if __name__ == "__main__":
    main()
