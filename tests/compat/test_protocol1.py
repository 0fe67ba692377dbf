"""Messages of protocol 1 from the real Celery, run by our worker (PROTOCOL §3.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import ours, theirs

pytestmark = pytest.mark.long

SCRIPT = """
import time
from celery import chord

def outcome(result):
    try:
        return result.get(timeout=20)
    except Exception as exc:
        return type(exc).__name__

began = time.time()
late = tasks.same.apply_async(("late",), countdown=1.5)
expired = tasks.same.apply_async(("never",), countdown=1.5, expires=0.5)
me = tasks.about_me.delay()
linked = tasks.add.apply_async((1, 2), link=tasks.add.s(10))
result = {
    "plain": [tasks.add.delay(i, i).get(timeout=20) for i in range(3)],
    "failed": outcome(tasks.fail.delay("nails", 3)),
    "chord": chord([tasks.add.s(i, i) for i in range(4)])(tasks.total.s()).get(timeout=20),
    "retried": tasks.flaky.delay(2).get(timeout=20),
    "me": {name: me.get(timeout=20)[name] for name in ("id", "args", "retries", "correlation_id")} == {
        "id": me.id, "args": [], "retries": 0, "correlation_id": me.id},
    "linked": [child.get(timeout=20) for child in (linked.get(timeout=20), linked.children)[1]],
    "late": [late.get(timeout=20), time.time() - began >= 1.5],
    "expired": outcome(expired),
}
"""
EXPECTED = {
    "plain": [0, 2, 4], "failed": "OutOfStock", "chord": 12, "retried": 2, "me": True, "linked": [13], "late": ["late", True],
    "expired": "TaskRevokedError",
}


@pytest.mark.parametrize("kind", ["amqp", "filesystem"])
def test_old_messages(kind: str, request: pytest.FixtureRequest, redis_url: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    extra, broker = {}, "filesystem://"
    if kind == "filesystem":
        extra["FLEET_OPTIONS"] = json.dumps({
            "data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path / "control"),
            "polling_interval": 0.1})
    else:
        broker = str(request.getfixturevalue("amqp_url"))
    client, worker = theirs(), ours()
    env = client.env(broker, redis_url, unique("old"), **extra)
    try:
        with worker.worker(env):
            assert client.client(SCRIPT, {**env, "FLEET_SETTINGS": json.dumps({"task_protocol": 1})}) == EXPECTED
    finally:
        if kind == "amqp":
            ours().client("tasks.app.amqp.producer.remove(tasks.app.conf.task_default_queue, 5.0)\nresult = None", env)
