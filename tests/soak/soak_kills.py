"""kill -9 of the whole worker, 40 times under 10,000 late-ack tasks, on RabbitMQ and on SQLite: tests/integration/test_kill.py
with more of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    sys.exit(subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/integration/test_kill.py::test_worker_killed_again_and_again"], cwd=ROOT,
        env={**os.environ, "KILL_TASKS": "10000", "KILL_TIMES": "40"}).returncode)
