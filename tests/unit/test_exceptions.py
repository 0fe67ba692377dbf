from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import datetime

import kombu.exceptions
import pytest

from pyceleryc import exceptions as exc


@pytest.mark.parametrize('name', exc.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(exc, name) is not None


def test_hierarchy() -> None:
    assert exc.OperationalError is kombu.exceptions.OperationalError
    assert issubclass(exc.NotRegistered, KeyError) and issubclass(exc.QueueNotFound, KeyError)
    assert issubclass(exc.NotRegistered, exc.TaskError)
    for predicate in (exc.Ignore, exc.Reject, exc.Retry):
        assert issubclass(predicate, exc.TaskPredicate)
    assert issubclass(exc.WorkerShutdown, SystemExit)
    assert issubclass(exc.WorkerTerminate, SystemExit)
    assert exc.SystemTerminate is exc.WorkerTerminate
    assert exc.RetryTaskError is exc.Retry


@pytest.mark.parametrize(('retry', 'text'), [
    (exc.Retry(exc=ValueError('a'), when=3), "Retry in 3s: ValueError('a')"),
    (exc.Retry(exc='KeyError(1)', when=1.5), 'Retry in 1.5s: KeyError(1)'),
    (exc.Retry(when=datetime(2020, 1, 1)), 'Retry at 2020-01-01 00:00:00'),
    (exc.Retry('own words', ValueError('a'), 3), 'own words'),
])
def test_retry_text(retry: exc.Retry, text: str) -> None:
    assert str(retry) == text


def test_retry_survives_pickle() -> None:
    again = pickle.loads(pickle.dumps(exc.Retry('m', ValueError('a'), 3)))
    assert (again.message, repr(again.exc), again.when) == ('m', "ValueError('a')", 3)
    assert again.excs == "ValueError('a')"


def test_reject_keeps_its_arguments() -> None:
    reject = exc.Reject('why', requeue=True)
    assert reject.args == ('why', True)
    assert repr(reject) == 'reject requeue=True: why'


def test_attributes_of_errors() -> None:
    maxed = exc.MaxRetriesExceededError('text', task_args=(1,), task_kwargs={'a': 2})
    maxed = pickle.loads(pickle.dumps(maxed))
    assert (maxed.args, maxed.task_args, maxed.task_kwargs) == (('text',), (1,), {'a': 2})
    assert repr(exc.NotRegistered('x')).startswith("Task of kind 'x' never registered")
    assert exc.BackendGetMetaError('x', task_id='i').task_id == 'i'
    assert repr(exc.BackendStoreError('x', state='S', task_id='i')).endswith('state:S task_id:i')
    assert exc.CeleryCommandException('m', exit_code=69).exit_code == 69


POOL_EXCEPTIONS = ('SoftTimeLimitExceeded', 'TimeLimitExceeded', 'WorkerLostError', 'Terminated')


@pytest.mark.parametrize('name', POOL_EXCEPTIONS)
def test_pool_exceptions_show_billiards_module_and_pickle(name: str) -> None:
    cls = getattr(exc, name)
    assert cls.__module__ == 'billiard.exceptions'
    again = pickle.loads(pickle.dumps(cls(1)))
    assert type(again) is cls and again.args == (1,)
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_time_limit_text() -> None:
    assert str(exc.TimeLimitExceeded(3)) == 'TimeLimitExceeded(3,)'


def test_pool_exceptions_pickle_by_name_where_they_serve_as_billiard() -> None:
    code = (
        'import pickle, sys, types\n'
        'from pyceleryc import _billiard as b\n'
        'served = types.ModuleType(b.MODULE_NAME); served.__dict__.update(b.EXPORTS)\n'
        'sys.modules["billiard"] = types.ModuleType("billiard")\n'
        'sys.modules[b.MODULE_NAME] = served\n'
        'data = pickle.dumps(b.Terminated(15))\n'
        'assert b"billiard.exceptions" in data and b"pyceleryc" not in data\n'
        'assert type(pickle.loads(data)) is b.Terminated\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_import_stays_light() -> None:
    code = (
        'import sys, pyceleryc.exceptions, pyceleryc.states, pyceleryc._state, pyceleryc.signals\n'
        'heavy = {"click", "kombu.connection", "kombu.messaging", "kombu.entity"}\n'
        'print(sorted(heavy & set(sys.modules)))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == '[]'


def test_reraise_keeps_the_traceback() -> None:
    try:
        raise ValueError('first')
    except ValueError as caught:
        value, tb = caught, caught.__traceback__
    with pytest.raises(ValueError, match='first') as info:
        exc.reraise(ValueError, value, tb)
    assert info.value is value
