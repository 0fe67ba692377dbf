"""Workers inside a program (DESIGN D12): any number, in any thread, started and stopped cleanly."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import wait_until
from embedding import embedded, remove_names, take_names
from pyceleryc import Celery


def make_app(broker: str, backend: str, queue: str) -> Celery:
    app = Celery("embedded", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(task_default_queue=queue, worker_prefetch_multiplier=1)

    @app.task(name="embedded.add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture(params=["memory", "sqlite", "amqp"])
def app(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Celery]:
    queue = unique("embedded")
    if request.param == "memory":
        made = make_app("memory://", "cache+memory://", queue)
    elif request.param == "sqlite":
        made = make_app(f"sqlite:///{tmp_path}/q.db", f"sqlite:///{tmp_path}/q.db", queue)
    else:
        made = make_app(request.getfixturevalue("amqp_url"), "rpc://", queue)
    yield made
    made.amqp.producer.remove(queue, 5.0)
    made.close()


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "asyncio"])
def test_in_a_thread(app: Celery, pool: str) -> None:
    if pool == "prefork" and app.conf.result_backend == "cache+memory://":
        pool = "threads"  # the memory of a child is not ours: this pair makes no sense
    with embedded(app, pool=pool, concurrency=2) as worker:
        results = [app.tasks["embedded.add"].delay(n, 1) for n in range(50)]
        assert [r.get(timeout=20) for r in results] == list(range(1, 51))
    assert worker.exitcode == 0


def test_two_workers_of_one_queue(app: Celery) -> None:
    """Each has one thread: two tasks meet only if both workers are at work."""
    both = threading.Barrier(2)

    @app.task(name="embedded.meet", acks_late=True)  # so that none of the workers may have both
    def meet() -> int:
        return both.wait(30)

    with embedded(app, pool="threads", concurrency=1, hostname="a@here"), \
            embedded(app, pool="threads", concurrency=1, hostname="b@here"):
        results = [meet.delay() for _ in range(2)]
        for result in results:
            result.get(timeout=40)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
@pytest.mark.parametrize("broker", ["memory", "sqlite", "amqp", "redis"])
def test_an_app_that_is_gone_has_no_descriptors(
    request: pytest.FixtureRequest, broker: str, closed: bool, pool: str, tmp_path: Path, unique: Callable[[str], str],
) -> None:
    """Nor threads: sockets, files, epoll and event descriptors go with it, whether or not it was closed."""
    urls = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{tmp_path}/q.db"}
    url = urls.get(broker, lambda: str(request.getfixturevalue(f"{broker}_url")))()
    queue = unique("embedded")
    gc.collect()  # of tests before this one
    before, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())

    def use() -> None:
        app = make_app(url, f"sqlite:///{tmp_path}/r.db", queue)
        take_names(app, queue)  # an answer to somebody else's command would open a connection of kombu's pool, which stays
        with embedded(app, pool=pool, concurrency=1):
            assert app.tasks["embedded.add"].delay(1, 2).get(timeout=20) == 3
            assert not set(os.listdir("/proc/self/fd")) <= before
        if closed:
            app.close()

    def gone() -> bool:
        gc.collect()
        return set(os.listdir("/proc/self/fd")) <= before and set(threading.enumerate()) <= threads

    use()
    wait_until(gone, 10)  # a pool's thread that is about to end keeps the machine for a moment
    remove_names(url, queue)


def test_start_and_stop_many_times(app: Celery) -> None:
    for n in range(5):
        with embedded(app, pool="solo"):
            assert app.tasks["embedded.add"].delay(n, n).get(timeout=20) == 2 * n


def test_stop_finishes_what_runs(app: Celery) -> None:
    runs, goes_on = threading.Event(), threading.Event()

    @app.task(name="embedded.hold", acks_late=True)
    def hold() -> str:
        runs.set()
        assert goes_on.wait(30)
        return threading.current_thread().name

    with embedded(app, pool="threads", concurrency=1) as worker:
        result = hold.delay()
        assert runs.wait(30)
        worker.stop()
        goes_on.set()
    assert result.get(timeout=30).startswith("ThreadPool")


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_waiting_in_a_task_is_an_error(pool: str) -> None:
    """T-341: a solo worker would wait for itself, for ever. The program around the worker may wait."""
    app = make_app("memory://", "cache+memory://", "joins")

    @app.task(name="embedded.waits")
    def waits() -> int:
        return int(app.send_task("embedded.add", (1, 2)).get(timeout=3))

    with embedded(app, pool=pool, concurrency=2):
        with pytest.raises(RuntimeError, match="Never call result.get"):
            waits.delay().get(timeout=20)
        assert app.tasks["embedded.add"].delay(1, 2).get(timeout=20) == 3
    app.close()


def test_a_child_of_the_pool_cannot_send_to_memory() -> None:
    """What it sends would go to its own memory, and nobody would ever hear of it."""
    app = make_app("memory://", "cache+memory://", "sends")

    @app.task(name="embedded.sends")
    def sends() -> None:
        app.tasks["embedded.add"].delay(1, 2)

    with embedded(app, pool="prefork", concurrency=1):
        with pytest.raises(Exception, match="memory.*prefork.*threads"):
            sends.delay().get(timeout=20)
    app.close()


def test_a_fork_while_others_publish_to_memory() -> None:
    """The child begins with an empty broker that works, whatever the parent's threads were about."""
    app = make_app("memory://", "cache+memory://", "forks")
    ends = threading.Event()

    def publish() -> None:
        while not ends.is_set():
            app.send_task("embedded.add", (1, "x" * 100_000), ignore_result=True)
            app.amqp.producer.purge("forks", 5.0)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                left = -1
                try:
                    app.send_task("embedded.add", (1, 2), ignore_result=True)
                    left = app.amqp.producer.size("forks", 5.0)[0]
                finally:
                    os._exit(left != 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
    app.close()


#: In a process of its own: what it is about used to be the end of that.
OTHER_THREADS = """
import sys, threading, time
from embedding import embedded
from pyceleryc import Celery
from pyceleryc.worker import state

app = Celery("looked_at", broker="memory://", backend="cache+memory://", set_as_current=False)
add = app.task(lambda x: x, name="looked_at.same")
done = threading.Event()
seen = {"active": 0, "later": 0}

def look(worker):
    while not done.is_set():
        seen["active"] += len(list(state.active_requests)) + len(list(state.reserved_requests))
        worker.machine.core.call_later(0.0, lambda: seen.update(later=seen["later"] + 1))
        worker.stats

with embedded(app, pool=sys.argv[1], concurrency=2) as worker:
    threads = [threading.Thread(target=look, args=(worker,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        results = [add.delay(n) for n in range(100)]
        assert [result.get(timeout=30) for result in results] == list(range(100))
    done.set()
    for thread in threads:
        thread.join()
assert seen["active"] and seen["later"], seen
"""


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "asyncio"])
def test_looked_at_from_other_threads(pool: str) -> None:
    here = str(Path(__file__).parent.parent)
    run = subprocess.run([sys.executable, "-c", OTHER_THREADS, pool], env={**os.environ, "PYTHONPATH": here},
                         capture_output=True, text=True, timeout=90)
    assert run.returncode == 0, run.stderr[-3000:]
