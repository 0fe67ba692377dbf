"""``install_as_celery`` and the public names, each in a fresh interpreter."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pyceleryc

PYTHON = [sys.executable, '-c']


def run(code: str) -> str:
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_same_objects() -> None:
    assert run('''
import pyceleryc; pyceleryc.install_as_celery(); pyceleryc.install_as_celery()
import celery, celery.app.task, celery.exceptions
from celery import Celery, shared_task, Task
from celery.canvas import chain
from celery.utils.log import get_task_logger
import pyceleryc.app.task as real, pyceleryc.exceptions, pyceleryc.utils.log
assert celery is pyceleryc and celery.app.task is real and Task is real.Task
assert celery.exceptions is pyceleryc.exceptions
assert get_task_logger is pyceleryc.utils.log.get_task_logger
assert real.__name__ == real.__spec__.name == "pyceleryc.app.task", real.__spec__
import importlib; assert importlib.reload(pyceleryc.states) is pyceleryc.states
print(celery.__version__)
''') == pyceleryc.__version__


def test_unknown_module() -> None:
    assert run('''
import pyceleryc; pyceleryc.install_as_celery()
try:
    import celery.no_such_module
except ModuleNotFoundError as exc:
    print(exc.name)
''') == 'celery.no_such_module'


def test_billiard() -> None:
    assert run('''
import pyceleryc; pyceleryc.install_as_celery()
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.einfo import ExceptionInfo
import pyceleryc.exceptions, pickle
print(SoftTimeLimitExceeded is pyceleryc.exceptions.SoftTimeLimitExceeded)
''') == 'True'


def test_version_of_the_distribution(tmp_path: Path) -> None:
    """OpenTelemetry instruments nothing unless celery is "installed"."""
    code = """
import sys, pyceleryc
from importlib import metadata
pyceleryc.install_as_celery()
sys.path[:0] = sys.argv[1:]
print(metadata.version("celery"), metadata.distribution("celery").requires)
try:
    metadata.version("no-such-thing")
except metadata.PackageNotFoundError:
    print("not found", [each for each in metadata.distributions() if each.name == "celery" and not sys.argv[1:]])
"""
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f'{pyceleryc.__version__} None\nnot found []\n'
    (tmp_path / 'celery-1.2.dist-info').mkdir()
    (tmp_path / 'celery-1.2.dist-info' / 'METADATA').write_text('Metadata-Version: 2.1\nName: celery\nVersion: 1.2\n')
    done = subprocess.run([*PYTHON, code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith('1.2 ')


def test_too_late() -> None:
    assert 'was already imported' in run('''
import sys, types; sys.modules["celery"] = types.ModuleType("celery")
import pyceleryc
try:
    pyceleryc.install_as_celery()
except RuntimeError as exc:
    print(exc)
''')


def test_import_is_light() -> None:
    assert run('''
import sys, pyceleryc
print([name for name in ("kombu", "click", "pyceleryc.app", "pyceleryc._core") if name in sys.modules])
''') == '[]'


@pytest.mark.parametrize('name', pyceleryc.__all__)
def test_public_names(name: str) -> None:
    assert getattr(pyceleryc, name) is not None and name in dir(pyceleryc)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match='no_such'):
        pyceleryc.no_such  # noqa: B018


def test_versions() -> None:
    assert pyceleryc.VERSION == pyceleryc.version_info == (5, 6, 3, '', '')
