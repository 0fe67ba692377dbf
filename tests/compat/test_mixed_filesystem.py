"""Celery and pyceleryc on the same folder: ``filesystem://`` is read and written as kombu does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import Side, ours, theirs

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("client", "worker"), [(theirs, ours), (ours, theirs)], ids=["celery client, our worker", "our client, celery worker"])
def test_tasks_run(client: Callable[[], Side], worker: Callable[[], Side], tmp_path: Path, redis_url: str,
                   unique: Callable[[str], str]) -> None:
    options = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path / "control"),
               "polling_interval": 0.1}
    env = client().env("filesystem://", redis_url, unique("folder"), FLEET_OPTIONS=json.dumps(options))
    with worker().worker(env):
        script = "results = [tasks.add.delay(i, i) for i in range(10)]\nresult = [each.get(timeout=20) for each in results]"
        assert client().client(script, env) == [2 * i for i in range(10)]
