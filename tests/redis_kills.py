"""The kill experiment on Redis: SIGKILL of the whole worker again and again under late-ack tasks, then count.

What was in flight at a kill is read from the `unacked` hash that the dead worker left: only those tasks may run again,
and each only as often as it was in flight at a kill.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fleet import Side, Worker
from marks import ran
from resp import Redis

PUBLISHER = """
import random, sys
chance = random.Random(3)
for line in sys.stdin:
    first, count = map(int, line.split())
    for number in range(first, first + count):
        tasks.late.delay(number, chance.uniform(0.0, {longest}))
"""


@dataclass
class Report:
    """What a run of the experiment counted."""

    tasks: int
    kills: int
    ran: Counter[int]
    in_flight: Counter[int] = field(default_factory=Counter)  # at how many kills
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        return self.tasks - len(self.ran)

    @property
    def doubles(self) -> int:
        return sum(self.ran.values()) - len(self.ran)

    @property
    def beyond(self) -> list[int]:
        """Tasks that ran more often than kills explain."""
        return [number for number, times in self.ran.items() if times > 1 + self.in_flight[number]]

    def __str__(self) -> str:
        return (f"{self.tasks} tasks, {self.kills} kills: {self.lost} lost, {self.doubles} run again; in flight at kills: "
                f"{sum(self.in_flight.values())}; run again though not in flight: {len(self.beyond)}; {self.seconds:.0f} s")


class Experiment:
    """One side on one queue; `env` as from Side.env() with FLEET_MARKS, `prefix` its global_keyprefix."""

    def __init__(self, side: Side, env: dict[str, str], redis: Redis, marks: Path, prefix: str = "", pool: str = "prefork") -> None:
        self.side = side
        self.options = ("-P", pool, "-c", "2")
        self.env = env
        self.redis = redis
        self.marks = marks
        self.unacked = f"{prefix}unacked"
        self.queue = f"{prefix}{env['FLEET_QUEUE']}"
        self.known: set[str] = set()
        self.in_flight: Counter[int] = Counter()
        self.chance = random.Random(11)

    def run(self, tasks: int, kills: int, longest: float, up_to: float, patience: float, restart: float | None = None) -> Report:
        """Publishes the tasks (each sleeps up to `longest` seconds) in as many parts as there are kills; the worker of each
        part is killed up to `up_to` seconds after it is ready. Then a last worker has `patience` seconds to end it all,
        and is started anew every `restart` seconds."""
        began = time.monotonic()
        publisher = self._publisher(longest)
        assert publisher.stdin is not None
        part = tasks // kills
        for number in range(kills):
            publisher.stdin.write(f"{number * part} {part}\n")
            publisher.stdin.flush()
            self._kill_one(up_to)
        publisher.stdin.close()
        assert publisher.wait(60) == 0
        self._finish(part * kills, patience, restart)
        return Report(part * kills, kills, ran(self.marks), self.in_flight, time.monotonic() - began)

    def _publisher(self, longest: float) -> subprocess.Popen[str]:
        code = "import pyceleryc; pyceleryc.install_as_celery()\n" if self.side.name == "pyceleryc" else ""
        code += "import fleet_tasks as tasks\n" + PUBLISHER.format(longest=longest)
        return subprocess.Popen([self.side.python, "-c", code], env=self.env, stdin=subprocess.PIPE, text=True)

    def _kill_one(self, up_to: float) -> None:
        worker = Worker(self.side, self.env, self.options)
        try:
            worker.wait_ready()
            time.sleep(self.chance.uniform(0.0, up_to))
            worker.kill_group()
        finally:
            worker.end()
        time.sleep(0.05)  # the server reads what was sent before the kill
        self._count_in_flight()

    def _count_in_flight(self) -> None:
        pairs = self.redis("HGETALL", self.unacked)
        now = dict(zip(pairs[::2], pairs[1::2], strict=True))
        for tag in now.keys() - self.known:
            number = re.match(r"\((\d+)", json.loads(now[tag])[0]["headers"]["argsrepr"])
            assert number is not None, now[tag]
            self.in_flight[int(number[1])] += 1
        self.known = set(now)

    def _is_drained(self) -> bool:
        lists = [self.queue + end for end in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
        return int(self.redis("EXISTS", self.unacked, *lists)) == 0

    def _finish(self, tasks: int, patience: float, restart: float | None) -> None:
        """Waits until nothing is left in the broker: what has not run then is lost."""
        deadline = time.monotonic() + patience
        while not self._is_drained() and time.monotonic() < deadline:
            with self.side.worker(self.env, *self.options):
                end = min(deadline, time.monotonic() + (restart or patience))
                while not self._is_drained() and time.monotonic() < end:
                    time.sleep(0.05)
