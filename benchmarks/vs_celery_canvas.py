"""Groups, chords and chains, pyceleryc and Celery side by side: same tasks, same brokers, one run.

    python benchmarks/vs_celery_canvas.py [--tasks 1000] [--chain 100] [--big 100000] [--publish 10000]
                                          [--only group,chord,chain,sent,unconfirmed,size,big,publish] [--json FILE]

RabbitMQ, results in Redis, a prefork worker with two processes on both sides. Figures are medians of three rounds.
Exit status 1 if a figure misses its goal. CPU is that of the worker's processes. `sent` is the chain
with each link sent by the broker (worker_chain_shortcut off), `unconfirmed` that without publisher confirms, which Celery never
asks for: with them RabbitMQ writes each link to its disk. `publish` compares with bare_publish.c, a loop over rabbitmq-c that sends
messages of the same size with the same properties, persistent and confirmed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from procs import cpu_seconds
from vs_celery import AMQP, HERE, REDIS, Marks, Side, environment, peer_python, running

#: figure -> how many times better than Celery it has to be
GOALS = {"group submit, ms": 15, "group total, ms": 10, "chord total, ms": 8, "chain total, ms": 10, "chain CPU, ms": 10}
#: chains -> what differs in them
CHAINS = {"chain": {}, "sent": {"BENCH_SHORTCUT": "0"}, "unconfirmed": {"BENCH_SHORTCUT": "0", "BENCH_CONFIRM": "0"}}
PUBLISH_GOAL = 0.8
PUBLISH_TURNS = 3


class CanvasSide(Side):
    """Calls canvas_client.py."""

    def client(self, what: str, count: int, env: dict[str, str]) -> dict[str, float]:
        done = subprocess.run([self.python, "canvas_client.py", self.name, what, str(count)], cwd=HERE, env=env,
                              stdout=subprocess.PIPE, check=True)
        return dict(json.loads(done.stdout))


def measure(side: Side, directory: str, what: str, count: int) -> None:
    env = environment(directory, REDIS, Marks(directory, 1))
    env.update(CHAINS.get(what, {}))
    with running(side, env) as worker:
        side.client("warm_up", 1, env)
        cpu = cpu_seconds(worker.pid)
        found = side.client("chain" if what in CHAINS else what, count, env)
        time.sleep(0.3)  # acks
        found["CPU_ms"] = (cpu_seconds(worker.pid) - cpu) / found["runs"] * 1e3
    for key in ("make", "submit", "total", "CPU"):
        side.figures[f"{what} {key}, ms"] = found[f"{key}_ms"]


def measure_big(side: Side, directory: str, count: int) -> None:
    env = environment(directory, REDIS, Marks(directory, 1))
    with running(side, env):
        found = side.client("big_chord", count, env)
    print(f"chord of {count}: sent in {found['submit_ms'] / 1e3:.2f} s, done in {found['total_ms'] / 1e3:.2f} s")


def measure_size(side: Side, directory: str, count: int) -> bool:
    sizes = side.client("message_size", count, environment(directory, REDIS, Marks(directory, 1)))
    print(f"body of a header message: {sizes['small']:.0f} bytes with 10 tasks, {sizes['large']:.0f} with {count}")
    # the size itself is in the message, as a number
    return sizes["large"] <= sizes["small"] + len(str(count))


def build_bare(directory: str) -> str:
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "librabbitmq"], stdout=subprocess.PIPE, check=True,
                           text=True).stdout.split()
    program = str(Path(directory) / "bare_publish")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror",
                    str(HERE / "bare_publish.c"), *flags, "-o", program], check=True)
    return program


def measure_publish(side: Side, directory: str, count: int) -> bool:
    """Takes turns, and medians: the broker's rate changes from one second to the next."""
    program = [build_bare(directory), AMQP.removesuffix("/"), str(count)]
    pairs = []
    for _ in range(PUBLISH_TURNS):
        found = side.client("publish_group", count, environment(directory, "", Marks(directory, 1)))
        bare_found = json.loads(subprocess.run(program, stdout=subprocess.PIPE, check=True).stdout)
        pairs.append((found["per_second"], bare_found["per_second"]))
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"group of {count}, persistent and confirmed: {ours:.0f}/s; bare C loop: {bare:.0f}/s; {ours / bare:.0%}")
    return ours >= PUBLISH_GOAL * bare


def table(sides: list[Side]) -> bool:
    ours, theirs = sides
    good = True
    print(f"{'':24}{'pyceleryc':>12}{'Celery':>12}{'times':>9}{'goal':>7}")
    for name, value in ours.figures.items():
        times = theirs.figures[name] / value
        goal = GOALS.get(name, 0)
        good = good and times >= goal
        print(f"{name:24}{value:12.2f}{theirs.figures[name]:12.2f}{times:9.1f}{goal or '':>7}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--chain", type=int, default=100)
    parser.add_argument("--big", type=int, default=100_000)
    parser.add_argument("--publish", type=int, default=10_000)
    parser.add_argument("--only", default="group,chord,chain,sent,unconfirmed,size,big,publish")
    parser.add_argument("--ours", action="store_true", help="without Celery")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ours = CanvasSide("pyceleryc", sys.executable, "pyceleryc")
    sides = [ours] if options.ours else [ours, CanvasSide("celery", peer_python(), "celery")]
    counts = {"group": options.tasks, "chord": options.tasks, **dict.fromkeys(CHAINS, options.chain)}
    wanted, good = options.only.split(","), True
    with tempfile.TemporaryDirectory() as directory:
        for name in wanted:
            for side in sides if name in counts else []:
                print(f"measuring {name} on {side.name} …", file=sys.stderr)
                measure(side, directory, name, counts[name])
        if options.ours:
            print(json.dumps(ours.figures, indent=1))
        else:
            good = table(sides)
        if "size" in wanted:
            good = measure_size(ours, directory, options.tasks) and good
        if "publish" in wanted:
            good = measure_publish(ours, directory, options.publish) and good
        if "big" in wanted:
            measure_big(ours, directory, options.big)
    if options.json:
        options.json.write_text(json.dumps({side.name: side.figures for side in sides}, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
