"""kill -9 of the whole worker, 30 times at random under chains: what a crash takes with it, pyceleryc and Celery side by side.

    python tests/soak/soak_chains.py [--chains 300] [--kills 30] [--only pyceleryc]

Chains of early-ack tasks, of late-ack tasks, and of both in turn, sent one after the other so that the worker's two processes are
mostly idle: then links run without the broker. A chain of late-ack tasks must end. Of the others a kill may take those whose
early-ack task ran, at most one for each process. No early-ack task runs twice unless a late-ack one before it did.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import brokers  # noqa: E402  after the path is set
from fleet import Side, Worker, ours, theirs  # noqa: E402
from marks import ran  # noqa: E402

LINKS = 40
NAP = 0.003  # seconds a task takes
PROCESSES = 2
KINDS = ("early", "late", "mixed")  # a chain's, by its number
PUBLISH = """
import time
from celery import chain
for number in range({chains}):
    turns = [(tasks.early,), (tasks.late,), (tasks.early, tasks.late)][number % 3]
    chain(*(turns[n % len(turns)].si(1000 * number + n, {nap}) for n in range({links}))).apply_async()
    time.sleep({pause})
result = None
"""


def experiment(side: Side, url: str, chains: int, kills: int, marks: Path) -> tuple[dict[str, int], int, int]:
    """Lost chains of each kind, tasks of early chains that ran twice, and kills."""
    env = side.env(url, None, f"chains-{uuid.uuid4().hex[:8]}", FLEET_MARKS=str(marks), FLEET_LOGLEVEL="ERROR")
    script = PUBLISH.format(chains=chains, nap=NAP, links=LINKS, pause=LINKS * NAP)
    publisher = threading.Thread(target=side.client, args=(script, env, 600))
    publisher.start()
    chance, killed = random.Random(11), 0
    while publisher.is_alive():
        with side.worker(env, "-c", str(PROCESSES)) as worker:
            started = len(ran(marks))
            wait(lambda worker=worker, started=started: len(ran(marks)) > started, publisher)
            if killed < kills:
                time.sleep(chance.uniform(0.0, 1.0))
                worker.kill_group()
                killed += 1
            else:
                publisher.join()
    drain(side, env, marks)
    return count(marks, chains), doubled(marks), killed


def wait(condition: Callable[[], bool], publisher: threading.Thread) -> None:
    while publisher.is_alive() and not condition():
        time.sleep(0.01)


def drain(side: Side, env: dict[str, str], marks: Path) -> None:
    """Until nothing has happened for ten seconds."""
    with side.worker(env, "-c", str(PROCESSES)):
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < 10:
            now = marks.stat().st_size
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.2)


def count(marks: Path, chains: int) -> dict[str, int]:
    seen, lost = ran(marks), dict.fromkeys(KINDS, 0)
    for number in range(chains):
        lost[KINDS[number % 3]] += number * 1000 + LINKS - 1 not in seen
    return lost


def doubled(marks: Path) -> int:
    return sum(times > 1 for number, times in ran(marks).items() if number // 1000 % 3 == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chains", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--only", choices=["pyceleryc", "celery"])
    given = parser.parse_args()
    with brokers.private_rabbitmq() as server:
        for side in (ours(), theirs()):
            if given.only in (None, side.name):
                with tempfile.TemporaryDirectory() as directory:
                    marks = Path(directory) / "marks"
                    marks.touch()
                    lost, twice, kills = experiment(side, server.url, given.chains, given.kills, marks)
                print(f"{side.name}: {given.chains} chains, {kills} kills; lost {lost}; early tasks that ran twice: {twice}", flush=True)
                broken = lost["late"] > 0 or lost["early"] + lost["mixed"] > kills * PROCESSES
                if side.name == "pyceleryc" and broken:
                    sys.exit("more was lost than a crash may take")


if __name__ == "__main__":
    main()
