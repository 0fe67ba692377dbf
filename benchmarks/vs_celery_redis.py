"""pyceleryc and Celery side by side with Redis as the broker, near and far: the same tasks in one run.

    python benchmarks/vs_celery_redis.py [--tasks 40000] [--only noop,results,lag] [--lag 1,2] [--prefetch 64] [--json FILE]

The worker is prefork with two processes on both sides, its Redis a private one. CPU is that of the worker's processes per
task. Celery runs a part of the tasks, as it takes longer. `lag` puts milliseconds on the round trip between worker and
server (delay_proxy.c, since netem needs a kernel module); publishing is not delayed. Exit status 1 if a figure misses its goal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from vs_celery import HERE, ROOT, WARM_UP, Marks, Side, environment, peer_python, running

sys.path.insert(0, str(ROOT / "tests"))
from brokers import private_redis  # noqa: E402  after the path is set
from procs import cpu_seconds  # noqa: E402

GOAL = 15  # times better than Celery
CELERYS_PART = 8  # of the tasks: one in so many


def build_proxy(directory: str) -> str:
    program = str(Path(directory) / "delay_proxy")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", str(HERE / "delay_proxy.c"),
                    "-o", program], check=True)
    return program


@contextmanager
def farther(url: str, milliseconds: float, directory: str) -> Iterator[str]:
    """The URL at which the server of `url` is `milliseconds` farther away, there and back."""
    one_way = str(round(milliseconds * 500))
    with subprocess.Popen([build_proxy(directory), str(urlsplit(url).port), one_way], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        try:
            yield f"redis://127.0.0.1:{proxy.stdout.readline().strip()}/0"
        finally:
            proxy.stdin.close()


def drain(side: Side, marks: Marks, env: dict[str, str], name: str) -> None:
    """A worker takes what is in the queue; the first tasks do not count."""
    with running(side, env) as worker:
        marks.wait(min(WARM_UP, marks.count // 4), 120)
        before, cpu, wall = marks.done(), cpu_seconds(worker.pid), time.perf_counter()
        marks.wait(marks.count, 600)
        tasks, seconds = marks.count - before, time.perf_counter() - wall
        time.sleep(0.5)  # acks and results
        side.figures[f"{name}: CPU per task, µs"] = (cpu_seconds(worker.pid) - cpu) / tasks * 1e6
        side.figures[f"{name}: tasks/s"] = tasks / seconds
    marks.check()


def measure_noop(side: Side, url: str, directory: str, count: int) -> None:
    marks = Marks(directory, count)
    env = environment(directory, "", marks, url)
    side.figures["delay(): CPU, µs"] = side.client("publish", count, env)["cpu_us"]
    drain(side, marks, env, "no-op")


def measure_results(side: Side, url: str, directory: str, count: int) -> None:
    marks = Marks(directory, count)
    env = environment(directory, url, marks, url)
    side.client("publish_later", count, env)
    drain(side, marks, env, "add() with result")


def measure_lag(milliseconds: float) -> Callable[[Side, str, str, int], None]:
    def measure(side: Side, url: str, directory: str, count: int) -> None:
        marks = Marks(directory, count)
        env = environment(directory, "", marks, url)
        side.client("publish", count, env)
        with farther(url, milliseconds, directory) as far:
            drain(side, marks, {**env, "BENCH_BROKER": far}, f"no-op, {milliseconds:g} ms farther")

    return measure


def is_goal(name: str) -> bool:
    """With lag the rate counts, with results the CPU, and both of the plain no-op."""
    return name.endswith("tasks/s") and "no-op" in name or "CPU per task" in name and "farther" not in name


def table(sides: list[Side]) -> bool:
    ours, theirs = sides
    good = True
    print(f"{'':38}{'pyceleryc':>12}{'Celery':>12}{'times':>9}{'goal':>7}")
    for name, value in ours.figures.items():
        other = theirs.figures[name]
        times = value / other if name.endswith("tasks/s") else other / value
        goal = GOAL if is_goal(name) else 0
        good = good and times >= goal
        print(f"{name:38}{value:12.1f}{other:12.1f}{times:9.1f}{goal or '':>7}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=40000)
    parser.add_argument("--only", default="noop,results,lag")
    parser.add_argument("--lag", default="1,2")
    parser.add_argument("--prefetch", default="64", help="worker_prefetch_multiplier; Celery's default is 4")
    parser.add_argument("--ours", action="store_true", help="without Celery")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["BENCH_PREFETCH"] = options.prefetch
    measures: dict[str, Callable[[Side, str, str, int], None]] = {"noop": measure_noop, "results": measure_results}
    measures |= {f"lag {ms}": measure_lag(float(ms)) for ms in options.lag.split(",")}
    ours = Side("pyceleryc", sys.executable, "pyceleryc")
    sides = [ours] if options.ours else [ours, Side("celery", peer_python(), "celery")]
    with tempfile.TemporaryDirectory() as directory, private_redis({"appendonly": "no"}) as server:
        for name, measure in measures.items():
            for side in sides if name.split()[0] in options.only.split(",") else []:
                print(f"measuring {name} on {side.name} …", file=sys.stderr)
                measure(side, server.url, directory, options.tasks // (1 if side is ours else CELERYS_PART))
    good = True if options.ours else table(sides)
    if options.ours:
        print(json.dumps(ours.figures, indent=1, ensure_ascii=False))
    if options.json:
        options.json.write_text(json.dumps({side.name: side.figures for side in sides}, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
