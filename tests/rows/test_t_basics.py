"""Tasks guide, concept and basics: the shared worker answers."""

from __future__ import annotations

from typing import Any


def test_t001_a_callable_becomes_a_task(running: Any) -> None:
    assert running.tasks.add.delay(2, 2).get(timeout=20) == 4
