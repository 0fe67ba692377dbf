"""Tasks that are ``async def`` functions, in every pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedding import embedded

from pyceleryc import Celery
from pyceleryc.exceptions import SoftTimeLimitExceeded

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("async", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield made
    made.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
def test_several_at_a_time(app: Celery, pool: str) -> None:
    @app.task
    async def nap(x: int) -> int:
        await asyncio.sleep(0.1)
        return x

    with embedded(app, pool=pool, concurrency=3, **QUIET):
        assert [result.get(timeout=30) for result in [nap.delay(n) for n in range(6)]] == list(range(6))


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_soft_limit(app: Celery, tmp_path: Path, pool: str) -> None:
    """It is raised where the coroutine waits; nothing of it is left to go on with the next one."""
    file = tmp_path / "went-on"

    @app.task(soft_time_limit=0.3)
    async def waits(caught: bool) -> str:
        try:
            async with asyncio.timeout(20):
                await asyncio.sleep(1)
        except SoftTimeLimitExceeded:
            if not caught:
                raise
            await asyncio.sleep(0.01)
            return "caught"
        file.touch()
        return "went on"

    @app.task(soft_time_limit=0.3)
    async def works() -> str:
        await asyncio.sleep(0.01)
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            return "caught"
        return "went on"

    @app.task
    async def nap() -> None:
        await asyncio.sleep(1.2)

    with embedded(app, pool=pool, concurrency=1, **QUIET):
        assert waits.delay(True).get(timeout=30) == "caught"
        with pytest.raises(SoftTimeLimitExceeded):
            waits.delay(False).get(timeout=30)
        assert works.delay().get(timeout=30) == "caught"
        nap.delay().get(timeout=30)
    assert not file.exists()


def test_traceback(app: Celery) -> None:
    """Says where in the task it was, and little else."""

    @app.task
    async def bad() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    with embedded(app, pool="solo", **QUIET):
        result = bad.delay()
        with pytest.raises(ValueError):
            result.get(timeout=30)
    assert "asyncio" not in result.traceback and "in bad" in result.traceback


def test_eager_call_within_a_coroutine(app: Celery) -> None:
    @app.task
    async def inner(x: int) -> tuple[int, str]:
        await asyncio.sleep(0.01)
        return x, inner.request.id

    @app.task
    async def outer() -> list[object]:
        eager = inner.apply((3,))
        return [*eager.result, eager.id, outer.request.id]

    with embedded(app, pool="threads", concurrency=1, **QUIET):
        result = outer.delay()
        x, seen, eager_id, own = result.get(timeout=30)
    assert (x, seen, own) == (3, eager_id, result.id)


class SlowLoop(asyncio.SelectorEventLoop):
    """Takes its time to make a note of what is to be called, as if it was interrupted there."""

    slow = False

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
        if SlowLoop.slow and "TaskStepMethWrapper" in repr(callback):
            SlowLoop.slow = False
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                time.sleep(0.005)
        return super().call_soon(callback, *args, **kwargs)


@pytest.fixture
def slow_loops() -> Iterator[None]:
    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return SlowLoop()

    asyncio.set_event_loop_policy(Policy())
    yield
    asyncio.set_event_loop_policy(None)


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_soft_limit_in_the_loops_own_code(slow_loops: None, redis_url: str, unique: Callable[[str], str], pool: str) -> None:
    """Raised there it would make the loop forget the coroutine, which would wait for ever."""
    app = Celery("async", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.task_default_queue = unique("async")

    @app.task(soft_time_limit=0.2)
    async def hurries() -> str:
        try:
            SlowLoop.slow = True
            await asyncio.sleep(0)
            await asyncio.sleep(10)
        except SoftTimeLimitExceeded:
            return "caught"
        return "went on"

    with embedded(app, pool=pool, concurrency=1, **QUIET):
        result = hurries.delay()
        assert result.get(timeout=5) == "caught"
    app.close()
