"""Tasks guide, how it works (T-330..T-335)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import NotRegistered

BUILTIN = {"celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.chord", "celery.chord_unlock",
           "celery.chunks", "celery.group", "celery.map", "celery.starmap"}


@pytest.fixture
def app() -> Celery:
    return Celery("registry", broker="memory://", set_as_current=False)


def test_t330_registry_is_a_mapping(app: Celery) -> None:
    @app.task(name="registry.one", shared=False)
    def one() -> None:
        """Nothing."""

    assert app.tasks["registry.one"] is app.tasks[one.name]
    assert app.tasks["registry.one"] == one
    assert "registry.one" in app.tasks
    assert type(app.tasks).__name__ == "TaskRegistry"
    with pytest.raises(NotRegistered):
        app.tasks["registry.two"]
    assert app.tasks.get("registry.two") is None


def test_t330_access_finalizes(app: Celery) -> None:
    assert not app.finalized
    _ = app.tasks
    assert app.finalized


def test_t331_built_in_tasks(app: Celery) -> None:
    assert set(app.tasks) >= BUILTIN
    assert {name for name in app.tasks if name.startswith("celery.")} - {"celery.ping"} == BUILTIN


def project(tmp_path: Path, config: str, **modules: str) -> Path:
    for name, task in modules.items():
        (tmp_path / f"{name}.py").write_text(f"from rows_proj import app\n\n@app.task\ndef {task}():\n    return {task!r}\n")
    (tmp_path / "rows_proj.py").write_text(f"from celery import Celery\n\napp = Celery('proj', broker='memory://', set_as_current=True)\n{config}\n")
    return tmp_path


def registered(impl: str, where: Path, before: str = "", options: str = "") -> set[str]:
    """The tasks that a new process knows after loading what a worker loads."""
    alias = "import pyceleryc; pyceleryc.install_as_celery()\n" if impl == "pyceleryc" else ""
    code = f"{alias}from rows_proj import app\n{before}\n{options}\nprint('\\n'.join(n for n in app.tasks if not n.startswith('celery.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=where, env={**os.environ, "PYTHONPATH": str(where)},
                          stdout=subprocess.PIPE, check=True, text=True)
    return set(done.stdout.split())


def test_t332_only_what_was_imported(impl: str, tmp_path: Path) -> None:
    where = project(tmp_path, "", rows_one="first")
    assert registered(impl, where) == set()
    assert registered(impl, where, "import rows_one") == {"rows_one.first"}


@pytest.mark.parametrize("config", [
    "app.conf.imports = ['rows_one', 'rows_two']", "app.conf.include = ['rows_one', 'rows_two']",
    "app.conf.imports = ('rows_one',)\napp.conf.include = ['rows_two']"])
def test_t333_imports_and_include(impl: str, tmp_path: Path, config: str) -> None:
    where = project(tmp_path, config, rows_one="first", rows_two="second")
    assert registered(impl, where, "app.loader.import_default_modules()") == {"rows_one.first", "rows_two.second"}
    assert registered(impl, where) == set()


def test_t333_include_of_the_constructor(impl: str, tmp_path: Path) -> None:
    where = project(tmp_path, "app = Celery('proj', include=['rows_one'])", rows_one="first")
    assert registered(impl, where, "app.loader.import_default_modules()") == {"rows_one.first"}


def test_t333_autodiscover(impl: str, tmp_path: Path) -> None:
    where = project(tmp_path, "app.autodiscover_tasks(['rows_pkg', 'rows_empty'])")
    for name in ("rows_pkg", "rows_empty"):
        (where / name).mkdir()
        (where / name / "__init__.py").touch()
    (where / "rows_pkg" / "tasks.py").write_text("from rows_proj import app\n\n@app.task\ndef found():\n    return 1\n")
    assert registered(impl, where, "app.loader.import_default_modules()") == {"rows_pkg.tasks.found"}


def test_t333_a_module_that_is_missing(impl: str, tmp_path: Path) -> None:
    where = project(tmp_path, "app.conf.imports = ['rows_not_there']")
    with pytest.raises(subprocess.CalledProcessError):
        registered(impl, where, "app.loader.import_default_modules()")


def test_t333_a_worker_loads_them(side: Any, amqp_url: str, unique: Any, tmp_path: Path) -> None:
    """imports, and the option -I."""
    queue = unique("imports")
    config = f"app.conf.update(broker_url={amqp_url!r}, task_default_queue={queue!r}, imports=['rows_one'])"
    where = project(tmp_path, config, rows_one="first", rows_two="second")
    env = side.env(amqp_url, None, queue, FLEET_APP="rows_proj", FLEET_LOGLEVEL="INFO", PYTHONPATH=str(where))
    with side.worker(env, "-c", "1", "-I", "rows_two") as worker:
        assert re.search(r"\. rows_one\.first\n", worker.text())
        assert re.search(r"\. rows_two\.second\n", worker.text())
    from kombu import Connection

    with Connection(amqp_url) as connection:
        connection.default_channel.queue_delete(queue)


def test_t334_no_code_in_the_message(box: Any) -> None:
    """Only the name and the arguments."""
    @box.app.task(name="registry.secret", shared=False)
    def secret(x: int) -> str:
        return "the body of the function" * x

    secret.delay(3)
    message = box.take()
    assert message.headers["task"] == "registry.secret"
    assert "the body" not in f"{message.headers}{message.body}"
    assert message.args == [3]


def test_t335_repr(app: Celery) -> None:
    @app.task(name="registry.shown", shared=False)
    def shown() -> None:
        """Nothing."""

    assert re.fullmatch(r"<@task: registry\.shown of registry at 0x[0-9a-f]+>", repr(shown))
