"""Current app, current task and the list of apps: the only module-level state (P6)."""
from __future__ import annotations

import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyceleryc.local import Proxy
from pyceleryc.utils.locks import new_rlock
from pyceleryc.utils.threads import LocalStack

__all__ = (
    'set_default_app', 'get_current_app', 'get_current_task', 'get_current_worker_task',
    'current_app', 'current_task', 'connect_on_app_finalize', 'app_or_default',
    'enable_trace', 'disable_trace', 'task_join_will_block', 'set_default_app_factory',
)

#: The app of threads that set none; made on demand.
default_app: Any = None

#: The tasks that this thread (or coroutine) is running, outermost first.
_task_stack = LocalStack()


class _TLS(threading.local):
    current_app: Any = None
    #: What this thread says about itself; None: as the process.
    join_will_block: bool | None = None


_tls = _TLS()
_lock = new_rlock()
_apps: weakref.WeakSet[Any] = weakref.WeakSet()
_on_app_finalizers: list[Callable[[Any], Any]] = []
_last_app: weakref.ref[Any] | None = None
_default_app_factory: Callable[[], Any] | None = None
_task_join_will_block = False
_trace = False
_memory_hub: Any = None

#: Publishers that the process must care for when it forks or ends (app/publisher.py).
publishers: weakref.WeakSet[Any] = weakref.WeakSet()
#: Commands that workers obey, and what is known about them (worker/panel.py).
remote_commands: dict[str, Callable[..., Any]] = {}
remote_command_infos: dict[str, Any] = {}
#: Workers of this process, for the names of celery.worker.state (worker/state.py).
machines: weakref.WeakSet[Any] = weakref.WeakSet()
worker_sets: dict[str, Any] = {}
#: Clients of result stores, by their configuration (backends/core.py).
result_clients: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


# -- result.get() inside a task -----------------------------------------------------

def _set_task_join_will_block(blocks: bool) -> None:
    global _task_join_will_block
    _task_join_will_block = blocks


def task_join_will_block() -> bool:
    """Tell whether waiting for a result here would block a worker."""
    own = _tls.join_will_block
    return _task_join_will_block if own is None else own


@contextmanager
def joining(blocks: bool | None) -> Iterator[None]:
    """Let that be so in the block, for this thread only; None leaves it to the process."""
    before, _tls.join_will_block = _tls.join_will_block, blocks
    try:
        yield
    finally:
        _tls.join_will_block = before


# -- the broker of memory:// --------------------------------------------------------

def get_memory_hub() -> Any:
    """Return the in-memory broker that all ``memory://`` users of this process share."""
    global _memory_hub
    with _lock:
        if _memory_hub is None:
            # Imported on demand: most programs never use it.
            _memory_hub = importlib.import_module('pyceleryc._core').Hub()
        return _memory_hub


def seal_memory_hub() -> None:
    """In a child of the prefork pool: what is sent to ``memory://`` is an error, since it would reach nobody."""
    if _memory_hub is not None:
        _memory_hub.seal()


def _after_fork() -> None:
    if _memory_hub is not None:
        _memory_hub.abandon()


os.register_at_fork(after_in_child=_after_fork)


# -- finalizing -----------------------------------------------------------------------

def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Call ``callback(app)`` for every app that is finalized (used by ``shared_task``)."""
    with _lock:
        if callback not in _on_app_finalizers:
            _on_app_finalizers.append(callback)
    return callback


def _announce_app_finalized(app: Any) -> None:
    """Call the callbacks of :func:`connect_on_app_finalize` with *app*."""
    for callback in list(_on_app_finalizers):
        callback(app)


class SharedTask:
    """Makes a task of *fun* in each app that it is called with."""

    def __init__(self, fun: Callable[..., Any], options: dict[str, Any]) -> None:
        self.fun, self.options = fun, options

    def __call__(self, app: Any) -> Any:
        return app._task_from_fun(self.fun, **self.options)


# -- apps -----------------------------------------------------------------------------

def set_default_app_factory(factory: Callable[[], Any]) -> None:
    """Make :func:`get_current_app` call *factory* when no app was created."""
    global _default_app_factory
    _default_app_factory = factory


def set_default_app(app: Any) -> None:
    """Make *app* the app of all threads that have none of their own."""
    global default_app
    default_app = app


def _set_current_app(app: Any) -> None:
    global _last_app
    _tls.current_app = app
    _last_app = None if app is None else weakref.ref(app)


def _register_app(app: Any) -> None:
    _apps.add(app)


def _deregister_app(app: Any) -> None:
    _apps.discard(app)


def _get_active_apps() -> list[Any]:
    """Return the apps that are alive."""
    return list(_apps)


def _make_default_app() -> Any:
    with _lock:
        if default_app is None:
            if _default_app_factory is None:
                # Imported here because app.base imports this module; it sets the factory.
                importlib.import_module('pyceleryc.app.base')
            if _default_app_factory is None:
                raise RuntimeError('no app: create one with Celery(...) first')
            set_default_app(_default_app_factory())
        return default_app


def _get_current_app() -> Any:
    app = _tls.current_app or default_app
    if app is None and _last_app is not None:
        # A thread that set nothing uses the app made last, rather than a new one
        # without configuration.
        app = _last_app()
    return _make_default_app() if app is None else app


def _get_current_app_traced() -> Any:
    print('-- current app requested', file=sys.stderr)
    return _get_current_app()


def get_current_app() -> Any:
    """Return this thread's app, else the default, else the newest, else a new default app."""
    return _get_current_app_traced() if _tracing() else _get_current_app()


def app_or_default(app: Any = None) -> Any:
    """Return *app*, or the current app if it is None."""
    if app is not None:
        return app
    if _tracing():
        raise RuntimeError('DEFAULT APP: an app must be passed while CELERY_TRACE_APP is set')
    return get_current_app()


def _tracing() -> bool:
    return _trace or bool(os.environ.get('CELERY_TRACE_APP'))


def enable_trace() -> None:
    """Report every use of the implicit current app."""
    global _trace
    _trace = True


def disable_trace() -> None:
    """End :func:`enable_trace`."""
    global _trace
    _trace = False


# -- tasks ----------------------------------------------------------------------------

def get_current_task() -> Any:
    """Return the task that is running here, or None."""
    return _task_stack.top


def get_current_worker_task() -> Any:
    """Return the task that the worker runs here, not one that it called as a function."""
    for task in reversed(_task_stack.stack):
        if not task.request.called_directly:
            return task
    return None


def push_current_task(task: Any) -> None:
    """Mark *task* as running here."""
    _task_stack.push(task)


def pop_current_task() -> Any:
    """End what :func:`push_current_task` began; return the task."""
    return _task_stack.pop()


#: The current app and the current task; ``None``-like when no task is running.
current_app: Any = Proxy(get_current_app)
current_task: Any = Proxy(get_current_task)
