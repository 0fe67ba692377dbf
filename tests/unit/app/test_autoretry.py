"""Automatic retry (FEATURES 1.9)."""
from __future__ import annotations

from typing import Any

import pytest

from pyceleryc import Celery, Task
from pyceleryc.exceptions import Ignore, Reject, Retry


@pytest.fixture
def app() -> Any:
    with Celery('a', broker='memory://', set_as_current=False) as app:
        yield app


def failing(app: Any, error: Exception, times: int = 99, **options: Any) -> tuple[Any, list[Any]]:
    """Return a task that raises *error* at first, and the list of its runs."""
    runs: list[Any] = []

    @app.task(name=f'failing{len(app.tasks)}', bind=True, **options)
    def task(self: Any) -> str:
        runs.append(self.request.retries)
        if len(runs) <= times:
            raise error
        return 'ok'

    return task, runs


def test_second_run_succeeds(app: Any) -> None:
    task, runs = failing(app, KeyError('k'), 1, autoretry_for=(KeyError,))
    assert task.apply().get() == 'ok' and runs == [0, 1]


def test_limit(app: Any) -> None:
    task, runs = failing(app, KeyError('k'), autoretry_for=[KeyError],
                         retry_kwargs={'max_retries': 2})
    result = task.apply()
    assert result.state == 'FAILURE' and isinstance(result.result, KeyError)
    assert runs == [0, 1, 2]


def test_others_are_not_retried(app: Any) -> None:
    for error, options in (
        (ValueError('v'), {'autoretry_for': (KeyError,)}),
        (KeyError('k'), {'autoretry_for': (Exception,), 'dont_autoretry_for': (KeyError,)}),
        (Ignore(), {'autoretry_for': (Exception,)}),
    ):
        task, runs = failing(app, error, **options)
        task.apply()
        assert runs == [0]


def test_reject_is_an_ordinary_error_here(app: Any) -> None:
    task, runs = failing(app, Reject('r'), 1, autoretry_for=(Exception,))
    assert task.apply().get() == 'ok' and len(runs) == 2


@pytest.mark.parametrize(('options', 'delays'), [
    ({'retry_backoff': True, 'retry_jitter': False}, [1, 2, 4, 8]),
    ({'retry_backoff': 3, 'retry_jitter': False}, [3, 6, 12, 24]),
    ({'retry_backoff': 100, 'retry_jitter': False, 'retry_backoff_max': 150}, [100, 150, 150]),
    ({'retry_kwargs': {'countdown': 7}}, [7, 7]),
    ({}, [180, 180]),
    ({'retry_backoff': True, 'retry_jitter': False, 'retry_kwargs': {'countdown': 7}}, [1, 2]),
])
def test_delays(app: Any, options: Any, delays: list[int]) -> None:
    task, _ = failing(app, KeyError('k'), autoretry_for=(KeyError,), max_retries=None, **options)
    app.send_task = lambda *args, **kwargs: None
    for retries, delay in enumerate(delays):
        task.push_request(id='1', args=(), kwargs={}, called_directly=False, retries=retries)
        with pytest.raises(Retry) as caught:
            task.run()
        task.pop_request()
        assert caught.value.when == delay


def test_jitter(app: Any) -> None:
    task, _ = failing(app, KeyError('k'), autoretry_for=(KeyError,), retry_backoff=8)
    app.send_task = lambda *args, **kwargs: None
    seen = set()
    for _ in range(90):
        task.push_request(id='1', args=(), kwargs={}, called_directly=False)
        with pytest.raises(Retry) as caught:
            task.run()
        task.pop_request()
        seen.add(caught.value.when)
    assert seen <= set(range(9)) and len(seen) > 3


def test_limit_given_in_the_body(app: Any) -> None:
    runs = []

    @app.task(name='inner', bind=True, autoretry_for=(KeyError,), max_retries=5)
    def inner(self: Any) -> None:
        runs.append(1)
        try:
            raise KeyError('k')
        except KeyError as exc:
            raise self.retry(exc=exc, max_retries=1) from exc

    assert inner.apply().state == 'FAILURE' and len(runs) == 2


def test_class_attributes(app: Any) -> None:
    class Base(Task):
        autoretry_for = (KeyError,)
        max_retries = 1

    task, runs = failing(app, KeyError('k'), base=Base)
    task.apply()
    assert runs == [0, 1]

    class Own(Base):
        name = 'own'
        count = 0

        def run(self) -> int:
            type(self).count += 1
            if self.count == 1:
                raise KeyError('k')
            return self.count

    assert app.register_task(Own()).apply().get() == 2


def test_called_as_a_function(app: Any) -> None:
    task, _ = failing(app, KeyError('k'), autoretry_for=(KeyError,))
    with pytest.raises(KeyError):
        task()


def test_coroutines(app: Any) -> None:
    @app.task(bind=True, autoretry_for=(KeyError,))
    async def fails(self: Any, times: int) -> int:
        if self.request.retries < times:
            raise KeyError('k')
        return int(self.request.retries)

    assert fails.apply((2,)).get() == 2
    with pytest.raises(KeyError):
        fails.apply((9,)).get()
