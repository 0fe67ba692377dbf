"""Tasks for tests of probes; the broker is a file, named by the environment."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from pyceleryc import Celery

app = Celery("probe_tasks", broker=os.environ["PROBE_BROKER"], set_as_current=False)
app.conf.task_default_queue = os.environ.get("PROBE_QUEUE", "celery")


@app.task
def hold_gil(seconds: float, mark: str) -> None:
    """Let no other thread of this process run Python code."""
    Path(mark).write_text("started")
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
