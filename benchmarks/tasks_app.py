"""The tasks of the benchmark: one module for both sides, written for Celery.

Each run marks its number in a shared file, so that missing and doubled runs are seen. Configuration comes from the environment.
"""

from __future__ import annotations

import asyncio
import mmap
import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND") or None)
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "64")),
    result_expires=600,
)
if os.environ.get("BENCH_SHORTCUT") == "0":
    app.conf.worker_chain_shortcut = False
if os.environ.get("BENCH_CONFIRM") == "0":
    app.conf.broker_transport_options = {"confirm_publish": False}

_marks: dict[str, mmap.mmap] = {}


def mark(number: int) -> None:
    path = os.environ["BENCH_MARKS"]
    if path not in _marks:
        with open(path, "r+b") as file:
            _marks[path] = mmap.mmap(file.fileno(), 0)
    _marks[path][number] += 1


@app.task(ignore_result=True)
def noop(number: int) -> None:
    mark(number)


@app.task(ignore_result=True)
async def nap(number: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    mark(number)


@app.task
def add(number: int, other: int) -> int:
    mark(number)
    return number + other


@app.task
def echo(value: int) -> int:
    return value


@app.task
def plus(value: int, other: int) -> int:
    return value + other


@app.task
def total(values: list[int]) -> int:
    return sum(values)
