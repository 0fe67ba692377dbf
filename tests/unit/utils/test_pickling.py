"""The serializer `pickle`: our public classes go by Celery's names, which need not be there."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
from kombu.serialization import dumps, loads

from pyceleryc import Celery, chain, exceptions, group, signature
from pyceleryc.app.registry import _unpickle_task_v2
from pyceleryc.utils import pickling
from pyceleryc.utils.serialization import UnpickleableExceptionWrapper

THINGS = [
    exceptions.Retry("again", KeyError(1), 3), exceptions.TimeLimitExceeded(3), exceptions.WorkerLostError("x"),
    exceptions.MaxRetriesExceededError("a", task_args=[1]), exceptions.TaskRevokedError("terminated"), exceptions.ChordError("c"),
    [exceptions.Ignore, exceptions.Ignore, exceptions.Terminated, UnpickleableExceptionWrapper, _unpickle_task_v2],
    chain(signature("a", (1,)), signature("b")), group([signature("a", (1,)), signature("b")]), {"pyceleryc.": 1, "celery.exceptions": b"pyceleryc."},
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_there_and_back(thing: Any, protocol: int) -> None:
    data = pickling.dumps(thing, protocol)
    back = pickling.loads(data)
    assert type(back) is type(thing) and repr(back) == repr(thing)
    assert repr(getattr(back, "__dict__", None)) == repr(getattr(thing, "__dict__", None))
    assert type(thing) is dict or b"pyceleryc" not in data


def test_it_is_the_serializer() -> None:
    assert Celery
    content_type, encoding, data = dumps(exceptions.Reject("r", requeue=True), "pickle")
    assert (content_type, encoding) == ("application/x-python-serialize", "binary") and b"celery.exceptions" in data
    back = loads(data, content_type, encoding, accept=[content_type])
    assert type(back) is exceptions.Reject and back.requeue is True


@pytest.mark.parametrize("data", [
    b"cbilliard.exceptions\nWorkerLostError\n(V1\ntR.", b"ccelery.exceptions\nWorkerLostError\n(V1\ntR.",
    b"cpyceleryc.exceptions\nWorkerLostError\n(V1\ntR."])
def test_names_that_others_write(data: bytes) -> None:
    assert type(pickling.loads(data)) is exceptions.WorkerLostError


@pytest.mark.parametrize("data", [b"ccelery.no_such\nX\n.", b"ccelery.exceptions\nNoSuch\n.", b"cno_such\nX\n."])
def test_unknown_names(data: bytes) -> None:
    with pytest.raises((ImportError, AttributeError)):
        pickling.loads(data)


def test_very_deep() -> None:
    """The pickler in Python needs several frames a level."""
    thing: Any = [exceptions.Ignore]
    for _ in range(sys.getrecursionlimit() // 3):
        thing = [thing]
    assert b"pyceleryc.exceptions" in pickling.dumps(thing)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_real_celery_is_left_alone() -> None:
    """In a process that has both, a pickle that says celery means it."""
    assert run("""
import sys, types
celery = sys.modules['celery'] = types.ModuleType('celery'); celery.__path__ = []
sys.modules['celery.exceptions'] = types.SimpleNamespace(Ignore='theirs')
from pyceleryc.utils import pickling
print(pickling.loads(b'ccelery.exceptions\\nIgnore\\n.'))
""") == "theirs"


def test_a_serializer_of_the_project_stays() -> None:
    assert run("""
from kombu import serialization
serialization.register('pickle', lambda obj: b'mine', lambda data: data, 'application/x-python-serialize', 'binary')
import pyceleryc; pyceleryc.Celery
print(serialization.dumps(1, 'pickle')[2].decode())
""") == "mine"
