"""A million tasks through one worker: memory must stay flat, in the parent and in the children.

    python tests/soak/soak_million.py [TASKS] [--broker redis] [--http] [worker's options, such as -E]

Needs a RabbitMQ or Redis: PYCELERYC_TEST_AMQP or PYCELERYC_TEST_REDIS, the one on the standard port, or a private one. Samples
resident anonymous memory every second, and with --http asks for /metrics and /readyz each time; after the first quarter (caches,
allocator) it may grow by at most 2 MiB a process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks"), str(ROOT / "tests" / "soak")]

import brokers  # noqa: E402  after the path is set
from fleet import ours  # noqa: E402
from procs import tree  # noqa: E402
from soak_flower import wait_for  # noqa: E402
from soak_livez import ask  # noqa: E402

MAX_GROWTH_MIB = 2.0
STEPS = 20

PUBLISH = """
def rss():
    return int([l for l in open('/proc/self/status') if l.startswith('VmRSS')][0].split()[1]) / 1024
first = None
for step in range({steps}):
    for number in range({count}):
        tasks.noop.delay(number)
    tasks.app.amqp.producer.flush(120.0)
    first = first or rss()
result = [first, rss()]
"""


def sample(pid: int) -> dict[int, float]:
    return {each: own_mib(each) for each in tree(pid)}


def own_mib(pid: int) -> float:
    """Anonymous memory only: pages of programs and libraries come and go as the kernel likes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024


def left(queue: str, env: dict[str, str]) -> int:
    return int(ours().client(f"result = tasks.app.amqp.producer.size({queue!r}, 10.0)[0]", env))


def arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--broker", choices=["amqp", "redis"], default="amqp")
    parser.add_argument("--http", action="store_true", help="the worker serves /metrics, and is asked for it")
    return parser.parse_known_args()


def main() -> None:
    args, options = arguments()
    port = brokers.free_port() if args.http else 0
    options += ["--http-address", f"127.0.0.1:{port}"] if port else []
    queue = f"soak-{uuid.uuid4().hex[:8]}"
    side = ours()
    with (brokers.redis_server if args.broker == "redis" else brokers.amqp_server)() as url:
        # given back to the kernel at once, what a moment's backlog of events took does not look like a leak
        env = side.env(url, None, queue, FLEET_PREFETCH="64", FLEET_LOGLEVEL="ERROR", MALLOC_TRIM_THRESHOLD_="65536",
                       MALLOC_MMAP_THRESHOLD_="65536")
        with side.worker(env, "-c", "2", *options) as worker:
            if port:
                wait_for("ready", lambda: ask(port, "/readyz").startswith(b"HTTP/1.1 200 "))
            code = ("import json, pyceleryc; pyceleryc.install_as_celery(); import fleet_tasks as tasks\n"
                    + PUBLISH.format(steps=STEPS, count=args.tasks // STEPS) + "print(json.dumps(result))")
            begin = time.monotonic()
            publisher = subprocess.Popen([side.python, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
            samples = watch(worker.process.pid, publisher, queue, env, port)
            print(f"{args.tasks} tasks in {time.monotonic() - begin:.0f} s")
        side.client(f"tasks.app.amqp.producer.remove({queue!r}, 10.0)\nresult = None", env)
    report(samples, publisher.stdout.read() if publisher.stdout else "")


def watch(pid: int, publisher: subprocess.Popen[str], queue: str, env: dict[str, str], port: int) -> list[dict[int, float]]:
    samples = []
    while publisher.poll() is None or left(queue, env):
        samples.append(sample(pid))
        if len(samples) % 10 == 1:
            print({each: f"{mib:.1f} MiB" for each, mib in samples[-1].items()}, flush=True)
        for path in ("/metrics", "/readyz") if port else ():
            assert b" 200 " in ask(port, path).split(b"\r\n")[0], path
        time.sleep(1)
    time.sleep(3)
    samples.append(sample(pid))
    return samples


def report(samples: list[dict[int, float]], published: str) -> None:
    settled, last = samples[len(samples) // 4], samples[-1]
    grown = {pid: last[pid] - mib for pid, mib in settled.items() if pid in last}
    print(f"growth after the first quarter, MiB: {grown}; publisher first and last RSS: {published.strip()}")
    if max(grown.values()) > MAX_GROWTH_MIB or set(settled) != set(last):
        sys.exit("memory grew, or a process was replaced")


if __name__ == "__main__":
    main()
