"""The application and what belongs to it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyceleryc import _state
from pyceleryc._state import (
    app_or_default,
    connect_on_app_finalize,
    disable_trace,
    enable_trace,
    get_current_app,
    pop_current_task,
    push_current_task,
)
from pyceleryc.app.base import Celery
from pyceleryc.app.options import check_function
from pyceleryc.app.utils import AppPickler
from pyceleryc.local import Proxy

__all__ = (
    'Celery', 'AppPickler', 'app_or_default', 'default_app', 'bugreport', 'enable_trace',
    'disable_trace', 'shared_task', 'push_current_task', 'pop_current_task',
)

#: The app of threads that have none.
default_app: Any = Proxy(lambda: _state.default_app)


def bugreport(app: Any = None) -> str:
    """Return what a bug report should tell about this installation."""
    return app_or_default(app).bugreport()


def shared_task(*args: Any, **kwargs: Any) -> Any:
    """Decorator: a task of every app, those made later included (T-027).

    It returns a proxy to the task of the current app.  Options are those of ``app.task``.
    """
    def decorate(fun: Callable[..., Any], **options: Any) -> Any:
        check_function(fun, options)
        name = options.get('name')
        connect_on_app_finalize(_state.SharedTask(fun, options))
        for app in _state._get_active_apps():
            if app.finalized:
                with app._finalize_mutex:
                    app._task_from_fun(fun, **options)

        def task_by_current_app() -> Any:
            app = get_current_app()
            return app.tasks[name or app.gen_task_name(fun.__name__, fun.__module__)]

        return Proxy(task_by_current_app)

    if len(args) == 1 and callable(args[0]):
        return decorate(args[0], **kwargs)
    return lambda fun: decorate(fun, **kwargs)
