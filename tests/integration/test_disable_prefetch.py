"""--disable-prefetch: a message stays in its queue, where others can take it, until a process is free."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import wait_until
from fleet import ours

WAITING = "result = tasks.app.amqp.producer.size(tasks.app.conf.task_default_queue, 5.0)[0]"


@pytest.mark.parametrize("broker, task, how", [
    ("redis", "hold", "option"), ("redis", "late_hold", "option"), ("redis", "hold", "setting"), ("sqlite", "hold", "option"),
])
def test_only_what_can_run_is_taken(redis_url: str, unique: Callable[[str], str], tmp_path: Path, broker: str, task: str, how: str) -> None:
    side = ours()
    url = redis_url if broker == "redis" else f"sqlite:///{tmp_path}/queue.db"
    settings = {"worker_disable_prefetch": True} if how == "setting" else {}
    env = side.env(url, redis_url, unique("queue"), FLEET_SETTINGS=json.dumps(settings))
    paths = [tmp_path / str(n) for n in range(4)]
    begun = [Path(f"{path}.begun") for path in paths]
    with side.worker(env, "-c", "2", *(["--disable-prefetch"] if how == "option" else [])) as worker:
        ids = side.client(f"result = [tasks.{task}.delay(path).id for path in {list(map(str, paths))!r}]", env)
        wait_until(lambda: begun[0].exists() and begun[1].exists())
        assert side.client(WAITING, env) == 2, worker.text()
        paths[1].touch()
        wait_until(begun[2].exists)
        assert not begun[3].exists() and side.client(WAITING, env) == 1
        for path in paths:
            path.touch()
        assert side.client(f"result = [tasks.app.AsyncResult(i).get(timeout=20) for i in {ids!r}]", env) == ["held"] * 4
