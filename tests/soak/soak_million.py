"""A million tasks through one worker: memory must stay flat, in the parent and in the children.

    python tests/soak/soak_million.py [TASKS]

Needs a RabbitMQ: PYCELERYC_TEST_AMQP, or the one on the standard port. Samples resident memory after every twentieth
of the tasks; after the first quarter (caches, allocator) it may grow by at most 2 MiB a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import brokers  # noqa: E402  after the path is set
from fleet import ours  # noqa: E402
from procs import rss_mib, tree  # noqa: E402

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
    return {each: rss_mib(each) for each in tree(pid)}


def done_count(pid: int, queue: str, env: dict[str, str]) -> int:
    return int(ours().client(f"result = tasks.app.amqp.producer.size({queue!r}, 10.0)[0]", env))


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    queue = f"soak-{uuid.uuid4().hex[:8]}"
    side = ours()
    with brokers.amqp_server() as url:
        env = side.env(url, None, queue, FLEET_PREFETCH="64", FLEET_LOGLEVEL="ERROR")
        with side.worker(env) as worker:
            code = ("import json, pyceleryc; pyceleryc.install_as_celery(); import fleet_tasks as tasks\n"
                    + PUBLISH.format(steps=STEPS, count=total // STEPS) + "print(json.dumps(result))")
            publisher = subprocess.Popen([side.python, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
            samples = watch(worker.process.pid, publisher, queue, env)
        side.client(f"tasks.app.amqp.producer.remove({queue!r}, 10.0)\nresult = None", env)
    report(samples, publisher.stdout.read() if publisher.stdout else "")


def watch(pid: int, publisher: subprocess.Popen[str], queue: str, env: dict[str, str]) -> list[dict[int, float]]:
    samples = []
    while publisher.poll() is None or done_count(pid, queue, env):
        samples.append(sample(pid))
        print({each: f"{mib:.1f} MiB" for each, mib in samples[-1].items()}, flush=True)
        time.sleep(5)
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
