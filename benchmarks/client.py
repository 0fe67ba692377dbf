"""What a program does with the benchmark's tasks; run in either side's environment. Prints one line of JSON.

    client.py IMPLEMENTATION publish|publish_add|publish_later|roundtrip|hold N
"""

from __future__ import annotations

import json
import sys
import time


def load(implementation: str):  # noqa: ANN201  the module of either side
    if implementation == "pyceleryc":
        import pyceleryc

        pyceleryc.install_as_celery()
    import tasks_app

    return tasks_app


def publish(tasks, count: int) -> dict[str, float]:
    tasks.noop.delay(0)  # connects
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(1, count):
        tasks.noop.delay(number)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    flush = getattr(tasks.app.amqp, "producer", None)
    if hasattr(flush, "flush"):
        flush.flush(60.0)
    return {"cpu_us": cpu / (count - 1) * 1e6, "wall_us": wall / (count - 1) * 1e6}


def publish_add(tasks, count: int) -> dict[str, float]:
    tasks.add.delay(0, 1).get(timeout=60)
    cpu = time.process_time()
    for number in range(1, count):
        tasks.add.delay(number, 1)
    return {"cpu_us": (time.process_time() - cpu) / (count - 1) * 1e6}


def publish_later(tasks, count: int) -> dict[str, float]:
    """Tasks with results, whose worker comes later."""
    for number in range(count):
        tasks.add.delay(number, 1)
    return {}


def roundtrip(tasks, count: int) -> dict[str, float]:
    for number in range(50):
        tasks.echo.delay(number).get(timeout=60)
    times = []
    for number in range(count):
        start = time.perf_counter()
        assert tasks.echo.delay(number).get(timeout=60) == number
        times.append(time.perf_counter() - start)
    times.sort()
    return {"p50_ms": times[count // 2] * 1e3, "p99_ms": times[int(count * 0.99)] * 1e3}


def hold(tasks, count: int) -> dict[str, float]:
    for number in range(count):
        tasks.noop.apply_async((number,), countdown=3600)
    flush = getattr(tasks.app.amqp, "producer", None)
    if hasattr(flush, "flush"):
        flush.flush(60.0)
    return {}


def main() -> None:
    implementation, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tasks = load(implementation)
    print(json.dumps(globals()[what](tasks, count)))


if __name__ == "__main__":
    main()
