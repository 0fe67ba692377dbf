"""Tasks guide, names (T-040..T-050)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, current_app, shared_task
from celery.exceptions import NotRegistered
from modules import forgotten


@pytest.fixture
def app() -> Celery:
    return Celery("names", broker="memory://", set_as_current=False)


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; what was imported from it is forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    current = current_app._get_current_object()
    with forgotten(tmp_path):
        yield tmp_path
    current.set_current()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_t040_one_task_for_each_name(app: Celery) -> None:
    def one() -> None:
        """A body."""

    task = app.task(one)
    app.finalize()
    assert app.tasks[f"{__name__}.one"] == task and list(app.tasks).count(task.name) == 1
    with pytest.raises(NotRegistered):
        app.tasks["nothing.of.that.name"]


def test_t041_module_and_function(importable: Path) -> None:
    write(importable, {"t041.py": "from celery import Celery\napp = Celery('x', set_as_current=False)\n"
                                  "@app.task\ndef add(x, y):\n    return x + y\n"})
    assert importlib.import_module("t041").add.name == "t041.add"


def test_t041_nested_function_has_its_plain_name(app: Celery) -> None:
    @app.task
    def inside() -> None:
        """A body."""

    assert inside.name == f"{__name__}.inside"


@pytest.mark.parametrize("name", ["sum-of-two-numbers", "a", "Ünï cödé", "with.dots.and spaces"])
def test_t042_explicit_name(app: Celery, name: str) -> None:
    @app.task(name=name, shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    assert add.name == name and app.tasks[name](1, 2) == 3


def test_t043_main_is_replaced_by_the_name_of_the_app(side: Any, importable: Path) -> None:
    write(importable, {"t043.py": ""})
    script = ("from celery import Celery\napp = Celery('proj', set_as_current=False)\n@app.task\ndef add(): return 1\n"
              "other = Celery(set_as_current=False)\n@other.task\ndef sub(): return 1\nresult = [add.name, sub.name]")
    env = {**os.environ, "FLEET_APP": "t043", "PYTHONPATH": str(importable)}
    assert side.client(script, env) == ["proj.add", "__main__.sub"]


def test_t043_main_file_of_a_spawned_process(side: Any, importable: Path) -> None:
    write(importable, {"t043m.py": "from celery import Celery\napp = Celery('proj')\n@app.task\ndef add(): return 1\n"})
    env = {**os.environ, "FLEET_APP": "t043m", "PYTHONPATH": str(importable)}
    assert side.client("result = tasks.add.name", env) == "t043m.add"
    env["MP_MAIN_FILE"] = str(importable / "t043m.py")
    assert side.client("result = tasks.add.name", env) == "proj.add"


def test_t044_name_can_be_read(app: Celery) -> None:
    @app.task
    def named() -> None:
        """A body."""

    assert named.name == app.tasks[f"{__name__}.named"].name == f"{__name__}.named"


def test_t045_unknown_name_is_refused(running: Any) -> None:
    result = running.tasks.app.send_task("otherpath.tasks.add", (1, 2))
    with pytest.raises(NotRegistered):
        result.get(timeout=20)
    assert result.state == "FAILURE"
    running.worker.wait_for("Received unregistered task of type 'otherpath.tasks.add'")
    assert running.tasks.add.delay(1, 1).get(timeout=20) == 2


def test_t046_explicit_name_whatever_the_import_path(importable: Path, running: Any) -> None:
    write(importable, {"t046.py": f"from celery import Celery\napp = Celery('x', broker={running.env['FLEET_BROKER']!r},"
                                  f" backend={running.env['FLEET_BACKEND']!r}, set_as_current=False)\n"
                                  f"app.conf.task_default_queue = {running.queue!r}\n"
                                  "@app.task(name='sum-of-two-numbers')\ndef add(x, y): return None\n"})
    client = importlib.import_module("t046")
    try:
        assert client.add.delay(2, 3).get(timeout=20) == 5
    finally:
        client.app.close()


def test_t047_name_follows_the_import_path(importable: Path) -> None:
    text = "from celery import shared_task\n@shared_task\ndef mytask(): return 1\n"
    write(importable, {"t047/__init__.py": "", "t047/myapp/__init__.py": "", "t047/myapp/tasks.py": text})
    assert importlib.import_module("t047.myapp.tasks").mytask.name == "t047.myapp.tasks.mytask"
    sys.path.insert(0, str(importable / "t047"))
    try:
        assert importlib.import_module("myapp.tasks").mytask.name == "myapp.tasks.mytask"
    finally:
        sys.path.remove(str(importable / "t047"))


class Shorter(Celery):
    """The guide's example: no `.tasks` in names."""

    def gen_task_name(self, name: str, module: str) -> str:
        return super().gen_task_name(name, module.removesuffix(".tasks"))


def test_t049_names_made_by_the_app(importable: Path) -> None:
    app = Shorter("short", broker="memory://")
    write(importable, {"moduleA/__init__.py": "", "moduleA/tasks.py":
          "from celery import Task, current_app, shared_task\n@current_app.task\ndef taskA(): return 1\n"
          "@shared_task\ndef taskB(): return 1\nclass TaskC(Task):\n    def run(self): return 1\n"})
    module = importlib.import_module("moduleA.tasks")
    assert (module.taskA.name, module.taskB.name) == ("moduleA.taskA", "moduleA.taskB")
    assert app.register_task(module.TaskC()).name == "moduleA.TaskC"
    assert {"moduleA.taskA", "moduleA.taskB", "moduleA.TaskC"} <= set(app.tasks)


def test_t050_hook_is_called_as_often_as_needed(importable: Path) -> None:
    calls: list[tuple[str, str]] = []

    class Counting(Celery):
        def gen_task_name(self, name: str, module: str) -> str:
            calls.append((name, module))
            return super().gen_task_name(name, module)

    Counting("counting", broker="memory://")

    @shared_task
    def t050() -> int:
        return 1

    assert t050.name == t050.name == f"{__name__}.t050" and t050() == 1
    assert calls.count(("t050", __name__)) >= 1


def test_t049_register_task_keeps_an_explicit_name(app: Celery) -> None:
    class Named(Task):
        name = "t049-explicit"

        def run(self) -> int:
            return 3

    assert app.register_task(Named()).name == "t049-explicit" and app.tasks["t049-explicit"]() == 3
