"""Coroutines for workers of the pool asyncio, beside the tasks of the fleet (see fleet.py)."""

from __future__ import annotations

import asyncio
import time

import fleet_tasks
from fleet_tasks import _mark, app


@app.task(acks_late=True, ignore_result=True)
async def late(number, seconds=0.05):
    await asyncio.sleep(seconds)
    _mark(number)


@app.task
async def nap(number, seconds=1.0):
    await asyncio.sleep(seconds)
    return number


@app.task(acks_late=True)
async def long_nap(seconds=60.0):
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.sleep(0.01)
        print("cleaned up", flush=True)


@app.task
async def block(naps):
    for seconds in naps:
        time.sleep(seconds)
    return "blocked"


@app.task
async def add(x, y):
    await asyncio.sleep(0)
    return x + y


@app.task
async def same(value):
    await asyncio.sleep(0)
    return value
