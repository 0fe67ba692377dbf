"""The pool asyncio with tasks of all kinds, limits that strike at all moments, and revokes: every task comes to its end, nothing is kept.

    python tests/soak/soak_asyncio.py [seconds]
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from embedding import embedded  # noqa: E402

from pyceleryc import Celery, _core, signature  # noqa: E402
from pyceleryc.concurrency import eventloop  # noqa: E402
from pyceleryc.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, TimeoutError  # noqa: E402
from pyceleryc.worker.worker import WorkController  # noqa: E402

ROUND, VICTIMS = 300, 20
KEPT = (_core.Run, eventloop.Live, eventloop.Body)

app = Celery("soak", broker="memory://", backend="cache+memory://")
app.conf.update(task_acks_late=True, task_default_queue="soak")
chance = random.Random()


@app.task(soft_time_limit=0.05)
async def soft() -> None:
    try:
        await asyncio.sleep(chance.choice([0, 0.04, 0.051, 1]))
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.001)


@app.task(time_limit=0.05)
async def hard() -> None:
    await asyncio.sleep(chance.choice([0, 0.049, 0.0505, 1]))


@app.task(soft_time_limit=0.02, time_limit=0.06)
async def busy() -> None:
    """Limits strike at the moment when it lets the loop turn, too."""
    end = time.monotonic() + chance.choice([0.001, 0.0195, 0.021, 0.05, 0.061, 0.1])
    while time.monotonic() < end:
        sum(range(50))
    await asyncio.sleep(0)


@app.task
async def fails() -> None:
    await asyncio.sleep(0.001)
    raise ValueError("meant to be")


@app.task
def plain() -> None:
    time.sleep(0.001)


@app.task
async def quick() -> None:
    pass


@app.task
async def sends() -> None:
    await asyncio.sleep(0)
    (signature(quick.name, app=app, immutable=True) | signature(quick.name, app=app, immutable=True)).delay()


@app.task
async def leaves() -> None:
    asyncio.get_running_loop().create_task(asyncio.sleep(0.01))


def one_round(worker: WorkController) -> None:
    tasks = [soft, hard, busy, fails, plain, quick, sends, leaves]
    results = [chance.choice(tasks).delay() for _ in range(ROUND)]
    victims = [result.id for result in chance.sample(results, VICTIMS)]
    time.sleep(chance.uniform(0, 0.1))
    assert worker.machine is not None
    try:
        worker.machine.core.revoke(victims, True, 15)
    except _core.Unsupported:  # one was a plain function, and ran
        pass
    for result in results:
        try:
            result.get(timeout=30)
        except TimeoutError:
            raise SystemExit(f"{result.id} did not come to its end: {worker.machine.core.stats()}") from None
        except (SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, ValueError):
            pass
        result.forget()


def kept() -> int:
    gc.collect()
    return sum(type(one) in KEPT for one in gc.get_objects())


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    logging.disable(logging.CRITICAL)
    with embedded(app, pool="asyncio", concurrency=60, without_gossip=True, without_mingle=True, without_heartbeat=True) as worker:
        end, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            one_round(worker)
            rounds += 1
        time.sleep(eventloop.KILL_GRACE + 1)
        assert kept() == 0, f"{kept()} runs are kept"
    print(f"{rounds * ROUND} tasks came to their end")


if __name__ == "__main__":
    main()
