"""Two beats with a lease: one sends; when it dies or stops, the other goes on where it was (setting beat_lease)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PROJECT = '''
import os, time
from celery import Celery, signals

app = Celery("proj", broker=os.environ["BROKER"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"], result_expires=None, beat_lease=os.environ["QUEUE"], beat_lease_timeout=3,
    beat_schedule={"often": {"task": "often", "schedule": 1.0}},
)


@signals.after_task_publish.connect
def sent(sender=None, **kwargs):
    with open(os.environ["MARKS"], "a") as file:
        file.write(f"{time.time()} {os.getpid()}\\n")
'''


class Beats:
    """Two beats, in directories of their own: two hosts."""

    def __init__(self, path: Path, broker: str, queue: str) -> None:
        self.path, self.marks = path, path / "marks"
        self.marks.touch()
        self.env = {**os.environ, "BROKER": broker, "QUEUE": queue, "MARKS": str(self.marks), "PYTHONPATH": str(path)}
        (path / "proj.py").write_text(PROJECT)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> int:
        number = len(self.processes)
        home = self.path / str(number)
        home.mkdir()
        log = (self.path / f"log{number}").open("wb")
        command = [sys.executable, "-m", "pyceleryc", "-A", "proj", "beat", "-l", "INFO", "--max-interval", "1"]
        self.processes.append(subprocess.Popen(command, cwd=home, env=self.env, stdout=log, stderr=log))
        return self.processes[-1].pid

    def log(self, number: int) -> str:
        return (self.path / f"log{number}").read_text()

    def sent(self) -> list[tuple[float, int]]:
        return [(float(when), int(pid)) for when, pid in map(str.split, self.marks.read_text().splitlines())]

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, "\n".join(self.log(number) for number in range(len(self.processes)))
            time.sleep(0.05)


@pytest.fixture
def beats(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Beats]:
    name = request.param
    broker = f"sqlite:///{tmp_path}/tasks.db" if name == "sqlite" else request.getfixturevalue(name)
    made = Beats(tmp_path, broker, unique("lease"))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    clean_up = "import os, pyceleryc; pyceleryc.install_as_celery(); import proj; proj.app.amqp.producer.remove(os.environ['QUEUE'], 5.0)\n"
    if name == "amqp_url":
        clean_up += "proj.app.amqp.producer.remove(f'pyceleryc.beat.{os.environ[\"QUEUE\"]}.runs', 5.0)\n"
    if name == "redis_url":
        clean_up += ("import redis\nredis.Redis.from_url(os.environ['BROKER']).delete("
                     "*(f'pyceleryc:beat:{os.environ[\"QUEUE\"]}' + end for end in ('', ':runs')))\n")
    subprocess.run([sys.executable, "-c", clean_up], env=made.env, check=True, cwd=tmp_path)


@pytest.mark.parametrize(("beats", "how"), [
    ("redis_url", signal.SIGKILL), ("redis_url", signal.SIGSTOP), ("amqp_url", signal.SIGKILL), ("amqp_url", signal.SIGSTOP),
    ("sqlite", signal.SIGTERM)], indirect=["beats"])
def test_the_other_beat_goes_on(beats: Beats, how: signal.Signals) -> None:
    first = beats.start()
    beats.wait_for(lambda: len(beats.sent()) >= 2)
    second = beats.start()
    beats.wait_for(lambda: "Standing by: another beat holds the lease" in beats.log(1))
    before = len(beats.sent())
    beats.wait_for(lambda: len(beats.sent()) >= before + 2)
    assert {pid for _, pid in beats.sent()} == {first}
    assert "Standing by" not in beats.log(0)
    os.kill(first, how)
    beats.wait_for(lambda: beats.sent()[-1][1] == second)
    if how == signal.SIGSTOP:
        os.kill(first, signal.SIGCONT)
        beats.wait_for(lambda: "Standing by" in beats.log(0))
    count = len(beats.sent())
    beats.wait_for(lambda: len(beats.sent()) >= count + 2)
    assert {pid for _, pid in beats.sent()[count:]} == {second}
    times = [when for when, _ in beats.sent()]
    assert len(times) <= times[-1] - times[0] + 2, times  # one a second: none was sent by both
