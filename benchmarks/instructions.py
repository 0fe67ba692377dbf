"""Instructions per no-op task, counted by callgrind: repeatable on any machine, whatever else it does.

    python benchmarks/instructions.py            # the whole path in one process: publish, intake, run, ack (memory broker, solo pool)

Two runs of different length are compared, so that starting up does not count. A change of the fast path by more than a few
per cent should have a reason.
"""

from __future__ import annotations

import re
import subprocess
import sys

SHORT, LONG = 2000, 6000

PROGRAM = """
import sys
from pyceleryc import Celery
from pyceleryc.worker.machine import Machine

app = Celery("count", broker="memory://", set_as_current=False)
app.conf.worker_prefetch_multiplier = 64

@app.task(name="count.noop", ignore_result=True)
def noop(number):
    if number == last:
        machine.stop()

last = int(sys.argv[1]) - 1
machine = Machine(app, "count@here", None, pool="solo")
for number in range(last + 1):
    noop.delay(number)
machine.run()
machine.close()
"""


def count(tasks: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-c", PROGRAM, str(tasks)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, env={"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"})
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"no count in valgrind's output:\n{done.stderr}")
    return int(found[1])


def main() -> None:
    # the first of two runs may compile modules
    shorter, longer = (min(count(tasks) for _ in range(2)) for tasks in (SHORT, LONG))
    per_task = (longer - shorter) / (LONG - SHORT)
    print(f"{per_task:.0f} instructions per no-op task (publish, intake, run, acknowledge)")


if __name__ == "__main__":
    main()
