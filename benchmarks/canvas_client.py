"""What a program does with canvas; run in either side's environment. Prints one line of JSON.

    canvas_client.py IMPLEMENTATION warm_up|group|chord|chain|big_chord|publish_group N
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from client import load

ROUNDS = 3
TIMEOUT = 600


def _timed(make, send, expected) -> tuple[float, float, float, float]:  # noqa: ANN001
    start = time.perf_counter()
    canvas = make()
    made = time.perf_counter() - start
    cpu, start = time.process_time(), time.perf_counter()
    result = send(canvas)
    cpu, submitted = time.process_time() - cpu, time.perf_counter() - start
    value = result.get(timeout=TIMEOUT)
    total = time.perf_counter() - start
    if value != expected:
        raise SystemExit(f"wrong result: {str(value)[:200]}")
    return submitted * 1e3, total * 1e3, cpu * 1e3, made * 1e3


def _report(make, send, expected, rounds: int = ROUNDS) -> dict[str, float]:  # noqa: ANN001
    _timed(make, send, expected)  # connects, declares, warms up
    runs = [_timed(make, send, expected) for _ in range(rounds)]
    submit, total, cpu, made = (statistics.median(column) for column in zip(*runs, strict=True))
    return {"make_ms": made, "submit_ms": submit, "total_ms": total, "submit_cpu_ms": cpu, "runs": rounds + 1}


def warm_up(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    tasks.echo.delay(count).get(timeout=TIMEOUT)
    return {}


def group(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    from celery import group as make_group

    return _report(
        lambda: make_group(tasks.echo.s(number) for number in range(count)),
        lambda canvas: canvas.apply_async(), list(range(count)))


def chord(tasks, count: int, rounds: int = ROUNDS) -> dict[str, float]:  # noqa: ANN001
    from celery import chord as make_chord

    return _report(
        lambda: [tasks.echo.s(number) for number in range(count)],
        lambda header: make_chord(header)(tasks.total.s()), count * (count - 1) // 2, rounds)


def chain(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    from celery import chain as make_chain

    return _report(
        lambda: make_chain(tasks.plus.s(0, 1), *(tasks.plus.s(1) for _ in range(count - 1))),
        lambda canvas: canvas.apply_async(), count)


def big_chord(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    """Completes once, and its messages are not larger than those of a chord of two tasks."""
    from celery import chord as make_chord

    header = [tasks.echo.s(number) for number in range(count)]
    submit, total, *_ = _timed(
        lambda: header, lambda all_of_it: make_chord(all_of_it)(tasks.total.s()),
        count * (count - 1) // 2)
    return {"submit_ms": submit, "total_ms": total}


def message_size(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    """Bytes of the last header message, sent to a queue that nobody reads."""
    from celery import chord as make_chord

    sizes = {}
    queue = tasks.app.amqp.default_queue
    with tasks.app.connection_for_write() as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        for members in (10, count):
            bound.purge()
            make_chord([tasks.echo.s(7) for _ in range(members)])(tasks.total.s())
            time.sleep(0.5)
            found = [bound.get(no_ack=True) for _ in range(members)]
            sizes[members] = max(len(message.body) for message in found)
        bound.delete()
    return {"small": sizes[10], "large": sizes[count]}


def publish_group(tasks, count: int) -> dict[str, float]:  # noqa: ANN001
    """Tasks per second into a queue without a worker, until the broker has confirmed all."""
    from celery import group as make_group

    rates = []
    queue = tasks.app.amqp.default_queue
    for _ in range(ROUNDS + 1):
        canvas = make_group([tasks.noop.s(number) for number in range(count)])
        start = time.perf_counter()
        canvas.apply_async()
        producer = getattr(tasks.app.amqp, "producer", None)
        if hasattr(producer, "flush"):
            producer.flush(60.0)
        rates.append(count / (time.perf_counter() - start))
        with tasks.app.connection_for_write() as connection:
            queue(connection.default_channel).purge()
    with tasks.app.connection_for_write() as connection:
        queue(connection.default_channel).delete()
    return {"per_second": statistics.median(rates[1:])}


def main() -> None:
    implementation, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tasks = load(implementation)
    print(json.dumps(globals()[what](tasks, count)))


if __name__ == "__main__":
    main()
