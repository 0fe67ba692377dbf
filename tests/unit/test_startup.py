"""What a program does not pay for at its start: modules that sending a task, or a command, has no use for."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEND = """
from pyceleryc import Celery, group
app = Celery(broker="memory://")
@app.task
def add(x, y):
    return x + y
add.delay(1, 2)
app.send_task("elsewhere", countdown=5)
"""
COMMANDS = """
import click
from pyceleryc.bin.celery import celery
context = click.Context(celery)
for name in celery.list_commands(context):
    celery.get_command(context, name).get_short_help_str()
"""
MACHINE = {"pyceleryc.worker.machine", "pyceleryc.worker.worker", "pyceleryc.worker.consumer", "pyceleryc.app.trace", "pyceleryc.beat"}
PROGRAMS = {"pyceleryc.bin", "pyceleryc.apps", "pyceleryc.worker", "pyceleryc.events", "pyceleryc.schedules", "click"}
HEAVY = {"asyncio", "concurrent.futures", "redis", "sqlalchemy", "django", "cryptography", "unittest"}


@pytest.mark.parametrize(("code", "unwanted"), [
    ("from pyceleryc import Celery, shared_task, group", {*MACHINE, *PROGRAMS, *HEAVY, "pprint", "pyceleryc.backends"}),
    (SEND, {*MACHINE, *PROGRAMS, *HEAVY, "pprint"}),
    ("import pyceleryc.bin.control", {*MACHINE, *HEAVY, "pyceleryc.apps"}),
    (COMMANDS, {*MACHINE, *HEAVY}),
    ("import pyceleryc._ping", {*MACHINE, *PROGRAMS, *HEAVY, "kombu", "pprint", "typing", "pyceleryc._core", "pyceleryc.app"}),
], ids=["import", "send", "inspect", "--help", "ping"])
def test_what_is_not_imported(code: str, unwanted: set[str]) -> None:
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}\nprint(*sys.modules)"],
                          stdout=subprocess.PIPE, text=True, check=True)
    assert not unwanted.intersection(done.stdout.split())


def test_modules_of_the_worker_are_there_when_they_are_asked_for() -> None:
    """As after "import celery.worker" of Celery."""
    code = """
import pyceleryc
pyceleryc.install_as_celery()
import celery.worker
assert celery.worker.state.revoked is not None
assert celery.worker.request.Request.__name__ == "Request"
from celery.worker import WorkController, consumer
assert WorkController is celery.worker.worker.WorkController is celery.Celery(set_as_current=False).WorkController.__mro__[1]
try:
    celery.worker.no_such_module
except AttributeError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert "no attribute 'no_such_module'" in done.stdout
