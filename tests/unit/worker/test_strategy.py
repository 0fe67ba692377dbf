"""Which requests of user code are followed (the rest is in tests/integration/test_requests.py)."""

from __future__ import annotations

import os
from typing import Any

from pyceleryc import Celery
from pyceleryc.worker.request import Request
from pyceleryc.worker.strategy import Customs
from pyceleryc.worker.worker import WorkController


class Silent(Request):
    """Does not call what it overrides."""

    told: list[str] = []

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self.told.append(f"{self.id} begins")

    def on_success(self, failed__retval__runtime: tuple[bool, str, float], **kwargs: Any) -> None:
        self.told.append(f"{self.id} has ended")


class Message:
    """As strategies get them."""

    def __init__(self, task_id: str) -> None:
        self.headers = {"id": task_id, "task": "t"}
        self.properties: dict[str, Any] = {}
        self.delivery_info: dict[str, Any] = {}
        self.body, self.content_type, self.content_encoding = b"[[], {}, {}]", "application/json", "utf-8"


def test_what_has_begun_is_followed_when_the_connection_is_lost() -> None:
    app = Celery(broker="memory://", set_as_current=False)
    machine = WorkController(app, "w@here", pool="solo").make_machine()
    customs: Customs = machine.hooks.customs
    for task_id in ("first", "second"):
        customs.follow(Silent(Message(task_id), app=app))
    customs.tell("first", "on_accepted", os.getpid(), 1.0)
    customs.forget_unstarted()
    assert customs.tell("first", "on_success", (False, "1", 0.1), last=True)
    assert not customs.tell("second", "on_success", (False, "1", 0.1), last=True)
    assert not customs.running
    assert Silent.told == ["first begins", "first has ended"]
    machine.close()
