"""Fixtures for pytest: an app, and a worker in a thread of the test process.

    # conftest.py
    import pyceleryc
    pyceleryc.install_as_celery()       # where the project says "import celery"
    pytest_plugins = ('celery.contrib.pytest',)

    # test_tasks.py
    def test_add(celery_app, celery_worker):
        @celery_app.task
        def add(x, y):
            return x + y

        celery_worker.reload()
        assert add.delay(2, 2).get(timeout=10) == 4

Fixtures whose names begin with ``celery_`` and that do nothing here are to be overridden by projects.
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pyceleryc.contrib.testing.app import TestApp, setup_default_app
from pyceleryc.contrib.testing.worker import start_worker

#: Set to anything but the empty text, fixtures of workers start none.
NO_WORKER = os.environ.get('NO_WORKER')


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known: ``@pytest.mark.celery(**settings)``."""
    config.addinivalue_line('markers', 'celery(**overrides): settings of the app of this test.')


@contextmanager
def _create_app(
    enable_logging: bool = False, use_trap: bool = False, parameters: Mapping[str, Any] | None = None, **config: Any,
) -> Iterator[Any]:
    app = TestApp(set_as_current=False, enable_logging=enable_logging, config=config, **(parameters or {}))
    with setup_default_app(app, use_trap=use_trap):
        yield app


@contextmanager
def _start_worker(
    app: Any, includes: Sequence[str], pool: str, parameters: Mapping[str, Any],
) -> Iterator[Any]:
    if NO_WORKER:
        yield None
        return
    for module in includes:
        app.loader.import_task_module(module)
    with start_worker(app, pool=pool, **parameters) as worker:
        yield worker


# -- what projects override -------------------------------------------------------------------------

@pytest.fixture(scope='session')
def use_celery_app_trap() -> bool:
    """True: the use of an app that was not passed is an error."""
    return False


@pytest.fixture(scope='session')
def celery_enable_logging() -> bool:
    """True: workers set up logging."""
    return False


@pytest.fixture(scope='session')
def celery_includes() -> Sequence[str]:
    """Modules that workers import."""
    return ()


@pytest.fixture(scope='session')
def celery_worker_pool() -> str:
    """The pool of workers: ``solo``, ``threads``, ``asyncio`` or ``prefork``."""
    return 'solo'


@pytest.fixture(scope='session')
def celery_config() -> Mapping[str, Any]:
    """Settings of apps."""
    return {}


@pytest.fixture(scope='session')
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of ``Celery()``."""
    return {}


@pytest.fixture(scope='session')
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of :func:`~pyceleryc.contrib.testing.worker.start_worker`."""
    return {}


@pytest.fixture(scope='session')
def celery_class_tasks() -> Sequence[Any]:
    """Classes of tasks that :func:`celery_session_worker` registers."""
    return ()


def _settings(request: pytest.FixtureRequest, config: Any) -> dict[str, Any]:
    """Return *config* with what the marker ``celery`` says."""
    mark = request.node.get_closest_marker('celery')
    return {**config, **(mark.kwargs if mark else {})}


# -- what tests use -----------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def celery_session_app(
    request: pytest.FixtureRequest, celery_config: Any, celery_parameters: Any, celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Any]:
    """The app of all tests that ask for it."""
    with _create_app(celery_enable_logging, use_celery_app_trap, celery_parameters, **_settings(request, celery_config)) as app:
        yield app


@pytest.fixture(scope='session')
def celery_session_worker(
    celery_session_app: Any, celery_includes: Any, celery_class_tasks: Any, celery_worker_pool: str,
    celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker of :func:`celery_session_app`, until the last test is done."""
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with _start_worker(celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest, celery_config: Any, celery_parameters: Any, celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Any]:
    """An app for one test; the marker ``celery`` has settings for it."""
    with _create_app(celery_enable_logging, use_celery_app_trap, celery_parameters, **_settings(request, celery_config)) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: Any, celery_includes: Any, celery_worker_pool: str, celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker of :func:`celery_app`, for one test."""
    with _start_worker(celery_app, celery_includes, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Any) -> None:
    """Let a test use the current app although there is a trap."""
    celery_app.set_current()
