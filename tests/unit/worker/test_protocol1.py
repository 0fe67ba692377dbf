"""Messages of protocol 1: their times."""

from __future__ import annotations

import json

import pytest

from pyceleryc import Celery
from pyceleryc.worker.protocol1 import upgrade


@pytest.mark.parametrize("utc", [True, False])
@pytest.mark.parametrize("when", ["2024-06-01T12:00:00", "2024-06-01T12:00:00+05:00", "9999-12-31T23:59:59", "0001-01-01T00:00:00", "soon", None])
def test_times(utc: bool, when: str | None) -> None:
    """They stay as they are: a worker of Celery takes one without an offset for UTC in any case."""
    app = Celery(broker="memory://", set_as_current=False, timezone="Europe/Berlin", enable_utc=utc)
    body = json.dumps({"task": "t", "id": "i", "args": [1], "kwargs": {}, "eta": when, "expires": when, "utc": utc}).encode()
    made = upgrade(app, {}, body, "application/json", "utf-8")
    assert made is not None
    assert (made[0]["eta"], made[0]["expires"]) == (when, when)
