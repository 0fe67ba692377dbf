"""Scripts for the real Celery, in the environment PEER_PYTHON of soak_stores.sh."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PRELUDE = """
import emulated, json, sys
from celery import Celery, states
from celery.app.task import Context
url, settings = sys.argv[1:]
app = Celery("peer", broker="memory://", backend=url, set_as_current=True)
app.conf.update(json.loads(settings))
backend, answer = app.backend, None

def request_of(id):
    request = Context(id=id, task="t.add", args=[1, 2], kwargs={"k": "é"}, hostname="w@h", retries=2, group="g", parent_id="p",
                      delivery_info={"routing_key": "q"}, called_directly=False, stamped_headers=["s"], stamps={"s": ["1"]})
    request._children = [app.AsyncResult("child", parent=app.AsyncResult("p"))]
    return request
"""


def celery(url: str, script: str, **settings: Any) -> Any:
    """Runs a script in the real Celery; returns its `answer`."""
    code = f"{PRELUDE}\n{script}\nprint(json.dumps(answer))"
    done = subprocess.run([os.environ["PEER_PYTHON"], "-c", code, url, json.dumps(settings)],
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
