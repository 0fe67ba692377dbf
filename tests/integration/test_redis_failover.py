"""Several broker URLs: consuming and publishing go on with the next one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brokers import private_redis
from fleet import ours

pytestmark = pytest.mark.long

CLIENT = """
import sys, pyceleryc
pyceleryc.install_as_celery()
import fleet_tasks as tasks
for line in sys.stdin:
    first, count = map(int, line.split())
    for number in range(first, first + count):
        tasks.late.delay(number)
    print("sent", flush=True)
"""


def shown(url: str) -> str:
    """As logs have it, also Celery's."""
    return url.replace("://", "://:**@")


@pytest.mark.limit(120)
def test_the_next_broker_takes_over_and_gives_back(tmp_path: Path, unique: Callable[[str], str]) -> None:
    marks = tmp_path / "marks"
    marks.touch()

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 30
        while len(seen := set(map(int, marks.read_text().split()))) < count:
            assert time.monotonic() < deadline, sorted(set(range(count)) - seen)[:10]
            time.sleep(0.05)

    with private_redis() as first, private_redis() as second:
        first.kill()
        env = ours().env(f"{first.url};{second.url}", None, unique("failover"), FLEET_MARKS=str(marks))
        client = subprocess.Popen([sys.executable, "-c", CLIENT], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert client.stdin is not None and client.stdout is not None

        def send(number: int) -> None:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(f"{number} 100\n")
            client.stdin.flush()
            assert client.stdout.readline() == "sent\n"

        with ours().worker(env) as worker, client:
            worker.wait_for(f"Connected to {shown(second.url)}", 30)
            assert f"Cannot connect to {shown(first.url)}" in worker.text()
            send(0)
            wait_for(100)
            first.start()
            second.kill()
            worker.wait_for(f"Connected to {shown(first.url)}", 30)
            send(100)
            second.start()
            client.stdin.close()  # what went to the second before its end was noticed is sent again
            assert client.wait(20) == 0
            first.kill()
            wait_for(200)
            assert worker.stop() == 0
