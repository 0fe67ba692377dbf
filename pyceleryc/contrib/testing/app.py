"""Apps for tests: without servers, and without traces in the tests that follow."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pyceleryc import Celery, _state
from pyceleryc.app.log import Logging
from pyceleryc.contrib.testing import tasks  # noqa: F401  every app shall have celery.ping

__all__ = ('DEFAULT_TEST_CONFIG', 'TestApp', 'Trap', 'UnitLogging', 'set_trap', 'setup_default_app')

#: Settings of apps for tests.
DEFAULT_TEST_CONFIG: dict[str, Any] = {
    'worker_hijack_root_logger': False,
    'worker_log_color': False,
    'accept_content': {'json'},
    'enable_utc': True,
    'timezone': 'UTC',
    'broker_url': 'memory://',
    'result_backend': 'cache+memory://',
    'broker_heartbeat': 0,
}


class Trap:
    """An app whose use is an error: the code under test should have used the app that it was given."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith('__'):
            # Python itself looks for these.
            raise AttributeError(name)
        raise RuntimeError('Test depends on current_app')


class UnitLogging(Logging):
    """Leaves logging to the test runner."""

    already_setup = True


def TestApp(  # noqa: N802  the public name
    name: str | None = None, config: Any = None, enable_logging: bool = False, set_as_current: bool = False,
    log: Any = UnitLogging, backend: Any = None, broker: Any = None, **kwargs: Any,
) -> Celery:
    """Return an app for tests.

    :param config: settings that replace those of :data:`DEFAULT_TEST_CONFIG`.
    :param enable_logging: let workers set up logging.
    """
    app = Celery(
        name or 'celery.tests', set_as_current=set_as_current, log=None if enable_logging else log,
        broker=broker, backend=backend, **kwargs)
    app.add_defaults({**DEFAULT_TEST_CONFIG, **(config or {})})
    return app


# Not for the runner, whatever the names say.
TestApp.__test__ = False  # type: ignore[attr-defined]


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """In the block, the app of those who have none is a :class:`Trap`."""
    trap: Any = Trap()
    before = _state.default_app, _state._tls.current_app
    _state.set_default_app(trap)
    _state._tls.current_app = trap
    try:
        yield
    finally:
        _state.set_default_app(before[0])
        _state._tls.current_app = before[1]


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """In the block *app* is the default and the current app; it is closed at the end.

    What is defined in the block (tasks within functions, apps) is forgotten then.

    :param use_trap: neither; using the current app is an error.
    """
    before = _state.default_app, _state._tls.current_app, _state._last_app
    apps, shared = set(_state._get_active_apps()), list(_state._on_app_finalizers)
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            _state.set_default_app(app)
            _state._tls.current_app = app
            yield
    finally:
        _state.set_default_app(before[0])
        _state._tls.current_app, _state._last_app = before[1:]
        app.close()
        for made in set(_state._get_active_apps()) - apps:
            made.close()
        # Those of modules stay: a module is imported once, by whichever test is the first.
        _state._on_app_finalizers[:] = [
            each for each in _state._on_app_finalizers if each in shared or not _is_local(each)]


def _is_local(shared: Any) -> bool:
    return '<locals>' in getattr(getattr(shared, 'fun', None), '__qualname__', '')
