"""Old names of settings become new ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyceleryc.bin.celery import main

OLD = '''\
import os
BROKER_URL = "amqp://"  # BROKER_URL is where
CELERYD_CONCURRENCY = CELERYD_PREFETCH_MULTIPLIER = 4
MINE = other.BROKER_URL, CELERYD_CONCURRENCY
'''
NEW = '''\
import os
broker_url = "amqp://"  # BROKER_URL is where
worker_concurrency = worker_prefetch_multiplier = 4
MINE = other.BROKER_URL, worker_concurrency
'''


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["upgrade", "settings", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.py"
    path.write_text(OLD)
    path.chmod(0o640)
    return path


def test_new_names(file: Path) -> None:
    done = run(str(file))
    assert done.exit_code == 0, done.output
    assert file.read_text() == NEW and (file.parent / "settings.py.orig").read_text() == OLD
    assert file.stat().st_mode & 0o777 == 0o640
    assert "CELERYD_CONCURRENCY -> worker_concurrency" in done.output
    assert "nothing to rename" in run(str(file)).output
    assert sorted(path.name for path in file.parent.iterdir()) == ["settings.py", "settings.py.orig"]


@pytest.mark.parametrize("option", ["--django", "--compat"])
def test_names_for_django(file: Path, option: str) -> None:
    assert run(str(file), option, "--no-backup").exit_code == 0
    assert "CELERY_WORKER_CONCURRENCY = CELERY_WORKER_PREFETCH_MULTIPLIER = 4" in file.read_text()
    assert not (file.parent / "settings.py.orig").exists()


def test_texts_are_left_and_told(file: Path) -> None:
    file.write_text('BROKER_URL = "x"\nconf["BROKER_URL"] = 1\n')
    done = run(str(file))
    assert file.read_text() == 'broker_url = "x"\nconf["BROKER_URL"] = 1\n'
    assert "settings.py:2: a text mentions BROKER_URL" in done.output


@pytest.mark.parametrize("content", ["x = (\n", "  x = 1\n y = 2\n", "# coding: nonsense\n"])
def test_no_python(file: Path, content: str) -> None:
    file.write_text(content)
    done = run(str(file))
    assert done.exit_code == 1 and "is no Python" in done.output
    assert file.read_text() == content and os.listdir(file.parent) == ["settings.py"]


def test_missing_file() -> None:
    assert run("nowhere.py").exit_code == 2
