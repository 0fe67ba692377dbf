"""The broker is killed while a program publishes: what became of each task whose delay() returned?"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from brokers import PrivateRabbitMQ
from fleet import Side, ours

#: Sends the numbers one after the other; one that is refused is tried again. A number goes to the file when delay() has returned.
PUBLISH = """
import sys, time
returned, refused = open({path!r}, "w"), 0
for number in range({count}):
    while True:
        try:
            tasks.early.delay(number)
            break
        except tasks.early.OperationalError as exc:
            refused += 1
            time.sleep(0.1)
    print(number, file=returned, flush=True)
print(refused)
"""


def prelude(side: Side) -> str:
    alias = "import pyceleryc; pyceleryc.install_as_celery()\n" if side.name == "pyceleryc" else ""
    return alias + "import fleet_tasks as tasks\n"


def numbers(path: Path) -> set[int]:
    text = path.read_text() if path.exists() else ""
    return {int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")}


def kill_while_publishing(side: Side, server: PrivateRabbitMQ, queue: str, count: int, folder: Path, timeout: float) -> set[int]:
    """Publishes `count` tasks with `side`'s library, kills the broker after a third of them, starts it again, and lets a
    worker of ours run what has arrived. Returns the numbers whose delay() returned and that were not executed."""
    returned, marks = folder / "returned", folder / "marks"
    marks.touch()
    env = side.env(server.url, None, queue, FLEET_MARKS=str(marks), FLEET_OPTIONS='{"publish_timeout": 120}')
    code = prelude(side) + PUBLISH.format(path=str(returned), count=count)
    publisher = subprocess.Popen([side.python, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + timeout
        while len(numbers(returned)) < count // 3:
            assert publisher.poll() is None, publisher.communicate()[1]
            assert time.monotonic() < deadline, "the publisher is too slow"
            time.sleep(0.01)
        server.kill()
        server.start()
        out, err = publisher.communicate(timeout=timeout)
    finally:
        publisher.kill()
    assert publisher.returncode == 0, err
    sent = numbers(returned)
    assert sent == set(range(count))
    runner = ours()
    with runner.worker(runner.env(server.url, None, queue, FLEET_MARKS=str(marks), FLEET_PREFETCH="500", FLEET_LOGLEVEL="WARNING")):
        wait_until_empty(server.url, queue, marks, timeout)
    print(f"{side.name}: {count} sent, {out.strip()} times refused, {len(sent - numbers(marks))} lost", flush=True)
    return sent - numbers(marks)


def wait_until_empty(url: str, queue: str, marks: Path, timeout: float) -> None:
    """Until nothing is left, and nothing more is executed."""
    from kombu import Connection

    deadline = time.monotonic() + timeout
    with Connection(url) as connection:
        channel = connection.default_channel
        size = -1
        while channel.queue_declare(queue, passive=True).message_count > 0 or marks.stat().st_size != size:
            assert time.monotonic() < deadline, "the worker is too slow"
            size = marks.stat().st_size
            time.sleep(1)
